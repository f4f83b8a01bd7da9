"""`face3d-tune confirm`: what it trains, whom it asks, what it stores, and that no end of it costs a training twice."""

import json
import os
import re
import shutil
import signal
import time

import numpy as np
import optuna
import pytest
import torch
from command_line import call, start
from conftest import QUICK_STUDY
from fake_data import write_data
from reference_model import ReferenceModel
from stored import of_optuna, query
from trained import trained

from face3d_tune import seeds
from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import load
from face3d_tune.data.pairs import persons
from face3d_tune.data.provenance import DataUse
from face3d_tune.refit.candidates import candidates
from face3d_tune.refit.confirm import Confirmation
from face3d_tune.storage.database import Storage
from face3d_tune.training import kernel_ridge, ridge
from face3d_tune.training.checkpoint_file import checkpoint_args
from face3d_tune.training.plain import Trainer
from face3d_tune.training.recognition import Gallery

CPU = torch.device("cpu")
STUDY = QUICK_STUDY.replace(', "aggressive", "conservative"', "")  # two presets, and quickstart is one of them
STUDY = STUDY.replace("batch_size = 8", "batch_size = 32")  # so that 42 people train in moments
TRIALS = 5  # of which three are sampled
PATIENCE = 120  # seconds


class Place:
    """A folder with a study and its data."""

    def __init__(self, folder, data_folder, storage="sqlite:///studies.db"):
        self.folder, self.data, self.storage = folder, data_folder, storage

    def words(self, *words, seeds=2, top=2):
        shared = ("--storage", self.storage, "--study-name", "quick", "--data-dir", self.data, "--device", "cpu")
        return ("confirm", *shared, "--seeds", seeds, "--top", top, *words)

    def confirm(self, *words, **counts):
        return call(*self.words(*words, **counts), cwd=self.folder)

    @property
    def url(self):
        return self.storage.replace("sqlite:///", f"sqlite:///{self.folder}/")

    @property
    def trials(self):
        with Storage.parse(self.url).opened() as opened:
            return optuna.load_study(study_name="quick", storage=opened).get_trials()

    @property
    def attrs(self):
        rows = query(self.url, "select key, value_json from study_user_attributes")
        return {row["key"]: json.loads(row["value_json"]) for row in rows}

    @property
    def trainings(self):
        return {key: value for key, value in self.attrs.items() if key.startswith("confirm:")}

    def change(self, key, value):
        with Storage.parse(self.url).opened() as opened:
            optuna.load_study(study_name="quick", storage=opened).set_user_attr(key, value)


def searched(folder, data_folder, study=STUDY, trials=TRIALS):
    (folder / "quick.toml").write_text(study, encoding="utf-8")
    shared = ("--storage", "sqlite:///studies.db", "--data-dir", data_folder, "--device", "cpu")
    answer = call("run", "--study", "quick.toml", *shared, "--trials", trials, cwd=folder)
    assert answer.code == 0, answer.err
    return Place(folder, data_folder)


@pytest.fixture(scope="module")
def sixty(tmp_path_factory):
    """60 people, six of whom are test people."""
    return write_data(tmp_path_factory.mktemp("sixty") / "files", people=60, views=5, feature_size=8)


@pytest.fixture(scope="module")
def done(tmp_path_factory, sixty):
    """A search, and a confirmation of its best two trials. Do not change it."""
    place = searched(tmp_path_factory.mktemp("done"), sixty)
    shutil.copy(place.folder / "studies.db", place.folder / "before.db")
    place.kept = tmp_path_factory.mktemp("kept") / "ensembles"  # elsewhere, so that copies of the place are small
    place.answer = place.confirm("--keep", place.kept)
    assert place.answer.code == 0, place.answer.err
    return place


@pytest.fixture
def place(done, tmp_path):
    """The same, to be changed."""
    shutil.copytree(done.folder, tmp_path / "copy")
    return Place(tmp_path / "copy", done.data)


