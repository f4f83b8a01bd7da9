"""Slots for a script: its epochs come as events, it resumes from its own checkpoint, and its end is explained."""

import json
import os
import signal
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from test_script_process import is_running, until

from face3d_tune.executor.tasks import Failure, Note, ScriptEnded, ScriptEpoch
from face3d_tune.script.running import attempt, device_environment, failure, trial_folder
from face3d_tune.script.running.slots import ScriptSlots
from face3d_tune.script.running.tasks import Running, ScriptTask

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"), pytest.mark.slow]

# A script that trains: JSON lines, a checkpoint, flags for folders; what it does besides is a statement in --also.
SCRIPT = """
import json, os, signal, subprocess, sys, time
values = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder, resume = values["--save_dir"], values.get("--resume")
os.makedirs(folder, exist_ok=True)
first = 1
if resume:
    first = json.load(open(resume))["epoch"] + 1
for epoch in range(first, int(values["--epochs"]) + 1):
    print(json.dumps({"epoch": epoch, "val_loss": 1 / epoch, "val_cosine": 1 - 1 / epoch}))
    json.dump({"epoch": epoch}, open(f"{folder}/last.pth", "w"))
    exec(values.get("--also", ""))
"""
PATIENT = "while not os.path.exists('go'): time.sleep(0.001)"
STUDY = uuid.uuid4().hex  # of these tests alone: a trial ends every copy of it on the machine
FOR_EVER = "open('begun', 'w').close(); time.sleep(600)"


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "scripts" / "train.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "search"


@pytest.fixture
def open_slots(script, folder):
    opened = []

    def open_slots(count=1, devices=("cpu",), threads=1, timeout=None, **how):
        how = {"metric": "val_cosine", "source": "json", "folder_flags": ("--save_dir",), **how}
        running = Running(script=script, study=STUDY, **how)
        opened.append(ScriptSlots(running, folder, count, devices, threads, grace=0.3, timeout=timeout))
        return opened[-1]

    yield open_slots
    for each in opened:
        each.close()


@pytest.fixture
def task(script):
    def task(also="", *, epochs=2, number=0, retry=False, python=sys.executable, path=None):
        flags = ("--epochs", str(epochs), "--also", also)
        return ScriptTask(number, (python, str(path or script), *flags), f"study-{number}", retry)

    return task


def train(opened, task):
    """Everything that comes of a training until its end."""
    opened.start(task)
    contents = []
    while not (contents and isinstance(contents[-1], ScriptEnded | Failure)):
        contents += [event.content for event in opened.wait()]
    return contents


def epochs(contents):
    return [content.epoch for content in contents if isinstance(content, ScriptEpoch)]


def running(pid):
    return is_running(pid)


def process_of(opened, number=0):
    return opened._attempts[number].process


def test_every_epoch_is_an_event_with_all_its_numbers_and_then_comes_the_end(open_slots, task):
    assert train(open_slots(), task()) == [
        ScriptEpoch(1, {"val_loss": 1.0, "val_cosine": 0.0}),
        ScriptEpoch(2, {"val_loss": 0.5, "val_cosine": 0.5}),
        ScriptEnded(),
    ]


def test_an_epoch_is_told_while_the_script_trains_on(open_slots, task, folder):
    opened = open_slots()
    opened.start(task(PATIENT))
    first = []
    while not first:
        first = opened.wait()
    assert epochs([event.content for event in first]) == [1]
    (folder / "study-0" / "go").touch()


def test_a_wait_ends_although_the_epoch_has_not(open_slots, task):
    opened = open_slots()
    opened.start(task("time.sleep(600)"))
    contents = []
    while epochs(contents) != [1]:
        contents += [event.content for event in opened.wait()]
    assert opened.wait() == []


HANGS = "print('still here'); subprocess.Popen(['sleep', '600']) if epoch == 2 else 0; time.sleep(600 * (epoch == 2))"


def test_a_script_that_hangs_in_an_epoch_is_ended_with_all_that_it_started(open_slots, task):
    opened, started = open_slots(timeout=60), task(HANGS, epochs=3)
    opened.start(started)
    contents = []
    while epochs(contents) != [1, 2]:
        contents += [event.content for event in opened.wait()]
    process = psutil.Process(process_of(opened)._supervisor.pid)
    until(lambda: len(process.children(recursive=True)) == 2)
    left = process.children(recursive=True)
    opened._attempts[0]._without_epoch._limit = 0.01  # as if a minute had passed
    while not contents or not isinstance(contents[-1], Failure):
        contents += [event.content for event in opened.wait()]
    said = "it gave no epoch for 0.01 s (--trial-timeout), so its process was ended"
    assert contents[-1] == Failure(said, timed_out=True)
    until(lambda: not any(running(each.pid) for each in left))


