"""Kernel ridge: the same as its formula says, from training people only, who choose everything about it."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from fake_data import write_data

from face3d_tune.data import face_data
from face3d_tune.data.face_data import load
from face3d_tune.data.pairs import persons
from face3d_tune.study.described_data import describe_kernel_ridge
from face3d_tune.training import kernel_ridge, ridge
from face3d_tune.training.head_frames import ALIGNED, AS_THEY_ARE, TURNED_BACK, frames
from face3d_tune.training.kernel_ridge import NO_LANDMARKS, PENALTIES, Hyperparameters

CHOICES = [
    Hyperparameters(NO_LANDMARKS, 0.5, 3.0),
    Hyperparameters(AS_THEY_ARE, 2.0, 0.3),
    Hyperparameters(ALIGNED, 1.0, 10.0),
]


def unit(vector):
    vector = np.asarray(vector, dtype=float)
    return vector / np.sqrt(vector @ vector)


def by_the_formula(data, choice, part):
    """The predictions of a part, a pair and a kernel at a time."""
    train, judged = data.parts["train"], data.parts[part]
    marks = None
    if choice.landmarks != NO_LANDMARKS:
        marks = frames(data)[choice.landmarks](data.landmarks.astype(float), data.poses).reshape(-1, 15)
        own = marks[sorted(set(train[:, 1]))]
        marks = (marks - own.mean(0)) / own.std(0)

    def kernel(one, other):
        e, f = (unit(data.video_features[row]) for row in (one, other))
        face = np.exp(-choice.gamma * ((e - f) ** 2).sum())
        if marks is not None:
            face += np.exp(-((marks[one] - marks[other]) ** 2).sum() / (8 * 15))
        apart = [2 - 2 * np.cos(np.deg2rad(a - b)) for a, b in zip(data.poses[one], data.poses[other], strict=True)]
        return face * (0.2 + np.exp(-2 * sum(apart)))

    among = np.array([[kernel(one, other) for other in train[:, 1]] for one in train[:, 1]])
    target = np.array([unit(data.front_features[front]) - unit(data.video_features[view]) for front, view in train])
    weights = np.linalg.lstsq(among + choice.penalty * np.eye(len(train)), target, rcond=None)[0]
    found = [
        unit(data.video_features[view])
        + sum(kernel(view, row) * weight for row, weight in zip(train[:, 1], weights, strict=True))
        for _, view in judged
    ]
    return np.array([unit(each) for each in found])


def cosines_of(data, predictions, part):
    fronts = [unit(data.front_features[front]) for front in data.parts[part][:, 0]]
    return np.array([x @ f for x, f in zip(predictions, fronts, strict=True)])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Ten people with three views each: 18 training pairs."""
    return load(write_data(tmp_path_factory.mktemp("small") / "files", people=10, views=3, feature_size=6))


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.landmarks)
@pytest.mark.parametrize("exactly", [True, False], ids=["exact", "as centres"])
def test_it_predicts_what_the_formula_says(small, choice, exactly, monkeypatch):
    if not exactly:  # more pairs than centres: here each pair is twice, so that all views are centres all the same
        small = replace(small, parts={**small.parts, "train": np.repeat(small.parts["train"], 2, axis=0)})
        monkeypatch.setattr(kernel_ridge, "CENTRES", len(small.parts["train"]) - 1)
    fitted, expected = kernel_ridge.fit(small, choice), by_the_formula(small, choice, "validation")
    np.testing.assert_allclose(fitted.predict(small, "validation"), expected, atol=1e-6)
    np.testing.assert_allclose(
        fitted.cosines(small, "validation"), cosines_of(small, expected, "validation"), atol=1e-6
    )


def test_no_pairs_are_no_predictions(small):
    none = replace(small, parts={**small.parts, "test": small.parts["test"][:0]})
    assert kernel_ridge.fit(small, CHOICES[1]).predict(none, "test").shape == (0, small.feature_size)