def timeless(attrs):
    return {key: value for key, value in attrs.items() if key != "time"}


# What is trained and stored


def test_the_best_distinct_trials_and_every_preset_are_trained_on_the_same_fresh_seeds(done):
    held = done.attrs["confirmation"]
    trials = [trial for trial in done.trials if not trial.user_attrs["preset"]]
    best = sorted(trials, key=lambda trial: -trial.value)[:2]
    names = [f"trial {trial.number}" for trial in best]
    assert [row["name"] for row in held["candidates"]] == [*names, "baseline", "recommended"]
    assert held["candidates"][3]["aliases"] == ["quickstart"]
    assert [row["value"] for row in held["candidates"][:2]] == [trial.value for trial in best]
    assert held["seeds"] == [seeds.derive(42, "confirm", number) for number in (0, 1)]
    assert not {trial.user_attrs["seed"] for trial in done.trials} & set(held["seeds"])
    assert len(done.trainings) == 4 * 2
    assert {record["seed"] for record in done.trainings.values()} == set(held["seeds"])


def test_rank_1_of_the_winner_is_compared_over_people_with_every_method_without_training(done):
    held = done.attrs["confirmation"]
    data, found, winner = load(done.data), held["recognition"], held["winner"]
    records = [record for record in done.trainings.values() if record["epochs"] in winner["epochs"]]
    rates = [record["test_recognition"]["all"]["rank1_enrolled"] for record in records]
    assert found["rank1_enrolled"]["winner"] in [
        pytest.approx(np.mean([one, other])) for one in rates for other in rates
    ]
    scores = Gallery(data, "test").scores(data.no_model_predictions("test"))
    *_, without = found["rank1_enrolled"]["against"]
    assert (without["name"], without["rate"]) == ("no model", pytest.approx(scores.summary().all.rank1_enrolled))
    assert without["difference"] == pytest.approx(found["rank1_enrolled"]["winner"] - without["rate"])
    names = [held["headline"], "kernel ridge", "ridge", "no model"]
    assert [each["name"] for each in found["tar_enrolled"]["against"]] == names
    assert done.answer.out.count(f"  rank-1 of {found['enrolled']}: ") == 4


def test_rank_1_of_every_candidate_is_stored_and_the_winner_is_compared_with_the_best_preset_over_people(done):
    held = done.attrs["confirmation"]
    rates = {row["name"]: row["test_rank1_enrolled"] for row in held["candidates"]}
    first, second = ([each for each in done.trainings.values() if each["seed"] == seed] for seed in held["seeds"])
    by_validation = {
        np.mean([one["validation"], other["validation"]]): np.mean(
            [each["test_recognition"]["all"]["rank1_enrolled"] for each in (one, other)]
        )
        for one in first
        for other in second
    }
    for row in held["candidates"]:
        (rate,) = (by_validation[value] for value in by_validation if abs(value - row["validation"]) < 1e-12)
        assert row["test_rank1_enrolled"] == pytest.approx(rate)
    compared, *_ = held["recognition"]["rank1_enrolled"]["against"]
    assert (compared["name"], compared["kind"]) == (held["headline"], "preset")
    assert compared["rate"] == rates[held["headline"]]
    assert compared["difference"] == pytest.approx(rates[held["winner"]["name"]] - compared["rate"])
    assert held["winner"]["test_rank1_enrolled"] == held["recognition"]["rank1_enrolled"]["winner"]


