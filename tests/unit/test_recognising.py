"""One sentence where a higher cosine recognises nobody better."""

import pytest
from stored_study import confirmation_of, recognising_people

from face3d_tune.analysis.confirmation import no_better_recognised, told
from face3d_tune.analysis.recognising import only_raises_cosine

# Of the sample's validation people: cosine, and rank-1 among everyone enrolled.
SAMPLE = {"no model": (0.5545, 0.695), "ridge": (0.6322, 0.709)}
BEGINNING = "raises the cosine, but recognises people no better than "


@pytest.mark.parametrize(
    ("cosine", "rank1", "said"),
    [
        (0.6514, 0.652, BEGINNING + "no model or ridge"),
        (0.6514, 0.695, BEGINNING + "no model or ridge"),  # equal is no better
        (0.6384, 0.700, BEGINNING + "ridge"),
        (0.6570, 0.769, None),  # it does recognise them better
        (0.5000, 0.652, None),  # it raises nothing
        (0.6514, None, None),
        (None, 0.652, None),
    ],
)
def test_a_model_that_raises_only_the_cosine_is_told_by_the_baselines_that_recognise_as_well(cosine, rank1, said):
    assert only_raises_cosine(cosine, rank1, SAMPLE) == said


def test_three_baselines_are_listed():
    three = SAMPLE | {"kernel ridge": (0.6566, 0.769)}
    assert only_raises_cosine(0.65, 0.6, three) == BEGINNING + "no model, ridge or kernel ridge"


def test_a_baseline_of_an_older_study_without_recognition_says_nothing():
    assert only_raises_cosine(0.65, 0.6, {"no model": (0.55, None)}) is None


def test_a_confirmation_says_so_by_the_interval_over_people_and_has_a_line_for_each_baseline():
    held = recognising_people(confirmation_of(), kernel_ridge="worse", ridge="same", no_model="better")
    said = "trial 12 raises the cosine, but is not shown to recognise people better than ridge or kernel ridge."
    assert no_better_recognised(held) == said
    lines = [line for line in told(held) if line.startswith("  rank-1 of 12: ")]
    assert lines[2] == "  rank-1 of 12: better than no model by 0.0200 (0.0100 to 0.0300)"
    assert len(lines) == 3


def test_a_confirmation_that_shows_better_recognition_or_is_older_says_nothing():
    better = recognising_people(confirmation_of(), kernel_ridge="better", ridge="better", no_model="better")
    assert no_better_recognised(better) is None
    assert no_better_recognised(confirmation_of()) is None
    assert not [line for line in told(confirmation_of()) if "rank-1" in line]