def test_the_choice_is_the_best_for_people_left_out(small):
    """No other γ and no other landmarks at its λ, and no other λ, do better for every third person in turn."""
    pairs = small.parts["train"]
    fold = persons(pairs) % 3

    def left_out(choice):
        found = []
        for each in range(3):
            parts = {**small.parts, "train": pairs[fold != each], "validation": pairs[fold == each]}
            without = replace(small, parts=parts)
            found.append(cosines_of(without, by_the_formula(without, choice, "validation"), "validation"))
        return np.concatenate(found).mean()

    chosen = kernel_ridge.choose(small)
    place = PENALTIES.index(chosen.penalty)
    others = [replace(chosen, penalty=each) for each in PENALTIES[max(0, place - 1) : place + 2]]
    assert left_out(chosen) >= max(left_out(each) for each in others) - 1e-6
    assert chosen.penalty < max(PENALTIES)


def test_validation_and_test_people_have_no_part_in_it(data):
    spoilt = {name: getattr(data, name).copy() for name in ("video_features", "landmarks", "poses")}
    for array, part in product(spoilt.values(), ("validation", "test")):
        array[data.parts[part][:, 1]] = 1.0
    fitted, again = kernel_ridge.fit(data), kernel_ridge.fit(replace(data, **spoilt))
    assert fitted.choice == again.choice
    np.testing.assert_array_equal(fitted.weights, again.weights)


@pytest.mark.parametrize("landmarks", [NO_LANDMARKS, AS_THEY_ARE, TURNED_BACK, ALIGNED])
def test_a_whole_turn_of_an_angle_changes_nothing(data, landmarks):
    """A face that nods from 179 to 181 degrees stands at -179 in the files."""
    upright = data.poses + np.array([0, 0, 179.5])
    wrapped = (upright + 180) % 360 - 180
    assert np.ptp(wrapped[:, 2]) > 300
    both = [
        kernel_ridge.fit(each, Hyperparameters(landmarks, 0.5, 3.0)).predict(each, "validation")
        for each in (replace(data, poses=upright), replace(data, poses=wrapped))
    ]
    np.testing.assert_allclose(*both, atol=1e-9)


def test_the_length_of_embeddings_does_not_matter(data):
    longer = replace(data, front_features=3 * data.front_features, video_features=7 * data.video_features)
    both = [kernel_ridge.fit(each).predict(each, "validation") for each in (data, longer)]
    np.testing.assert_allclose(*both, atol=1e-6)


def test_a_single_person_leaves_nobody_to_choose_by(data):
    one = data.parts["train"][persons(data.parts["train"]) == 0]
    alone = replace(data, parts={**data.parts, "train": one})
    assert kernel_ridge.choose(alone) == Hyperparameters(NO_LANDMARKS, 0.5, max(PENALTIES))
    assert np.isfinite(kernel_ridge.fit(alone).predict(alone, "validation")).all()


DEGENERATE = {
    "one view": lambda data: {"parts": {**data.parts, "train": data.parts["train"][:1]}},
    "two people with a view each": lambda data: {"parts": {**data.parts, "train": data.parts["train"][[0, -1]]}},
    "landmarks that are all zero": lambda data: {"landmarks": np.zeros_like(data.landmarks)},
    "the same landmarks in every view": lambda data: {
        "landmarks": np.broadcast_to(data.landmarks[:1], data.landmarks.shape)
    },
    "landmarks on a line": lambda data: {"landmarks": data.landmarks * np.float32([1, 0, 0])},
    "huge landmarks": lambda data: {"landmarks": data.landmarks * np.float32(1e15)},
    "no pose": lambda data: {"poses": np.zeros_like(data.poses)},
    "all views equal": lambda data: {
        "video_features": np.ones_like(data.video_features),
        "landmarks": np.ones_like(data.landmarks),
        "poses": np.ones_like(data.poses),
    },
    "embeddings of one number": lambda data: {
        "video_features": data.video_features[:, :1],
        "front_features": data.front_features[:, :1],
    },
    "every pair twice": lambda data: {"parts": {**data.parts, "train": np.repeat(data.parts["train"], 2, axis=0)}},
}


