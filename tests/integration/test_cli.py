"""A user's session at the command line: search, look, export, train; every command that it advises runs."""

import contextlib
import json
import re
import shlex
import shutil
import sqlite3
import tomllib
from pathlib import Path

import optuna
import pytest
import torch
from command_line import call
from conftest import QUICK_STUDY
from reference_model import ReferenceModel
from stand_in_parsers import NEW_SCRIPT, OLD_SCRIPT, build_new, build_old
from stored import of_optuna

from face3d_tune.cli.main import cli
from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import load
from face3d_tune.study import study_file
from face3d_tune.study.presets import PRESETS
from face3d_tune.training import kernel_ridge, ridge
from face3d_tune.training.model import Model
from face3d_tune.training.recognition import Gallery

STORAGE = "sqlite:///studies.db"
RADIANS = """
[presets.radians]
pose_unit = "radians"
batch_size = 8
nhead = 2
num_layers = 1
"""
WIDE = """
[fixed]
width = 1.5
nhead = 2
num_layers = 2
batch_size = 8
use_pose_attention = true
[space]
lr = [1e-3]
"""
PARSERS = {"old": (build_old, OLD_SCRIPT), "new": (build_new, NEW_SCRIPT)}
TRIALS = 6  # four presets, the fifth being equal to one of them, then `radians`, then one that is sampled


class Session:
    """A folder with a study file, and the answer of the search that was made there."""

    def __init__(self, folder: Path, data_folder: Path) -> None:
        self.folder = folder
        self.data = load(data_folder)
        (folder / "quick.toml").write_text(QUICK_STUDY + RADIANS, encoding="utf-8")
        self.run = ("run", "--study", "quick.toml", "--storage", STORAGE, "--data-dir", data_folder, "--device", "cpu")
        self.search = self.call(*self.run)
        assert self.search.code == 0, self.search.err
        self.study = optuna.load_study(study_name="quick", storage=of_optuna(f"sqlite:///{folder / 'studies.db'}"))
        self.trials = self.study.trials

    def call(self, *words, **environment):
        return call(*words, cwd=self.folder, **environment)

    def ask(self, *words):
        """Run a command on the study; it must succeed."""
        answer = self.call(*words, "--storage", STORAGE)
        assert answer.code == 0, answer.err
        return answer

    def config(self, number):
        return TrialConfig(**self.trials[number].user_attrs["config"])


@pytest.fixture(scope="module")
def session(tmp_path_factory, data_folder):
    made = Session(tmp_path_factory.mktemp("session"), data_folder)
    yield made
    made.study._storage.remove_session()
    made.study._storage._backend.engine.dispose()


def rows(printed):
    """The table by the name of the row, its cells split at blanks."""
    table = printed.partition("people never trained on:\n\n")[2].partition("\n\n")[0]
    found = (re.match(r"(no model|best trial|kernel ridge|\w+) +(.*)", line) for line in table.splitlines()[2:])
    return {row[1]: row[2].split() for row in found}


def next_commands(printed, count=4):
    lines = printed.partition("\nNext:\n")[2].splitlines()
    assert len(lines) == count
    return [shlex.split(line, comments=True) for line in lines]


def parse(words):
    """Parse one command line as the program would, without running it."""
    context = cli.commands[words[1]].make_context(words[1], words[2:])
    return context.params


def repeats(config, said):
    """Whether parsed arguments of the users' script say every value of a config that is not the script's way anyhow."""
    expected = config.identity()
    for ours in ("layout", "pose_unit"):
        del expected[ours]
    if hasattr(said, "num_decoder_layers"):
        expected["num_decoder_layers"] = expected.pop("num_layers")
        assert (said.scheduler_type, said.warmup_epochs) == ("plateau", 0)
    return {name: getattr(said, name) for name in expected} == expected


# run


