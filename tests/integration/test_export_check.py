"""`export --check` runs the user's own script for one epoch, says how it went, and touches nothing of theirs."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import time

import psutil
import pytest
import torch
from command_line import call, start
from conftest import QUICK_STUDY
from fake_data import write_data
from reference_model import ReferenceModel
from stand_in_parsers import NEW_SCRIPT, OLD_SCRIPT
from users_repo import PRESENT_SCRIPT, contents, script_of, train, write_repo

from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import load
from face3d_tune.data.provenance import DataUse
from face3d_tune.errors import ScriptError
from face3d_tune.script.check import ScriptCheck, try_script, wrong_model
from face3d_tune.script.first_epoch import FirstEpoch
from face3d_tune.script.flags import read_script

STORAGE = ("--storage", "sqlite:///studies.db")
SEEDED = (
    "    args = build_parser().parse_args()\n",
    "    args = build_parser().parse_args()\n    torch.manual_seed(7)\n",
)
STUDY = QUICK_STUDY.replace(', "recommended", "aggressive", "conservative", "quickstart"', "")
RADIANS = '\n[presets.radians]\npose_unit = "radians"\nbatch_size = 8\nnhead = 2\nnum_layers = 1\n'


@pytest.fixture(scope="module")
def home(tmp_path_factory, data_folder):
    """A folder with data, a study of two trials on it by a relative path, and nothing else."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(data_folder, folder / "my files")
    (folder / "quick.toml").write_text(STUDY + RADIANS, encoding="utf-8")
    words = ("run", "--study", "quick.toml", *STORAGE, "--data-dir", "my files", "--trials", 2, "--device", "cpu")
    answer = call(*words, cwd=folder)
    assert answer.code == 0, answer.err
    return folder


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary folders, to look at what is left there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def model_of(layout, **changes):
    """The state dict of a model that a script may build."""
    sizes = {"feature_size": 16, "d_model": 16, "dim_feedforward": 64, "nhead": 2, "dropout": 0.1}
    flags = {"use_spatial_attention": False, "use_pose_attention": False}
    return ReferenceModel(layout=layout, **{**sizes, **flags, **changes}).state_dict()


def script_with(folder, **checkpoints):
    """A script that leaves these checkpoints, as its training would have written them."""
    written = folder / "checkpoints"
    written.mkdir()
    for name, content in checkpoints.items():
        torch.save(content, written / f"{name}.pth")
    return script_of(folder, f"import shutil\n    shutil.copytree({str(written)!r}, os.getcwd(), dirs_exist_ok=True)")


def check(home, script, *words):
    return call("export", *STORAGE, "--script", script, "--check", *words, cwd=home)


def test_it_trains_one_epoch_with_what_the_command_says_and_nothing_of_the_users_changes(home, tmp_path, temporary):
    script = write_repo(tmp_path / "repo", SEEDED)
    before = contents(home), contents(tmp_path / "repo")
    command = call("export", *STORAGE, "--trial", 0, "--script", script, cwd=home).out
    answer = check(home, script, "--trial", 0)
    assert answer.code == 0, answer.err
    assert answer.out == command
    assert (contents(home), contents(tmp_path / "repo")) == before
    assert list(temporary.iterdir()) == []

    # The same command, typed by hand with one epoch, gives the values that were told.
    words = [*shlex.split(command)[1:], "--save_dir", str(tmp_path / "mine"), "--log_dir", str(tmp_path / "mine")]
    words[words.index("--epochs") + 1] = "1"
    with contextlib.chdir(home):
        train(*words)
    mine = torch.load(tmp_path / "mine" / "best_model.pth", weights_only=False)
    cosine, loss = mine["val_cosine_sim_history"][0], mine["val_loss_history"][0]
    assert f"validation after epoch 1: cosine {cosine:.4f}, loss {loss:.4f}; trial 0 had cosine" in answer.err
    assert "check: it builds the model of trial 0: keypoint layout, d_model 16, 4 layers" in answer.err


