"""Checkpoints beside methods without training, on one part of the people; evaluations on test people are counted."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import call
from fake_data import unit, write_data
from stored_study import our_study
from trained import trained

from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import load
from face3d_tune.data.provenance import DataUse
from face3d_tune.storage.database import Storage
from face3d_tune.training import kernel_ridge, ridge
from face3d_tune.training.base import PairTensors
from face3d_tune.training.checkpoint_file import checkpoint_args
from face3d_tune.training.inputs import write_copy
from face3d_tune.training.predictor import Predictor

CPU = torch.device("cpu")
CONFIG = TrialConfig(d_model=16, dim_feedforward=32, nhead=2, num_layers=1, epochs=2, batch_size=8)
RADIANS = replace(CONFIG, layout="pose", pose_unit="radians", lr=1e-2, epochs=6)
CONFIGS = {"one.pth": CONFIG, "two.pth": RADIANS}


@pytest.fixture
def folder(tmp_path, data):
    """A folder with two checkpoints."""
    for name, config in CONFIGS.items():
        save(tmp_path, data, config, name)
    return tmp_path


def save(folder, data, config, name, **changes):
    held = trained(data, config, 1).checkpoint(checkpoint_args(config, DataUse.of(data)))
    torch.save({**held, **changes}, folder / name)


def judge(folder, data, *words):
    return call("judge", *words, "--data-dir", data.source, cwd=folder)


def judged(folder, data, *words):
    answer = judge(folder, data, *words, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def predictions(data, config, part="validation"):
    """The plain trainer's, of unit length."""
    trainer = trained(data, config, 1)
    trainer.model.eval()
    with torch.no_grad():
        made = trainer._predict(PairTensors(data, part, config.pose_unit, CPU), slice(None)).double().numpy()
    return unit(made)


def by_hand(data, made, part="validation"):
    """Cosine and rank-1 among the judged and among everyone, one view at a time; every person has as many views."""
    fronts = unit(data.front_features.astype(np.float64))
    names = {"judged": data.people[part], "enrolled": data.front_names}
    cosines, wins = [], {gallery: [] for gallery in names}
    for own, prediction in zip(data.parts[part][:, 0], made, strict=True):
        cosines.append(prediction @ fronts[own])
        for gallery, people in names.items():
            others = [row for row, name in enumerate(data.front_names) if name in people and row != own]
            wins[gallery].append(all(prediction @ fronts[own] > prediction @ fronts[other] for other in others))
    return {"cosine": np.mean(cosines), **{f"rank1_{gallery}": np.mean(each) for gallery, each in wins.items()}}


def test_every_row_is_measured_from_its_predictions(folder, data):
    found = judged(folder, data, *CONFIGS)
    made = {
        "no model": unit(data.video_features[data.parts["validation"][:, 1]].astype(np.float64)),
        "ridge": ridge.fit(data).predict(data, "validation"),
        "kernel ridge": kernel_ridge.fit(data).predict(data, "validation"),
        **{name: predictions(data, config) for name, config in CONFIGS.items()},
    }
    made["ensemble of 2"] = made["one.pth"] + made["two.pth"]
    rows = {row["name"]: row["recognition"]["all"] for row in found["rows"]}
    assert list(rows) == ["no model", "ridge", "kernel ridge", "one.pth", "two.pth", "ensemble of 2"]
    for name, each in made.items():
        for rate, value in by_hand(data, unit(each)).items():
            assert rows[name][rate] == pytest.approx(value, abs=1e-6), (name, rate)
    assert (found["part"], found["people"], found["views"]) == ("validation", 3, 18)
    assert found["gallery"] == {"judged": 3, "enrolled": 12}


def test_a_difference_is_paired_over_people_against_the_baseline_that_is_best(folder, data):
    found = judged(folder, data, "one.pth")
    baselines = [row for row in found["rows"] if row["kind"] == "baseline"]
    for rate in ("cosine", "rank1_enrolled"):
        (compared,) = (each for each in found["differences"] if each["rate"] == rate)
        rates = {row["name"]: row["recognition"]["all"][rate] for row in found["rows"]}
        assert rates[compared["name"]] == max(rates[row["name"]] for row in baselines)
        assert compared["difference"] == pytest.approx(rates["one.pth"] - rates[compared["name"]])
        assert (compared["of"], compared["people"], compared["verdict"]) == ("one.pth", 3, "uncertain")