def test_the_search_ends_with_a_table_of_every_preset_the_best_trial_and_what_needs_no_training(session):
    table = rows(session.search.out)
    presets = ["baseline", "recommended", "aggressive", "conservative", "radians", "quickstart"]
    assert list(table) == ["no model", "ridge", "kernel ridge", *presets, "best trial"]
    trials = {trial.user_attrs["preset"]: trial for trial in session.trials}
    assert f"{session.data.no_model_cosine('validation'):.4f}" in table["no model"]
    for name, module in (("ridge", ridge), ("kernel ridge", kernel_ridge)):
        assert f"{module.fit(session.data).cosines(session.data, 'validation').mean():.4f}" in table[name]
    for name in ("baseline", "recommended", "aggressive", "conservative", "radians"):
        assert table[name][0] == str(trials[name].number)
        assert f"{trials[name].value:.4f}" in table[name]
    assert table["quickstart"] == ["=", *table["recommended"]]
    best = session.study.best_trial
    assert table["best trial"][0] == str(best.number)
    assert f"{best.value:.4f}" in table["best trial"]


def test_presets_are_tried_first_in_their_order(session):
    order = ["baseline", "recommended", "aggressive", "conservative", "radians", None]
    assert [trial.user_attrs["preset"] for trial in session.trials] == order


def test_progress_goes_to_stderr_with_a_line_for_every_trial(session):
    lines = session.search.err.splitlines()
    for trial in session.trials:
        name = trial.user_attrs["preset"] or "sampled"
        assert any(line.startswith(f"#{trial.number} {name}") and f"{trial.value:.4f}" in line for line in lines)
    assert f"{TRIALS} of {TRIALS} trials finished" in session.search.err
    assert "#0" not in session.search.out
    no_model = session.data.no_model_cosine("validation")
    simple = [each.fit(session.data).cosines(session.data, "validation").mean() for each in (ridge, kernel_ridge)]
    lines = f"without a model it is {no_model:.4f}, ridge {simple[0]:.4f}, kernel ridge {simple[1]:.4f}"
    assert lines in session.search.err


def test_running_again_finds_nothing_to_do_and_tells_how_to_get_more(session):
    again = session.call(*session.run)
    assert again.code == 0
    assert again.out.startswith(f"nothing to do: study 'quick' already has {TRIALS} of {TRIALS} trials")
    assert "--trials 56" in again.out
    assert rows(again.out) == rows(session.search.out)
    assert session.study.get_trials() == session.trials


def test_asking_for_more_trials_adds_the_rest(session, tmp_path):
    shutil.copy(session.folder / "studies.db", tmp_path / "copy.db")
    more = session.call(*session.run, "--storage", f"sqlite:///{tmp_path / 'copy.db'}", "--trials", TRIALS + 1)
    assert more.code == 0
    assert [line.split()[:2] for line in more.err.splitlines() if line.startswith("#")] == [[f"#{TRIALS}", "sampled"]]
    assert "7 of 7 trials finished" in more.err


def test_the_commands_under_next_run_as_they_are_printed(session):
    export, confirm, train, dashboard = next_commands(session.search.out)
    assert [words[:2] for words in (export, confirm, train, dashboard)] == [
        ["face3d-tune", "export"],
        ["face3d-tune", "confirm"],
        ["face3d-tune", "train"],
        ["face3d-tune", "dashboard"],
    ]
    exported = session.call(*export[1:])
    assert exported.code == 0
    assert "train_3d.py" in exported.out
    trained = session.call(*train[1:])
    assert trained.code == 0
    assert (session.folder / "trained" / f"quick-trial-{session.study.best_trial.number}" / "best_model.pth").is_file()
    assert parse(dashboard)["storage"] == parse(confirm)["storage"] == STORAGE
    assert (parse(confirm)["study_name"], parse(confirm)["data_dir"]) == ("quick", parse(train)["data_dir"])


def test_next_names_no_storage_that_the_environment_names_already(session):
    words = [word for word in session.run if word not in ("--storage", STORAGE)]
    answer = session.call(*words, FACE3D_TUNE_STORAGE=STORAGE)
    assert answer.code == 0
    assert "nothing to do" in answer.out
    assert all("--storage" not in command for command in next_commands(answer.out))


def test_a_target_ends_the_search_and_is_not_searched_for_again(session, tmp_path):
    words = (*session.run, "--storage", f"sqlite:///{tmp_path / 'target.db'}", "--target", "-1")
    first = session.call(*words)
    assert first.code == 0
    assert "1 of 6 trials finished" in first.err
    assert rows(first.out)["conservative"] == ["waiting"]
    again = session.call(*words)
    assert again.code == 0
    assert again.out.startswith("nothing to do: study 'quick' has reached the target, -1.0")


