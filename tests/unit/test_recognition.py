"""Rank-1, TAR at FAR 1 % and identity are what their definitions say, worked out by hand and in plain loops."""

import json
import math
import random
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch

from face3d_tune.data.face_data import FaceData, load
from face3d_tune.data.pairs import persons
from face3d_tune.training import recognition, ridge
from face3d_tune.training.recognition import RATES, WHERE, Gallery, Judging, Outcomes, Recognition

PARTS = ("train", "validation")
NOTHING = dict.fromkeys(RATES)


def faces(fronts, views, judged):
    """Data whose embeddings are (name, vector) pairs, and whose views have a head turn too; `judged` validate."""
    names = [name for name, _ in fronts]
    pairs = [(row, view) for row, name in enumerate(names) for view, (who, *_) in enumerate(views) if who == name]
    of = {part: [pair for pair in pairs if (names[pair[0]] in judged) == (part == "validation")] for part in PARTS}
    return FaceData(
        source="by hand",
        front_features=np.array([vector for _, vector in fronts], dtype=np.float32),
        front_names=tuple(names),
        video_features=np.array([vector for _, vector, _ in views], dtype=np.float32),
        landmarks=np.zeros((len(views), 5, 3), dtype=np.float32),
        poses=np.array([(yaw, 0, 0) for *_, yaw in views], dtype=np.float64),
        parts={part: np.array(of[part], dtype=np.int64).reshape(-1, 2) for part in PARTS},
        people={"train": tuple(n for n in names if n not in judged), "validation": tuple(judged), "test": ()},
        file_pose_unit="degrees",
        pose_unit_recorded=True,
        split="person",
        min_yaw=0.0,
        max_yaw=None,
        landmark_source="none",
        warnings=(),
    )


