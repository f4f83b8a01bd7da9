"""One sentence where a higher cosine recognises nobody better."""

import io

import numpy as np
import pytest
from stored_study import confirmation_of, recognising_people

from face3d_tune.analysis.confirmation import no_better_recognised, resolved, sentence, told
from face3d_tune.analysis.recognising import only_raises_cosine
from face3d_tune.cli import result_tables
from face3d_tune.cli.console import Console
from face3d_tune.refit.intervals import compare

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


def test_nobody_is_left_to_recognise_better_where_the_model_names_everyone():
    everyone = {"no model": (0.55, 0.96), "kernel ridge": (0.716, 1.0)}
    assert only_raises_cosine(0.70, 1.0, everyone) is None
    assert only_raises_cosine(0.70, 0.999, everyone) == BEGINNING + "kernel ridge"


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


def test_the_preset_to_beat_has_a_line_but_is_not_named_in_the_sentence_on_methods_without_training():
    verdicts = {"kernel_ridge": "better", "ridge": "better", "no_model": "better"}
    held = recognising_people(confirmation_of(kernel_ridge="same"), preset="same", **verdicts)
    assert no_better_recognised(held) is None
    lines = [line for line in told(held) if line.startswith("  rank-1 of 12: ")]
    assert lines[0] == "  rank-1 of 12: not distinguishable from baseline: +0.0200 (+0.0100 to +0.0300)"
    assert len(lines) == 4


@pytest.mark.parametrize(("width", "stored", "shown"), [(100, True, True), (80, True, False), (100, False, False)])
def test_the_table_of_a_confirmation_has_rank_1_of_every_row_where_it_is_stored_and_fits(
    monkeypatch, width, stored, shown
):
    verdicts = {"kernel_ridge": "better", "ridge": "better", "no_model": "better"}
    held = recognising_people(confirmation_of(kernel_ridge="same"), preset="same" if stored else None, **verdicts)
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    monkeypatch.setattr(result_tables, "results_console", lambda: console)
    result_tables.confirmed(held)
    numbers = console.file.getvalue().partition("\n\n")[2].partition("\n\n")[0]
    last = {line.split("  ")[0]: line.split()[-1] for line in numbers.splitlines()}
    assert (last["trial 12"], last["no model"]) == (("0.610", "0.600") if shown else ("–", "–"))  # – beyond 45 degrees
    assert ("rank-1 of 12: the share of views named right" in numbers) == shown
    assert max(map(len, numbers.splitlines())) <= width


def test_a_confirmation_is_printed_with_its_warning_first(monkeypatch):
    held = recognising_people(confirmation_of(), kernel_ridge="worse", ridge="same", no_model="better")
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    monkeypatch.setattr(result_tables, "results_console", lambda: console)
    result_tables.confirmed(held)
    assert console.file.getvalue().startswith(f"{no_better_recognised(held)}\n\n")


def test_a_difference_that_rounds_to_zero_has_no_minus():
    compared = {"name": "ridge", "difference": -0.00001, "low": -0.00002, "high": 0.00001, "verdict": "same"}
    assert sentence(compared, "validation") == "not distinguishable from ridge: +0.0000 (+0.0000 to +0.0000)"


def test_people_without_any_deviation_get_no_interval_and_no_smallest_difference():
    alike = {"name": "ridge", "kind": "simple"} | compare(np.full((2, 6), 0.5), np.full((1, 6), 0.5))
    assert (alike["low"], alike["high"], alike["half_width"]) == (0, 0, 0)
    assert sentence(alike) == "the same as ridge for all 6 test people"
    assert resolved({"headline": None, "against": [alike], "ridge": {}}) == []
