"""When the script of a study is the documented trainer, one epoch of both says how the built-in trainer compares."""

import contextlib
import json
import shlex

import optuna
import pytest
import torch
from command_line import call
from reference_model import ReferenceModel
from stand_in_parsers import OLD_SCRIPT
from users_repo import PRESENT_SCRIPT, contents, script_of, train, write_repo

from face3d_tune.config import TrialConfig
from face3d_tune.data.convert import convert
from face3d_tune.executor.tasks import Event, Failure
from face3d_tune.script import study_file
from face3d_tune.script.engine_comparison import Comparison, NotCompared
from face3d_tune.script.running.run_once import OneRun
from face3d_tune.search import compare_engine
from face3d_tune.search.compare_engine import compare
from face3d_tune.storage.database import Storage
from face3d_tune.training.plain import Trainer

SEEDED = (
    "    args = build_parser().parse_args()\n",
    "    args = build_parser().parse_args()\n    torch.manual_seed(7)\n",
)
SIZES = {"d_model": 16, "dim_feedforward": 32, "nhead": 2}
STUDY = """
[script]
path = {script}
metric = "验证余弦相似度"
source = "printed"
direction = "maximize"
epochs_flag = "epochs"
folder_flags = ["save_dir", "log_dir"]
[budget]
trials = 1
epochs = 2
[fixed]
data_dir = {data}
d_model = 16
dim_feedforward = 32
nhead = 2
batch_size = 8
{fixed}
[presets.gentle]
lr = 0.002
[space]
lr = {{ low = 1e-4, high = 1e-2, scale = "log" }}
"""


def study_of(script, data, fixed="num_layers = 1"):
    """A study file beside the script."""
    path = script.parent / "mine.toml"
    path.write_text(STUDY.format(script=json.dumps(str(script)), data=json.dumps(str(data)), fixed=fixed), "utf-8")
    return path


def compared(script, data, fixed="num_layers = 1", **changes):
    given = {"engine": "plain", "slots": 1, "devices": ("cpu",), "threads": 1, **changes}
    return compare(study_file.read(study_of(script, data, fixed)), **given)


def first_epoch(data, **changes):
    """The cosine of the plain trainer after one epoch of the study's first trial."""
    values = {**SIZES, "batch_size": 8, "num_layers": 1, "lr": 0.002, "epochs": 1, **changes}
    return Trainer(TrialConfig(**values), data, seed=0, device=torch.device("cpu")).train_epoch().val_cosine


def ready(folder, cosine=0.5, after="", **changes):
    """A script that leaves the checkpoint of a training in no time."""
    settings = {"layout": "keypoint", "num_layers": 1, "use_spatial_attention": False, "use_pose_attention": False}
    model = ReferenceModel(feature_size=16, dropout=0.1, **{**SIZES, **settings, **changes})
    content = {"model_state_dict": model.state_dict(), "val_loss_history": [0.5], "val_cosine_sim_history": [cosine]}
    torch.save(content, folder / "ready.pth")
    copied = f"shutil.copyfile({str(folder / 'ready.pth')!r}, 'best_model.pth')"
    return script_of(
        folder, f"args = build_parser().parse_args()\n    {copied}\n    {after}", imports="import shutil\n"
    )


def in_this_process(file, values, epochs, folder, variables):
    """Run the script where torch is loaded already."""
    folder.mkdir()
    with contextlib.chdir(folder):
        return OneRun(0, 1.0, train(*file.command(values, epochs=epochs)[1:]), ())


def test_an_epoch_of_each_is_what_it_is_by_hand(tmp_path, data, data_folder, monkeypatch):
    monkeypatch.setattr(compare_engine, "_run", in_this_process)
    script = write_repo(tmp_path / "repo", SEEDED)
    found = compared(script, data_folder)
    assert isinstance(found, Comparison), found
    assert found.built_in_cosine == pytest.approx(first_epoch(data), abs=1e-6)
    assert found.apart == abs(found.script_cosine - found.built_in_cosine)
    assert list(found.options) == ["--data-dir", str(data_folder)]
    # The same flags, typed by hand.
    values = {**SIZES, "data_dir": data_folder, "batch_size": 8, "num_layers": 1, "lr": 0.002, "epochs": 1}
    with contextlib.chdir(tmp_path):
        train(script, *(word for name, value in values.items() for word in (f"--{name}", value)))
    checkpoint = torch.load(tmp_path / "checkpoints" / "best_model.pth", weights_only=False)
    by_hand = checkpoint["val_cosine_sim_history"]
    assert found.script_cosine == pytest.approx(by_hand[0], abs=1e-4)
    assert list(found.options) == ["--data-dir", str(data_folder)]


def test_nothing_of_the_persons_changes_and_nothing_is_left(tmp_path, data_folder, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "repo").mkdir()
    script = ready(tmp_path / "repo")
    study_of(script, data_folder)
    before = contents(tmp_path / "repo"), contents(data_folder)
    found = compared(script, data_folder)
    assert isinstance(found, Comparison), found
    assert not found.start_counted
    assert (contents(tmp_path / "repo"), contents(data_folder)) == before
    assert list((tmp_path / "temporary").glob("face3d-tune-*")) == []