def test_a_script_that_hangs_after_all_its_epochs_is_finished(open_slots, task):
    given = train(open_slots(timeout=0.3), replace(task("time.sleep(600 * (epoch == 2))"), epochs=2))
    said = "it gave no epoch for 0.3 s (--trial-timeout), so its process was ended"
    assert given[-2:] == [Note(f"after its last epoch {said}"), ScriptEnded()]
    assert epochs(given) == [1, 2]


def test_the_numbers_of_an_epoch_may_come_one_after_the_other(open_slots, task, script):
    script.write_text("""
import time
for epoch in range(1, 4):
    print(f"Epoch {epoch}/3")
    print(f"val cosine: {epoch / 10}")
    time.sleep(0.03)
    print(f"val loss: {epoch}")
""")
    got = train(open_slots(metric="val cosine", source="printed"), task())
    assert [content.numbers["val loss"] for content in got[:-1]] == [1.0, 2.0, 3.0]


def test_an_epoch_waits_for_the_number_that_decides_which_checkpoint_is_kept(open_slots, task, script):
    script.write_text("""
import time
print("Epoch 1/1")
print("val cosine: 0.5")
time.sleep(0.4)
print("val loss: 2")
time.sleep(600)
""")
    opened = open_slots(metric="val cosine", source="printed", keep="val loss")
    opened.start(task())
    (event,) = until(opened.wait)
    assert event.content.numbers == {"val cosine": 0.5, "val loss": 2.0}


def test_the_script_writes_into_folders_of_the_trial_and_starts_in_its_folder(open_slots, task, folder):
    train(open_slots(), task("open('here', 'w').close()", number=7))
    assert (folder / "study-7" / "save_dir" / "last.pth").exists()
    assert (folder / "study-7" / "here").exists()
    assert (folder / "study-7.log").read_text().startswith('{"epoch": 1, ')


def test_the_script_can_start_in_another_folder(open_slots, task, tmp_path):
    train(open_slots(start_in=tmp_path), task("open('here', 'w').close()"))
    assert (tmp_path / "here").exists()


def test_relative_paths_are_those_of_this_process(open_slots, task, script, monkeypatch):
    monkeypatch.chdir(script.parent)
    assert epochs(train(open_slots(), task(path="train.py"))) == [1, 2]


