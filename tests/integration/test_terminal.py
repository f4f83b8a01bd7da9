"""What a person sees in a real pseudo-terminal, what a pipe gets, what the Tab key and the doctor say."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import optuna
import pytest
from command_line import THEIRS, call, start
from conftest import BUCKET
from forked import Run
from stored import of_optuna

import face3d_tune
from face3d_tune.script.check import ScriptCheck
from face3d_tune.script.first_epoch import FirstEpoch
from face3d_tune.search.doctor import _LEAST, ScriptToTry, examine

if os.name == "nt":
    pytest.skip("Windows has no pseudo-terminals of this kind", allow_module_level=True)
from pseudo_terminal import Terminal
from reference_model import ReferenceModel
from searches import Watch, file_of, search_in
from users_repo import PRESENT_SCRIPT, contents, script_of, write_repo

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds
STUDY = """
[study]
presets = []
[budget]
trials = 3
epochs = 6
[sampler]
name = "random"
[pruner]
name = "none"
[fixed]
batch_size = 20
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-4, high = 1e-2, scale = "log" }
[presets."预设"]
lr = 1e-3
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "quick.toml").write_text(STUDY, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, data_folder):
    """A folder with a search that has ended, and what it said where it was asked for the result alone."""
    folder = tmp_path_factory.mktemp("quiet")
    (folder / "quick.toml").write_text(STUDY, encoding="utf-8")
    return folder, call(*search(data_folder, "--quiet"), cwd=folder)


@pytest.fixture
def searched(place, quiet):
    """A copy of that folder."""
    shutil.copy(quiet[0] / "face3d_tune.db", place)
    return place


def search(data_folder, *more):
    return ("run", "--study", "quick.toml", "--data-dir", data_folder, "--device", "cpu", *more)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_search_in_a_terminal_has_live_lines_that_leave_no_trace(place, data_folder, columns):
    shown = Terminal(search(data_folder, "--epochs", 12), place, columns)
    assert shown.until_the_end() == 0
    rank1 = r"  rank-1 \d\.\d{3}" if columns == 120 else ""
    assert shown.shows(rf"^#0 预 ?设 ? +\d+/12  .*lr 1\.0e-03{rank1}$")
    assert shown.shows(r"^#1 sampled +\d+/12  .*cosine 0\.\d{4}  [+-]0\.\d{4} on 预 ?设")
    assert shown.shows(r"^quick  \d of 3 done, 0 pruned  best 0\.\d{4} #\d")
    last = "\n".join(shown.seen[-1])
    assert "of 3 done" not in last
    assert "3 of 3 trials finished, 0 of them pruned; best cosine" in last.replace("\n", " ")
    assert re.search(r" on 预 ?设; \d+ s ", last.replace("\n", " "))  # a short search in seconds
    assert "face3d-tune export" in last
    assert "…" not in last
    train = "^  # train it here: checkpoint, history, curve\n  face3d-tune train --study-name quick --data-dir"
    assert re.search(train, last, re.M), "the reason stands above a command that fills the line"
    if columns == 120:
        assert shown.shows("━")


def test_a_terminal_that_closes_lets_the_epoch_end_and_puts_the_trial_back(place, data_folder):
    shown = Terminal(search(data_folder, "--epochs", 5000), place, 80)
    shown.until(b"cosine 0.")
    shown.close()
    assert shown.process.wait(timeout=PATIENCE) == 130
    found = json.loads(call("status", "--json", cwd=place).out)["studies"][0]
    assert (found["states"]["running"], found["states"]["waiting"], found["causes"]["queued_again"]) == (0, 1, 1)


def test_a_search_goes_on_when_nobody_reads_it_any_more(place, data_folder):
    """With output in a pipe there is no signal that says so."""
    with start(*search(data_folder, "--epochs", 4, "--trials", 2), "--json", cwd=place) as process:
        for line in process.stdout:
            if '"epoch"' in line:
                break
        process.stdout.close()
        process.stderr.close()
        assert process.wait(timeout=PATIENCE) == 0
    found = json.loads(call("status", "--json", cwd=place).out)["studies"][0]
    assert found["states"]["complete"] == 2


