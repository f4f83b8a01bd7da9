"""A script in training ends with its worker, and nothing that it started stays on the machine, whatever dies."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from face3d_tune.script.running import process
from face3d_tune.script.running.log import MIB, Log
from face3d_tune.script.running.output_text import OutputText
from face3d_tune.script.running.process import ScriptProcess, sweep, sweep_orphans
from face3d_tune.script.running.supervisor import START, TRIAL

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"), pytest.mark.slow]

KEY = uuid.uuid4().hex  # of these tests alone: a sweep ends every process on the machine that has it

# What the scripts of these tests share: each of their processes writes its number into the folder `pids`.
BEGIN = """
import os, signal, subprocess, sys, time
def known():
    open(f"pids/{os.getpid()}", "w").close()
def sleep():
    known()
    while True:
        time.sleep(60)
def ignore_term():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
STUBBORN = "ignore_term(); sleep()"
WORKERS = """
for _ in range(2):
    if not os.fork():
        ignore_term()
        sleep()
sleep()
"""
DAEMON = """
if not os.fork():
    os.setsid()
    if not os.fork():
        ignore_term()
        sleep()
    os._exit(0)
"""
NAMELESS_DAEMON = """
if not os.fork():
    os.setsid()
    if not os.fork():
        code = "import os, time; open(f'pids/{os.getpid()}', 'w').close(); time.sleep(600)"
        os.execve(sys.executable, [sys.executable, "-c", code], {})
    os._exit(0)
"""
EVERYTHING = DAEMON + WORKERS