def by_hand(data, config, seed):
    """Validation cosine of the kept epoch, and each test person's mean and rank-1, by the reference model."""
    trainer, state = Trainer(config, data, seed=seed, device=CPU), None
    while trainer.stop_reason is None:
        if trainer.train_epoch().is_best:
            state = {name: value.clone() for name, value in trainer.model_state().items()}
    names = ("d_model", "nhead", "num_layers", "dim_feedforward", "dropout", "layout")
    flags = ("use_spatial_attention", "use_pose_attention")
    values = {name: getattr(config, name) for name in (*names, *flags)}
    model = ReferenceModel(feature_size=data.feature_size, **values).eval()
    model.load_state_dict(state, strict=True)
    front, video = data.parts["test"].T
    poses = np.deg2rad(data.poses[video]) if config.pose_unit == "radians" else data.poses[video]
    with torch.no_grad():
        out = model(
            torch.from_numpy(data.video_features[video]),
            torch.from_numpy(data.landmarks[video]),
            torch.from_numpy(poses).float(),
        ).numpy()
    target = data.front_features[front]
    cosines = (out * target).sum(1) / np.linalg.norm(out, axis=1) / np.linalg.norm(target, axis=1)
    scores = out @ data.front_features.T  # one row a person, and all of length 1
    scores[np.arange(len(front)), front] -= 1e-6  # a tie is lost
    won = scores.argmax(1) == front
    means = [[each[front == person].mean() for person in np.unique(front)] for each in (cosines, won)]
    return trainer.best.val_cosine, *means


def test_a_training_is_that_of_the_trial_with_another_seed_and_its_kept_weights_meet_the_test_people(done):
    data, held = load(done.data), done.attrs["confirmation"]
    row = held["candidates"][0]
    trial = done.trials[row["trial"]]
    config = TrialConfig(**trial.user_attrs["config"])
    results = [by_hand(data, config, seed) for seed in held["seeds"]]
    assert row["validation"] == pytest.approx(np.mean([validation for validation, *_ in results]), abs=1e-9)
    assert row["validation_sd"] == pytest.approx(np.std([validation for validation, *_ in results], ddof=1), abs=1e-9)
    assert row["test"] == pytest.approx(np.mean([test for _, test, _ in results]), abs=1e-6)
    (record,) = [
        each
        for each in done.trainings.values()
        if each["seed"] == held["seeds"][0] and each["validation"] == results[0][0]
    ]
    assert record["test"]["all"] == pytest.approx(results[0][1], abs=1e-6)
    assert record["epochs"] == 2
    recognition = record["test_recognition"]
    assert recognition["all"]["rank1_enrolled"] == pytest.approx(results[0][2])
    assert recognition["all"]["cosine"] == pytest.approx(record["test"]["all"], abs=1e-6)
    assert recognition["45-90"]["cosine"] == pytest.approx(record["test"]["45-90"], abs=1e-6)
    assert [len(rates["identity"]) for rates in recognition.values()] == [6] * 5


def test_what_needs_no_training_meets_the_same_people(done):
    data, held = load(done.data), done.attrs["confirmation"]
    who = persons(data.parts["test"])
    for name, cosines in (
        ("kernel_ridge", kernel_ridge.fit(data).cosines(data, "test")),
        ("ridge", ridge.fit(data).cosines(data, "test")),
        ("no_model", data.no_model_cosines("test")),
    ):
        means = [cosines[who == person].mean() for person in range(6)]
        assert held[name]["test"] == pytest.approx(np.mean(means), abs=1e-6)
    assert held["people"] == 6
    assert held["pairs"]["all"] == len(data.parts["test"]) == 30
    names = [entry["name"] for entry in held["against"]]
    assert names == ["baseline", "recommended", "kernel ridge", "ridge", "no model"]


def test_numbers_and_verdicts_go_to_stdout_and_progress_to_stderr(done):
    held, out = done.attrs["confirmation"], done.answer.out
    winner = held["winner"]
    assert re.search(rf"^{winner['name']} +{winner['value']:.4f}  {winner['validation']:.4f} ± ", out, re.M)
    for name, key in (("kernel ridge", "kernel_ridge"), ("ridge", "ridge")):
        assert f"{held[key]['test']:.4f}" in re.search(rf"^{name}.*$", out, re.M)[0]
    assert "quickstart = recommended" in out
    assert f"Winner's curse: in the study {winner['name']} had {winner['value']:.4f}" in out
    assert "First evaluation on the test people" in out
    assert "What 6 test people can show: against " in out
    assert "face3d-tune report --storage sqlite:///studies.db --study-name quick" in out
    assert max(len(line) for line in out.partition("\n\n")[2].partition("\n\n")[0].splitlines()) <= 100
    assert "train    8 trainings, 2 seeds of each" in done.answer.err
    assert done.answer.err.count("validation cosine") == 8
    assert ", seed 1" not in out