def test_no_trial_starts_after_the_timeout(session, tmp_path):
    answer = session.call(*session.run, "--storage", f"sqlite:///{tmp_path / 'late.db'}", "--timeout", "0.001s")
    assert answer.code == 0
    assert "0 of 6 trials finished" in answer.err
    table = rows(answer.out)
    assert "best trial" not in table
    assert [row for name, row in table.items() if name not in ("no model", "ridge", "kernel ridge")] == [
        ["waiting"]
    ] * 5 + [["=", "1"]]
    assert "Next:" not in answer.out


# status


def test_status_shows_what_optuna_knows(session):
    printed = session.ask("status").out
    best = session.study.best_trial
    assert str((session.folder / "studies.db").resolve()) in printed
    assert f"study    quick: {TRIALS} complete; {TRIALS} of {TRIALS} trials finished\n" in printed
    assert f"best validation cosine {best.value:.4f}, trial {best.number} ({best.user_attrs['preset']})" in printed


def test_status_json_holds_optunas_own_numbers(session):
    content = json.loads(session.ask("status", "--json").out)
    assert content["storage"] == STORAGE
    assert Path(content["where"]) == (session.folder / "studies.db").resolve()
    (study,) = content["studies"]
    best = session.study.best_trial
    assert study["study"] == "quick"
    assert study["states"] == {"complete": TRIALS, "pruned": 0, "fail": 0, "running": 0, "waiting": 0}
    assert (study["best_value"], study["best_trial"]) == (best.value, best.number)
    assert study["best_preset"] == best.user_attrs["preset"]
    assert study["no_model_cosine"] == session.data.no_model_cosine("validation")
    assert study["data"]["people"] == {"train": 7, "validation": 3, "test": 2}


def test_status_tells_what_to_do_about_a_storage_without_results(session, tmp_path):
    storage = f"sqlite:///{tmp_path / 'young.db'}"
    optuna.storages.RDBStorage(storage).engine.dispose()
    answer = session.call("status", "--storage", storage)
    assert answer.out.endswith("no study yet; make one with `face3d-tune run`\n")
    assert json.loads(session.call("status", "--json", "--storage", storage).out)["studies"] == []
    session.call(*session.run, "--storage", storage, "--timeout", "0.001")
    answer = session.call("status", "--storage", storage)
    assert answer.out.endswith("study    quick: 5 waiting; 0 of 6 trials finished\n         no completed trial yet\n")


# a trial that others' curves ended


@pytest.fixture(scope="module")
def pruned(session):
    """The same studies, where trial 1 was pruned in its last epoch."""
    shutil.copy(session.folder / "studies.db", session.folder / "pruned.db")
    with contextlib.closing(sqlite3.connect(session.folder / "pruned.db")) as database, database:
        (found,) = database.execute("select trial_id from trials where number = 1").fetchone()
        database.execute("update trials set state = 'PRUNED' where trial_id = ?", (found,))
        database.execute("delete from trial_values where trial_id = ?", (found,))
    return ("--storage", "sqlite:///pruned.db")


def test_a_pruned_trial_counts_and_is_marked_in_the_table(session, pruned):
    answer = session.call(*session.run, *pruned)
    assert answer.out.startswith(f"nothing to do: study 'quick' already has {TRIALS} of {TRIALS} trials")
    value = f"{session.trials[1].value:.4f}"
    assert f" {value} (pruned) " in answer.out
    assert rows(answer.out)["quickstart"] == ["=", *rows(answer.out)["recommended"]]
    assert "study    quick: 5 complete, 1 pruned; 6 of 6 trials finished\n" in session.call("status", *pruned).out


def test_a_pruned_trial_is_exported_and_trained_when_asked_for(session, pruned, tmp_path):
    exported = session.call("export", *pruned, "--trial", "1")
    assert exported.code == 0
    assert exported.err == "note: trial 1 has not completed: its state is pruned\n"
    assert exported.out == session.ask("export", "--trial", "1").out
    trained = session.call("train", *pruned, "--trial", "1", "--device", "cpu", "--out", tmp_path / "out")
    assert f"reached {session.trials[1].value:.4f} on validation: the same" in trained.out