def test_no_color_is_respected(place, data_folder):
    short = search(data_folder, "--trials", 1, "--epochs", 1)
    coloured = Terminal(short, place, 120)
    assert coloured.until_the_end() == 0
    assert re.search(rb"\x1b\[[\d;]*3[1-7]m", coloured.raw)
    (place / "face3d_tune.db").unlink()
    plain = Terminal(short, place, 120, NO_COLOR="1")
    assert plain.until_the_end() == 0
    assert not re.search(rb"\x1b\[[\d;]*3[1-7]m", plain.raw)


def test_a_pipe_gets_plain_lines(place, data_folder):
    with start(*search(data_folder, "--epochs", 1), cwd=place) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "\x1b" not in out + err
    assert "\r" not in out + err
    assert [line.split()[0] for line in err.splitlines() if line.startswith("#")] == ["#0", "#1", "#2"]


def test_quiet_prints_the_result_alone(quiet):
    _, answer = quiet
    assert (answer.code, answer.err) == (0, "")
    assert "best trial" in answer.out
    assert "#0 " not in answer.out


def test_json_prints_an_object_a_line_and_nothing_else(place, data_folder):
    words = search(data_folder, "--json", "--epochs", 2)
    answer = call(*words, cwd=place)
    assert (answer.code, answer.err) == (0, "")
    events = [json.loads(line) for line in answer.out.splitlines()]
    assert (events[0]["event"], events[0]["goal"], events[0]["done"]) == ("started", 3, 0)
    assert sum(event["event"] == "epoch" for event in events) == 6
    ended = [event for event in events if event["event"] == "trial_ended"]
    assert [event["trial"] for event in ended] == [0, 1, 2]
    best = max(ended, key=lambda event: event["value"])
    last = events[-1]
    assert (last["event"], last["done"], last["trial"], last["value"]) == ("finished", 3, best["trial"], best["value"])
    again = [json.loads(line) for line in call(*words, cwd=place).out.splitlines()]
    assert [event["event"] for event in again] == ["started", "finished"]
    assert again[-1]["value"] == best["value"]


# A search that runs elsewhere