def test_a_copy_that_builds_the_pose_layout_is_compared_in_that_layout(tmp_path, data, data_folder, monkeypatch):
    monkeypatch.setattr(compare_engine, "_run", in_this_process)
    monkeypatch.syspath_prepend(tmp_path / "repo" / "train_transformer3D")
    script = write_repo(tmp_path / "repo", source=PRESENT_SCRIPT)
    fixed = 'num_decoder_layers = 1\nscheduler_type = "plateau"\nuse_spatial_attention = true'
    found = compared(script, data_folder, fixed)
    assert isinstance(found, Comparison), found
    defaults = {"dropout": 0.15, "weight_decay": 1e-4, "mse_weight": 0.1, "cosine_weight": 0.9}
    assert found.built_in_cosine == pytest.approx(first_epoch(data, layout="pose", **defaults), abs=1e-6)
    assert list(found.options) == ["--data-dir", str(data_folder), "--layout", "pose"]


def test_another_model_is_no_comparison(tmp_path, data_folder):
    found = compared(ready(tmp_path, num_layers=3), data_folder)
    assert isinstance(found, NotCompared)
    assert "builds another model than is trained here: num_layers = 3, not 1" in found.reason


def test_numbers_that_another_seed_does_not_explain_are_no_advantage(tmp_path, data, data_folder):
    found = compared(ready(tmp_path, cosine=first_epoch(data) + 0.06), data_folder)
    assert isinstance(found, Comparison)
    assert found.apart == pytest.approx(0.06)
    assert not found.same
    (line,) = found.lines()
    assert line.startswith("the built-in trainer gives other numbers than the script: 0.0600 apart in cosine")


@pytest.mark.parametrize(
    ("main", "said"),
    [
        ("print('reading'); sys.exit(3)", "the script failed: it ended with exit code 3"),
        ("build_parser().parse_args().nhead // None", "the script failed: it ended with exit code 1: TypeError"),
        ("time.sleep(60)", "the script did not end its first epoch within 1 s"),
        ("pass", "the script wrote no checkpoint that can be read here, so its model is not known"),
    ],
)
def test_a_script_that_does_not_train_is_said_and_raises_nothing(tmp_path, data_folder, monkeypatch, main, said):
    monkeypatch.setattr(compare_engine, "TIMEOUT", 1.0 if "sleep" in main else 60.0)
    found = compared(script_of(tmp_path, main), data_folder)
    assert isinstance(found, NotCompared)
    assert found.reason.startswith(said)
    assert found.lines() == [f"the built-in trainer was not compared: {found.reason}"]


def test_a_cosine_that_is_no_number_is_said(tmp_path, data_folder):
    assert compared(ready(tmp_path, cosine=float("nan")), data_folder).reason == (
        "the script's validation cosine is not known"
    )


def test_what_cannot_be_compared_starts_no_script(tmp_path, data_folder):
    script, mark = script_of(tmp_path, f"open({str(tmp_path / 'started')!r}, 'w')"), tmp_path / "started"
    assert "nowhere: no such folder" in compared(script, tmp_path / "nowhere").reason
    assert compared(script, data_folder, "dropout = 1.5").reason == (
        "dropout = 1.5 is out of range; expected at least 0 and below 1"
    )
    assert not mark.exists()


def test_a_limit_of_yaw_means_another_in_radians(tmp_path, data_folder):
    convert(data_folder, tmp_path / "radians", unit="radians")
    script = script_of(tmp_path, "pass")
    added = 'parser.add_argument("--min_yaw_angle", type=float)\n    parser.add_argument("--nhead"'
    text = script.read_text(encoding="utf-8").replace('parser.add_argument("--nhead"', added)
    script.write_text(text, encoding="utf-8")
    found = compared(script, tmp_path / "radians", "num_layers = 1\nmin_yaw_angle = 0.5")
    assert found.reason == "the script limits |yaw| in radians here, the built-in trainer in degrees"


def test_a_script_whose_epochs_no_flag_limits_is_not_started(tmp_path, data_folder):
    path, mark = study_of(script_of(tmp_path, "open('started', 'w')"), data_folder), tmp_path / "started"
    text = path.read_text(encoding="utf-8").replace('epochs_flag = "epochs"\n', "").replace("epochs = 2\n", "")
    path.write_text(text.replace("[script]\n", '[script]\nstart_in = "."\n'), encoding="utf-8")
    found = compare(study_file.read(path), engine="plain", slots=1, devices=("cpu",), threads=1)
    assert found.reason == "the study file names no epochs_flag, so the script cannot be limited to one epoch"
    assert not mark.exists()


def test_another_trainer_is_not_compared(tmp_path, data_folder):
    text = OLD_SCRIPT.read_text(encoding="utf-8").replace('"--scheduler_patience"', '"--patience"')
    (tmp_path / "train_3d.py").write_text(text, encoding="utf-8")
    assert compared(tmp_path / "train_3d.py", data_folder) is None