def test_json_is_what_is_stored(place):
    answer = place.confirm("--json")
    said = json.loads(answer.out)
    assert said.pop("study") == "quick"
    assert said == place.attrs["confirmation"]


# With --keep


def test_every_training_is_kept_and_the_winner_is_an_ensemble_for_a_blend(done, tmp_path):
    winner = done.attrs["confirmation"]["winner"]
    names = [row["name"].replace(" ", "-") for row in done.attrs["confirmation"]["candidates"]]
    assert sorted(path.name for path in done.kept.iterdir()) == sorted(names)
    cosines = {record["seed"]: [] for record in done.trainings.values()}
    for name in names:
        for place in sorted((done.kept / name).glob("member-*")):
            history = json.loads((place / "history.json").read_text(encoding="utf-8"))
            cosines[history["seed"]].append(history["epochs"][history["best_epoch"] - 1]["val_cosine"])
            assert (place / "best_model.pth").is_file()
    for seed, kept in cosines.items():
        assert sorted(kept) == sorted(each["validation"] for each in done.trainings.values() if each["seed"] == seed)
    (about,) = done.kept.rglob("ensemble.json")
    assert about.parent.name == winner["name"].replace(" ", "-")
    assert re.search(r"^keep     8 checkpoints in .*ensembles, \d+ MB$", done.answer.err, re.M)
    assert f"kept the winner as an ensemble of 2 in {about.parent}" in done.answer.err
    words = ("--blend", "ridge", "--device", "cpu")
    answer = call("predict", about.parent, done.data, "-o", tmp_path / "frontal.npy", *words, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert np.load(tmp_path / "frontal.npy").shape == (300, 8)


def test_trainings_that_are_stored_without_a_checkpoint_are_counted_and_not_repeated(place):
    answer = place.confirm("--keep", "later")
    assert "keep     0 checkpoints in later, 0 MB\n" in answer.err
    assert "note: 8 trainings are stored without a checkpoint, and are not trained again for one\n" in answer.err
    assert list((place.folder / "later").iterdir()) == []


# Again


def test_asking_again_trains_nothing_and_is_counted_as_another_look(place):
    before = place.trainings
    answer = place.confirm()
    assert "8 of them are stored already" in answer.err
    assert "Evaluation 2 on the test people: each one makes the verdict a little less trustworthy." in answer.out
    assert place.trainings == before
    looks = place.attrs["confirmation"]["looks"]
    assert [look["command"] for look in looks] == ["face3d-tune confirm --study-name quick --top 2 --seeds 2"] * 2
    assert looks[0]["compared"][2:] == ["baseline", "recommended"]


def test_a_look_for_another_study_of_the_storage_at_the_same_people_counts_and_one_at_others_does_not(place):
    here = of_optuna(place.url)
    optuna.copy_study(from_study_name="quick", from_storage=here, to_storage=here, to_study_name="again")
    looks = [{"time": f"2026-01-0{day}T00:00:00+00:00", "command": "", "compared": []} for day in (1, 2, 3)]
    attrs = {key: value for key, value in place.attrs.items() if not key.startswith("confirm:")}
    attrs |= {"data_fingerprint": "0" * 16, "confirmation": attrs["confirmation"] | {"looks": looks}}
    with Storage.parse(place.url).opened() as opened:
        elsewhere = optuna.create_study(study_name="elsewhere", storage=opened, direction="maximize")
        for key, value in attrs.items():
            elsewhere.set_user_attr(key, value)
    assert "Evaluation 2 on the test people" in place.confirm().out

    answer = call(*(word if word != "quick" else "again" for word in place.words()), cwd=place.folder)

    assert "Evaluation 3 on the test people" in answer.out  # the copied one, the second of `quick`, and its own


def test_an_evaluation_by_judge_is_counted_by_the_next_confirmation(place):
    data = load(place.data)
    config = TrialConfig(d_model=16, dim_feedforward=32, nhead=2, num_layers=1, batch_size=8, epochs=2)
    trainer = trained(data, config, 1)
    torch.save(trainer.checkpoint(checkpoint_args(config, DataUse.of(data))), place.folder / "best_model.pth")
    words = ("--part", "test", "--storage", place.storage, "--data-dir", place.data, "--device", "cpu")
    judged = call("judge", "best_model.pth", *words, cwd=place.folder)
    assert judged.code == 0, judged.err
    assert judged.out.splitlines()[-1].startswith("Evaluation 2 on the test people: ")  # the place is confirmed already

    assert "Evaluation 3 on the test people" in place.confirm().out

    commands = [look["command"] for look in place.attrs["confirmation"]["looks"]]
    assert commands[1] == "face3d-tune judge best_model.pth --part test"


def test_more_seeds_and_trials_train_only_what_is_missing(place):
    before = place.trainings
    answer = place.confirm(seeds=3, top=3)
    assert answer.code == 0, answer.err
    assert answer.err.count("validation cosine") == 5 * 3 - 4 * 2
    assert before.items() <= place.trainings.items()


def test_the_winner_is_chosen_by_validation_people_and_not_by_test_people(place):
    first, second = place.attrs["confirmation"]["candidates"][:2]
    for key, record in place.trainings.items():
        for row, validation, test in ((first, 0.5, 0.9), (second, 0.6, 0.3)):
            if record["validation"] in row_values(place, row):
                tests = {band: [test] * 6 for band in record["test"]}
                place.change(key, {**record, "validation": validation, "test": tests})
    held = json.loads(place.confirm("--json").out)
    assert [row["validation"] for row in held["candidates"][:2]] == pytest.approx([0.5, 0.6])
    assert held["candidates"][0]["test"] > held["candidates"][1]["test"]
    assert held["winner"]["name"] == second["name"]


def row_values(place, row):
    """The validation cosines of a candidate's trainings: its mean and deviation give both."""
    return [
        record["validation"]
        for record in place.trainings.values()
        if any(
            record["validation"] == pytest.approx(row["validation"] + sign * row["validation_sd"] / 2**0.5, abs=1e-9)
            for sign in (-1, 1)
        )
    ]


def test_a_candidate_that_diverged_is_named_and_compared_with_nobody(place):
    baseline = place.attrs["confirmation"]["candidates"][2]
    values = row_values(place, baseline)
    key = next(key for key, record in place.trainings.items() if record["validation"] in values)
    place.change(key, {"error": "training loss is nan in epoch 1"})
    answer = place.confirm()
    assert re.search(r"^baseline +0\.\d{4} +diverged *$", answer.out, re.M)
    held = place.attrs["confirmation"]
    assert "baseline" not in [entry["name"] for entry in held["against"]]
    assert held["candidates"][2]["error"] == "training loss is nan in epoch 1"


def test_a_trial_that_diverges_with_fresh_seeds_is_no_winner(place):
    with Storage.parse(f"sqlite:///{place.folder}/studies.db").opened() as opened:
        study = optuna.load_study(study_name="quick", storage=opened)
        best = max(study.get_trials(), key=lambda trial: trial.value)
        best.user_attrs = {**best.user_attrs, "config": best.user_attrs["config"] | {"lr": 1e30}, "preset": None}
        best.value = 0.99
        study.add_trial(best)
    answer = place.confirm()
    assert answer.code == 0, answer.err
    assert f"trial {TRIALS}, seed 1          diverged: " in answer.err
    held = place.attrs["confirmation"]
    assert held["candidates"][0]["error"] is not None
    assert held["winner"]["name"] == held["candidates"][1]["name"]


def test_the_first_sentence_compares_with_the_preset_asked_for(place):
    held = json.loads(place.confirm("--json", "--baseline", "quickstart").out)
    assert (held["headline"], held["headline_is_best"]) == ("recommended", False)


# Everybody judges once


def test_with_rotate_all_people_judge_and_every_place_shows_it_beside_the_ordinary_confirmation(place):
    ordinary = place.attrs["confirmation"]
    answer = place.confirm("--rotate", 3, seeds=1, top=1)
    assert answer.code == 0, answer.err
    assert "rotate   60 people in 3 rotations; each is judged once, by models trained on others" in answer.err
    note = "note: all people judge, so the result counts as an evaluation on the test people"
    assert answer.err.index("train    9 trainings, 1 of each in every rotation") < answer.err.index(note)
    assert len(re.findall(r"^rotation [123] of 3: .*, seed 1 +stored \(epoch \d of 2\)$", answer.err, re.M)) == 9
    assert "cosine" not in answer.err  # test people are among those who validate
    assert "Cross-validated: each of 60 people is judged in one of 3 rotations," in answer.out
    assert "Evaluation 2 on the test people" in answer.out
    held = place.attrs["rotation"]
    assert (held["people"], held["pairs"]["all"], held["rotations"]) == (60, 300, 3)
    assert re.search(rf"^{held['winner']['name']} .* {held['winner']['test']:.4f} ", answer.out, re.M)
    assert place.attrs["confirmation"] == ordinary

    again = place.confirm("--rotate", 3, "--json", seeds=1, top=1)
    assert "9 of them are stored already" in again.err
    assert json.loads(again.out) == {"study": "quick", **place.attrs["rotation"]}
    status = call("status", "--storage", place.storage, cwd=place.folder)
    assert f"cross-validated: {held['winner']['name']}" in status.out


# Ends of every kind


def wait_for(condition, what):
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send these signals to another process")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_confirmation_that_is_ended_goes_on_where_it_was(done, place, how):
    """The batched engine, whose trainings are processes; two seeds of each candidate are missing."""
    counted = "select count(*) as number from study_user_attributes where key like 'confirm:%'"
    running = start(*place.words("--engine", "batched", "--slots", 1, seeds=4), cwd=place.folder)
    wait_for(lambda: query(f"sqlite:///{place.folder}/studies.db", counted)[0]["number"] > 8, "a training was stored")
    running.send_signal(how)
    _, err = running.communicate(timeout=PATIENCE)
    stored = place.trainings
    assert running.returncode == (-9 if how == signal.SIGKILL else 130)
    assert 8 < len(stored) < 16
    assert len(place.attrs["confirmation"]["looks"]) == 1  # nothing was shown
    if how == signal.SIGINT:
        assert f"{len(stored)} of 16 trainings are stored\nhint: run the same command to resume" in err
    rest = place.confirm(seeds=4)
    assert rest.code == 0, rest.err
    assert rest.err.count("validation cosine") == 16 - len(stored)
    assert stored.items() <= place.trainings.items()
    assert len(place.attrs["confirmation"]["looks"]) == 2


def test_both_engines_say_the_same(done, place):
    shutil.copy(place.folder / "before.db", place.folder / "studies.db")
    answer = place.confirm("--engine", "batched", "--slots", 2, seeds=1)
    assert answer.code == 0, answer.err
    assert "batched, 2 at once" in answer.err
    assert len(place.trainings) == 4
    for key, record in place.trainings.items():
        plain = done.attrs[key]
        assert (record["engine"], plain["engine"]) == ("batched", "plain")
        assert record["validation"] == pytest.approx(plain["validation"], abs=1e-3)
        assert record["test"]["all"] == pytest.approx(plain["test"]["all"], abs=1e-3)  # rounding of float32


def test_the_mean_over_people_and_seeds_is_the_number_that_is_shown(done):
    with Storage.parse(done.url).opened() as opened:
        study, data = optuna.load_study(study_name="quick", storage=opened), load(done.data)
        confirmation = Confirmation(study, opened, data, candidates(study, data, 2), 2, print)
        assert confirmation.missing == []
        by_person = confirmation.by_person()
    shown = done.attrs["confirmation"]
    for row in shown["candidates"]:
        assert by_person[row["name"]].shape == (2, 6)
        assert by_person[row["name"]].mean() == pytest.approx(row["test"])
    for name, key in (("no model", "no_model"), ("ridge", "ridge"), ("kernel ridge", "kernel_ridge")):
        assert by_person[name].mean() == pytest.approx(shown[key]["test"])


def test_without_mixed_precision_only_the_configs_that_had_it_are_other_trainings(place):
    rows = place.attrs["confirmation"]["candidates"]
    before = place.trainings
    answer = place.confirm("--amp", "off", seeds=1, top=1)
    assert answer.code == 0, answer.err
    mixed = [each for each in place.trials if each.user_attrs["config"]["use_mixed_precision"]]
    again = {row["trial"] for row in rows if row["preset"] or row is rows[0]} & {each.number for each in mixed}
    assert len(place.trainings) - len(before) == len(again) > 0


# Refused


def test_a_study_of_training_pairs_has_no_test_people(place):
    place.change("data", place.attrs["data"] | {"split": "none"})
    answer = place.confirm()
    assert (answer.code, answer.out) == (2, "")
    assert "was made with --split none, so it has no test people to judge by" in answer.err


def test_a_study_with_presets_only_has_nothing_to_confirm(tmp_path, sixty):
    place = searched(tmp_path, sixty, trials=1)
    answer = place.confirm()
    assert (answer.code, answer.out) == (2, "")
    assert "has no completed trial that is not a preset, so there is nothing to confirm" in answer.err
    assert "hint: let `face3d-tune run` complete some first" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--baseline", "recomended"), "no preset named 'recomended' in the study; did you mean 'recommended'?"),
        (("--top", "0"), "0 is not in the range x>=1"),
        (("--seeds", "no"), "'no' is not a valid integer"),
        (("--study-name", "other"), "no study named 'other'"),
        (("--storage", "sqlite:///none.db"), "storage sqlite:///none.db: file does not exist"),
        (("--slots", "2"), "--slots 2 needs --engine batched"),
        (("--rotate", "2"), "2 rotations are too few: one block of people judges, one validates"),
        (("--rotate", "61"), "61 rotations need 61 people; here are 60"),
        (("--rotate", "many"), "'many' is not a valid integer"),
        (("--rotate", "5", "--keep", "kept"), "--keep goes without --rotate: each rotation trains on other people"),
        (("--keep", "studies.db"), "--keep studies.db cannot be used: "),
        (("--script", "mine.py"), "study 'quick' searches no script of your own"),
    ],
)
def test_bad_input_is_one_line_and_stores_nothing(done, words, said):
    before = timeless(done.attrs["confirmation"])
    answer = done.confirm(*words)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err.splitlines()[-2]
    assert answer.err.splitlines()[-1].startswith("hint: ")
    assert timeless(done.attrs["confirmation"]) == before
    assert not (done.folder / "none.db").exists()
    assert not (done.folder / "none.db.lock").exists()