def at(degrees):
    """A vector in the plane; the cosine of two is that of the angle between them."""
    return (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


def cos(degrees):
    return math.cos(math.radians(degrees))


def summary(data):
    """The recognition of the views' own embeddings."""
    return Gallery(data, "validation").scores(data.no_model_predictions("validation")).summary()


def flat(record):
    """{where: {rate: value}} of a record."""
    plain = record.to_dict()
    return {"all": plain["all"], **plain["by_yaw"], "pooled": plain["pooled"]}


def test_an_example_worked_out_by_hand():
    """Ann stands at 0°, Bob at 90°, and Cid, who trains, at 30°."""
    views = [("Ann", at(10), 0), ("Ann", at(-20), 20), ("Ann", at(20), 50), ("Bob", at(55), -50), ("Cid", at(30), 0)]
    found = summary(faces([("Ann", at(0)), ("Bob", at(90)), ("Cid", at(30))], views, ["Ann", "Bob"]))
    assert (found.judged, found.enrolled, found.people, found.views) == (2, 3, 2, 4)
    # Among Ann and Bob every view is nearest to its own. Cid is nearer than Ann to the view at 20, than Bob to 55.
    assert (found.all.rank1_judged, found.all.rank1_enrolled) == (1, pytest.approx((2 / 3 + 0) / 2))
    # The highest impostor scores: cos 55 (Bob's view with Ann), and cos 10 (Ann's view at 20 with Cid).
    assert (found.all.tar_judged, found.all.tar_enrolled) == (1, 0)
    own = (fmean([cos(10), cos(20), cos(20)]) + cos(35)) / 2
    assert found.all.cosine == pytest.approx(own, abs=1e-7)
    far = found.by_yaw["45-90"]
    assert (far.rank1_judged, far.rank1_enrolled, far.cosine) == (1, 0, pytest.approx((cos(20) + cos(35)) / 2))
    crowd = [sum(math.exp(cos(angle) * 10) for angle in others) for others in ((20, 70, 10), (35, 55, 25))]
    own = [cos(20), cos(35)]
    assert far.identity == pytest.approx(
        fmean(0.1 * math.log(math.exp(one * 10) / all_) for one, all_ in zip(own, crowd, strict=True)), abs=1e-7
    )
    # Ann's three views point to about 3°, where Ann is nearest and scores higher than any other pair.
    assert (found.pooled.rank1_judged, found.pooled.rank1_enrolled) == (1, 0.5)
    assert found.pooled.tar_enrolled == 0.5


def by_loops(data, predictions, bands=((0, 15), (15, 45), (45, 999))):
    """All rates as the definitions say them, one query and one person at a time."""
    fronts = {}
    for name, vector in zip(data.front_names, data.front_features.tolist(), strict=True):
        fronts.setdefault(name, []).append(scaled(vector))
    galleries = {"judged": data.people["validation"], "enrolled": list(fronts)}
    queries = {}
    for (front, view), prediction in zip(data.parts["validation"].tolist(), predictions.tolist(), strict=True):
        queries[view] = (data.front_names[front], scaled(prediction), abs(data.poses[view, 0]))
    pooled = []
    for name in {who: None for who, *_ in queries.values()}:
        mine = [vector for who, vector, _ in queries.values() if who == name]
        pooled.append((name, scaled([sum(column) for column in zip(*mine, strict=True)]), 0))

    def score(vector, name):
        return max(math.fsum(a * b for a, b in zip(vector, front, strict=True)) for front in fronts[name])

    def rates(queries, chosen):
        rows = {}
        thresholds = {}
        for gallery, names in galleries.items():
            impostors = [score(vector, name) for who, vector, _ in queries for name in names if name != who]
            fits = [t for t in impostors if sum(s > t for s in impostors) * 100 <= len(impostors)]
            thresholds[gallery] = min(fits, default=None)
        for who, vector, yaw in queries:
            if not chosen(yaw):
                continue
            own = score(vector, who)
            row = [all(own > score(vector, name) for name in galleries[g] if name != who) for g in galleries]
            row += [None if t is None else own > t for t in thresholds.values()]
            crowd = sum(math.exp(score(vector, name) / 0.1) for name in galleries["enrolled"])
            rows.setdefault(who, []).append([*row, 0.1 * math.log(math.exp(own / 0.1) / crowd), own])
        means = [[mean(column) for column in zip(*mine, strict=True)] for mine in rows.values()]
        return dict(zip(RATES, map(mean, zip(*means, strict=True)), strict=True)) if means else NOTHING

    every = list(queries.values())
    by_band = [rates(every, lambda yaw, low=low, high=high: low <= yaw < high) for low, high in bands]
    return dict(zip(WHERE, [rates(every, lambda yaw: True), *by_band, rates(pooled, lambda yaw: True)], strict=True))


def scaled(vector):
    length = math.sqrt(math.fsum(each * each for each in vector))
    return [each / length for each in vector]


def mean(values):
    return None if None in values else fmean(values)


def crowd(seed=0, *, people=9, judged=5, size=6, views=(1, 12)):
    """People who are hard to tell apart, with one to three front rows and an unequal number of views."""
    draw, names = random.Random(seed), [f"person {number}" for number in range(people)]
    base = {name: [draw.gauss(0, 1) for _ in range(size)] for name in names}

    def near(name, noise):
        return [each + draw.gauss(0, noise) for each in base[name]]

    fronts = [(name, near(name, 0.5)) for name in names for _ in range(draw.randint(1, 3))]
    draw.shuffle(fronts)
    seen = [(name, near(name, 1.5), draw.uniform(-90, 90)) for name in names for _ in range(draw.randint(*views))]
    draw.shuffle(seen)
    return faces(fronts, seen, draw.sample(names, judged))


@pytest.mark.parametrize("seed", range(4))
def test_every_number_is_what_plain_loops_over_the_definitions_give(seed):
    data = crowd(seed)
    predictions = data.no_model_predictions("validation")
    found, expected = flat(summary(data)), by_loops(data, predictions)
    for where in WHERE:
        assert found[where] == pytest.approx(expected[where], abs=1e-6), where
    assert 0 < found["all"]["rank1_enrolled"] < found["all"]["rank1_judged"] < 1
    assert 0 < found["all"]["tar_enrolled"] < 1


def test_means_are_over_people_however_many_views_each_has():
    views = [("Ann", at(0), 0)] * 9 + [("Bob", at(0), 0)]
    found = summary(faces([("Ann", at(0)), ("Bob", at(90))], views, ["Ann", "Bob"]))
    assert (found.all.rank1_judged, found.all.cosine) == (0.5, pytest.approx(0.5))
    assert found.views == 10


@pytest.mark.parametrize("impostors", [99, 100, 101, 250])
def test_at_most_one_impostor_pair_in_a_hundred_exceeds_the_threshold(impostors):
    """Ann's views from 0° to 60° have as many scores with Bob at 90°, and Ann stands at 44°."""
    angles = np.linspace(0, 60, impostors)
    data = faces([("Ann", at(44)), ("Bob", at(90))], [("Ann", at(a), 0) for a in angles], ["Ann", "Bob"])
    allowed = {99: 0, 100: 1, 101: 1, 250: 2}[impostors]
    threshold = sorted((cos(90 - a) for a in angles), reverse=True)[allowed]
    assert summary(data).all.tar_judged == pytest.approx(fmean(cos(44 - a) > threshold for a in angles))


def test_a_person_is_the_nearest_of_his_front_rows_and_each_view_counts_once():
    """Bob's frontal embeddings at 90° and 50°; Ann's view at 40° is nearer to the second than to Ann."""
    fronts = [("Bob", at(90)), ("Ann", at(0)), ("Bob", at(50))]
    views = [("Ann", at(10), 0), ("Ann", at(40), 0), ("Bob", at(80), 0), ("Bob", at(55), 0), ("Bob", at(20), 0)]
    data = faces(fronts, views, ["Ann", "Bob"])
    found = summary(data)
    assert len(data.parts["validation"]) == 8
    assert (found.judged, found.enrolled, found.views) == (2, 2, 5)
    assert found.all.rank1_judged == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.all.cosine == pytest.approx(fmean([fmean([cos(10), cos(40)]), fmean([cos(10), cos(5), cos(30)])]))


def test_a_tie_is_lost_wherever_the_equal_embedding_stands():
    draw = np.random.default_rng(0)
    for places in ((0, 1), (0, 200), (37, 38), (150, 3)):
        vectors = draw.normal(size=(201, 33))
        vectors[places[1]] = vectors[places[0]]
        fronts = [(str(number), vector) for number, vector in enumerate(vectors)]
        views = [(str(places[0]), vectors[places[0]] + 0.1 * draw.normal(size=33), 0) for _ in range(40)]
        found = summary(faces(fronts, views, [str(places[0])]))
        assert (found.all.rank1_judged, found.all.rank1_enrolled) == (1, 0)


def test_scores_that_differ_in_their_last_bits_are_a_tie():
    """As those of two equal embeddings may, where a library multiplies them in another order."""
    own, rival, nothing = np.array([0.5, 0.5]), np.array([0.5 - 1e-15, 0.5 - 1e-9]), np.zeros(2)
    values = Outcomes(own, rival, rival, nothing, *rival).values()
    assert values[:4].tolist() == [[0, 1], [0, 1], [0, 0], [1, 1]]


def test_a_single_person_is_always_recognised_and_there_is_no_impostor():
    found = summary(faces([("Ann", at(0))], [("Ann", at(70), 0)], ["Ann"]))
    expected = dict(zip(RATES, (1, 1, None, None, 0, cos(70)), strict=True))
    assert flat(found)["all"] == pytest.approx(expected, abs=1e-7)
    assert flat(found)["pooled"] == pytest.approx(expected, abs=1e-7)
    assert flat(found)["15-45"] == NOTHING


def test_a_single_judged_person_is_still_one_of_the_enrolled():
    found = summary(faces([("Ann", at(0)), ("Cid", at(60))], [("Ann", at(40), 0), ("Ann", at(10), 0)], ["Ann"]))
    assert (found.all.rank1_judged, found.all.tar_judged) == (1, None)
    assert (found.all.rank1_enrolled, found.all.tar_enrolled) == (0.5, 0.5)


def test_people_without_views_stand_in_the_galleries_and_in_no_mean():
    fronts = [("Ann", at(0)), ("Dan", at(30)), ("Cid", at(15))]
    data = faces(fronts, [("Ann", at(18), 0), ("Ann", at(10), 0)], ["Ann", "Dan"])
    found = summary(data)
    assert (found.judged, found.enrolled, found.people) == (2, 3, 1)
    assert (found.all.rank1_judged, found.all.rank1_enrolled) == (0.5, 0)


def test_a_part_without_pairs_has_no_rates(data):
    nothing = replace(data, parts={**data.parts, "test": data.parts["test"][:0]})
    found = Gallery(nothing, "test").scores(nothing.no_model_predictions("test")).summary()
    assert flat(found) == dict.fromkeys(WHERE, NOTHING)
    assert (found.judged, found.enrolled, found.people, found.views) == (len(data.people["test"]), 12, 0, 0)


def test_neither_the_length_of_predictions_nor_that_of_frontal_embeddings_matters():
    data = crowd()
    longer = replace(data, front_features=7 * data.front_features)
    predictions = data.no_model_predictions("validation").astype(np.float64)
    lengths = np.linspace(0.01, 50, len(predictions))[:, None]
    found = Gallery(longer, "validation").scores(predictions * lengths).summary()
    for where, rates in flat(found).items():
        assert rates == pytest.approx(flat(summary(data))[where], abs=1e-6)


def test_a_prediction_of_length_0_recognises_nobody(data):
    found = Gallery(data, "validation").scores(np.zeros_like(data.no_model_predictions("validation"))).summary()
    assert (found.all.rank1_judged, found.all.tar_judged, found.all.cosine) == (0, 0, 0)
    assert found.all.identity == pytest.approx(-0.1 * math.log(12))


@pytest.mark.parametrize("cells", [1, 25, 200])
def test_pieces_give_what_all_at_once_gives(monkeypatch, cells):
    """Memory for one query at a time, or some; the predictions come in pieces of 7 pairs."""
    data = crowd(3, views=(40, 60))
    predictions = torch.from_numpy(data.no_model_predictions("validation"))
    gallery = Gallery(data, "validation")
    whole = gallery.scores(predictions).summary()
    monkeypatch.setattr(recognition, "_CELLS", cells)
    judging = Judging(gallery)
    for piece in predictions.split(7):
        judging.add(piece)
    for where, rates in flat(judging.end().summary()).items():
        assert rates == pytest.approx(flat(whole)[where], abs=1e-12)


def test_the_means_of_each_person_average_to_the_record():
    data = crowd(1)
    gallery = Gallery(data, "validation")
    scores = gallery.scores(data.no_model_predictions("validation"))
    for where, rates in flat(scores.summary()).items():
        for rate, values in scores.by_person(where).items():
            assert len(values) == len(gallery.people)
            assert rates[rate] == pytest.approx(fmean(value for value in values if value is not None))


def test_people_are_in_the_order_that_their_pairs_give():
    data = crowd(2)
    rows = data.parts["validation"]
    numbers = persons(rows)
    assert Gallery(data, "validation").people == tuple(
        data.front_names[rows[numbers == number][0, 0]] for number in range(numbers.max() + 1)
    )


def test_a_record_is_stored_as_json():
    found = summary(crowd())
    assert Recognition.of(json.loads(json.dumps(found.to_dict()))) == found


def test_the_sample_gives_the_table_of_the_documentation():
    """Rank-1 among 48 and 160, TAR among 48, cosine, and the cosine of pooled views."""
    data = load(None)
    gallery = Gallery(data, "validation")
    fitted = ridge.fit(data, 10.0)  # its choice, see test_ridge.py
    expected = {"no model": (0.779, 0.695, 0.691, 0.5545, 0.747), "ridge": (0.827, 0.709, 0.751, 0.6322, 0.806)}
    predictions = {"no model": data.no_model_predictions("validation"), "ridge": fitted.predict(data, "validation")}
    for name, given in predictions.items():
        found = gallery.scores(given).summary()
        rates = (found.all.rank1_judged, found.all.rank1_enrolled, found.all.tar_judged)
        shown = (*(round(rate, 3) for rate in rates), round(found.all.cosine, 4), round(found.pooled.cosine, 3))
        assert shown == expected[name], name
        assert (found.judged, found.enrolled) == (48, 160)