# presets


def test_presets_are_listed_with_their_values(session):
    printed = session.call("presets").out
    for name, preset in PRESETS.items():
        (line,) = (line for line in printed.splitlines() if line.startswith(name))
        assert f"{preset['lr']:g}" in line
        assert f"{preset['mse_weight']} / {preset['cosine_weight']}" in line


@pytest.mark.parametrize("copy", PARSERS)
@pytest.mark.parametrize("name", PRESETS)
def test_the_command_of_every_preset_is_one_that_the_script_takes(session, name, copy):
    build, script = PARSERS[copy]
    answer = session.call("presets", name, "--script", script)
    (line,) = answer.out.splitlines()
    python, path, *arguments = shlex.split(line)
    assert (python, path) == ("python", str(script))
    said = build().parse_args(arguments)
    for key, value in PRESETS[name].items():
        if key not in ("pose_unit", "num_layers"):
            assert getattr(said, key) == value
    assert (said.data_dir, said.epochs, said.d_model, said.dim_feedforward) == ("train/datas/file", 100, 512, 2048)


@pytest.mark.parametrize(
    ("shell", "folder"), [("bash", "'my data'"), ("powershell", "'my data'"), ("cmd", '"my data"')]
)
def test_the_command_is_quoted_for_the_shell(session, shell, folder):
    answer = session.call("presets", "baseline", "--data-dir", "my data", "--shell", shell)
    assert f"--data_dir {folder} " in answer.out


# export


def test_export_prints_the_best_trial_and_nothing_else_on_stdout(session):
    answer = session.ask("export")
    line = answer.out.splitlines()[-1]
    assert repeats(session.config(session.study.best_trial.number), build_old().parse_args(shlex.split(line)[2:]))
    assert answer.out == session.ask("export", "--trial", session.study.best_trial.number).out


@pytest.mark.parametrize("copy", PARSERS)
@pytest.mark.parametrize("number", range(TRIALS))
def test_the_command_of_every_trial_says_all_its_values(session, number, copy):
    build, script = PARSERS[copy]
    config = session.config(number)
    *before, train = session.ask("export", "--trial", number, "--script", script).out.splitlines()
    said = build().parse_args(shlex.split(train)[2:])
    assert repeats(config, said)
    assert said.data_dir == session.data.source + ("-radians" if config.pose_unit == "radians" else "")
    assert [shlex.split(line)[:3] for line in before] == [["face3d-tune", "data", "convert"]] * len(before)
    assert len(before) == (config.pose_unit == "radians")


def test_the_first_line_for_a_trial_in_radians_makes_the_folder_of_the_second(session, data_folder, tmp_path):
    shutil.copytree(data_folder, tmp_path / "my files")
    number = next(trial.number for trial in session.trials if trial.user_attrs["preset"] == "radians")
    convert, train = session.ask("export", "--trial", number, "--data-dir", tmp_path / "my files").out.splitlines()
    made = session.call(*shlex.split(convert)[1:])
    assert made.code == 0, made.err
    said = build_old().parse_args(shlex.split(train)[2:])
    copy = load(Path(said.data_dir))
    assert (copy.file_pose_unit, copy.pose_unit_recorded) == ("radians", True)
    assert copy.poses == pytest.approx(session.data.poses)


@pytest.mark.parametrize("number", range(TRIALS))
def test_json_gives_every_trial_back_exactly(session, number):
    content = json.loads(session.ask("export", "--trial", number, "--format", "json").out)
    assert TrialConfig(**content["config"]) == session.config(number)
    trial = session.trials[number]
    assert (content["trial"], content["value"], content["seed"]) == (number, trial.value, trial.user_attrs["seed"])
    assert content["data"]["data_dir"] == session.data.source


@pytest.mark.parametrize("number", range(TRIALS))
def test_toml_pasted_under_a_study_file_gives_every_trial_back_exactly(session, number, tmp_path):
    table = session.ask("export", "--trial", number, "--format", "toml").out
    path = tmp_path / "pasted.toml"
    path.write_text(QUICK_STUDY + table, encoding="utf-8")
    file = study_file.read(str(path))
    initial_trial = file.initial_trials()[-1]
    assert initial_trial.name == f"quick-trial-{number}"
    bound = file.bind("keypoint", session.data.feature_size, file.epochs)
    assert bound.config(initial_trial.params, initial_trial.overrides) == session.config(number)
    assert tomllib.loads(table).keys() == {"presets"}