def test_a_program_without_a_path_is_looked_up(open_slots, task, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "my-python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert epochs(train(open_slots(), task(python="my-python"))) == [1, 2]


class TestFailures:
    """What a script does wrong, and what its trial says."""

    @pytest.mark.parametrize(
        ("also", "said"),
        [
            (
                "input('Overwrite? ')",
                "it ended with exit code 1: EOFError: EOF when reading a line; it asks a question, and nothing can be "
                "typed into a trial: give the answer with a flag, or take input() out",
            ),
            ("raise ValueError('no faces')", "it ended with exit code 1: ValueError: no faces"),
            ("sys.exit(3)", 'it ended with exit code 3; last it printed: {"epoch": 1, '),
            (
                "raise ValueError('epochs must be even')",
                "it ended with exit code 1: ValueError: epochs must be even; blame --epochs: the error names it",
            ),
        ],
    )
    def test_an_exit_code(self, open_slots, task, also, said):
        failed = train(open_slots(), task(also))[-1]
        assert failed.message.startswith(said)
        assert failed == Failure(failed.message)

    def test_out_of_memory(self, open_slots, task):
        words = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
        failed = train(open_slots(), task(f"print('{words}', file=sys.stderr); sys.exit(1)"))[-1]
        assert failed == Failure(f"it ended with exit code 1: out of memory: {words}", out_of_memory=True)

    @pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
    def test_a_killed_script_has_died(self, open_slots, task, name):
        failed = train(open_slots(), task(f"os.kill(os.getpid(), signal.{name})"))[-1]
        assert failed == Failure(f"its process was killed ({name})", died=True)

    def test_a_kill_counts_as_lack_of_memory_if_the_kernel_killed_meanwhile(self):
        starved = failure.explain(-9, "", [], starved=True)
        assert starved == Failure("its process was killed (SIGKILL), for lack of memory", True is False, True, True)
        assert failure.explain(-15, "", [], starved=True) == Failure("its process was killed (SIGTERM)", died=True)
        assert failure.explain(-60, "", [], starved=False) == Failure("its process was killed (60)", died=True)

    @pytest.mark.parametrize("value", ["nan", "inf"])
    def test_a_metric_that_is_no_number(self, open_slots, task, script, value):
        script.write_text(SCRIPT.replace("1 - 1 / epoch", f"float('{value}') if epoch == 2 else 0.5"))
        opened = open_slots()
        got = train(opened, task(epochs=5, also="if epoch == 2: time.sleep(600)"))
        assert epochs(got) == [1]
        assert got[-1] == Failure(f"val_cosine is {value} in epoch 2", non_finite=True)

    def test_another_number_that_is_none_is_no_failure(self, open_slots, task, script):
        script.write_text(SCRIPT.replace('"val_loss": 1 / epoch', '"val_loss": float("nan")'))
        assert train(open_slots(), task())[-1] == ScriptEnded()

    def test_a_script_without_the_metric(self, open_slots, task):
        failed = train(open_slots(metric="val_accuracy"), task())[-1]
        assert failed == Failure(
            "it ended with exit code 0, but val_accuracy (json) never came: it gave val_cosine, val_loss"
        )

    def test_a_script_that_ends_at_once(self, open_slots, task, script):
        script.write_text("")
        failed = train(open_slots(), task())[-1]
        said = "it ended with exit code 0, but val_cosine (json) never came: it gave no number there"
        assert failed == Failure(said)

    def test_a_python_that_does_not_exist(self, open_slots, task):
        failed = train(open_slots(), task(python="/no/such/python"))[-1]
        assert failed.message.endswith("cannot start /no/such/python: No such file or directory")

    def test_a_script_that_does_not_exist(self, open_slots, task):
        failed = train(open_slots(), task(path="/no/such/train.py"))[-1]
        assert "can't open file '/no/such/train.py'" in failed.message

    def test_a_folder_to_start_in_that_does_not_exist(self, open_slots, task, tmp_path):
        failed = train(open_slots(start_in=tmp_path / "none"), task())[-1]
        assert f"cannot start {tmp_path / 'none'}: No such file or directory" in failed.message


class TestTimeLimit:
    """A script that never ends."""

    def late(self, opened, task):
        """Start a script that prints an epoch; once it is known, an hour has passed."""
        opened.start(task("time.sleep(600)"))
        attempt = opened._attempts[0]
        told = until(lambda: attempt.look() or (attempt.process and attempt._curves() and ["a number, no epoch"]))
        attempt._began -= 3600
        return [*told, *(event.content for event in opened.wait())]

    def test_with_an_epoch_the_trial_has_ended(self, open_slots, task):
        got = self.late(open_slots(time_limit=3600), task)
        assert got[-1] == ScriptEnded(over_time=True)

    def test_without_one_it_has_failed(self, open_slots, task):
        failed = self.late(open_slots(time_limit=3600, metric="accuracy"), task)[-1]
        assert failed == Failure(
            "it was ended at the time limit of 3600 s: accuracy (json) never came: it gave val_cosine, val_loss"
        )


class TestResuming:
    """A trial whose worker died."""

    def interrupted(self, opened, folder, task, after):
        opened.start(task(f"if epoch == {after}: {FOR_EVER}", epochs=4))
        opened.wait()
        until(lambda: (folder / "study-0" / "begun").exists())
        opened.close()

    def test_it_resumes_from_its_checkpoint_and_tells_every_epoch_from_the_first(self, open_slots, folder, task):
        opened = open_slots(resume_flag="--resume")
        self.interrupted(opened, folder, task, after=2)
        got = train(open_slots(resume_flag="--resume"), task(epochs=4, retry=True))
        assert got[0] == Note("resumes from last.pth")
        assert epochs(got) == [1, 2, 3, 4]
        assert [content.numbers["val_loss"] for content in got[1:-1]] == [1, 1 / 2, 1 / 3, 1 / 4]
        assert (folder / "study-0.log").read_text().count("val_loss") == 4  # epochs 1 and 2 were not trained again

    def test_it_begins_again_without_a_flag_for_it(self, open_slots, folder, task):
        self.interrupted(open_slots(), folder, task, after=2)
        got = train(open_slots(), task(epochs=4, retry=True))
        assert got[0] == Note("begins again: no resume_flag")
        assert epochs(got) == [1, 2, 3, 4]
        assert not (folder / "study-0" / "begun").exists()  # the folder was emptied
        assert (folder / "study-0.log").read_text().count("val_loss") == 4

    @pytest.mark.parametrize(
        ("pattern", "said"),
        [("*best*.pth", "no checkpoint *best*.pth was found"), ("*last*", None), (None, None)],
    )
    def test_a_pattern_decides_which_checkpoint(self, open_slots, folder, task, pattern, said):
        how = {"resume_flag": "--resume", "checkpoint": pattern}
        self.interrupted(open_slots(**how), folder, task, after=1)
        note = train(open_slots(**how), task(retry=True))[0]
        assert note == Note("resumes from last.pth" if said is None else f"begins again: {said}")

    def test_a_checkpoint_that_the_script_cannot_read_costs_no_trial(self, open_slots, folder, task):
        how = {"resume_flag": "--resume"}
        self.interrupted(open_slots(**how), folder, task, after=2)
        (folder / "study-0" / "save_dir" / "last.pth").write_text("{half")
        got = train(open_slots(**how), task(epochs=3, retry=True))
        notes = [content.text for content in got if isinstance(content, Note)]
        assert notes[0] == "resumes from last.pth"
        assert notes[1].startswith("cannot resume from last.pth, so it begins again: it ended with exit code 1: ")
        assert epochs(got)[-3:] == [1, 2, 3]
        assert isinstance(got[-1], ScriptEnded)

    def test_a_new_trial_finds_nothing_of_another_one_with_its_key(self, open_slots, folder, task):
        self.interrupted(open_slots(resume_flag="--resume"), folder, task, after=2)
        assert epochs(train(open_slots(resume_flag="--resume"), task())) == [1, 2]
        assert not (folder / "study-0" / "begun").exists()

    def test_the_newest_whole_checkpoint_counts(self, tmp_path):
        for age, (name, content) in enumerate(
            [("half.pth", b"PK\3\4half"), ("empty.pth", b""), ("new.pt", b"\x80old torch"), ("old.ckpt", b"\x80")]
        ):
            (tmp_path / name).write_bytes(content)
            os.utime(tmp_path / name, (1000 - age, 1000 - age))
        assert trial_folder.checkpoint(tmp_path, None) == tmp_path / "new.pt"
        assert trial_folder.checkpoint(tmp_path, "*.ckpt") == tmp_path / "old.ckpt"
        assert trial_folder.checkpoint(tmp_path, "half*") is None
        assert trial_folder.checkpoint(tmp_path / "none", None) is None


class TestOneCopy:
    """At most one copy of a trial runs, and none after its end."""

    def test_a_dropped_script_ends_and_its_events_stop(self, open_slots, folder, task):
        opened = open_slots()
        opened.start(task(FOR_EVER))
        opened.wait()
        until(lambda: (folder / "study-0" / "begun").exists())
        process = process_of(opened)
        opened.drop(0)
        assert opened.wait() == []
        opened.close()
        assert process.poll() == -signal.SIGTERM

    def test_a_new_training_waits_for_the_one_that_was_dropped(self, open_slots, folder, task):
        stubborn = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOR_EVER}"
        opened = open_slots()
        opened.start(task(stubborn))
        opened.wait()
        until(lambda: (folder / "study-0" / "begun").exists())
        process = process_of(opened)
        opened.drop(0)
        assert process.poll() is None  # it ends in another thread
        opened.start(task(number=1))
        until(opened.wait)
        assert process.poll() == -signal.SIGKILL

    def test_a_free_place_is_taken_before_one_whose_script_still_ends(self, open_slots, folder, task):
        stubborn = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOR_EVER}"
        opened = open_slots(count=2)
        opened.start(task(stubborn))
        until(lambda: opened.wait() or True)
        until(lambda: (folder / "study-0" / "begun").exists())
        opened.drop(0)
        opened.start(task(number=1))
        assert opened._attempts[1].place == 1

    def test_a_copy_of_a_worker_that_was_lost_is_ended_first(self, open_slots, folder, task):
        lost = open_slots()
        lost.start(task(FOR_EVER))
        assert epochs([event.content for event in until(lost.wait)]) == [1]
        until(lambda: (folder / "study-0" / "begun").exists())
        process = process_of(lost)
        got = train(open_slots(), task(retry=True))
        assert epochs(got) == [1, 2]
        assert process.poll() is not None
        (event,) = until(lost.wait)
        assert event.content.died

    def test_nothing_runs_after_close(self, open_slots, folder, task):
        opened = open_slots(count=2)
        for number in range(2):
            opened.start(task(f"subprocess.Popen(['sleep', '600']); {FOR_EVER}", number=number))
        opened.wait()
        until(lambda: all((folder / f"study-{number}" / "begun").exists() for number in range(2)))
        supervisors = [process_of(opened, number)._supervisor.pid for number in range(2)]
        started = [each for pid in supervisors for each in psutil.Process(pid).children(recursive=True)]
        assert len(started) == 4
        opened.close()
        assert not any(running(each.pid) for each in started)
        assert opened.wait() == []