def timed(monkeypatch, tmp_path, data_folder, *, epoch, start, engine, slots):
    """A comparison of a script and a trainer that take these seconds."""
    ends = {1: OneRun(0, epoch, "", ()), 0: OneRun(0 if start else 1, start or 1.0, "", ())}
    run = compare_engine._run

    def fake(file, values, epochs, folder, variables):
        run(file, values, epochs, folder, variables)
        return ends[epochs]

    monkeypatch.setattr(compare_engine, "_run", fake)
    monkeypatch.setattr(compare_engine, "_train", lambda *_: (0.5, engine))
    return compared(ready(tmp_path), data_folder, slots=slots)


def test_the_time_is_that_of_the_epochs_that_all_slots_train(monkeypatch, tmp_path, data_folder):
    """Two scripts at once need 10 s an epoch: 0.2 epochs a second. One slot of 2 s: 0.5 epochs a second."""
    found = timed(monkeypatch, tmp_path, data_folder, epoch=14.0, start=4.0, engine=2.0, slots=2)
    assert found.times == pytest.approx(0.5 / 0.2)
    assert found.lines() == [
        "the built-in trainer would be 2.5 times as fast with the same numbers: 0.0000 apart in cosine after one epoch "
        "(0.5000, by the script 0.5000)",
        f"to search with it: face3d-tune run --data-dir {shlex.quote(str(data_folder))}",
    ]


def test_a_start_that_cannot_be_told_apart_is_said(monkeypatch, tmp_path, data_folder):
    found = timed(monkeypatch, tmp_path, data_folder, epoch=14.0, start=None, engine=2.0, slots=1)
    assert found.times == pytest.approx(7.0)
    assert found.lines()[0].startswith("the built-in trainer would be up to 7.0 times as fast")


def test_an_epoch_that_is_short_beside_the_start_is_not_timed(monkeypatch, tmp_path, data_folder):
    found = timed(monkeypatch, tmp_path, data_folder, epoch=4.5, start=4.0, engine=2.0, slots=1)
    assert found.times is None
    assert "the epoch was too short to time" in found.lines()[0]


def test_a_built_in_trainer_that_fails_is_said(monkeypatch, tmp_path, data_folder):
    failed = [Event(0, Failure("RuntimeError: out of memory"))]
    monkeypatch.setattr("face3d_tune.executor.slots.PlainSlot.wait", lambda self: failed)
    found = compared(ready(tmp_path), data_folder)
    assert found.reason == "the built-in trainer failed: RuntimeError: out of memory"


def test_what_nobody_foresaw_ends_no_search(monkeypatch, tmp_path, data_folder):
    def broken(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(compare_engine, "_try", broken)
    assert compared(ready(tmp_path), data_folder).reason == "OSError: No space left on device"


def test_several_processes_train_an_epoch_at_once(tmp_path, data, data_folder):
    found = compared(ready(tmp_path), data_folder, engine="batched")
    assert isinstance(found, Comparison), found
    assert found.built_in_cosine == pytest.approx(first_epoch(data), abs=1e-5)


def stored(folder):
    with Storage.parse(f"sqlite:///{folder / 'face3d_tune.db'}").opened() as opened:
        return optuna.load_study(study_name="mine", storage=opened).user_attrs["script"]


def test_run_compares_once_and_shows_it_at_every_later_run(tmp_path, data_folder):
    script = ready(tmp_path, after="print('验证余弦相似度: 0.5')")
    study_of(script, data_folder)
    first = call("run", "--study", "mine.toml", cwd=tmp_path)
    assert first.code == 0, first.err
    engine = stored(tmp_path)["engine"]
    lines = Comparison(**engine).lines()
    for line in lines:
        assert line in first.err
    (tmp_path / "ready.pth").unlink()  # so the script would fail
    again = call("run", "--study", "mine.toml", "--json", cwd=tmp_path)
    assert again.code == 0, again.err
    started = json.loads(again.out.splitlines()[0])
    assert started["engine_comparison"] == engine
    assert lines[0] in call("run", "--study", "mine.toml", cwd=tmp_path).err
    assert call("run", "--study", "mine.toml", "--quiet", cwd=tmp_path).err == ""


def test_a_script_that_changed_is_compared_again(tmp_path, data_folder):
    script = ready(tmp_path, after="print('验证余弦相似度: 0.5')")
    study_of(script, data_folder)
    assert call("run", "--study", "mine.toml", cwd=tmp_path).code == 0
    before = stored(tmp_path)["engine"]
    ready(tmp_path, cosine=0.25, after="print('验证余弦相似度: 0.25')")
    assert call("run", "--study", "mine.toml", "--accept-changed-script", cwd=tmp_path).code == 0
    after = stored(tmp_path)["engine"]
    assert (before["script_cosine"], after["script_cosine"]) == (0.5, 0.25)