@pytest.fixture(scope="module")
def wide(session):
    """A study whose only trial is wider than the embedding, and in the other layout, validated on its own pairs."""
    (session.folder / "wide.toml").write_text(WIDE, encoding="utf-8")
    options = (
        "--trials",
        "1",
        "--epochs",
        "2",
        "--layout",
        "pose",
        "--split",
        "none",
        "--amp",
        "fp16",
        "--max-yaw",
        "50",
    )
    answer = session.call(*session.run, "--study", "wide.toml", "--storage", "sqlite:///wide.db", *options)
    assert answer.code == 0, answer.err
    return answer


def test_validation_on_training_pairs_is_called_that(wide):
    assert "warning: split = none: validation on the training pairs themselves" in wide.err
    assert wide.out.startswith("Validation on the TRAINING pairs: this says nothing about people never seen:")


def test_next_names_no_confirm_without_test_people(wide):
    assert [words[1] for words in next_commands(wide.out, 3)] == ["export", "train", "dashboard"]


def test_amp_that_a_cpu_cannot_do_is_told_once(wide):
    assert wide.err.count("warning: --amp fp16 needs CUDA") == 1


def test_a_width_that_their_script_cannot_do_is_refused_unless_a_part_will_do(session, wide):
    words = ("export", "--storage", "sqlite:///wide.db")
    refused = session.call(*words)
    assert (refused.code, refused.out) == (2, "")
    assert "cannot express" in refused.err
    assert "d_model = 24: their model needs d_model = 16, the feature size" in refused.err
    assert "--partial" in refused.err.splitlines()[-1]
    partial = session.call(*words, "--partial")
    assert partial.code == 0
    assert "warning: not expressed: d_model = 24" in partial.err
    assert "warning: not expressed: max_yaw_angle = 50" in partial.err
    (line,) = partial.out.splitlines()
    assert build_old().parse_args(shlex.split(line)[2:]).lr == 1e-3


def test_a_trial_of_another_width_layout_and_selection_trains_here(session, wide, tmp_path):
    out = tmp_path / "wide"
    answer = session.call("train", "--storage", "sqlite:///wide.db", "--device", "cpu", "--out", out)
    assert answer.code == 0, answer.err
    assert ": the same" in answer.out
    checkpoint = torch.load(out / "best_model.pth", weights_only=True)
    model = ReferenceModel(
        feature_size=16,
        d_model=24,
        nhead=2,
        num_layers=2,
        dim_feedforward=96,
        dropout=0.1,
        layout="pose",
        use_spatial_attention=False,
        use_pose_attention=True,
    )
    model.load_state_dict(checkpoint["model_state_dict"], strict=True)
    assert checkpoint["args"]["max_yaw_angle"] == 50


def test_a_search_on_the_bundled_sample_leads_to_the_sample_on_disk(session, tmp_path):
    (tmp_path / "tiny.toml").write_text(
        "[fixed]\nd_model = 8\nnhead = 1\nnum_layers = 1\n[space]\nlr = [1e-3]\n", encoding="utf-8"
    )
    words = ("run", "--study", "tiny.toml", "--trials", "1", "--epochs", "1", "--max-yaw", "3", "--device", "cpu")
    searched = call(*words, cwd=tmp_path)  # of few views: ridge and kernel ridge take ten seconds for all
    assert searched.code == 0, searched.err
    export, confirm, train, _ = next_commands(searched.out)
    assert "--data-dir" not in train
    assert "--data-dir" not in confirm
    exported = call(*export[1:], "--partial", cwd=tmp_path)
    assert "note: the study used the bundled sample; `face3d-tune data sample faces160` writes it" in exported.err
    assert build_old().parse_args(shlex.split(exported.out)[2:]).data_dir == "faces160"
    assert call("data", "sample", "faces160", cwd=tmp_path).code == 0
    trained = call(*train[1:], "--device", "cpu", "--data-dir", "faces160", cwd=tmp_path)
    assert ": the same" in trained.out