def test_the_table_names_the_galleries_and_shows_all_views_bands_and_pooled(folder, data):
    answer = judge(folder, data, *CONFIGS)
    assert answer.code == 0, answer.err
    lines = [line.strip() for line in answer.out.splitlines()]
    del lines[: lines.index("3 validation people, 18 views")]
    assert lines[1] == "galleries: the 3 people judged, and all 12 enrolled"
    sections = [line for line in lines if line in ("all views", "pooled") or line.startswith("|yaw| ")]
    assert sections == ["all views", "|yaw| 15–45°", "|yaw| 45–90°", "pooled"]  # no view within 15 degrees
    (row,) = (row["recognition"] for row in judged(folder, data, *CONFIGS)["rows"] if row["name"] == "two.pth")
    shown = [line.split()[1:] for line in lines if line.startswith("two.pth ")]
    for cells, rates in zip(shown, (row["all"], *list(row["by_yaw"].values())[1:], row["pooled"]), strict=True):
        assert float(cells[0]) == pytest.approx(rates["cosine"], abs=5e-5)
        assert float(cells[2]) == pytest.approx(rates["rank1_enrolled"], abs=5e-4)
        assert float(cells[5]) == pytest.approx(rates["identity"], abs=5e-5)
    assert "3 validation people are too few for a verdict against" in answer.out


def test_a_checkpoint_that_raises_only_the_cosine_is_told_first(folder, data, monkeypatch):
    fronts = unit(data.front_features.astype(np.float64))
    stranger = data.front_names.index(data.people["train"][0])
    own = dict(data.parts["validation"][:, ::-1].tolist())

    def nearly(self, src, landmarks, degrees, unit_of_poses, rows):
        return unit(np.array([0.9 * fronts[own[row]] + fronts[stranger] for row in rows])).astype(np.float32)

    monkeypatch.setattr(Predictor, "predict_all", nearly)
    answer = judge(folder, data, "one.pth")
    said = "one.pth raises the cosine, but recognises people no better than no model, ridge or kernel ridge.\n"
    assert answer.out.startswith(said)


# The blend with a baseline


def by_definition(data, made, part="validation"):
    """Identity, one view at a time, among everyone enrolled except the test people."""
    fronts = unit(data.front_features.astype(np.float64))
    enrolled = [row for row, name in enumerate(data.front_names) if name not in data.people["test"]]
    s = made @ fronts.T
    own = s[np.arange(len(made)), data.parts[part][:, 0]]
    return np.mean(own - 0.1 * np.log(np.exp(s[:, enrolled] / 0.1).sum(axis=1)))


@pytest.mark.parametrize(("kind", "method"), [("ridge", ridge), ("kernel", kernel_ridge)])
@pytest.mark.parametrize("part", ["validation", "test"])
def test_validation_people_choose_the_weight_of_a_blend_whoever_is_judged(folder, data, kind, method, part):
    found, fitted = judged(folder, data, *CONFIGS, "--blend", kind, "--part", part), method.fit(data)

    def blended(weight, of):
        mean = sum(predictions(data, config, of) for config in CONFIGS.values()) / 2
        return unit((1 - weight) * mean + weight * fitted.predict(data, of))

    reached = {step / 20: by_definition(data, blended(step / 20, "validation")) for step in range(21)}
    row = found["rows"][-1]
    assert row["weight"] == max(reached, key=lambda weight: reached[weight])
    assert (row["kind"], row["baseline"]) == ("blend", {"kernel": "kernel ridge"}.get(kind, kind))
    for rate, value in by_hand(data, blended(row["weight"], part), part).items():
        assert row["recognition"]["all"][rate] == pytest.approx(value, abs=1e-6), rate


def test_a_single_checkpoint_has_a_blend_and_no_ensemble(folder, data):
    answer = judge(folder, data, "one.pth", "--blend", "ridge", "--json")
    found = json.loads(answer.out)
    assert [row["kind"] for row in found["rows"][-2:]] == ["checkpoint", "blend"]
    name = f"blend, {found['rows'][-1]['weight']:.2f} ridge"
    assert found["rows"][-1]["name"] == name
    assert answer.err == f"note: {name}: its weight was chosen on the people judged here, which flatters it\n"