def test_two_scripts_run_at_once(open_slots, folder, task):
    opened = open_slots(count=2)
    for number in range(2):
        other = folder / f"study-{1 - number}"
        opened.start(task(f"open('me', 'w').close()\nwhile not os.path.exists('{other}/me'): pass", number=number))
    ended = set()
    while len(ended) < 2:
        ended |= {event.number for event in opened.wait() if isinstance(event.content, ScriptEnded)}


def test_a_daemon_is_named_at_the_end_and_files_beside_the_script_as_well(open_slots, task, script, monkeypatch):
    monkeypatch.setattr("face3d_tune.script.running.supervisor.LINGER", 0.1)  # the daemon never ends by itself
    also = f"subprocess.Popen(['sleep', '600']); open({str(script.parent / 'notes.txt')!r}, 'w').close()"
    ended = train(open_slots(), task(also, epochs=1))[-1]
    assert ended == ScriptEnded(strays=("sleep 600",), changed=("notes.txt",))


def test_the_folder_of_the_search_may_lie_beside_the_script(script, task):
    how = Running(script=script, study=STUDY, metric="val_cosine", source="json", folder_flags=("--save_dir",))
    opened = ScriptSlots(how, script.parent / "runs", 1, ["cpu"], 1)
    assert train(opened, task())[-1] == ScriptEnded()