# train


def load_into_reference(out):
    checkpoint = torch.load(out / "best_model.pth", weights_only=True)
    args = checkpoint["args"]
    names = ("d_model", "nhead", "num_layers", "dim_feedforward", "dropout", "layout")
    flags = ("use_spatial_attention", "use_pose_attention")
    model = ReferenceModel(feature_size=16, **{name: args[name] for name in (*names, *flags)})
    model.load_state_dict(checkpoint["model_state_dict"], strict=True)
    return checkpoint


@pytest.mark.parametrize("number", [None, 2, 4, 5], ids=["best", "aggressive", "radians", "sampled"])
def test_training_a_trial_gives_its_value_again_exactly(session, number, tmp_path):
    which = () if number is None else ("--trial", number)
    answer = session.ask("train", *which, "--device", "cpu", "--out", tmp_path / "out")
    trial = session.study.best_trial if number is None else session.trials[number]
    history = json.loads((tmp_path / "out" / "history.json").read_text(encoding="utf-8"))
    assert history["validation"]["cosine"] == trial.value
    assert f"reached {trial.value:.4f} on validation: the same" in answer.out
    assert TrialConfig(**history["config"]) == session.config(trial.number)
    checkpoint = load_into_reference(tmp_path / "out")
    assert checkpoint["epoch"] == history["best_epoch"] - 1
    assert checkpoint["best_val_loss"] == trial.user_attrs["val_loss"]


@pytest.fixture(scope="module")
def batched(session, tmp_path_factory):
    """A search by the batched engine, two trials at once, asked for by the environment; its answer and its URL."""
    url = f"sqlite:///{tmp_path_factory.mktemp('batched') / 'studies.db'}"
    environment = {"FACE3D_TUNE_ENGINE": "batched", "FACE3D_TUNE_SLOTS": "2"}
    answer = session.call(*session.run, "--storage", url, "--trials", 2, **environment)
    assert answer.code == 0, answer.err
    return answer, url


def test_a_search_says_which_engine_trains_how_many_trials_at_once_and_why(session, batched):
    assert "\nengine   plain, one trial after another (--engine plain)\n" in session.search.err
    assert "\nengine   batched, 2 at once in as many processes of one thread (--slots 2)\n" in batched[0].err
    assert "2 of 2 trials finished" in batched[0].err


@pytest.mark.parametrize("number", [0, 1])
def test_training_a_trial_of_the_batched_engine_gives_its_value_again_exactly(session, batched, number, tmp_path):
    out, url = tmp_path / "out", batched[1]
    words = ("train", "--storage", url, "--trial", number, "--device", "cpu", "--out", out)
    answer = session.call(*words, FACE3D_TUNE_ENGINE="auto")
    assert answer.code == 0, answer.err
    trial = optuna.load_study(study_name="quick", storage=of_optuna(url)).trials[number]
    history = json.loads((out / "history.json").read_text(encoding="utf-8"))
    assert (history["engine"], trial.user_attrs["engine"]) == ("batched", "batched")
    assert {each["epoch"]: each["val_cosine"] for each in history["epochs"]} == trial.intermediate_values
    assert history["epochs"][history["best_epoch"] - 1]["val_cosine"] == trial.value
    assert f"reached {trial.value:.4f} on validation: the same" in answer.out
    # judged by the plain model, whose sums may be in another order
    assert history["validation"]["cosine"] == pytest.approx(trial.value, abs=1e-6)
    checkpoint = load_into_reference(out)
    assert checkpoint["best_val_loss"] == trial.user_attrs["val_loss"]
    Model(TrialConfig(**history["config"]), 16, torch.Generator()).load_state_dict(
        checkpoint["model_state_dict"], strict=True
    )


@pytest.mark.parametrize("slots", ["0", "-1", "x", "1.5", ""])
def test_a_number_of_slots_that_cannot_be_is_refused_in_one_line(session, slots):
    answer = session.call(*session.run, "--slots", slots)
    assert (answer.code, answer.out) == (2, "")
    assert f"{slots!r} is not in range; expected auto or a whole number of at least 1" in answer.err
    assert "Traceback" not in answer.err


