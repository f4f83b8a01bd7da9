"""Rotations of the people: every person is a test person once, for models trained on others.

The ordinary split has a tenth of the people as test people. K rotations have all of them, at K times the trainings.
"""

import random
from collections.abc import Sequence

from face3d_tune.data.face_data import FaceData
from face3d_tune.data.pairs import PARTS, Part
from face3d_tune.errors import ConfigError

ROTATIONS = 5
FEWEST_ROTATIONS = 3  # one block each to test, to validate and to train
_VALIDATING = 5  # one block of five validates, two of ten


def rotations(data: FaceData, of: int = ROTATIONS, *, seed: int) -> list[FaceData]:
    """Return the data of every rotation: the same pairs, with other people in training, validation and test.

    Over all rotations every person with pairs is a test person once; `rotate_people` says how the people are cut. Each
    rotation has a fingerprint of its own. Whatever is fitted to people, ridge regression's penalty included, is fitted
    to the training people of each rotation.

    The test people of one rotation train the models of the others, so results depend on each other a little. No
    estimate of that dependence is without bias (Bengio & Grandvalet, 2004, JMLR 5:1089): an interval over all people
    ignores it.

    Args:
        data: Data split by person.
        of: Rotations K, from 3 to the number of people.
        seed: Which people are together in a block.

    Raises:
        ConfigError: If these rotations are impossible.
    """
    if data.split != "person":
        raise ConfigError(
            f"{of} rotations need split = person; with split = {data.split} all people train and validate in each",
            "use a study that was made with --split person",
        )
    ours = {name for part in PARTS for name in data.people[part]}
    people = [name for name in dict.fromkeys(data.front_names) if name in ours]  # in file order, whatever the split
    return [data.with_people(each) for each in rotate_people(people, of, seed)]


def rotate_people(people: Sequence[str], of: int, seed: int) -> list[dict[Part, tuple[str, ...]]]:
    """Return the people of each part in every rotation.

    The people are shuffled with the seed and cut into `of` blocks, equal up to one person. Block k holds the test
    people of rotation k. The next fifth of the blocks, at least one, validates: it chooses the best epoch. The others
    train. With five blocks three fifths of the people train, as in the ordinary split (trainer contract §2).

    Over all rotations every person is a test person once and validates equally often. Raises ConfigError if there are
    fewer people than blocks, or fewer than three blocks.
    """
    if of < FEWEST_ROTATIONS:
        raise ConfigError(
            f"{of} rotations are too few: one block of people judges, one validates, and at least one must train",
            f"use {FEWEST_ROTATIONS} or more",
        )
    if of > len(people):
        raise ConfigError(f"{of} rotations need {of} people; here are {len(people)}", f"use {len(people)} at most")
    shuffled = list(people)
    random.Random(seed).shuffle(shuffled)
    blocks = [shuffled[place::of] for place in range(of)]
    validating = max(1, round(of / _VALIDATING))

    def parts(number: int) -> dict[Part, tuple[str, ...]]:
        following = [blocks[(number + step) % of] for step in range(1, of)]
        return {
            "train": _together(following[validating:]),
            "validation": _together(following[:validating]),
            "test": tuple(blocks[number]),
        }

    return [parts(number) for number in range(of)]


def _together(blocks: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(name for block in blocks for name in block)