@pytest.mark.parametrize("landmarks", [None, TURNED_BACK, ALIGNED])
@pytest.mark.parametrize("changed", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("centres", [2000, 20], ids=["exact", "with 20 centres"])
def test_whatever_trains_gives_finite_predictions_of_unit_length(data, changed, landmarks, centres, monkeypatch):
    monkeypatch.setattr(kernel_ridge, "CENTRES", centres)
    monkeypatch.setattr(kernel_ridge, "CENTRES_TO_CHOOSE", centres)
    odd = replace(data, **changed(data))
    choice = None if landmarks is None else Hyperparameters(landmarks, 0.5, 0.1)
    predictions = kernel_ridge.fit(odd, choice).predict(odd, "validation")
    np.testing.assert_allclose(np.linalg.norm(predictions, axis=1), 1)


def test_with_several_front_rows_a_person_is_in_one_fold_and_every_pair_counts(tmp_path, data):
    front = np.concatenate((data.front_features, data.front_features[::-1]))
    names = data.front_names + data.front_names[::-1]
    train = data.parts["train"]
    mirrored = np.column_stack((2 * len(data.front_names) - 1 - train[:, 0], train[:, 1]))
    twice = replace(
        data,
        front_features=front,
        front_names=names,
        parts={**data.parts, "train": np.concatenate((train, mirrored))},
    )
    # Each equation twice is the same as half the penalty.
    choice = Hyperparameters(AS_THEY_ARE, 0.5, 2.0)
    np.testing.assert_allclose(
        kernel_ridge.fit(twice, choice).predict(twice, "validation"),
        kernel_ridge.fit(data, replace(choice, penalty=1.0)).predict(data, "validation"),
        atol=1e-6,
    )
    assert kernel_ridge.choose(twice).gamma in kernel_ridge.GAMMAS


def test_few_centres_are_spread_over_all_people_and_turns(data):
    pairs = data.parts["train"]
    chosen = pairs[kernel_ridge._spread(data, pairs, 14)]
    assert len(np.unique(chosen, axis=0)) == 14
    assert set(persons(pairs)) == set(persons(chosen))
    assert np.bincount(persons(chosen)).tolist() == [2] * 7
    assert np.ptp(data.yaw[chosen[:, 1]]) > 100


def test_of_many_pairs_some_choose_the_kernel_and_all_of_them_the_penalty(data, monkeypatch):
    sizes = []

    class Counted(kernel_ridge._Folds):
        def __init__(self, data, inputs, pairs, fold, gamma):
            sizes.append((len(pairs), len(set(fold))))
            super().__init__(data, inputs, pairs, fold, gamma)

    monkeypatch.setattr(kernel_ridge, "_Folds", Counted)
    monkeypatch.setattr(kernel_ridge, "PAIRS_TO_CHOOSE", 20)
    chosen = kernel_ridge.choose(data)
    assert set(sizes[:-1]) == {(20, 3)}
    assert sizes[-1] == (len(data.parts["train"]), 3)
    assert chosen.penalty in PENALTIES


def test_a_note_says_when_not_every_view_is_a_centre():
    choice = {"landmarks": "none", "gamma": 0.5, "penalty": 3.0, "views": 10_080, "centres": 2000}
    assert describe_kernel_ridge({"kernel_ridge_choice": choice}) == (
        "kernel ridge with 2000 of its 10080 training views as centres"
    )
    assert describe_kernel_ridge({"kernel_ridge_choice": choice | {"views": 2000}}) == ""
    assert describe_kernel_ridge({}) == ""


def test_on_the_sample_it_passes_ridge_by_far():
    """With what `choose` finds there in some seconds."""
    sample = face_data.load(None)
    ours, ridges = (
        module.fit(sample, choice).cosines(sample, "validation").mean()
        for module, choice in ((kernel_ridge, Hyperparameters(TURNED_BACK, 0.5, 3.0)), (ridge, 10.0))
    )
    assert ours == pytest.approx(0.6566, abs=5e-4)
    assert ours > ridges + 0.015
