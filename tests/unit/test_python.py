"""`import face3d_tune`: a study and a search from Python, without the command line."""

import ast
import contextlib
import io
import json
import multiprocessing.spawn
import shutil
import signal
import sys
import threading
import warnings
from dataclasses import fields
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from command_line import call
from stored_script import searched_script, study_of_script
from stored_study import searched as stored
from stored_study import study_of

import face3d_tune as ft
from face3d_tune.config import TrialConfig
from face3d_tune.executor import child_start
from face3d_tune.search import from_python, run_search, search_options
from face3d_tune.storage.database import Storage
from face3d_tune.training.inputs import seen
from face3d_tune.training.model import Model
from face3d_tune.training.predictor import FromViews

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[2] / "docs" / "examples" / "search.ipynb"
SMALL = """
[study]
presets = ["baseline"]
[budget]
trials = 2
epochs = 2
[sampler]
name = "random"
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
d_model = 16
dim_feedforward = 32
[space]
lr = { low = 1e-4, high = 1e-3, scale = "log" }
"""


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch, data_folder):
    """A folder of its own, where `small.toml` is searched on small data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACE3D_TUNE_DATA_DIR", str(data_folder))
    monkeypatch.setenv("FACE3D_TUNE_ENGINE", "plain")
    monkeypatch.delenv("FACE3D_TUNE_ARTIFACTS", raising=False)
    Path("small.toml").write_text(SMALL, encoding="utf-8")


@pytest.fixture(scope="module")
def searched(tmp_path_factory, data_folder):
    """A finished search in a folder, and what its callback was told."""
    folder, told = tmp_path_factory.mktemp("searched"), []
    (folder / "small.toml").write_text(SMALL, encoding="utf-8")
    place = {"storage": f"sqlite:///{(folder / 'studies.db').as_posix()}", "artifacts": str(folder / "kept")}
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        study = ft.run(folder / "small.toml", data_dir=data_folder, engine="plain", progress=told.append, **place)
    assert out.getvalue() == ""  # it never prints
    return study, told, place


def test_the_public_names_are_few_and_each_can_be_used():
    assert {name for name in ft.__all__ if getattr(ft, name)} == set(ft.__all__)
    assert set(ft.__all__) <= set(dir(ft))
    with mock.patch.dict(vars(ft)):
        vars(ft).pop("errors", None)  # as before anything has loaded it
        assert ft.errors.TuneError
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        _ = ft.serach


def test_a_notebook_without_ipywidgets_shows_no_warning():
    def load(name):
        warnings.warn("IProgress not found. Please update jupyter and ipywidgets.", stacklevel=2)  # as tqdm does
        return SimpleNamespace(run=name)

    with mock.patch.dict(vars(ft)), mock.patch.object(ft, "import_module", load):
        vars(ft).pop("run", None)
        assert ft.run == "face3d_tune.search.from_python"


def test_the_parameters_are_the_options_of_the_command():
    groups = ("StudyOptions", "BudgetOptions", "DataOptions", "DeviceOptions", "WorkerOptions")
    options = {field.name for group in groups for field in fields(getattr(search_options, group))}
    assert set(signature(ft.run).parameters) == options - {"study_name_or_file"} | {"study", "progress"}


@pytest.mark.parametrize(
    "environment",
    [{}, {"FACE3D_TUNE_STORAGE": "sqlite:///a.db", "FACE3D_TUNE_ARTIFACTS": "none", "FACE3D_TUNE_SLOTS": "1"}],
)
def test_the_defaults_are_those_of_the_command(environment, monkeypatch, tmp_path, data_folder):
    environment = {"FACE3D_TUNE_DATA_DIR": str(data_folder), "FACE3D_TUNE_ARTIFACTS": "kept"} | environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with mock.patch.object(run_search, "run_search") as of_command:
        assert call("run", cwd=tmp_path, **environment).code == 0
    with mock.patch.object(from_python, "run_search") as ours, mock.patch.object(from_python, "load_study"):
        ours.side_effect = lambda options, view: setattr(view, "_opened", mock.Mock())
        ft.run()
    assert ours.call_args.args[0] == of_command.call_args.args[0]


def test_a_search_tells_what_happens_and_returns_the_study(searched):
    study, told, _ = searched

    assert [(each.event, each.trial, each.epoch) for each in told if each.event != "note"] == [
        *[("trial_started", 0, None), ("epoch", 0, 1), ("epoch", 0, 2), ("trial_ended", 0, None)],
        *[("trial_started", 1, None), ("epoch", 1, 1), ("epoch", 1, 2), ("trial_ended", 1, None)],
    ]
    last = told[-1]
    assert (last.done, last.budget, last.best, last.text) == (2, 2, study.best.value, "complete")
    assert [trial.origin for trial in study.trials] == ["baseline", "sampled"]
    assert study.best.value == max(trial.value for trial in study.trials)
    assert study.curves(0)["cosine"] == pytest.approx([each.value for each in told if each.epoch and each.trial == 0])
    assert (study.config()["d_model"], study.config(1)["lr"]) == (16, study.trials[1].params["lr"])
    assert study.optuna.trials[1].params == study.trials[1].optuna.params == study.trials[1].params


def test_what_a_terminal_would_show_reaches_the_callback_too():
    told = []
    view = from_python._View(told.append)
    view.connecting(Storage.parse("sqlite:///here.db"))  # nothing: a file answers at once
    view.connecting(Storage.parse("postgresql://me:tops3cret@127.0.0.1/db"))
    view.warning("the data are few")
    view.fold_started(3, 2, 5)
    view.trial_lost(4, "reassigned to another worker")
    assert [(each.event, each.trial, each.text) for each in told] == [
        ("note", None, "connecting to postgresql+psycopg://me:***@127.0.0.1/db"),
        ("note", None, "warning: the data are few"),
        ("note", 3, "fold 2 of 5"),
        ("note", 4, "reassigned to another worker"),
    ]


def test_a_search_leaves_torch_and_signals_as_they_were(searched):
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    torch.set_num_threads(2)
    try:
        _, _, place = searched
        ft.run("small.toml", **place)  # there is nothing to do
        assert (torch.get_num_threads(), signal.getsignal(signal.SIGINT)) == (2, handler)
    finally:
        torch.set_num_threads(threads)


def validation_cosine(study, model):
    """The mean cosine of a model on the raw views of the validation people."""
    data = study.data()
    fronts, views = data.parts["validation"].T
    radians = study.config()["pose_unit"] == "radians"
    pose = torch.from_numpy(np.radians(data.poses[views]) if radians else data.poses[views]).float()
    with torch.no_grad():
        given = (torch.from_numpy(array[views]) for array in (data.video_features, data.landmarks))
        predicted = model(*given, pose)
    return torch.cosine_similarity(predicted, torch.from_numpy(data.front_features[fronts])).mean().item()


def test_a_model_has_the_weights_of_the_best_epoch_and_the_data_are_those_of_the_study(searched):
    study, _, place = searched
    model = study.model(artifacts=place["artifacts"])
    assert validation_cosine(study, model) == pytest.approx(study.best.value, abs=1e-5)
    assert not any(module.training for module in model.modules())


def test_a_notebook_shows_data_in_a_few_lines(data_folder):
    shown = repr(ft.load_data(str(data_folder)))
    assert str(data_folder) in shown
    assert len(shown) - len(str(data_folder)) < 500


def test_a_model_of_a_study_on_a_baselines_outputs_takes_raw_views_too():
    text = SMALL.replace("num_layers = 1\n", 'num_layers = 1\ninputs = "ridge"\n')
    Path("ridge.toml").write_text(text, encoding="utf-8")
    study = ft.run("ridge.toml", trials=1, epochs=1, artifacts="kept")
    model = study.model(artifacts="kept")
    assert validation_cosine(study, model) == pytest.approx(study.best.value, abs=1e-5)
    assert not any(module.training for module in model.modules())


def test_a_model_that_was_trained_on_a_baselines_outputs_takes_raw_views(data):
    after = seen(data, "ridge")
    model = Model(TrialConfig(d_model=16, dim_feedforward=32), data.feature_size, torch.Generator().manual_seed(0))
    for unit, pose in (("degrees", data.poses), ("radians", np.radians(data.poses))):
        poses, points = torch.from_numpy(pose).float(), torch.from_numpy(data.landmarks)
        whole = FromViews(model.eval(), after.baseline, unit)
        with torch.no_grad():
            predicted = whole(torch.from_numpy(data.video_features), points, poses)
            expected = model(torch.from_numpy(after.video_features), points, poses)
            raw = model(torch.from_numpy(data.video_features), points, poses)
        assert torch.allclose(predicted, expected, atol=1e-5)
        assert not torch.allclose(raw, expected, atol=1e-2)  # so that it would be noticed


def test_an_error_is_the_commands_and_shows_its_hint(searched, tmp_path):
    study, _, place = searched
    for attempt, kind, message, hint in (
        (lambda: ft.load_study("sqlite:///no.db"), ft.errors.StorageError, "file does not exist", "make one with"),
        (lambda: ft.load_study(place["storage"], "smal"), ft.errors.StudyError, "did you mean 'small'?", "holds small"),
        (lambda: study.model(7), ft.errors.StudyError, "study 'small' has no trial 7", "it holds 2 trials"),
        (lambda: study.model(artifacts="none"), ft.errors.CheckpointError, "has no weights of trial", "search kept"),
        (lambda: ft.run("smal.toml"), ft.errors.StudyFileError, "smal.toml", None),
        (lambda: ft.run(layout="keypiont"), ft.errors.ConfigError, "did you mean 'keypoint'?", None),
        (lambda: ft.run(trials=0), ft.errors.ConfigError, "trials = 0 is out of range; expected at least 1", None),
        (lambda: ft.run(trials="3"), ft.errors.ConfigError, "trials = '3' has the wrong type; expected a whole", None),
        (lambda: ft.run(epochs=2.5), ft.errors.ConfigError, "epochs = 2.5 has the wrong type; expected a whole", None),
        (lambda: ft.run(folds=True), ft.errors.ConfigError, "folds = True has the wrong type; expected a whole", None),
        (
            lambda: ft.run(timeout="8h"),
            ft.errors.ConfigError,
            "timeout = '8h' has the wrong type; expected a",
            None,
        ),
        (lambda: ft.load_data("nowhere"), ft.errors.DataError, "nowhere: no such folder; expected a folder with", None),
        (lambda: ft.run(target_epochs=2), ft.errors.ConfigError, "expected target with it", None),
    ):
        with pytest.raises(kind) as caught:
            attempt()
        assert message in caught.value.message
        if hint:
            assert hint in caught.value.hint
            assert str(caught.value) == f"{caught.value.message}\nhint: {caught.value.hint}"


def test_ctrl_c_lets_the_epoch_end_and_the_same_call_resumes():
    told = []

    def interrupt(happened):
        told.append(happened)
        if happened.event == "epoch" and happened.epoch == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ft.run("small.toml", epochs=4, progress=interrupt)
    assert [each.epoch for each in told if each.event == "epoch"] == [1, 2]  # the second one saves
    assert "stopping after this epoch; once more to stop at once" in [each.text for each in told]
    assert [trial.state for trial in ft.load_study().trials] == ["fail", "waiting"]

    study = ft.run("small.toml", epochs=4)
    assert study.trials[1].optuna.user_attrs["resumed_epochs"] == 2
    assert [trial.state for trial in study.trials] == ["fail", "complete", "complete"]
    assert study.trials[0].cause == "queued_again"


def test_an_exception_of_the_callback_stops_the_search_and_is_raised():
    def fail(happened):
        if happened.event == "epoch":
            raise ZeroDivisionError("of the callback")

    with pytest.raises(ZeroDivisionError, match="of the callback"):
        ft.run("small.toml", progress=fail)
    assert [trial.state for trial in ft.load_study().trials] == ["fail", "waiting"]


def test_a_search_runs_in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(ft.run("small.toml", trials=1)))
    thread.start()
    thread.join()
    assert [trial.state for trial in found[0].trials] == ["complete"]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_study_of_a_script_has_records_and_no_model(direction, sqlite_without_studies):
    shutil.copy(sqlite_without_studies, "face3d_tune.db")
    with Storage.parse("sqlite:///face3d_tune.db").opened() as opened:
        study_of_script(*searched_script(direction), direction=direction, storage=opened)

    study = ft.load_study()

    value = {"maximize": 0.7, "minimize": 0.3}[direction]
    assert (study.best.number, study.best.value, study.direction) == (12, value, direction)
    assert study.best.params == {"lr": 3e-3, "margin": 0.5, "optimizer": "sgd"}
    assert study.curves()[study.objective][2] == value
    assert study.trials[15].cause == "out_of_memory"
    for missing in (study.model, study.data):
        with pytest.raises(ft.errors.StudyError) as caught:
            missing()
        assert caught.value.message == "study 'triplet' searches a script of your own, train_3d_triplet.py"


def test_a_study_is_loaded_from_either_database_and_optunas_objects_stay_in_use(storage_url):
    with Storage.parse(storage_url).opened() as opened:
        study_of(*stored(), storage=opened)

    study = ft.load_study(storage_url)

    assert (study.best.number, study.best.value, len(study.trials)) == (12, 0.7, 16)
    study.optuna.set_user_attr("reviewed", True)
    assert ft.load_study(storage_url, "faces").attrs["reviewed"]
    assert study.optuna.trials[12].value == 0.7


@pytest.mark.parametrize("name", ["slots", "timeout", "worker_timeout", "trial_timeout", "storage_timeout"])
@pytest.mark.parametrize("number", [0, -1])
def test_a_number_that_the_command_refuses_is_refused(name, number):
    with pytest.raises(ft.errors.ConfigError, match=f"{name} = {number} is out of range; expected "):
        ft.run(**{name: number})


@pytest.mark.parametrize("name", ["timeout", "worker_timeout", "trial_timeout", "storage_timeout"])
def test_a_time_that_no_system_can_wait_for_is_refused(name):
    with pytest.raises(ft.errors.ConfigError, match=f"{name} = .* is out of range; expected at most 3600000 seconds"):
        ft.run(**{name: 3_600_001})


@pytest.mark.parametrize("typed", ["two", "-1", "0"])
def test_a_number_of_slots_in_the_environment_that_the_command_refuses_is_refused(typed, monkeypatch):
    monkeypatch.setenv("FACE3D_TUNE_SLOTS", typed)
    with pytest.raises(ft.errors.ConfigError, match=f"(?i)slots = '?{typed}'? is .* range; expected "):
        ft.run()


@pytest.mark.parametrize(("name", "value"), [("folds", 3), ("data_dir", "faces"), ("engine", "plain")])
def test_an_option_without_a_meaning_for_a_script_is_refused(name, value):
    Path("own.toml").write_text('[script]\npath = "own.py"\n', encoding="utf-8")
    with pytest.raises(ft.errors.ConfigError, match=f"{name} is for the built-in trainer"):
        ft.run("own.toml", **{name: value})


def test_a_child_does_not_run_the_users_program_again():
    main = sys.modules["__main__"]
    with mock.patch.object(main, "__spec__", None), mock.patch.object(main, "__file__", "search.py", create=True):
        told = multiprocessing.spawn.get_preparation_data("child")
        assert "init_main_from_path" in told  # what Python would do
        with child_start._without_main():
            told = multiprocessing.spawn.get_preparation_data("child")
            assert not [name for name in told if name.startswith("init_main")]
    assert sys.modules["__main__"] is main


def cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_runs_from_its_first_cell_to_its_last(capsys):
    """A kernel would run the same statements: the cells hold Python alone, and what they share is one namespace."""
    space, shown = {"__name__": "__main__"}, []
    for cell in cells():
        body = ast.parse("".join(cell["source"])).body  # `%magic` and `!command` would be a SyntaxError
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), space)
        if last:
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), space))

    study = space["study"]
    assert [trial.origin for trial in study.trials] == ["baseline", "recommended", "sampled", "sampled"]
    assert capsys.readouterr().out.startswith("1 of 4: trial 0 complete, ")
    assert shown[-2] == (pytest.approx(study.best.value, abs=1e-5), study.best.value)
    assert shown[-1][0] == study.best.params


def test_the_notebook_is_stored_without_outputs():
    assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in cells())