def test_a_given_weight_is_taken_and_no_one_is_flattered(folder, data):
    answer = judge(folder, data, "one.pth", "--blend", "ridge", "--weight", "0.3", "--json")
    row = json.loads(answer.out)["rows"][-1]
    assert (row["name"], row["weight"], answer.err) == ("blend, 0.30 ridge", 0.3, "")
    blended = 0.7 * predictions(data, CONFIG) + 0.3 * ridge.fit(data).predict(data, "validation")
    wanted = by_hand(data, unit(blended))
    assert {rate: row["recognition"]["all"][rate] for rate in wanted} == pytest.approx(wanted, abs=1e-6)


def test_an_evaluation_of_a_blend_on_the_test_people_is_recorded_as_one(folder, data):
    with storage(folder).opened(create=True) as opened:
        our_study(opened, "ours", data_fingerprint=data.fingerprint())
    answer = judge(folder, data, "one.pth", "--blend", "ridge", "--part", "test", "--json")
    (look,) = json.loads(answer.out)["looks"]
    assert look["command"] == "face3d-tune judge one.pth --part test --blend ridge"
    assert answer.err == ""  # test people choose no weight


def test_folders_are_searched_for_best_models(folder, data):
    (folder / "runs" / "a").mkdir(parents=True)
    (folder / "one.pth").rename(folder / "runs" / "a" / "best_model.pth")
    found = judged(folder, data, "runs", "runs/a/best_model.pth")
    assert [row["name"] for row in found["rows"] if row["kind"] == "checkpoint"] == ["runs/a/best_model.pth"]


# What makes the numbers doubtful


def test_a_checkpoint_of_the_same_data_raises_no_doubt(folder, data):
    answer = judge(folder, data, *CONFIGS)
    assert "note:" not in answer.err
    assert [row.get("trained_on_these_data") for row in judged(folder, data, "one.pth")["rows"]][-1] is True


def test_a_checkpoint_of_other_data_may_have_been_trained_on_judged_people(folder, data, tmp_path):
    other = load(write_data(tmp_path / "other", seed=1))
    answer = judge(folder, other, "one.pth")
    assert answer.code == 0
    assert answer.err == (
        f"note: one.pth: it records other data, or another split or limits ({data.fingerprint()}; these are "
        f"{other.fingerprint()}), so people measured here may be among those it was trained on\n"
    )


@pytest.mark.parametrize("kind", [dict, lambda **args: Namespace(**args)])
def test_of_a_scripts_checkpoint_training_people_tell_the_unit_of_its_poses(folder, data, kind):
    save(folder, data, RADIANS, "two.pth", args=kind(lr=1e-2, batch_size=8, epochs=6))
    answer = judge(folder, data, "two.pth", "--json")
    assert answer.err.splitlines() == [
        "note: two.pth: it does not record its data, so people measured here may be among those it was trained on",
        "note: two.pth: it does not record the unit of its poses; it gets radians",
    ]
    row = json.loads(answer.out)["rows"][-1]
    assert (row["pose_unit"], row["trained_on_these_data"]) == ("radians", None)
    assert row["recognition"]["all"]["cosine"] == pytest.approx(
        by_hand(data, predictions(data, RADIANS))["cosine"], abs=1e-6
    )
    assert judged(folder, data, "two.pth", "--pose-unit", "degrees")["rows"][-1]["pose_unit"] == "degrees"


def test_a_checkpoint_of_a_converted_copy_that_gets_raw_views_is_known_by_the_copys_baseline(folder, data):
    write_copy(Path(data.source), folder / "copy", "ridge")
    save(folder, data, CONFIG, "two.pth", args={"data_dir": "copy", "lr": 1e-2})
    baseline, unknown = Path("copy", "baseline.npz"), ("does not record its data", "the unit of its poses")

    def told(*words, of=data):
        answer = judge(folder, of, "two.pth", "--pose-unit", "degrees", *words)
        assert answer.code == 0, answer.err
        return [line for line in answer.err.splitlines() if not any(each in line for each in unknown)]

    raw = f"it was trained on copy, the outputs of a baseline, and gets raw views without --baseline {baseline}"
    assert told() == [f"note: two.pth: {raw}"]
    assert told("--baseline", baseline) == []
    converted = SimpleNamespace(source="copy")
    assert told(of=converted) == []  # what it was trained on
    once_more = "copy holds the outputs of a baseline, and its own baseline is applied to them once more"
    assert told("--baseline", baseline, of=converted) == [f"note: two.pth: {once_more}"]
    answer = call("predict", "two.pth", data.source, "-o", "frontal.npy", "--pose-unit", "degrees", cwd=folder)
    assert (answer.code, answer.err) == (0, f"note: two.pth: {raw}\n")
    (folder / "copy").rename(folder / "moved")  # then nothing is known
    assert told() == []


