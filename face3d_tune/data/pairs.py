"""Pairs of rows of one person, and the split of people into training, validation and test (trainer contract §2)."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from face3d_tune.config import PoseUnit
from face3d_tune.data.files import DataFiles
from face3d_tune.data.problems import Problem, listed
from face3d_tune.errors import ConfigError

Part = Literal["train", "validation", "test"]
Split = Literal["person", "none"]
TurnAngle = Literal["first", "second", "third"]
Pairs = NDArray[np.int64]

PARTS: tuple[Part, ...] = get_args(Part)
TURN_ANGLES: tuple[TurnAngle, ...] = get_args(TurnAngle)
SPLIT_SEED = 42
TRAIN_SHARE, VALIDATION_SHARE = 0.6, 0.3  # the rest is test
FEWEST_PEOPLE = 4  # the smallest n for which int(0.3 · n) is 1


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice of views that make pairs, min_yaw <= |yaw| <= max_yaw, and of the split. Raises ConfigError.

    Yaw is the head turn: the angle of a pose that `turn_angle` names, whatever the file calls it.
    """

    split: Split = "person"
    min_yaw: float = 0.0  # degrees
    max_yaw: float | None = None  # degrees; None = no limit
    turn_angle: TurnAngle = "first"

    def __post_init__(self) -> None:
        choices: dict[str, tuple[str, ...]] = {"split": get_args(Split), "turn_angle": TURN_ANGLES}
        for name, values in choices.items():
            if (value := getattr(self, name)) not in values:
                raise ConfigError(f"{name} = {value!r} is unknown; expected one of {', '.join(values)}")

    @property
    def yaw_limits(self) -> tuple[float, float]:
        """Return both limits, in degrees."""
        return self.min_yaw, math.inf if self.max_yaw is None else self.max_yaw

    @property
    def turn_column(self) -> int:
        """Return the column of a pose with the head turn."""
        return TURN_ANGLES.index(self.turn_angle)


def split_people(people: Sequence[str]) -> dict[Part, tuple[str, ...]]:
    """Split people into training, validation and test; `people` in order of first appearance in the front file."""
    shuffled = list(people)
    random.Random(SPLIT_SEED).shuffle(shuffled)
    train = int(len(shuffled) * TRAIN_SHARE)
    validation = train + int(len(shuffled) * VALIDATION_SHARE)
    return {
        "train": tuple(shuffled[:train]),
        "validation": tuple(shuffled[train:validation]),
        "test": tuple(shuffled[validation:]),
    }


def fold_people(
    people: Mapping[Part, tuple[str, ...]], split: Split, number: int, of: int
) -> dict[Part, tuple[str, ...]]:
    """Return the people of each part in fold `number` (1-based) of `of`, from the `people` of the ordinary split.

    Raises ConfigError if these folds are impossible.
    """
    if split != "person":
        raise ConfigError(
            f"{of} folds need split = person; with split = {split} everyone trains and validates in each of them",
            "omit --folds or --split",
        )
    rotating = people["train"] + people["validation"]
    if of > len(rotating):
        raise ConfigError(
            f"{of} folds need {of} people who do not test; here are {len(rotating)}", f"--folds {len(rotating)} at most"
        )
    size, larger = divmod(len(rotating), of)
    sizes = [size] * (of - larger) + [size + 1] * larger  # of the blocks, from the last in split order
    end = len(rotating) - sum(sizes[: number - 1])
    begin = end - sizes[number - 1]
    return {"train": rotating[:begin] + rotating[end:], "validation": rotating[begin:end], "test": people["test"]}


def split_pairs(
    files: DataFiles, pairs: Pairs, selection: Selection
) -> tuple[dict[Part, Pairs], dict[Part, tuple[str, ...]]]:
    """Split the pairs, and the people, into parts; with split none, every pair both trains and validates."""
    names = _front_names(files, pairs)
    people = list(dict.fromkeys(names))
    if selection.split == "none":
        everyone = tuple(people)
        return {"train": pairs, "validation": pairs, "test": pairs[:0]}, {
            "train": everyone,
            "validation": everyone,
            "test": (),
        }
    split = split_people(people)
    home = {name: part for part, members in split.items() for name in members}
    homes = np.array([home[name] for name in names])
    return {part: pairs[homes == part] for part in PARTS}, split