def test_several_slots_of_the_plain_engine_are_refused_before_anything_is_stored(session, tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    answer = session.call(*session.run, "--storage", url, "--engine", "plain", "--slots", 2)
    assert (answer.code, answer.out) == (2, "")
    assert "error: --slots 2 needs --engine batched: the plain engine trains one trial at a time" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_training_writes_three_files_and_judges_validation_people_only(session, tmp_path):
    answer = session.ask("train", "--device", "cpu", "--out", tmp_path / "new" / "out")
    files = {path.name: path for path in (tmp_path / "new" / "out").iterdir()}
    assert files.keys() == {"best_model.pth", "history.json", "curve.svg"}
    assert "<svg " in files["curve.svg"].read_text(encoding="utf-8")
    history = json.loads(files["history.json"].read_text(encoding="utf-8"))
    assert "test" not in history
    lines = {line.split()[0]: line.split() for line in answer.out.splitlines() if line.strip()}
    no_model, cosine = session.data.no_model_cosine("validation"), history["validation"]["cosine"]
    assert lines["validation"][1:5] == ["3", "18", f"{no_model:.4f}", f"{cosine:.4f}"]
    predictions = session.data.no_model_predictions("validation")
    without = Gallery(session.data, "validation").scores(predictions).summary()
    rank1 = history["validation"]["recognition"]["all"]["rank1_enrolled"]
    beside = f"; without a model {without.all.rank1_enrolled:.3f}; ridge "
    assert f"rank-1 among {without.enrolled} enrolled {rank1:.3f}{beside}" in answer.out
    assert re.search(r"cosine \d\.\d{4}  rank-1 \d\.\d{3}  lr", answer.err)
    assert "test" not in lines
    assert "`face3d-tune confirm` evaluates the best trials on them" in answer.out
    assert "epoch   1" in answer.err
    assert "epoch   1" not in answer.out
    assert all(str(path) in answer.out for path in files.values())


def test_a_preset_is_trained_without_any_study(session, data_folder, tmp_path):
    words = ("train", "--preset", "baseline", "--epochs", "2", "--data-dir", data_folder, "--device", "cpu")
    answer = call(*words, cwd=tmp_path)
    assert answer.code == 0, answer.err
    history = json.loads((tmp_path / "trained" / "baseline" / "history.json").read_text(encoding="utf-8"))
    assert len(history["epochs"]) == history["config"]["epochs"] == 2
    assert {key: history["config"][key] for key in PRESETS["baseline"]} == PRESETS["baseline"]
    load_into_reference(tmp_path / "trained" / "baseline")
    assert "the study" not in answer.out


def test_an_earlier_training_is_only_written_over_by_force(session, tmp_path):
    out = tmp_path / "out"
    words = ("train", "--device", "cpu", "--out", out)
    session.ask(*words)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = session.call(*words, "--storage", STORAGE, "--trial", "5")
    assert refused.code == 2
    assert "holds an earlier training; use --force, or another --out" in refused.err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    session.ask(*words, "--trial", "5", "--force")
    assert load_into_reference(out)["args"]["lr"] == session.trials[5].params["lr"]


def test_a_training_may_be_longer_and_of_another_seed_than_its_trial(session, tmp_path):
    answer = session.ask("train", "--device", "cpu", "--epochs", "3", "--seed", "7", "--out", tmp_path / "out")
    history = json.loads((tmp_path / "out" / "history.json").read_text(encoding="utf-8"))
    assert (len(history["epochs"]), history["seed"]) == (3, 7)
    assert ": the same" not in answer.out


def test_a_preset_is_trained_in_the_other_layout_and_without_mixed_precision(data_folder, tmp_path):
    words = ("train", "--preset", "aggressive", "--epochs", "1", "--data-dir", data_folder, "--device", "cpu")
    answer = call(*words, "--layout", "pose", "--amp", "off", cwd=tmp_path)
    assert answer.code == 0, answer.err
    args = load_into_reference(tmp_path / "trained" / "aggressive")["args"]
    assert (args["layout"], args["use_spatial_attention"], args["use_pose_attention"]) == ("pose", False, True)
    assert args["use_mixed_precision"] is False
