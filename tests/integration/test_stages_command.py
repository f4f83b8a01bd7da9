"""The guide's stages at the command line: each goes on where the one before ended, and says so everywhere."""

import json

import optuna
import pytest
from command_line import call
from searches import TWO_PRESETS
from stored import of_optuna

from face3d_tune.analysis.findings import find
from face3d_tune.dashboard.notes import study_note
from face3d_tune.study.trials import preset_rows

STORAGE = "sqlite:///studies.db"
RATES = TWO_PRESETS + "scheduler_patience = { low = 1, high = 8 }\n"
WEIGHTS = RATES.replace("scheduler_patience = { low = 1, high = 8 }", "cosine_weight = { low = 0.3, high = 1.0 }")
WEIGHTS = (
    WEIGHTS.replace('["baseline", "recommended"]', "[]")
    .replace("trials = 3", "trials = 6")
    .replace("high = 1e-2", "high = 1e-6")
    .replace("1e-5", "1e-7")
)
LAYERS = RATES.replace("scheduler_patience = { low = 1, high = 8 }", "dropout = { low = 0.0, high = 0.5 }")
LAYERS = LAYERS.replace('["baseline", "recommended"]', "[]").replace("num_layers = 1\n", "")
LAYERS = LAYERS.replace("[space]", "[space]\nnum_layers = { low = 1, high = 4 }")


class Place:
    """A folder with three study files, in which commands are run."""

    def __init__(self, folder, data_folder):
        self.folder, self.data = folder, data_folder
        for name, text in (("rates", RATES), ("weights", WEIGHTS), ("layers", LAYERS)):
            (folder / f"{name}.toml").write_text(text, encoding="utf-8")

    def call(self, *words):
        return call(*words, "--storage", STORAGE, cwd=self.folder)

    def run(self, name, *words):
        return self.call("run", "--study", f"{name}.toml", "--data-dir", self.data, "--device", "cpu", *words)

    def study(self, name):
        return optuna.load_study(study_name=name, storage=of_optuna(f"sqlite:///{self.folder / 'studies.db'}"))


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_folder):
    """`rates` has run, and `weights` after it."""
    made = Place(tmp_path_factory.mktemp("stages"), data_folder)
    first = made.run("rates")
    assert first.code == 0, first.err
    made.second = made.run("weights", "--from", "rates")
    assert made.second.code == 0, made.second.err
    return made


def test_the_second_stage_begins_with_the_best_of_the_first_and_is_stored_with_it(place):
    best, after = place.study("rates").best_trial, place.study("weights")
    held = after.user_attrs["from"]
    assert (held["study"], held["trial"], held["value"]) == ("rates", best.number, best.value)
    assert held["config"] == best.user_attrs["config"]
    names = [trial.user_attrs.get("preset") or trial.user_attrs.get("near") for trial in after.trials]
    assert names == ["rates-best", *(f"rates-near-{number}" for number in (1, 2, 3, 4)), None]
    fixed = {trial.user_attrs["config"]["scheduler_patience"] for trial in after.trials}
    assert fixed == {best.user_attrs["config"]["scheduler_patience"]}
    assert [row.name for row in preset_rows(after)] == ["rates-best"]  # points near it are nothing to compare with


def test_no_trial_of_a_stage_has_the_seed_of_one_of_the_stage_before(place):
    first, second = ([trial.user_attrs["seed"] for trial in place.study(name).trials] for name in ("rates", "weights"))
    assert len({*first, *second}) == len(first) + len(second) == 9


def test_run_says_first_where_it_begins_and_shows_the_stage_before_in_its_table(place):
    best = place.study("rates").best_trial
    lines = place.second.err.splitlines()
    assert f"from     rates, trial {best.number}, cosine {best.value:.4f}" in lines
    (outside,) = [line for line in lines if line.startswith("         its lr is outside this space: ")]
    assert outside.endswith("; begins at 1e-06")
    assert "presets  rates-best; 4 near the best" in lines
    assert any(line.startswith("#1 rates-near-1 ") for line in lines)
    (row,) = [line for line in place.second.out.splitlines() if line.startswith("rates ")]
    assert f"{best.value:.4f}" in row


