"""Ridge regression: the same as another formula gives, from training people only, with a penalty that they choose."""

from dataclasses import replace

import numpy as np
import pytest
from fake_data import write_data

from face3d_tune.data import face_data
from face3d_tune.data.face_data import load, mean_by_yaw
from face3d_tune.data.pairs import persons
from face3d_tune.training import ridge

TURN_FIRST = {"first": (0, 1, 2), "second": (1, 0, 2), "third": (2, 0, 1)}  # columns of a pose


def columns(data, pairs):
    """X as the formula says it, a pair at a time."""
    rows = []
    for view in pairs[:, 1]:
        e = data.video_features[view].astype(float)
        yaw, pitch, roll = np.deg2rad(data.poses[view, [*TURN_FIRST[data.turn_angle]]])
        turned = [1, np.sin(yaw), 1 - np.cos(yaw), np.sin(pitch), np.sin(roll), abs(np.sin(yaw))]
        rows.append(np.kron(turned, e / np.sqrt(e @ e)))
    return np.array(rows)


def by_least_squares(data, penalty, part):
    """The cosines of the same regression, by least squares with one more row for each column."""
    pairs = data.parts["train"]
    x = columns(data, pairs)
    e = x[:, : data.feature_size]
    y = data.front_features[pairs[:, 0]].astype(float)
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    more = np.sqrt(penalty) * np.eye(x.shape[1])
    target = np.vstack((y - e, np.zeros((len(more), e.shape[1]))))
    weights, *_ = np.linalg.lstsq(np.vstack((x, more)), target, rcond=None)
    judged = data.parts[part]
    others = columns(data, judged)
    out = others[:, : data.feature_size] + others @ weights
    front = data.front_features[judged[:, 0]].astype(float)
    return (out * front).sum(1) / np.linalg.norm(out, axis=1) / np.linalg.norm(front, axis=1)


@pytest.mark.parametrize("size", [4, 16], ids=["fewer columns than pairs", "fewer pairs than columns"])
@pytest.mark.parametrize("penalty", [0.3, 10.0])
def test_it_is_what_least_squares_with_one_more_row_a_column_gives(tmp_path, size, penalty):
    data = load(write_data(tmp_path / "files", feature_size=size))
    assert (6 * size > len(data.parts["train"])) == (size == 16)
    fitted = ridge.fit(data, penalty)
    np.testing.assert_allclose(
        fitted.cosines(data, "validation"), by_least_squares(data, penalty, "validation"), atol=1e-9
    )


def test_its_predictions_have_length_1_and_give_its_cosines(data):
    fitted = ridge.fit(data)
    predictions = fitted.predict(data, "validation")
    np.testing.assert_allclose(np.linalg.norm(predictions, axis=1), 1, atol=1e-12)
    front = data.front_features[data.parts["validation"][:, 0]]
    cosines = (predictions * front).sum(1) / np.linalg.norm(front, axis=1)
    np.testing.assert_allclose(fitted.cosines(data, "validation"), cosines, atol=1e-9)


@pytest.mark.parametrize("turn", ["second", "third"])
def test_its_features_follow_the_angle_that_is_the_head_turn(data, turn):
    turned = replace(data, turn_angle=turn)
    cosines = ridge.fit(turned, 3.0).cosines(turned, "validation")
    np.testing.assert_allclose(cosines, by_least_squares(turned, 3.0, "validation"), atol=1e-9)
    assert np.abs(cosines - ridge.fit(data, 3.0).cosines(data, "validation")).max() > 1e-3


def test_an_endless_penalty_is_no_model(data):
    fitted = ridge.fit(data, 1e12)
    np.testing.assert_allclose(fitted.cosines(data, "validation"), data.no_model_cosines("validation"), atol=1e-6)


def test_the_length_of_embeddings_does_not_matter(data):
    longer = replace(data, front_features=3 * data.front_features, video_features=7 * data.video_features)
    both = [ridge.fit(each).cosines(each, "validation") for each in (data, longer)]
    np.testing.assert_allclose(*both, atol=1e-6)


def test_validation_and_test_people_have_no_part_in_it(data):
    spoilt = data.video_features.copy()
    for part in ("validation", "test"):
        spoilt[data.parts[part][:, 1]] = 1.0
    fitted, again = ridge.fit(data), ridge.fit(replace(data, video_features=spoilt))
    assert fitted.penalty == again.penalty
    np.testing.assert_array_equal(fitted.weights, again.weights)


def test_the_penalty_is_the_best_for_people_left_out(data):
    """Every third person left out in turn, by least squares."""
    pairs = data.parts["train"]
    fold = persons(pairs) % 3
    assert len(set(fold)) == 3

    def left_out(penalty):
        cosines = []
        for each in range(3):
            parts = {**data.parts, "train": pairs[fold != each], "validation": pairs[fold == each]}
            cosines.append(by_least_squares(replace(data, parts=parts), penalty, "validation"))
        return np.concatenate(cosines).mean()

    scores = {penalty: left_out(penalty) for penalty in ridge.PENALTIES}
    assert ridge.choose_penalty(data) == max(scores, key=scores.get) != ridge.PENALTIES[0]


def test_people_are_told_apart_by_their_pairs_also_with_several_front_rows():
    pairs = np.array([[0, 5], [0, 6], [1, 2], [3, 5], [3, 6], [4, 9]])  # front rows 0 and 3 are one person
    assert persons(pairs).tolist() == [0, 0, 1, 0, 0, 2]


def test_a_single_person_leaves_nobody_to_choose_by(data_folder):
    data = load(data_folder, split="none")
    one = data.parts["train"][persons(data.parts["train"]) == 0]
    assert ridge.choose_penalty(replace(data, parts={**data.parts, "train": one})) == max(ridge.PENALTIES)


def test_on_the_sample_it_reaches_what_the_samples_page_says():
    data = face_data.load(None)
    fitted = ridge.fit(data)
    assert fitted.penalty == 10
    for part, mean, bands in (("validation", 0.632, (0.80, 0.70, 0.49)), ("test", 0.643, (0.81, 0.72, 0.50))):
        cosines = fitted.cosines(data, part)
        assert cosines.mean() == pytest.approx(mean, abs=0.002)
        held = mean_by_yaw(cosines, data.poses[data.parts[part][:, 1], 0])
        assert tuple(held.values()) == pytest.approx(bands, abs=0.006)