def until(condition, seconds=20):
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not (held := condition()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return held


def running(pids):
    """Which of these processes run."""
    return [pid for pid in pids if is_running(pid)]


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pids").mkdir()
    yield tmp_path
    for pid in running(pids(tmp_path)):
        os.kill(pid, signal.SIGKILL)


def pids(folder):
    return [int(path.name) for path in (folder / "pids").iterdir()]


def command(code):
    return [sys.executable, "-c", BEGIN + code]


@pytest.fixture
def start(folder):
    """Start scripts; end them after the test."""
    started = []

    def start(code, *, hear=lambda text: None, key=KEY, environment=None, **options):
        environment = {**os.environ, **(environment or {})}
        options = {"grace": 0.2, **options}
        line = command(code) if isinstance(code, str) else code
        started.append(
            ScriptProcess(line, cwd=folder, environment=environment, key=key, log=folder / "log", hear=hear, **options)
        )
        return started[-1]

    yield start
    for each in started:
        each.end()


def finish(script):
    return until(lambda: script.poll() is not None) and script.poll()


def test_the_output_is_heard_and_logged_and_the_exit_code_returned(start, folder):
    heard = []
    script = start(
        "print('Verlust: 0.5 验证', flush=True); sys.stderr.write('warn\\n'); sys.exit(3)", hear=heard.append
    )
    assert finish(script) == 3
    assert "".join(heard) == script.output == (folder / "log").read_text("utf-8") == "Verlust: 0.5 验证\nwarn\n"
    assert script.strays == ()
    assert script.poll() == 3


def test_a_letter_cut_between_two_pieces_of_output_is_put_together_and_a_broken_one_is_replaced(start):
    heard = []
    code = """
os.write(1, b"1\\n" + "验".encode()[:2])
while not os.path.exists("go"):
    time.sleep(0.001)
os.write(1, "验".encode()[2:] + b"\\xff")
"""
    script = start(code, hear=heard.append)
    until(lambda: heard)
    Path(script._log._file.name).with_name("go").touch()
    finish(script)
    assert "".join(heard) == "1\n验\N{REPLACEMENT CHARACTER}"


def test_lines_in_the_encoding_of_a_chinese_windows_are_text_among_others(start, folder):
    heard = []
    code = """
os.write(1, "第 1/3 轮 训练损失: 0.5\\r\\n".encode("gbk") + "验证损失: 0.4\\n".encode() + "结束".encode("gbk"))
"""
    script = start(code, hear=heard.append)
    finish(script)
    assert "".join(heard) == script.output == "第 1/3 轮 训练损失: 0.5\r\n验证损失: 0.4\n结束"
    assert (folder / "log").read_text("utf-8") == "第 1/3 轮 训练损失: 0.5\n验证损失: 0.4\n结束"


def test_a_line_without_an_end_costs_bounded_memory():
    lines = OutputText()
    heard = [lines.add(b"x" * 10_000) for _ in range(100)]
    assert len("".join(heard)) > 900_000
    assert len("".join(heard) + lines.end()) == 1_000_000


def test_a_printed_line_is_heard_at_once(start):
    heard = []
    start(
        "print(time.time(), flush=True); sleep()",
        hear=lambda text: heard.append(time.time() - float(text)),
    )
    until(lambda: heard)
    assert heard[0] < 0.1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_that_ends_the_script_is_a_negative_code(start, number):
    assert finish(start(f"os.kill(os.getpid(), {int(number)})")) == -number


def test_a_script_that_asks_a_question_gets_the_end_of_input(start):
    script = start("input('Overwrite? ')")
    assert finish(script) == 1
    assert "EOFError" in script.output


@pytest.mark.parametrize("missing", ["/no/such/python", "no-such-python"])
def test_a_program_that_cannot_be_started_says_so(start, missing):
    script = start([missing, "train.py"])
    assert finish(script) == process.CANNOT_START
    assert script.output == f"cannot start {missing}: No such file or directory\n"


def test_a_program_with_an_impossible_argument_says_so(start):
    script = start([sys.executable, "a\0b"])
    assert finish(script) == process.CANNOT_START
    assert "cannot start" in script.output
    assert "null byte" in script.output


def test_the_script_gets_its_own_environment_and_the_marks(start, monkeypatch):
    monkeypatch.setenv("OF_THE_WORKER", "1")
    code = f"print(os.environ.get('OF_THE_WORKER'), os.environ['A'], os.environ['{TRIAL}'], '{START}' in os.environ)"
    script = start(code, environment={"A": "é", "OF_THE_WORKER": "2"})
    finish(script)
    assert script.output == f"2 é {KEY} True\n"


def test_megabytes_of_output_stall_nothing_and_leave_the_first_and_the_last_mib(start, folder):
    heard = [0]

    def hear(text):
        heard[0] += len(text)

    script = start("sys.stdout.write(''.join(f'{n:011}\\n' for n in range(1_000_000)))", hear=hear)
    assert finish(script) == 0
    assert heard[0] == 12_000_000
    log = (folder / "log").read_text()
    first, last = log.split("[the middle of the output was left out]\n")
    assert first.startswith("00000000000\n00000000001\n")
    assert last.endswith("00000999998\n00000999999\n")
    assert MIB <= len(first) <= MIB + 1
    assert MIB - 12 <= len(last) <= MIB
    assert len(script.output) == 64 * 1024
    assert script.output.endswith("00000999999\n")


def test_the_log_is_bounded_while_the_script_runs(tmp_path):
    with Log(tmp_path / "log") as log:
        for _ in range(100):
            log.write(b"x" * 100_000)
            assert (tmp_path / "log").stat().st_size <= 3 * MIB
    assert (tmp_path / "log").stat().st_size <= 2 * MIB + 100


@pytest.mark.parametrize(
    ("pieces", "log"),
    [
        (["1%", "\r2%", "\r100%", "\n", "loss 1\n"], "100%\nloss 1\n"),
        (["a\nb 1\rb 2\r", "b 3\nc"], "a\nb 3\nc"),
        (["a\r", "\nb\r\nc\r", "\r\n"], "a\nb\nc\n"),
        (["a\r", "b"], "b"),
        (["a\n1\n2\r3\r4\n5\n"], "a\n1\n4\n5\n"),
        (["a\r"], "a"),
    ],
)
def test_the_log_has_what_a_terminal_would_show(tmp_path, pieces, log):
    with Log(tmp_path / "log") as written:
        for piece in pieces:
            written.write(piece.encode())
    assert (tmp_path / "log").read_text() == log


def test_a_progress_bar_is_overwritten_after_the_middle_was_cut(tmp_path):
    with Log(tmp_path / "log") as log:
        log.write(b"x\n" * 2 * MIB + b"1%")
        log.write(b"\r2%")
    assert (tmp_path / "log").read_text().endswith("x\nx\n2%")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no file here refuses to grow")
def test_a_full_disk_ends_the_log_and_not_the_script():
    with Log(Path("/dev/full")) as log:
        log.write(b"loss 1\n")
        log.write(b"loss 2\n")


def test_of_thousands_of_updates_at_once_a_few_are_heard_and_every_line(start):
    heard = []
    code = "os.write(1, b'first 1\\r' + b'%\\r' * 2000 + b'loss 2\\n' + b'%\\r' * 2000 + b'last 3\\r')"
    finish(start(code, hear=heard.append))
    text = "".join(heard)
    assert text.startswith("first 1\r%")
    assert "loss 2\n" in text
    assert text.endswith("%\rlast 3\r")
    assert 20 < text.count("\r") < 200


def test_a_second_attempt_appends_to_the_log(start, folder):
    finish(start("print('first')"))
    finish(start("print('second')"))
    assert (folder / "log").read_text() == "first\nsecond\n"


def test_an_error_of_the_listener_is_raised_by_poll_and_stalls_nothing(start, folder):
    def hear(text):
        raise ZeroDivisionError

    script = start("print('x' * 1_000_000); known()", hear=hear)

    until(lambda: script._error)
    with pytest.raises(ZeroDivisionError):
        script.poll()
    until(lambda: pids(folder))  # it printed everything
    until(lambda: script._supervisor.poll() is not None)


@pytest.mark.parametrize(
    ("code", "processes"),
    [("sleep()", 1), (STUBBORN, 1), (WORKERS, 3), (EVERYTHING, 4), (NAMELESS_DAEMON + STUBBORN, 2)],
)
class TestNothingIsLeft:
    """A script that sleeps, ignores TERM, has workers that do, has a daemon as well, one without an environment."""

    def test_when_it_is_ended(self, start, folder, code, processes):
        script = start(code)
        until(lambda: len(pids(folder)) == processes)
        script.end()
        assert running(pids(folder)) == []
        assert script.poll() in (-signal.SIGTERM, -signal.SIGKILL)

    def test_when_its_worker_is_killed(self, worker, folder, code, processes):
        number = worker(code)
        until(lambda: len(pids(folder)) == processes)
        os.kill(number, signal.SIGKILL)
        until(lambda: running(pids(folder)) == [])

    def test_when_its_worker_is_stopped(self, worker, folder, code, processes):
        number = worker(code, silence=0.3)
        until(lambda: len(pids(folder)) == processes)
        os.kill(number, signal.SIGSTOP)
        until(lambda: running(pids(folder)) == [])

    def test_when_its_supervisor_is_killed(self, start, folder, code, processes, monkeypatch):
        monkeypatch.setattr("face3d_tune.script.running.process._DRAINING", 0.1)  # the nameless daemon holds the pipe
        script = start(code)
        until(lambda: len(pids(folder)) == processes)
        script._supervisor.kill()
        assert finish(script) == -signal.SIGKILL
        if code.startswith(NAMELESS_DAEMON):  # without a mark, and without the supervisor that would have adopted it
            assert len(running(pids(folder))) == 1
        else:
            assert running(pids(folder)) == []

    def test_after_a_sweep_when_worker_and_supervisor_are_killed(self, worker, folder, code, processes):
        number = worker(code)
        until(lambda: len(pids(folder)) == processes)
        (supervisor,) = psutil.Process(number).children()
        os.kill(number, signal.SIGSTOP)  # so that it cannot clean up
        supervisor.kill()
        os.kill(number, signal.SIGKILL)
        sweep(KEY, grace=0.2)
        if code.startswith(NAMELESS_DAEMON):
            assert len(running(pids(folder))) == 1
        else:
            assert running(pids(folder)) == []


@pytest.fixture
def worker(folder):
    """Start a process that runs a script and does nothing else."""
    started = []

    def worker(code, silence=60.0):
        text = f"""
import os, signal, sys
from pathlib import Path
from face3d_tune.script.running.process import ScriptProcess
script = ScriptProcess({command(code)!r}, cwd=Path.cwd(), environment=dict(os.environ), key={KEY!r},
                       log=Path("log"), hear=lambda text: None, silence={silence}, grace=0.2)
while True:
    signal.pause()
"""
        started.append(subprocess.Popen([sys.executable, "-c", text], cwd=folder))
        return started[-1].pid

    yield worker
    for each in started:
        each.kill()
        each.wait()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_supervisor_that_is_asked_to_end_ends_the_script(start, folder, name):
    script = start("sleep()")
    until(lambda: pids(folder))
    script._supervisor.send_signal(signal.Signals[name])
    assert finish(script) == -signal.SIGTERM
    assert running(pids(folder)) == []


def test_a_script_may_end_in_its_own_way_within_the_grace(start, folder):
    code = """
def save(*_):
    open("saved", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
sleep()
"""
    script = start(code, grace=20.0)
    until(lambda: pids(folder))
    script.end()
    assert (folder / "saved").exists()
    assert script.poll() == 0


@pytest.fixture
def short_linger(monkeypatch):
    """Let what never ends by itself outlive its script for a moment only."""
    monkeypatch.setattr("face3d_tune.script.running.supervisor.LINGER", 0.1)


def test_what_outlives_the_script_is_named_and_ended(start, folder, short_linger):
    code = f"if not os.fork():\n    subprocess.call([sys.executable, '-c', {BEGIN + STUBBORN!r}])\n"
    code += "while not os.listdir('pids'): time.sleep(0.001)\nprint('done')"
    script = start(code)
    assert finish(script) == 0
    assert running(pids(folder)) == []
    assert 1 <= len(script.strays) <= 2
    assert all("-c" in line for line in script.strays)


def test_what_ends_soon_after_the_script_is_no_stray(start, folder):
    script = start("if not os.fork():\n    known()\n    time.sleep(0.1)\n")
    assert finish(script) == 0
    assert script.strays == ()


def test_the_code_comes_once_all_that_the_script_started_is_gone(start, folder, short_linger):
    script = start(DAEMON + "while not os.listdir('pids'): time.sleep(0.001)")
    while (code := script.poll()) is None:
        time.sleep(0.001)
    assert code == 0
    assert pids(folder)
    assert running(pids(folder)) == []


def test_a_worker_that_was_stopped_only_for_a_moment_keeps_its_script(worker, folder):
    number = worker("sleep()", silence=30.0)
    until(lambda: pids(folder))
    os.kill(number, signal.SIGSTOP)
    until(lambda: psutil.Process(number).status() == psutil.STATUS_STOPPED)
    os.kill(number, signal.SIGCONT)
    assert running(pids(folder)) == pids(folder)


def test_a_supervisor_that_was_stopped_together_with_its_worker_keeps_the_script(worker, folder):
    """As after a laptop's sleep: both were stopped, and neither knows for how long."""
    number = worker("sleep()", silence=0.3)
    until(lambda: pids(folder))
    (supervisor,) = psutil.Process(number).children()
    supervisor.suspend()
    os.kill(number, signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 1.5)  # longer than the silence and what is allowed for a late look
    supervisor.resume()
    os.kill(number, signal.SIGCONT)
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 0.5)
    assert running(pids(folder)) == pids(folder)