def test_the_flags_are_those_of_the_command_and_the_poses_those_of_the_trial(home, tmp_path):
    report = tmp_path / "report.json"
    script = script_of(
        tmp_path,
        "args = build_parser().parse_args()\n"
        "    poses = json.load(open(os.path.join(args.data_dir, 'video_metadata.json'), encoding='utf-8'))['poses']\n"
        f"    json.dump([sys.argv, os.getcwd(), max(p[0] for p in poses)], open({str(report)!r}, 'w'))",
    )
    exported = call("export", *STORAGE, "--trial", 1, "--script", script, cwd=home)
    convert, command = (shlex.split(line) for line in exported.out.splitlines())
    assert convert[:3] == ["face3d-tune", "data", "convert"]
    answer = check(home, script, "--trial", 1)
    assert answer.code == 0, answer.err
    assert "wrote no checkpoint that can be read here, so which model it builds is not checked" in answer.err
    assert "check: it builds" not in answer.err
    (_, *given), folder, yaw = json.loads(report.read_text())
    *given, save, save_dir, log, log_dir = given
    assert (save, log) == ("--save_dir", "--log_dir")
    typed = command[2:]
    for flag, value in (("--data_dir", "my files-radians"), ("--epochs", "2")):
        place = typed.index(flag) + 1
        assert typed[place] == value
        typed[place] = given[place]
    assert given == typed
    assert given[given.index("--epochs") + 1] == "1"
    temporary = os.path.dirname(folder)
    assert all(path.startswith(temporary) for path in (given[given.index("--data_dir") + 1], save_dir, log_dir))
    assert not os.path.exists(temporary)
    assert not (home / "my files-radians").exists()
    assert yaw == pytest.approx(75 * 3.141592653589793 / 180)


def test_what_it_printed_serves_where_it_wrote_no_checkpoint_and_a_far_value_is_a_warning(home, tmp_path):
    script = script_of(
        tmp_path, "print('Train loss: 0.9 cos 0.1\\nVal Loss: 0.125000, Val Cosine Similarity: -0.9750')"
    )
    answer = check(home, script, "--trial", 0)
    assert answer.code == 0, answer.err
    assert "(as it printed them): cosine -0.9750, loss 0.1250; trial 0" in answer.err
    assert "warning: that is far" in answer.err
    assert "build another layout" in answer.err  # it may, since no checkpoint says