def test_a_checkpoint_of_raw_views_that_gets_a_converted_copy_is_known_by_its_own_folder(folder, data):
    write_copy(Path(data.source), folder / "copy", "ridge")
    answer = judge(folder, SimpleNamespace(source="copy"), "one.pth")
    said = f"it was trained on {data.source}, raw views, and gets the outputs of a baseline, which copy holds"
    assert answer.err.splitlines()[0] == f"note: one.pth: {said}"


# Test people


def storage(folder):
    return Storage.parse(f"sqlite:///{(folder / 'face3d_tune.db').as_posix()}")


def test_an_evaluation_on_the_test_people_without_a_study_is_said_to_be_recorded_nowhere(folder, data):
    answer = judge(folder, data, "one.pth", "--part", "test")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("2 test people, 12 views")
    assert answer.out.splitlines()[-1] == (
        "This evaluation on the test people is not recorded anywhere: sqlite:///face3d_tune.db holds no study on these "
        f"data ({data.fingerprint()})."
    )
    assert not (folder / "face3d_tune.db").exists()


def test_an_evaluation_on_the_test_people_is_counted_with_the_studies_on_the_same_data(folder, data):
    with storage(folder).opened(create=True) as opened:
        ours = our_study(opened, "ours", data_fingerprint=data.fingerprint())
        elsewhere = our_study(opened, "elsewhere", data_fingerprint="f" * 16)
        before = dict(elsewhere.user_attrs)
    assert judge(folder, data, "one.pth").out.count("valuation") == 0  # validation people are not counted
    first = judge(folder, data, "one.pth", "--part", "test")
    assert first.out.splitlines()[-1] == "First evaluation on the test people."
    second = judge(folder, data, *CONFIGS, "--part", "test")
    assert second.out.splitlines()[-1].startswith("Evaluation 2 on the test people: ")
    third = judged(folder, data, "one.pth", "--part", "test")
    assert [look["command"] for look in third["looks"]] == [
        "face3d-tune judge one.pth --part test",
        "face3d-tune judge one.pth two.pth --part test",
        "face3d-tune judge one.pth --part test",
    ]
    assert third["looks"][1]["compared"] == ["one.pth", "two.pth"]
    with storage(folder).opened():
        assert sum(key.startswith("look:") for key in ours.user_attrs) == 3
        assert elsewhere.user_attrs == before


def test_the_test_people_are_judged_as_the_plain_trainer_predicts_them(folder, data):
    rows = judged(folder, data, "one.pth", "--part", "test")["rows"]
    wanted = by_hand(data, predictions(data, CONFIG, "test"), "test")
    assert {rate: rows[-1]["recognition"]["all"][rate] for rate in wanted} == pytest.approx(wanted, abs=1e-6)


# Mistakes


def test_what_cannot_be_judged_is_one_line_and_a_hint(folder, data, tmp_path):
    wide = load(write_data(tmp_path / "wide", feature_size=24))
    torch.save({"epoch": 1}, folder / "empty.pth")
    for data_of, words, said in (
        (data, ["missing.pth"], "missing.pth is not a readable checkpoint: No such file or directory"),
        (data, ["empty.pth"], "empty.pth holds no weights of a model; it holds epoch"),
        (wide, ["one.pth"], f"one.pth takes 16 numbers per embedding, {wide.source} has 24"),
        (data, ["one.pth", "--split", "none", "--part", "test"], "--part test: with --split none it has no people"),
        (data, ["one.pth", "--weight", "0.5"], "--weight goes with --blend only"),
        (data, ["--blend", "ridge"], "--blend ridge needs a checkpoint to blend with"),
        (data, ["one.pth", "--part", "train"], "Invalid value for '--part': 'train' is not one of"),
        (data, ["one.pth", "--min-yaw", "90", "--max-yaw", "91"], "video_metadata.json: poses: no view is left"),
    ):
        answer = judge(folder, data_of, *words)
        assert answer.code == 2
        *_, error, hint = answer.err.splitlines()
        assert error.startswith(f"error: {said}")
        assert hint.startswith("hint: ")
        assert answer.out == ""


def test_without_a_checkpoint_the_baselines_alone_are_judged(folder, data):
    found = judged(folder, data)
    assert [row["name"] for row in found["rows"]] == ["no model", "ridge", "kernel ridge"]
    assert (found["differences"], found["warnings"]) == ([], [])