class Watched(Watch):
    """A search that waits after each epoch until `watch`, in another process, has shown it."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.terminal = folder, None

    def epoch_ended(self, number, result):
        self.terminal = self.terminal or Terminal(("watch", "--storage", "sqlite:///studies.db"), self.folder, 100)
        epoch = rf"^#{number} (预 ?设|sampled) +{result.epoch}/3  [━─]{{20}}  cosine -?0\.\d{{4}}.*  lr \d\.\de-0\d"
        self.terminal.until_it_shows(epoch)


def test_watch_shows_a_search_of_another_process_until_it_is_done(sqlite, place, data):
    searching, watched = search_in(sqlite, file_of(place, STUDY), data, epochs=3), Watched(place)
    searching.enqueue_presets()
    searching.run(2, watched)
    assert watched.terminal.until_the_end() == 0
    assert watched.terminal.shows(r"^quick  \d of 2 done")
    assert watched.terminal.shows(r"^study 'quick': 2 of 2 trials finished")


def test_watch_of_a_search_that_is_done_says_so_and_ends(searched):
    answer = call("watch", cwd=searched)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("study 'quick': 3 of 3 trials finished, 0 of them pruned; best cosine 0.")


def test_watch_ends_with_a_search_that_reached_its_target(place, data_folder):
    call(*search(data_folder, "--target", 0.01), cwd=place)
    answer = call("watch", cwd=place)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("study 'quick': 1 of 3 trials finished")


def test_watch_ends_on_ctrl_c_and_outlives_a_storage_that_is_away(searched):
    place, file = searched, searched / "face3d_tune.db"
    study = optuna.load_study(study_name="quick", storage=of_optuna(f"sqlite:///{file}"))
    study.set_user_attr("effort", {"trials": 99})
    with start("watch", cwd=place, first=("doomed", "hurry", {})) as process:
        finished = says_what_ended(process, file)
        os.link(file, place / "away.db")
        (place / "other.db").write_text("no database at all", encoding="utf-8")
        (place / "other.db").replace(file)  # at once: where there is no file, SQLite makes one
        while (said := process.stdout.readline()).startswith("#"):
            pass
        (place / "away.db").replace(file)
        again = says_what_ended(process, file)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert finished.startswith("#")
    assert said.startswith("storage sqlite:///face3d_tune.db "), err
    assert again.startswith("#")
    assert (process.returncode, err.strip()) == (130, "interrupted")


def says_what_ended(process, file):
    """The first line that it prints while one trial after another ends."""
    study = optuna.load_study(study_name="quick", storage=of_optuna(f"sqlite:///{file}"))
    deadline = time.monotonic() + PATIENCE
    while not select.select([process.stdout], [], [], 0.2)[0]:
        assert process.poll() is None
        assert time.monotonic() < deadline
        study.add_trial(study.trials[0])
    return process.stdout.readline()


def test_watch_asks_which_study_and_finds_a_mistyped_one(searched):
    answer = call("watch", "--study-name", "quik", cwd=searched)
    assert answer.code == 2
    assert "did you mean 'quick'?" in answer.err


# The doctor


def looks(*words, cwd, code=0):
    answer = call("doctor", "--json", *words, cwd=cwd)
    assert answer.code == code, answer
    return {look["name"]: look for look in json.loads(answer.out)}


def test_the_doctor_looks_at_everything_and_makes_nothing(tmp_path, data_folder):
    found = looks("--data-dir", data_folder, "--artifacts", "kept", cwd=tmp_path)
    names = ["versions", "device", "precision", "cores", "memory", "data", "storage", "clock", "artifacts", "disk"]
    assert list(found) == names
    assert {look["level"] for look in found.values()} <= {"ok", "warning"}
    assert "not there yet" in found["storage"]["said"]
    assert found["data"]["said"].endswith("12 people; pairs: 42 train, 18 validation, 12 test")
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_says_what_to_do_about_each_problem_and_fails(tmp_path, data_folder):
    (tmp_path / "text.db").write_text("no database", encoding="utf-8")
    found = looks("--storage", "sqlite:///text.db", "--data-dir", "nowhere", cwd=tmp_path, code=1)
    assert (found["storage"]["level"], found["data"]["level"]) == ("problem", "problem")
    assert "nowhere: no such folder" in found["data"]["said"]
    shown = call("doctor", "--storage", "sqlite:///gone/studies.db", cwd=tmp_path)
    assert shown.code == 1
    assert "problem  storage" in shown.out
    assert "hint: choose another --storage" in shown.out


def test_the_doctor_counts_studies_and_who_works_on_them(searched, data_folder):
    place = searched
    assert looks(cwd=place)["storage"]["said"].endswith(": 1 study; workers searching now: 0")
    with start(*search(data_folder, "--study-name", "long", "--epochs", 2000), cwd=place) as process:
        while not (said := looks(cwd=place)["storage"]["said"]).endswith(": 2 studies; workers searching now: 1"):
            assert process.poll() is None, said
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)


def test_the_doctor_asks_for_the_versions_that_the_package_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", needed).groups() for needed in project["dependencies"]]
    least = dict(reversed(bounds))  # of numpy the first, which stands for any Python
    assert {name: ".".join(map(str, numbers)) for name, numbers in _LEAST.items()}.items() <= least.items()


@pytest.mark.parametrize(
    ("name", "least", "level", "advice"),
    [
        ("torch", (99, 0), "problem", "pip install -c constraints.txt -e . (needed at least: torch 99.0)"),
        ("no-such-package", (1, 0), "problem", "pip install -c constraints.txt -e ."),
        ("python", (3, 99), "warning", "use Python 3.11 to 3.13: other versions were never tried"),
    ],
)
def test_the_doctor_finds_what_is_too_old_missing_or_was_never_tried(monkeypatch, name, least, level, advice):
    if name == "python":
        monkeypatch.setattr("face3d_tune.search.doctor._PYTHONS", (least, least))
    else:
        monkeypatch.setitem(_LEAST, name, least)
    found = next(examine("sqlite:///none.db", None, None))
    assert (found.name, found.level, found.advice) == ("versions", level, advice)


@pytest.mark.parametrize("there", [True, False])
def test_the_doctor_warns_of_a_gpu_that_this_torch_cannot_use(tmp_path, monkeypatch, there):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if there:
        (tmp_path / "nvidia-smi").touch(mode=0o755)
    found = {look.name: look for look in examine("sqlite:///none.db", None, None)}["device"]
    assert (found.level, "cannot use it" in found.said) == (("warning", True) if there else ("ok", False))


def test_the_doctor_says_where_artifacts_cannot_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = looks("--artifacts", "x" * 300, cwd=tmp_path, code=1)
    for name in ("artifacts", "disk"):
        assert (found[name]["level"], found[name]["advice"]) == ("problem", "choose another place")
        assert found[name]["said"].endswith("x: File name too long")
    monkeypatch.setattr("face3d_tune.search.doctor.os.access", lambda folder, mode: False)  # root may write anywhere
    found = {look.name: look for look in examine("sqlite:///none.db", "kept", None)}["artifacts"]
    assert (found.level, found.said) == ("problem", f"cannot write into {tmp_path}")


@pytest.mark.parametrize(("bucket", "level"), [(BUCKET, "ok"), ("nobody-has-this", "problem")])
def test_the_doctor_asks_a_bucket_whether_it_is_there(s3, bucket, level):
    found = {look.name: look for look in examine("sqlite:///none.db", f"s3://{bucket}/p", None)}
    assert (found["artifacts"].level, f"s3://{bucket}/p" in found["artifacts"].said) == (level, True)


def test_the_doctor_finds_a_server_that_lets_nobody_write(postgres_url):
    reading = f"{postgres_url}{'&' if '?' in postgres_url else '?'}options=-c%20default_transaction_read_only%3Don"
    found = {look.name: look for look in examine(reading, None, None)}
    assert (found["storage"].level, "cannot be written" in found["storage"].said) == ("problem", True)


def test_the_doctor_compares_the_clock_of_a_server(postgres_url, tmp_path):
    found = looks("--storage", postgres_url, "--artifacts", "none", cwd=tmp_path)
    assert found["storage"]["said"].endswith("reached; no studies yet")
    assert re.search(r"[+-]0\.\d s from this machine's", found["clock"]["said"])
    assert found["artifacts"]["level"] == "warning"


def test_the_doctor_warns_of_a_clock_that_is_wrong_a_full_disk_and_little_memory(postgres_url, monkeypatch):
    monkeypatch.setattr("face3d_tune.search.doctor.clock", lambda database: time.time() - 60)
    monkeypatch.setattr(
        "face3d_tune.search.doctor.shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 1000)
    )
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("", (), {"available": 1000}))
    found = {look.name: look for look in examine(postgres_url, "kept", None)}
    assert (found["clock"].level, found["disk"].level, found["memory"].level) == ("warning", "problem", "warning")
    assert "-60.0 s from this machine's" in found["clock"].said


def test_the_doctor_says_how_a_search_uses_all_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda gpu: "NVIDIA L4")
    for count, said in ((1, "NVIDIA L4"), (2, "NVIDIA L4; 2 GPUs, all of them with --device cuda:0,cuda:1")):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        found = {look.name: look for look in examine(f"sqlite:///{tmp_path / 'studies.db'}", "kept", None)}
        assert (found["device"].level, found["device"].said) == ("ok", said)


def test_the_doctor_shows_what_a_container_may_use_and_not_what_the_machine_has(tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 40.0)
    monkeypatch.setattr("face3d_tune.search.doctor.os.cpu_count", lambda: 64)
    monkeypatch.setattr("psutil.Process", lambda: type("", (), {"cpu_affinity": lambda self: list(range(64))})())
    monkeypatch.setattr("face3d_tune.system.limits._cpu_quotas", lambda: [2.0])
    monkeypatch.setattr("face3d_tune.system.limits._free_in_cgroups", lambda: [800 * 2**20])
    found = {look.name: look for look in examine(f"sqlite:///{tmp_path / 'studies.db'}", "kept", None)}
    assert found["cores"].said.startswith("2 cores by CPU quota, 25.6 of the machine's 64 busy")
    assert found["cores"].level == "ok"  # 60 % of the machine is idle
    assert (found["memory"].level, found["memory"].said) == ("warning", "0.8 GiB free by memory limit")


def test_the_doctor_does_not_show_a_password(tmp_path):
    shown = call("doctor", "--storage", "postgresql://me:tops3cret@127.0.0.1:1/x", cwd=tmp_path)
    assert shown.code == 1
    assert "tops3cret" not in shown.out + shown.err


def test_the_doctor_trains_a_script_that_is_named_and_says_which_layout_it_builds(tmp_path, data_folder):
    script = write_repo(tmp_path / "repo", source=PRESENT_SCRIPT)
    before = contents(tmp_path)
    words = ("--data-dir", data_folder, "--artifacts", "none", "--script", script)
    found = looks(*words, cwd=tmp_path, code=1)["script"]
    assert found["level"] == "problem"
    assert found["said"] == f"{script} builds another model than is trained here: layout = pose, not keypoint"
    assert found["advice"].startswith("your copy builds the pose layout: `face3d-tune run --layout pose ")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("layout", "attention", "level", "said"),
    [
        ("pose", True, "ok", " trains here, and builds the pose layout as the flags say"),
        ("pose", False, "problem", " builds another model than is trained here: use_pose_attention = false, not true"),
        (None, True, "warning", " trains here; it wrote no checkpoint"),
    ],
)
def test_the_doctor_compares_a_script_with_the_layout_that_will_be_searched(
    tmp_path, data_folder, monkeypatch, layout, attention, level, said
):
    script = write_repo(tmp_path / "repo", source=PRESENT_SCRIPT)
    sizes = {"feature_size": 16, "d_model": 16, "nhead": 8, "dropout": 0.1, "use_spatial_attention": False}
    asked = []

    def tried(config, use, source, script, **options):
        asked.append(config)
        built = {"num_layers": config.num_layers, "dim_feedforward": config.dim_feedforward}
        model = layout and ReferenceModel(**sizes, **built, layout=layout, use_pose_attention=attention).state_dict()
        return ScriptCheck(FirstEpoch(0.5, 0.5, "output"), model, 1.0, () if layout else ("it wrote no checkpoint",))

    monkeypatch.setattr("face3d_tune.search.doctor.try_script", tried)
    to_try = ScriptToTry(script, sys.executable, 60.0, "pose")
    found = {look.name: look for look in examine("sqlite:///none.db", None, data_folder, script=to_try)}["script"]
    assert (found.level, found.said) == (level, f"{script}{said}")
    # No copy has these sizes by default, so one that ignores a flag is found out.
    assert (asked[0].layout, asked[0].num_layers, asked[0].dim_feedforward) == ("pose", 2, 48)


def test_the_doctor_does_not_ask_a_script_for_what_it_has_no_flag_for(tmp_path, data_folder, monkeypatch):
    script = tmp_path / "train_3d.py"
    script.write_text("parser.add_argument('--epochs')\nparser.add_argument('--dim_feedforward')", encoding="utf-8")
    asked = []

    def tried(config, *arguments, **options):
        asked.append(config)
        return ScriptCheck(FirstEpoch(None, None, "nothing"), None, 1.0, ())

    monkeypatch.setattr("face3d_tune.search.doctor.try_script", tried)
    to_try = ScriptToTry(script, sys.executable, 60.0, "keypoint")
    found = {look.name: look for look in examine("sqlite:///none.db", None, data_folder, script=to_try)}["script"]
    assert (asked[0].num_layers, asked[0].dim_feedforward, asked[0].use_pose_attention) == (4, 48, False)
    assert found.level == "warning"
    assert f"it cannot express nhead = 8: {script} has no --nhead" in found.said
    assert found.said.count("cannot express") == 3
    assert re.search(r"; and \d+ more$", found.said)


def test_the_doctor_says_why_a_script_does_not_train(tmp_path, data_folder):
    complaint = "ReduceLROnPlateau.__init__() got an unexpected keyword argument 'verbose'"
    script = script_of(tmp_path, f"raise TypeError({complaint!r})")
    found = looks("--data-dir", data_folder, "--artifacts", "none", "--script", script, cwd=tmp_path, code=1)["script"]
    assert "unexpected keyword argument 'verbose'" in found["said"]
    assert found["advice"].startswith("delete verbose=…")
    answer = call("doctor", "--artifacts", "none", "--script", "nowhere.py", cwd=tmp_path)
    assert answer.code == 1
    assert "problem  script     nowhere.py cannot be read: No such file or directory" in answer.out


# The Tab key


def completed(place, *words, shell="bash", honestly=False):
    """What a shell is told when Tab is pressed after these words."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(THEIRS)}
    kept |= {"COMP_WORDS": " ".join(["face3d-tune", *words]), "COMP_CWORD": str(len(words))}
    kept |= {"_FACE3D_TUNE_COMPLETE": f"{shell}_complete", "PYTHONPATH": str(Path(face3d_tune.__file__).parents[1])}
    if honestly:
        command = [sys.executable, "-m", "face3d_tune"]
        ended = subprocess.run(command, cwd=place, env=kept, capture_output=True, text=True, timeout=PATIENCE)
        out, err = ended.stdout, ended.stderr
    else:
        with Run((), cwd=place, env=kept) as ended:
            out, err = ended.communicate(timeout=PATIENCE)
    assert (ended.returncode, err) == (0, "")
    lines = out.splitlines()
    if shell == "powershell":  # kind, value and help, a line each
        return lines[1::3]
    return [line.partition(",")[2] for line in lines if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_there_is_a_script_for_each_shell(shell, tmp_path):
    answer = call("completion", shell, cwd=tmp_path)
    assert answer.code == 0
    assert "_FACE3D_TUNE_COMPLETE" in answer.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_understands_its_script(tmp_path):
    script = call("completion", "bash", cwd=tmp_path).out
    checked = subprocess.run(["bash", "-c", f"{script}\ncomplete -p face3d-tune"], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "face3d-tune" in checked.stdout


def test_commands_options_study_files_presets_and_studies_are_completed(searched):
    tmp_path = searched
    assert completed(tmp_path, "wa", honestly=True) == ["watch"]
    assert "--study-name" in completed(tmp_path, "run", "--stu")
    assert completed(tmp_path, "run", "--study", "stage")[:3] == ["stage1-lr", "stage2-loss", "stage3-capacity"]
    assert completed(tmp_path, "presets", "r") == ["recommended"]
    assert completed(tmp_path, "train", "--preset", "a") == ["aggressive"]
    assert completed(tmp_path, "export", "--study-name", "q") == ["quick"]


def test_powershell_is_told_the_same_as_bash(tmp_path):
    script = call("completion", "powershell", cwd=tmp_path).out
    assert "Register-ArgumentCompleter -Native -CommandName face3d-tune" in script
    assert "'powershell_complete'" in script
    words = ("run", "--study", "stage")
    told = completed(tmp_path, *words, shell="powershell")
    assert told == completed(tmp_path, *words)
    assert "stage1-lr" in told


@pytest.mark.parametrize(
    "storage", ["sqlite:///gone.db", "sqlite:///text.db", "postgresql://127.0.0.1:1/x", "nonsense"]
)
def test_the_tab_key_is_silent_where_there_is_nothing_to_say(tmp_path, storage):
    (tmp_path / "text.db").write_text("no database", encoding="utf-8")
    assert completed(tmp_path, "export", "--storage", storage, "--study-name", "q") == []
    assert not (tmp_path / "gone.db").exists()