def test_the_environment_says_threads_devices_and_what_the_person_set(open_slots, task, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "here")
    opened = open_slots(threads=3, environment={"MINE": "1", "MPLBACKEND": "svg"})
    train(opened, task("json.dump(dict(os.environ), open('env.json', 'w'))", epochs=1))
    seen = json.loads((folder / "study-0" / "env.json").read_text())
    assert (seen["OMP_NUM_THREADS"], seen["MKL_NUM_THREADS"], seen["MINE"], seen["MPLBACKEND"]) == (
        "3",
        "3",
        "1",
        "svg",
    )
    assert (seen["PYTHONUNBUFFERED"], seen["PYTHONIOENCODING"]) == ("1", "utf-8")
    assert seen["PYTHONPATH"] == str(Path("here").absolute())


@pytest.mark.parametrize(
    ("visible", "device", "seen"),
    [("", "cuda:1", "1"), ("", "cuda", "0"), ("2,3", "cuda:1", "3"), ("GPU-a, GPU-b", "cuda:0", "GPU-a")],
)
def test_a_script_on_a_gpu_sees_that_gpu_alone(monkeypatch, visible, device, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_environment.of(device, 1) == {"CUDA_VISIBLE_DEVICES": seen}


def test_slots_take_the_devices_in_turn(open_slots):
    opened = open_slots(count=3, devices=("cuda:0", "cuda:1"))
    assert [place["CUDA_VISIBLE_DEVICES"] for place in opened._places] == ["0", "1", "0"]


def test_a_slow_look_is_followed_by_a_long_pause(open_slots, task, monkeypatch):
    looks = []

    class Slow(attempt.Numbers):
        def look(self, *, ended=False):
            looks.append(ended)
            time.sleep(0.05)

    monkeypatch.setattr(attempt, "Numbers", Slow)
    train(open_slots(metric="none", time_limit=0.5), task("time.sleep(600)"))
    assert looks == [False, False]  # one at the beginning, one at the end


def test_megabytes_of_output_lose_no_epoch(open_slots, task):
    got = train(open_slots(), task("print('x' * 3_000_000); print('\\r'.join(['12%'] * 100_000))", epochs=2))
    assert epochs(got) == [1, 2]
    assert isinstance(got[-1], ScriptEnded)