def test_other_data_are_refused(done, data_folder):
    answer = call(*Place(done.folder, data_folder).words(), cwd=done.folder)
    assert answer.code == 2
    assert "study 'quick' was made on other data" in answer.err


def test_a_file_in_which_a_search_runs_is_refused_and_says_so(done):
    with Storage.parse(f"sqlite:///{done.folder}/studies.db").searching():
        answer = done.confirm()
    assert answer.code == 2
    assert "another `face3d-tune run` is searching in this file" in answer.err
    assert "hint: confirm when it has ended; Ctrl-C ends it and loses nothing" in answer.err


# Beside other commands


def test_a_few_test_people_get_no_verdict(tmp_path, data_folder):
    one_preset = STUDY.replace(', "recommended", "quickstart"', "")
    place = searched(tmp_path, data_folder, one_preset, trials=2)  # two test people
    answer = place.confirm(seeds=1, top=1)
    assert "2 test people are too few for a verdict" in answer.out
    assert {entry["verdict"] for entry in place.attrs["confirmation"]["against"]} == {"uncertain"}
    assert place.attrs["confirmation"]["winner"]["validation_sd"] is None


def test_a_study_without_presets_is_compared_with_the_documented_ones_its_data_can_train(tmp_path, sixty):
    (tmp_path / "quick.toml").write_text("[space]\nlr = [1e-3]\n[fixed]\nnum_layers = 1\n", encoding="utf-8")
    shared = ("--storage", "sqlite:///studies.db", "--data-dir", sixty, "--device", "cpu")
    run = call("run", "--study", "quick.toml", *shared, "--trials", 1, "--epochs", 1, cwd=tmp_path)
    assert run.code == 0, run.err
    place = Place(tmp_path, sixty)
    answer = place.confirm(seeds=1)
    assert answer.code == 0, answer.err
    rows = place.attrs["confirmation"]["candidates"]
    assert [row["name"] for row in rows] == ["trial 0", "baseline", "recommended", "aggressive", "conservative"]
    assert rows[2]["aliases"] == ["quickstart"]
    assert [row["value"] for row in rows[1:]] == [None] * 4