def test_a_sweep_ends_the_copy_of_a_stopped_worker_and_its_awakening_ends_no_other(worker, start, folder):
    number = worker("sleep()")
    (old,) = until(lambda: pids(folder))
    os.kill(number, signal.SIGSTOP)
    began = time.monotonic()
    assert len(sweep(KEY, grace=60.0)) == 2  # the supervisor and the script
    assert time.monotonic() - began < 30  # the ended supervisor stays a zombie as long as its worker is stopped
    assert running([old]) == []
    script = start("sleep()")
    (new,) = until(lambda: {*pids(folder)} - {old})
    os.kill(number, signal.SIGCONT)
    until(lambda: psutil.Process(number).children() == [] or psutil.Process(number).children()[0].status() == "zombie")
    assert script.poll() is None
    assert running([new]) == [new]


def test_what_a_killed_worker_and_its_killed_supervisor_left_is_an_orphan(worker, start, folder):
    number = worker(EVERYTHING)
    until(lambda: len(pids(folder)) == 4)
    left = pids(folder)
    script = start("sleep()", key=f"{KEY}-2")
    (other,) = until(lambda: {*pids(folder)} - {*left})
    sweep_orphans()
    assert len(running(left)) == 4
    (supervisor,) = psutil.Process(number).children()
    os.kill(number, signal.SIGSTOP)  # so that it cannot clean up
    supervisor.kill()
    os.kill(number, signal.SIGKILL)
    until(lambda: not is_running(supervisor.pid))
    sweep_orphans()
    assert running(left) == []
    assert running([other]) == [other]
    assert script.poll() is None


def test_a_sweep_ends_no_other_trial(start, folder):
    script = start("sleep()", key=f"{KEY}0")
    until(lambda: pids(folder))
    assert sweep(KEY) == ()
    assert script.poll() is None


def test_a_worker_that_dies_before_it_gives_the_order_leaves_no_supervisor():
    line = [sys.executable, "-P", process.supervisor.__file__]
    assert subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=20).stdout == b""