def test_other_data_in_the_folder_of_the_study_are_a_warning(home, tmp_path):
    write_data(tmp_path / "my files", seed=1)
    script = script_of(tmp_path, "print('Val Loss: 0.125000, Val Cosine Similarity: 0.5')")
    storage = f"sqlite:///{(home / 'studies.db').as_posix()}"
    answer = call("export", "--storage", storage, "--script", script, "--check", "--trial", 0, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "warning: the study was made on other data, so the values need not agree\n" in answer.err


def test_a_copy_that_builds_another_layout_does_not_pass(home, tmp_path):
    built = {"model_state_dict": model_of("pose", num_layers=4)}
    script = script_with(tmp_path, best_model=built | {"val_loss_history": [0.8], "val_cosine_sim_history": [0.2]})
    answer = check(home, script, "--trial", 0)
    assert (answer.code, answer.out) == (1, "")
    *_, error, hint = answer.err.splitlines()
    assert error == f"error: {script} builds another model than is trained here: layout = pose, not keypoint"
    assert hint.startswith("hint: your copy builds the pose layout: `face3d-tune run --layout pose --study-name NEW`")
    assert hint.endswith("; --partial prints the command anyway")


def test_its_command_is_printed_all_the_same_as_partial(home, tmp_path, monkeypatch):
    script = write_repo(tmp_path / "repo", source=PRESENT_SCRIPT)
    built = model_of("pose", num_layers=4)
    tested = ScriptCheck(FirstEpoch(0.2, 0.8, "checkpoint"), built, 1.0, ())
    monkeypatch.setattr("face3d_tune.script.check.try_script", lambda *arguments, **options: tested)
    answer = check(home, script, "--trial", 0, "--partial")
    assert answer.code == 0, answer.err
    assert "warning: " in answer.err
    assert f"{script} builds another model than is trained here: layout = pose, not keypoint" in answer.err
    assert "--num_decoder_layers 4" in answer.out


def test_the_same_copy_is_well_with_a_trial_of_the_layout_that_it_builds(home, tmp_path):
    words = ("--study", "quick.toml", "--study-name", "pose", "--layout", "pose", "--data-dir", "my files")
    ran = call("run", *words, "--storage", "sqlite:///pose.db", "--trials", 1, "--device", "cpu", cwd=home)
    assert ran.code == 0, ran.err
    # Under another name, and wrapped as several GPUs need it.
    built = {f"module.{name}": weight for name, weight in model_of("pose", num_layers=4).items()}
    script = script_with(tmp_path, a={"model_state_dict": built, "val_loss_history": [0.8]})
    (tmp_path / "checkpoints" / "a.pth").rename(tmp_path / "checkpoints" / "a.ckpt")
    answer = call("export", "--storage", "sqlite:///pose.db", "--script", script, "--check", cwd=home)
    assert answer.code == 0, answer.err
    assert "check: it builds the model of trial 0: pose layout, d_model 16, 4 layers" in answer.err
    assert (
        "warning: its checkpoint is a.ckpt, not best_model.pth: give `face3d-tune import` the file by its" in answer.err
    )
    assert "build another layout" not in answer.err


def test_a_checkpoint_that_cannot_be_read_is_told_of_with_the_reason(home, tmp_path):
    script = script_with(
        tmp_path,
        best_model={"model_state_dict": {}, "run": os.system},
        last={"epoch": 1, "val_loss_history": [None], "val_cosine_sim_history": "n/a"},
    )
    answer = check(home, script, "--trial", 0)
    assert answer.code == 0, answer.err
    (warning,) = (line for line in answer.err.splitlines() if "wrote no checkpoint" in line)
    assert "(best_model.pth is not a readable checkpoint: Trying to load unsupported GLOBAL" in warning
    assert "nothing to compare: its validation cosine is not known" in answer.err


BUILT = {
    "a number of layers of its own": (
        {"num_layers": 4},
        "num_layers = 4, not 2",
        "does with --num_layers where it builds its model",
    ),
    "a width of its own": (
        {"dim_feedforward": 2048},
        "dim_feedforward = 2048, not 64",
        "does with --dim_feedforward where it builds its model",
    ),
    "an attention that it ignores": (
        {"use_pose_attention": False},
        "use_pose_attention = false, not true",
        "does with --use_pose_attention where it builds its model",
    ),
    "what was asked for": ({}, None, None),
}


@pytest.mark.parametrize("what", BUILT)
def test_the_flag_that_a_copy_does_not_hand_to_its_model_is_named(what):
    changes, said, hint = BUILT[what]
    config = TrialConfig(d_model=16, dim_feedforward=64, nhead=2, num_layers=2, use_pose_attention=True)
    use = DataUse(data_dir="files", feature_size=16, file_pose_unit="degrees")
    model = model_of("keypoint", **{"num_layers": 2, "use_pose_attention": True, **changes})
    found = wrong_model(
        ScriptCheck(FirstEpoch(None, None, "nothing"), model, 1.0, ()), config, use, read_script(OLD_SCRIPT)
    )
    if said is None:
        assert found is None
        return
    assert found.message == f"{OLD_SCRIPT} builds another model than is trained here: {said}"
    assert found.hint == f"see what {OLD_SCRIPT} {hint}"


def test_a_later_copy_is_told_of_layers_by_its_own_flag():
    config = TrialConfig(d_model=16, dim_feedforward=64, nhead=2, num_layers=2)
    use = DataUse(data_dir="files", feature_size=16, file_pose_unit="degrees")
    tested = ScriptCheck(FirstEpoch(None, None, "nothing"), model_of("keypoint", num_layers=4), 1.0, ())
    assert wrong_model(tested, config, use, read_script(NEW_SCRIPT)).hint.startswith(
        f"see what {NEW_SCRIPT} does with --num_decoder_layers where"
    )
    nothing = ScriptCheck(FirstEpoch(None, None, "nothing"), None, 1.0, ())
    assert wrong_model(nothing, config, use, read_script(NEW_SCRIPT)) is None


FAILURES = {
    "an argument that torch has no more": (
        "raise TypeError(\"ReduceLROnPlateau.__init__() got an unexpected keyword argument 'verbose'\")",
        "ReduceLROnPlateau.__init__() got an unexpected keyword argument 'verbose'",
        "delete verbose=… from the scheduler's call",
    ),
    "a missing tensorboard": (
        "raise ModuleNotFoundError(\"No module named 'tensorboard'\")",
        "ModuleNotFoundError: No module named 'tensorboard'",
        "pip install tensorboard in the environment that trains, or name its Python with --python PATH",
    ),
    "a flag that is not taken after all": (
        "parser = build_parser()\n    parser._option_string_actions.pop('--dropout')\n    parser.parse_args()",
        "unrecognized arguments: --dropout",
        "blame --dropout: argparse names it",
    ),
    "a crash": (
        "args = build_parser().parse_args()\n    return args.nhead // None",
        "TypeError: unsupported operand",
        "blame --nhead: the code that failed uses it: return args.nhead // None",
    ),
    "a module that is missing": (
        "import no_such_module",
        "ModuleNotFoundError: No module named 'no_such_module'",
        "name the Python that has it with --python PATH",
    ),
    "a diverged training": (
        "print('Val loss: nan, cosine: nan')",
        "its validation gives cosine nan",
        "blame --lr: it decides how stable training is",
    ),
    "no reason": ("sys.exit(3)", "it ended with exit code 3", "no flag can be blamed for it"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_what_failed_is_told_with_the_flag_to_blame_and_what_was_printed(home, tmp_path, kind):
    main, reason, hint = FAILURES[kind]
    script = script_of(tmp_path, f"print('reading the data')\n    {main}")
    answer = check(home, script, "--trial", 0)
    assert answer.code == 1
    assert answer.out == ""
    *_, error, last = answer.err.splitlines()
    assert error.startswith("error: ")
    assert reason in error
    assert last.startswith(f"hint: {hint}")
    assert "  | reading the data" in answer.err


def test_modules_that_are_found_only_from_another_folder_are_told_of(home, tmp_path):
    (tmp_path / "repo" / "train").mkdir(parents=True)
    (tmp_path / "repo" / "helpers.py").write_text("x = 1", encoding="utf-8")
    script = script_of(tmp_path / "repo" / "train", "print('val loss 0.5 cosine 0.5')", imports="import helpers\n")
    answer = check(home, script, "--trial", 0)
    assert answer.code == 0, answer.err
    assert f"finds its own modules only from {home} or {tmp_path / 'repo'}" in answer.err
    assert not list((tmp_path / "repo").rglob("__pycache__"))


def test_a_script_that_writes_beside_itself_is_told_on(home, tmp_path):
    script = script_of(tmp_path, "open(os.path.join(os.path.dirname(__file__), 'cache.bin'), 'w').close()")
    answer = check(home, script, "--trial", 0)
    assert answer.code == 0
    assert "warning: it wrote into its own folder, whatever --save_dir and --log_dir say: cache.bin" in answer.err


def test_a_folder_without_data_is_the_fault_of_data_dir(home, tmp_path):
    answer = check(home, script_of(tmp_path, "pass"), "--data-dir", "nowhere")
    assert answer.code == 1
    assert "error: --data_dir nowhere cannot be used: nowhere: no such folder" in answer.err


SLEEPS = (
    "import subprocess\n"
    "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "    open({marker!r} + '.new', 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
    "    os.rename({marker!r} + '.new', {marker!r})\n"
    "    print('epoch 1, step 3')\n"
    "    time.sleep(60)"
)


def gone(marker):
    """Whether the script and its child have ended."""
    pids = [int(pid) for pid in marker.read_text().split()]
    end = time.monotonic() + 10
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_script_that_takes_too_long_is_killed_with_its_children(home, tmp_path, temporary):
    marker = tmp_path / "pids"
    answer = check(home, script_of(tmp_path, SLEEPS.format(marker=str(marker))), "--timeout", "1.5s")
    assert answer.code == 1
    assert "did not end its first epoch within 1.5 s; the last it printed: epoch 1, step 3" in answer.err
    assert "hint: it may only be slow" in answer.err
    assert gone(marker)
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a signal cannot be sent to one process of a Windows console")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_neither_processes_nor_files(home, tmp_path, number):
    marker, temporary = tmp_path / "pids", tmp_path / "temporary"
    temporary.mkdir()
    script = script_of(tmp_path, SLEEPS.format(marker=str(marker)))
    before = dict(os.environ)
    try:
        os.environ["TMPDIR"] = str(temporary)
        process = start("export", *STORAGE, "--script", script, "--check", cwd=home)
    finally:
        os.environ.clear()
        os.environ.update(before)
    with process:
        while not marker.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert gone(marker)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("words", [("--check",), ("--check", "--script", OLD_SCRIPT, "--format", "json")])
def test_there_is_nothing_to_check_without_a_script_or_a_command(home, words):
    answer = call("export", *STORAGE, *words, cwd=home)
    assert answer.code == 2
    assert "--check needs --script PATH, and goes with commands only" in answer.err


def test_another_python_is_named_as_one_would_type_it(home, tmp_path):
    script = script_of(tmp_path, "print('val loss 0.5 cosine 0.5', sys.executable); sys.exit(9)")
    answer = check(home, script, "--python", "nowhere/python")
    assert "error: --python nowhere/python: no such program" in answer.err
    answer = check(home, script, "--python", os.path.relpath(sys.executable, home))
    assert f"| val loss 0.5 cosine 0.5 {sys.executable}" in answer.err


def test_a_script_that_no_flag_limits_to_an_epoch_is_not_started(tmp_path):
    script = tmp_path / "train_3d.py"
    text = f"open({str(tmp_path / 'started')!r}, 'w')\nparser.add_argument('--lr', type=float, default=1e-4)\n"
    script.write_text(text, encoding="utf-8")
    use = DataUse(data_dir="files", feature_size=16, file_pose_unit="degrees")
    config = TrialConfig(d_model=16, dim_feedforward=64)
    with pytest.raises(ScriptError, match="has no --epochs, so it cannot be limited to one epoch"):
        try_script(config, use, None, read_script(script), python=sys.executable, timeout=60.0)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("unit", ["degrees", "radians"])
def test_without_data_of_the_users_a_script_trains_on_the_sample_in_the_unit_of_the_trial(tmp_path, unit):
    """It is a copy without --save_dir, so it is not told of a folder."""
    script = script_of(
        tmp_path,
        "args = build_parser().parse_args()\n"
        "    poses = json.load(open(os.path.join(args.data_dir, 'video_metadata.json'), encoding='utf-8'))['poses']\n"
        "    print('Val loss 0.5 cosine', 0.25 if max(abs(pose[0]) for pose in poses) > 3.2 else 0.75)",
    )
    lines = script.read_text(encoding="utf-8").splitlines(keepends=True)
    script.write_text("".join(line for line in lines if '"--save_dir"' not in line), encoding="utf-8")
    sample = load(None)
    config = TrialConfig(d_model=16, dim_feedforward=64, pose_unit=unit)
    tested = try_script(config, DataUse.of(sample), None, read_script(script), python=sys.executable, timeout=60.0)
    assert tested.first.cosine == (0.25 if unit == "degrees" else 0.75)
