"""Every person judged once: which people train, validate and judge in each rotation, and with which pairs."""

from collections import Counter

import numpy as np
import pytest
from fake_data import write_data

from face3d_tune.data.face_data import load
from face3d_tune.data.pairs import PARTS
from face3d_tune.data.rotation import rotate_people, rotations
from face3d_tune.errors import ConfigError

PEOPLE = tuple(f"person {number}" for number in range(36))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(write_data(tmp_path_factory.mktemp("rotated") / "files", people=12, views=3, feature_size=8))


@pytest.mark.parametrize("of", [3, 4, 5, 7, 10, 36])
def test_every_person_judges_once_and_is_in_one_part_of_each_rotation(of):
    rotated = rotate_people(PEOPLE, of, seed=1)
    assert len(rotated) == of
    assert sorted(name for people in rotated for name in people["test"]) == sorted(PEOPLE)
    for people in rotated:
        assert sorted(name for part in PARTS for name in people[part]) == sorted(PEOPLE)
        assert all(people[part] for part in PARTS)


@pytest.mark.parametrize("of", [3, 5, 10, 36])
def test_every_person_validates_equally_often(of):
    validated = Counter(name for people in rotate_people(PEOPLE, of, seed=1) for name in people["validation"])
    assert set(validated.values()) == {max(1, round(of / 5))}
    assert set(validated) == set(PEOPLE)


def test_with_five_rotations_three_fifths_train_as_in_the_ordinary_split():
    sizes = [{part: len(people[part]) for part in PARTS} for people in rotate_people(PEOPLE, 5, seed=1)]
    assert sizes[0] == {"train": 21, "validation": 7, "test": 8}  # blocks of 8, 7, 7, 7, 7
    assert sizes[4] == {"train": 21, "validation": 8, "test": 7}
    assert {size["train"] for size in sizes} == {21, 22}  # int(0.6 · 36) is 21


def test_the_validation_people_of_a_rotation_judge_in_the_next_one():
    rotated = rotate_people(PEOPLE, 5, seed=1)
    for people, following in zip(rotated, [*rotated[1:], rotated[0]], strict=True):
        assert people["validation"] == following["test"]


def test_the_seed_alone_decides_who_is_together():
    assert rotate_people(PEOPLE, 5, seed=1) == rotate_people(PEOPLE, 5, seed=1)
    together = {frozenset(people["test"]) for people in rotate_people(PEOPLE, 5, seed=1)}
    others = {frozenset(people["test"]) for people in rotate_people(PEOPLE, 5, seed=2)}
    assert not together & others


def test_the_pairs_of_a_rotation_are_those_of_its_people_in_file_order(data):
    every = np.concatenate([data.parts[part] for part in PARTS])
    every = every[np.lexsort(every.T[::-1])]
    for rotation in rotations(data, seed=1):
        for part in PARTS:
            wanted = [pair for pair in every.tolist() if data.front_names[pair[0]] in rotation.people[part]]
            assert rotation.parts[part].tolist() == wanted
        assert rotation.front_features is data.front_features


def test_every_view_is_judged_once(data):
    judged = np.concatenate([rotation.parts["test"] for rotation in rotations(data, 4, seed=1)])
    every = np.concatenate([data.parts[part] for part in PARTS])
    assert sorted(judged.tolist()) == sorted(every.tolist())


def test_the_blocks_do_not_depend_on_how_the_study_split_its_people(data):
    folded = data.fold(2, of=3)
    assert folded.people != data.people
    ours, theirs = (rotations(each, seed=1) for each in (data, folded))
    assert [each.people for each in ours] == [each.people for each in theirs]


def test_each_rotation_has_a_fingerprint_of_its_own(data):
    prints = {each.fingerprint() for each in [data, *rotations(data, seed=1), *rotations(data, seed=2)]}
    assert len(prints) == 11


@pytest.mark.parametrize(
    ("of", "said", "hint"),
    [
        (2, "2 rotations are too few: one block of people judges", "use 3 or more"),
        (37, "37 rotations need 37 people; here are 36", "use 36 at most"),
    ],
)
def test_impossible_rotations_are_refused(of, said, hint):
    with pytest.raises(ConfigError, match=said) as error:
        rotate_people(PEOPLE, of, seed=1)
    assert error.value.hint == hint


def test_a_study_of_training_pairs_is_not_rotated(tmp_path):
    data = load(write_data(tmp_path / "files", people=6, views=2, feature_size=8), split="none")
    with pytest.raises(ConfigError, match="need split = person"):
        rotations(data, seed=1)