def in_degrees(poses: NDArray[np.float64], unit: PoseUnit | None) -> NDArray[np.float64]:
    """Convert poses to degrees.

    Radians are rounded to 1e-12 degrees, so that 30 comes back as exactly 30.
    """
    return np.round(np.rad2deg(poses), 12).astype(np.float64) if unit == "radians" else poses


def find_unmatched(files: DataFiles) -> list[Problem]:
    """Warn of people on one side whom the other side does not have."""
    sides = {"front": files.front.metadata.names, "video": files.video.metadata.names}
    problems = []
    for side, other, word in (("front", "video", "person without views"), ("video", "front", "unknown person")):
        names, other_names = sides[side], sides[other]
        if names is None or other_names is None:
            continue
        strangers = set(names) - set(other_names) - {None}
        if rows := tuple(row for row, name in enumerate(names) if name in strangers):
            who = listed(str(names[row]) for row in rows)
            what, expected = f"{word}: {who}; left out", f"everyone in {other}_metadata.json too"
            file = f"{side}_metadata.json"
            problems.append(
                Problem(file=file, key="metadata", rows=rows, what=what, expected=expected, severity="warning")
            )
    return problems


def make_pairs(files: DataFiles, selection: Selection) -> Pairs | None:
    """Pair every front row with every video row of the same person within the yaw limits, [pairs, 2].

    Returns None if names or poses cannot be read.
    """
    front, video = files.front.metadata, files.video.metadata
    if front.names is None or video.names is None or video.poses is None or len(video.poses) != len(video.names):
        return None
    yaw = np.abs(in_degrees(video.poses, video.pose_unit)[:, selection.turn_column])
    low, high = selection.yaw_limits
    wanted = (yaw >= low) & (yaw <= high)
    views: dict[str, list[int]] = {}
    for row, name in enumerate(video.names):
        if name is not None and wanted[row]:
            views.setdefault(name, []).append(row)
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for row, name in enumerate(front.names):
        if name in views:
            rows = np.array(views[name], dtype=np.int64)
            pairs.append(np.column_stack((np.full_like(rows, row), rows)))
    return np.concatenate(pairs)


def persons(pairs: Pairs) -> NDArray[np.int64]:
    """Return the person of each pair, [pairs], as numbers from 0 in the order of the front rows.

    All front rows of a person are paired with the same video rows. So the first front row of a video row identifies the
    person.
    """
    _, first, view = np.unique(pairs[:, 1], return_index=True, return_inverse=True)
    front: NDArray[np.int64] = pairs[first, 0][view]
    return np.unique(front, return_inverse=True)[1].astype(np.int64)


def find_too_few(files: DataFiles, pairs: Pairs, selection: Selection) -> list[Problem]:
    """Return an error if no pair is left, or too few people to split."""
    front_names = set(files.front.metadata.names or []) - {None}
    if not len(pairs) and not front_names.isdisjoint(files.video.metadata.names or []):
        low, high = selection.yaw_limits
        what = f"no view is left with |yaw| from {low:g} to {high:g} degrees"
        return [
            Problem(
                file="video_metadata.json", key="poses", what=what, expected="wider yaw limits, or another --turn-angle"
            )
        ]
    people = len(set(_front_names(files, pairs)))
    fewest = FEWEST_PEOPLE if selection.split == "person" else 1
    if people < fewest:
        what = f"{people} people with a front row and a view, too few to train and validate"
        return [Problem(file="front_metadata.json", key="metadata", what=what, expected=f"at least {fewest}")]
    return []


def _front_names(files: DataFiles, pairs: Pairs) -> list[str]:
    """Return the person of each pair."""
    names = files.front.metadata.names or []
    return [str(names[row]) for row in pairs[:, 0]]