def test_status_report_and_note_say_it_too(place):
    best = place.study("rates").best_trial
    said = f"from rates, trial {best.number}, cosine {best.value:.4f}"
    assert said in place.call("status").out
    studies = json.loads(place.call("status", "--json").out)["studies"]
    assert {study["study"]: study["from"] and study["from"]["study"] for study in studies} == {
        "rates": None,
        "weights": "rates",
    }
    answer = place.call("report", "weights", "--format", "json", "-o", "-")
    assert json.loads(answer.out)["follows"]["study"] == "rates"
    begun = f"**Begun** with the best of the study rates, trial {best.number}, cosine {best.value:.4f}."
    assert begun in study_note(find(place.study("weights")))


@pytest.mark.parametrize("words", [(), ("--from", "rates")], ids=["without", "with"])
def test_the_second_stage_goes_on_with_and_without_saying_what_it_follows(place, words):
    before = [trial.params for trial in place.study("weights").trials]
    answer = place.run("weights", "--trials", len(before) + 1, *words)
    assert answer.code == 0, answer.err
    trials = place.study("weights").trials
    assert [trial.params for trial in trials[:-1]] == before
    assert not {"preset", "near"} & {key for key, value in trials[-1].user_attrs.items() if value}


def test_a_third_stage_follows_the_second(place):
    answer = place.run("layers", "--from", "weights", "--json", "--trials", "1")
    assert answer.code == 0, answer.err
    started = json.loads(answer.out.splitlines()[0])
    best = place.study("weights").best_trial
    assert started["from"]["trial"] == best.number
    first = place.study("layers").trials[0].user_attrs
    ours, theirs = first["config"], best.user_attrs["config"]
    assert first["preset"] == "weights-best"
    assert {**ours, "lr": 0} == {**theirs, "lr": 0}
    assert ours["lr"] == max(theirs["lr"], 1e-5)  # the end of its range that is nearest


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("new", ("--from", "rats"), "no study named 'rats'; did you mean 'rates'?"),
        ("new", ("--from", "new"), "study 'new' cannot follow itself"),
        ("weights", ("--from", "layers"), "study 'weights' follows 'rates', not 'layers'"),
        ("rates", ("--from", "weights"), "study 'rates' follows no other"),
        ("new", ("--from", "rates", "--split", "none"), "study 'rates' was made on other data"),
        (
            "new",
            ("--from", "rates", "--layout", "pose"),
            "study 'rates' was made with layout = keypoint, now it is",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_in_one_line_with_a_hint_and_nothing_is_stored(place, name, words, message):
    held = {study: len(place.study(study).trials) for study in ("rates", "weights")}
    answer = place.run("rates" if name == "rates" else "weights", "--study-name", name, *words)
    assert answer.code == 2
    error, hint = answer.err.splitlines()[-2:]
    assert error.startswith(f"error: {message}")
    assert hint.startswith("hint: ")
    assert {study: len(place.study(study).trials) for study in held} == held
    assert "new" not in optuna.get_all_study_names(of_optuna(f"sqlite:///{place.folder / 'studies.db'}"))


def test_a_first_stage_without_a_completed_trial_or_without_a_storage_cannot_be_followed(tmp_path, data_folder):
    place = Place(tmp_path, data_folder)
    answer = place.run("weights", "--from", "rates")
    assert answer.err.startswith("error: storage sqlite:///studies.db: file does not exist")
    assert place.run("rates", "--timeout", "0.001s").code == 0
    answer = place.run("weights", "--from", "rates")
    assert (answer.code, answer.err.splitlines()[-2]) == (2, "error: study 'rates' has no completed trial yet")


def test_how_long_a_target_must_hold_is_nothing_without_a_target(place):
    answer = place.run("rates", "--target-epochs", "3")
    assert answer.code == 2
    assert "error: --target-epochs says how long the target must hold; expected --target VALUE" in answer.err


def test_a_target_that_held_ends_the_search_and_is_said(place):
    answer = place.run("rates", "--study-name", "held", "--target", "-1", "--target-epochs", "2", "--trials", "3")
    assert answer.code == 0, answer.err
    assert "; ends at -1.0 in 2 epochs in a row" in answer.err
    assert [trial.state.name for trial in place.study("held").trials] == ["COMPLETE", "WAITING"]
    again = place.run("rates", "--study-name", "held", "--target", "-1", "--target-epochs", "2", "--trials", "3")
    assert again.out.startswith("nothing to do: study 'held' has reached the target, -1.0 in 2 epochs in a row")
    watched = place.call("watch", "--study-name", "held")  # ends, since the target is reached
    assert watched.code == 0
    assert "1 of 3 trials finished" in watched.out