def test_a_copy_carries_it_and_the_search_goes_on(place):
    copy = call("copy", "sqlite:///studies.db", "sqlite:///copy.db", cwd=place.folder)
    assert copy.code == 0, copy.err
    copied = Place(place.folder, place.data, "sqlite:///copy.db")
    assert copied.attrs == place.attrs
    shared = ("--storage", "sqlite:///copy.db", "--data-dir", place.data, "--device", "cpu")
    more = call("run", "--study", "quick.toml", *shared, "--trials", TRIALS + 1, cwd=place.folder)
    assert more.code == 0, more.err
    status = call("status", "--storage", "sqlite:///copy.db", cwd=place.folder)
    assert f"confirmed: {place.attrs['confirmation']['winner']['name']}" in status.out
    report = call("report", "--storage", "sqlite:///copy.db", "-o", "-", "--format", "md", cwd=place.folder)
    assert report.out.index("## The answer of people never seen") < report.out.index("## The question and the answer")


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send these signals to another process")
def test_on_a_server_a_study_is_confirmed_while_a_search_of_it_runs(done, tmp_path, sixty, postgres_url):
    shutil.copy(done.folder / "quick.toml", tmp_path)
    copied = call("copy", f"sqlite:///{done.folder}/before.db", postgres_url, cwd=tmp_path)
    assert copied.code == 0, copied.err
    place = Place(tmp_path, sixty, postgres_url)
    words = ("run", "--study", "quick.toml", "--storage", postgres_url, "--data-dir", sixty, "--device", "cpu")
    running = start(*words, "--trials", 10_000, cwd=tmp_path)
    try:
        wait_for(
            lambda: query(postgres_url, "select count(*) as number from trials")[0]["number"] > TRIALS, "it went on"
        )
        answer = place.confirm(seeds=1, top=1)
        assert running.poll() is None
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=PATIENCE)
    assert answer.code == 0, answer.err
    assert len(place.trainings) == 3
    assert place.attrs["confirmation"]["looks"][0]["compared"][1:] == ["baseline", "recommended"]
