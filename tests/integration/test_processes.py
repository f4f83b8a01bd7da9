"""Searches whose trials train in other processes: the same values as alone, and whatever happens to a process."""

import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import forkserver

import psutil
import pytest
import torch
from conftest import QUICK_STUDY
from optuna.trial import TrialState
from searches import open_search

from face3d_tune.config import TrialConfig
from face3d_tune.errors import TrainingError
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.child import Share
from face3d_tune.executor.processes import ProcessSlots
from face3d_tune.executor.tasks import Event, Failure, Note, Resumed, Task
from face3d_tune.search.trial_run import Setup
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage
from face3d_tune.study import study_file
from face3d_tune.study.causes import cause
from face3d_tune.study.settings import Settings
from face3d_tune.system import memory_kills
from face3d_tune.training import ridge
from face3d_tune.training.base import EpochResult
from face3d_tune.training.batched.batch import alone
from face3d_tune.training.plain import Trainer

CPU = torch.device("cpu")
ONE = Share(CPU, 1)  # a process with one slot
DISTINCT = ["baseline", "recommended", "aggressive", "conservative"]  # quickstart equals recommended
SMALL = TrialConfig(d_model=16, dim_feedforward=16, nhead=2, num_layers=1, batch_size=8, epochs=2)
ENDLESS = 1_000_000  # epochs, which no test waits for

# Every trial stops itself after three epochs, but for the presets that would train for days.
STUDY = """
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
early_stopping_patience = 2
early_stopping_min_delta = 10.0
[space]
lr = { low = 1e-9, high = 1e-2, scale = "log" }
"""
NEVER = "early_stopping_patience = 0"


@pytest.fixture(scope="module")
def two_processes(data):
    opened = ProcessSlots(data, [ONE] * 2)
    yield opened
    processes = pids(opened)
    opened.close()
    assert [pid for pid in processes if psutil.pid_exists(pid)] == []


@pytest.fixture
def slots(two_processes):
    """Two processes, for all tests of this file; nothing of an earlier test's trials, numbered alike, is on its way."""
    yield two_processes
    events = []
    for number in (-1, -2):
        two_processes.start(Task(number, replace(SMALL, epochs=1), 1, "off"))
    while len(events) < 2:
        events += [event for event in two_processes.wait() if event.number < 0]
    for number in (-1, -2):
        two_processes.drop(number)


def start_both(slots):
    """Make sure that both processes are up: one that died is replaced only when it has something to train."""
    for number in (100, 101):
        slots.start(Task(number, SMALL, 1, "off"))
    for number in (100, 101):
        slots.drop(number)


@pytest.fixture
def storage(tmp_path):
    with Storage.parse(f"sqlite:///{(tmp_path / 'studies.db').as_posix()}").opened(create=True) as opened:
        yield opened


@pytest.fixture
def any_storage(storage_url):
    with Storage.parse(storage_url).opened(create=True) as opened:
        yield opened


class Watch:
    """Watches a search, and does something at the end of an epoch."""

    def __init__(self, at_epoch=lambda number, result: None):
        self.at_epoch = at_epoch
        self.started, self.epochs, self.ended, self.lost, self.notes = [], {}, [], [], []

    def trial_started(self, number, preset, config):
        self.started.append((number, preset))

    def epoch_ended(self, number, result):
        self.epochs.setdefault(number, []).append(result)
        self.at_epoch(number, result)

    def trial_ended(self, trial):
        self.ended.append(trial.number)

    def trial_lost(self, number, reason):
        self.lost.append(number)

    def note(self, line):
        self.notes.append(line)

    warning = note

    def stopping(self):
        return False


def search_in(storage, tmp_path, data, text, epochs):
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    setup = Setup(data, CPU, "off")
    search = open_search(storage, "study", study_file.read(str(path)), Settings("keypoint", epochs, None), setup)
    search.enqueue_presets()
    return search


def preset(name, lr, *lines):
    return "\n".join((f"[presets.{name}]", f"lr = {lr}", *lines, ""))


def pids(slots):
    return [child.process.pid for child in slots._children]


def whose(slots, number):
    """The process that trains this trial."""
    (child,) = [child for child in slots._children if number in child.tasks]
    return child.process.pid


def history_alone(trial, data):
    config, seed = TrialConfig(**trial.user_attrs["config"]), trial.user_attrs["seed"]
    training = alone(config, data, seed=seed, device=CPU, precision="off")
    while training.stop_reason is None:
        training.train_epoch()
    return training.history


def what_it_gave(trial):
    return trial.value, trial.intermediate_values


def what_it_gives_alone(trial, data):
    """Its value and whole curve."""
    history = history_alone(trial, data)
    kept = min(history, key=lambda result: result.val_loss)
    return kept.val_cosine, {result.epoch: result.val_cosine for result in history}


def check_as_alone(trials, data):
    """Bit for bit."""
    assert [what_it_gave(trial) for trial in trials] == [what_it_gives_alone(trial, data) for trial in trials]


def states(study):
    return [trial.state.name for trial in study.trials]


def test_a_search_in_two_processes_finishes_its_number_of_trials_each_as_it_is_alone(
    slots, any_storage, tmp_path, data
):
    storage, watch = any_storage, Watch()
    search = search_in(storage, tmp_path, data, QUICK_STUDY, 2)
    search.run(6, watch, slots=slots)
    trials = search.study.trials
    assert states(search.study) == ["COMPLETE"] * 6
    assert watch.started == [*enumerate(DISTINCT), (4, None), (5, None)]
    assert [trial.user_attrs["preset"] for trial in trials] == [*DISTINCT, None, None]
    assert sorted(watch.ended) == list(range(6))
    assert {trial.user_attrs["engine"] for trial in trials} == {"batched"}
    assert len({trial.user_attrs["seed"] for trial in trials}) == 6
    check_as_alone(trials, data)
    for trial in trials:
        seen = [replace(result, seconds=0) for result in watch.epochs[trial.number]]
        assert seen == [replace(result, seconds=0) for result in history_alone(trial, data)]
        assert trial.user_attrs["seconds"] > 0
    search.run(6, watch, slots=slots)
    assert len(search.study.trials) == 6  # there is nothing left to do
    search.run(7, watch, slots=slots)
    assert states(search.study) == ["COMPLETE"] * 7  # the same processes go on


def test_a_pruned_trial_makes_room_at_once_and_one_that_stops_itself_is_complete(slots, storage, tmp_path, data):
    text = STUDY + "[pruner]\nname = 'median'\nn_startup_trials = 1\nn_warmup_steps = 0\n"
    text += preset("learns", 3e-3) + preset("still1", 1e-9, NEVER) + preset("still2", 2e-9, NEVER)
    text += preset("last", 5e-3, "dropout = 0.2")
    search = search_in(storage, tmp_path, data, text, ENDLESS)
    search.run(1, Watch(), slots=slots)
    search.run(4, Watch(), slots=slots)  # two of them would never leave their places by themselves
    learns, *still, last = search.study.trials
    for trial in (learns, last):
        assert (trial.state, trial.user_attrs["stop_reason"]) == (TrialState.COMPLETE, "early_stopping")
        assert trial.user_attrs["epochs_run"] == 3
    check_as_alone([learns, last], data)
    for trial in still:
        assert (trial.state, trial.user_attrs["stop_reason"]) == (TrialState.PRUNED, "pruned")
        assert trial.user_attrs["epochs_run"] == len(trial.intermediate_values) <= 3
    assert search.finished() == 4


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_trial_whose_process_is_killed_is_tried_again_with_the_reason_and_the_rest_goes_on(
    slots, storage, tmp_path, data
):
    # Of 41 long epochs, so that it is killed before its last one, however busy the machine.
    patient = "early_stopping_patience = 40\nbatch_size = 2"
    text = STUDY + preset("first", 1e-3) + preset("second", 2e-3, patient) + preset("third", 3e-3)
    search, before, killed = search_in(storage, tmp_path, data, text, ENDLESS), set(pids(slots)), []

    def kill(number, result):
        if number == 1 and not killed:
            killed.append(whose(slots, 1))
            os.kill(killed[0], signal.SIGKILL)

    watch = Watch(kill)
    search.run(3, watch, slots=slots)
    victim = search.study.trials[1]
    assert (victim.state, victim.user_attrs["stop_reason"]) == (TrialState.FAIL, "error")
    assert victim.user_attrs["error"] == "its process was killed (SIGKILL), probably for lack of memory"
    assert cause(victim) is None  # it only gave its place to a successor
    others = [trial for trial in search.study.trials if trial.number != 1]
    assert [trial.state.name for trial in others] == ["COMPLETE"] * 3  # the total is exact, and no preset is lost
    assert [trial.user_attrs["preset"] for trial in others] == ["first", "third", "second"]
    again = others[-1]
    assert (again.user_attrs["retry_of"], again.user_attrs["deaths"]) == (1, 1)
    assert (again.params, again.user_attrs["seed"]) == (victim.params, victim.user_attrs["seed"])
    check_as_alone(others, data)
    start_both(slots)  # the search itself may have got on with the other process alone
    after = set(pids(slots))
    assert before - after == set(killed)
    assert len(after) == 2
    assert all(psutil.pid_exists(pid) for pid in after)
    assert not psutil.pid_exists(killed[0])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_process_that_was_killed_while_the_kernel_killed_for_memory_ran_out_of_it(slots, tmp_path, monkeypatch):
    kernel = tmp_path / "vmstat"
    kernel.write_text("pgfault 123\noom_kill 7\noom_kill_other 9\n", encoding="ascii")
    monkeypatch.setattr(memory_kills, "_KERNEL", kernel)
    slots.start(Task(200, replace(SMALL, epochs=10**6), 1, "off"))
    kernel.write_text("pgfault 124\noom_kill 8\noom_kill_other 9\n", encoding="ascii")
    os.kill(whose(slots, 200), signal.SIGKILL)
    failed = []
    while not failed:
        failed = [event.content for event in slots.wait() if isinstance(event.content, Failure)]
    assert failed == [Failure("its process was killed (SIGKILL), for lack of memory", out_of_memory=True, died=True)]
    kernel.unlink()
    assert memory_kills.killed_for_memory() == 0  # as on a system that does not say


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="only Linux can limit another process")
def test_a_trial_that_finds_no_memory_fails_with_the_reason_and_its_process_goes_on(slots, storage, tmp_path, data):
    text = STUDY + preset("first", 1e-3)
    text += preset("huge", 1e-3, "d_model = 8192", "dim_feedforward = 32768") + preset("third", 3e-3)
    search = search_in(storage, tmp_path, data, text, ENDLESS)
    search.run(1, Watch(), slots=slots)
    start_both(slots)
    processes = [psutil.Process(pid) for pid in pids(slots)]
    for process in processes:
        used = process.memory_info().vms
        process.rlimit(psutil.RLIMIT_AS, (used + 256 * 2**20, psutil.RLIM_INFINITY))
    try:
        search.run(4, Watch(), slots=slots)
    finally:
        for process in processes:
            if process.is_running():
                process.rlimit(psutil.RLIMIT_AS, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
    huge = next(trial for trial in search.study.trials if trial.user_attrs["preset"] == "huge")
    assert (huge.state, huge.user_attrs["stop_reason"]) == (TrialState.FAIL, "error")
    assert "can't allocate memory" in huge.user_attrs["error"]
    assert huge.user_attrs["cause"] == "out_of_memory"
    others = [trial for trial in search.study.trials if trial.number != huge.number]
    assert [trial.state.name for trial in others] == ["COMPLETE"] * 4
    check_as_alone(others, data)
    assert pids(slots) == [process.pid for process in processes]


def test_an_interrupted_search_leaves_the_processes_free_for_the_next_one(slots, storage, tmp_path, data):
    text = STUDY + preset("endless1", 1e-3, NEVER) + preset("endless2", 2e-3, NEVER)
    search = search_in(storage, tmp_path, data, text, ENDLESS)

    def interrupt(number, result):
        if number == 1 and result.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search.run(2, Watch(interrupt), slots=slots)
    assert states(search.study) == ["FAIL", "FAIL", "WAITING", "WAITING"]
    first, second, *again = search.study.trials
    assert [trial.user_attrs["retry_of"] for trial in again] == [0, 1]
    assert [trial.system_attrs["fixed_params"] for trial in again] == [first.params, second.params]
    for name in ("seed", "preset"):
        assert [trial.user_attrs[name] for trial in again] == [trial.user_attrs[name] for trial in (first, second)]
    assert second.intermediate_values.keys() == {1, 2}
    slots.start(Task(100, SMALL, 1, "off"))
    events = []
    while len(events) < 2:
        events += [event for event in slots.wait() if event.number == 100]
    training = alone(SMALL, data, seed=1, device=CPU, precision="off")
    assert [event.content.val_loss for event in events] == [training.train_epoch().val_loss for _ in range(2)]
    slots.drop(100)


def test_several_trials_share_one_process_as_on_an_accelerator(storage, tmp_path, data):
    text = STUDY + "".join(preset(f"p{number}", lr) for number, lr in enumerate((1e-3, 2e-3, 3e-3, 1e20)))
    text = text.replace("high = 1e-2", "high = 1e20") + preset("large", 1e-3, "d_model = 24")
    search = search_in(storage, tmp_path, data, text, 9)
    opened = ProcessSlots(data, [Share(CPU, 3)])
    try:
        assert (opened.count, len(pids(opened))) == (3, 1)
        search.run(4, Watch(), slots=opened)
        (pid,) = pids(opened)
    finally:
        opened.close()
    assert not psutil.pid_exists(pid)
    assert states(search.study) == ["COMPLETE"] * 3 + ["FAIL"] + ["COMPLETE"]
    assert search.study.trials[3].user_attrs["stop_reason"] == "non_finite"
    check_as_alone([trial for trial in search.study.trials if trial.number != 3], data)


def test_each_process_trains_on_the_device_of_its_share(data):
    """Nothing can train on the device `meta`, so the trial that fails shows which process has it."""
    opened, found = ProcessSlots(data, [ONE, Share(torch.device("meta"), 1)]), {}
    try:
        for number in (1, 2):
            opened.start(Task(number, SMALL, 1, "off"))
        while len(found) < 2:
            found |= {event.number: type(event.content) for event in opened.wait()}
    finally:
        opened.close()
    assert found == {1: EpochResult, 2: Failure}


def test_a_task_that_cannot_be_is_a_failure_from_another_process_too(slots):
    slots.start(Task(200, replace(SMALL, batch_size=43), 1, "off"))
    events = []
    while not events:
        events = [event for event in slots.wait() if event.number == 200]
    assert [event.content for event in events] == [Failure("batch_size = 43 is more than the 42 training pairs")]
    slots.drop(200)


@contextmanager
def fresh_server():
    """Processes in the block are forked from a server that was started in it, with its standard error."""
    server = forkserver._forkserver
    others = dict(vars(server))
    server.__init__()
    yield
    server._stop()
    vars(server).update(others)


def next_of(slots):
    """The next event, however long it takes."""
    while not (events := slots.wait()):
        pass
    (event,) = events
    return event


def test_a_wait_ends_although_the_epoch_has_not(data):
    slots = ProcessSlots(data, [ONE])
    try:
        slots.start(Task(1, replace(SMALL, epochs=ENDLESS), 1, "off"))
        next_of(slots)
        os.kill(whose(slots, 1), signal.SIGSTOP)
        while slots.wait():  # what it had sent before
            pass
        os.kill(whose(slots, 1), signal.SIGCONT)
        assert next_of(slots).number == 1
    finally:
        slots.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP")
@pytest.mark.parametrize("engine", ["batched", "plain"])
def test_a_trial_whose_process_hangs_is_tried_once_again_with_the_same_numbers(storage, tmp_path, data, engine):
    search = search_in(storage, tmp_path, data, STUDY + preset("first", 1e-3, NEVER), 2)
    slots, stopped, watch = ProcessSlots(data, [Share(CPU, 1, engine)], timeout=60.0), [], Watch()

    def stop(number, preset):
        if not stopped:  # before it has read anything, so it is not waited for in a full pipe either
            (child,) = slots._children
            stopped.append(child.process.pid)
            os.kill(stopped[0], signal.SIGSTOP)
            child.silence._limit = 0.5  # the next one needs seconds to start

    watch.trial_started = lambda number, preset, config: stop(number, preset)
    try:
        search.run(1, watch, slots=slots)
    finally:
        slots.close()
    hung, again = search.study.trials
    assert hung.user_attrs["error"] == "it gave no epoch for 0.5 s (--trial-timeout), so its process was ended"
    assert (hung.state.name, cause(hung), again.state.name) == ("FAIL", None, "COMPLETE")
    assert [again.user_attrs[name] for name in ("retry_of", "timeouts", "deaths", "engine")] == [0, 1, 1, engine]
    assert (again.params, again.user_attrs["seed"]) == (hung.params, hung.user_attrs["seed"])
    if engine == "batched":
        check_as_alone([again], data)
    else:
        trainer = Trainer(TrialConfig(**again.user_attrs["config"]), data, seed=again.user_attrs["seed"], device=CPU)
        assert list(again.intermediate_values.values()) == [trainer.train_epoch().val_cosine for _ in range(2)]
    assert not psutil.pid_exists(stopped[0])


def test_processes_that_cannot_live_cost_trials_and_are_not_started_for_ever(capfd, tmp_path, monkeypatch):
    """They do not die of a module in the folder where the person happens to be, either."""
    (tmp_path / "signal.py").write_text("raise RuntimeError('not for Python itself')")
    monkeypatch.chdir(tmp_path)
    with fresh_server():
        slots = ProcessSlots(None, [ONE] * 2)  # these data are none, so every process dies of them
        try:
            for number in range(3):
                slots.start(Task(number, SMALL, 1, "off"))
                event = next_of(slots)
                assert event == Event(number, Failure("its process ended with exit code 1", died=True))
        finally:
            slots.close()
    err = capfd.readouterr().err
    assert "AttributeError" in err  # what it died of is not hidden
    assert "not for Python itself" not in err


def test_processes_that_cannot_live_end_a_search_although_their_trials_are_tried_again(storage, tmp_path, data, capfd):
    search = search_in(storage, tmp_path, data, STUDY + preset("first", 1e-3), 2)
    slots = ProcessSlots(None, [ONE] * 2)
    try:
        with pytest.raises(
            TrainingError, match=r"^\d+ trials in a row failed; the last: its process ended with exit code 1"
        ):
            search.run(4, Watch(), slots=slots)
    finally:
        slots.close()
    assert search.finished() == 0
    assert len(search.study.trials) <= 12
    capfd.readouterr()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint_in_the_same_search(tmp_path, data):
    with Storage.parse(f"sqlite:///{(tmp_path / 'studies.db').as_posix()}").opened(create=True) as storage:
        # Of 41 long epochs, so that it is killed twice before its last one, however late an epoch is heard of.
        text = STUDY + preset("first", 1e-3, NEVER, "batch_size = 2")
        (tmp_path / "study.toml").write_text(text, encoding="utf-8")
        file, artifacts = study_file.read(str(tmp_path / "study.toml")), Artifacts.parse(str(tmp_path / "kept"))
        settings, setup = Settings("keypoint", 41, None), Setup(data, CPU, "off")
        search = open_search(storage, "study", file, settings, setup, artifacts=artifacts)
        search.enqueue_presets()
        slots = ProcessSlots(data, [ONE], search.retention.checkpoints)
        killed = []

        def kill(number, result):
            if result.epoch >= 3 and len(killed) < 2:
                killed.append(number)
                os.kill(whose(slots, number), signal.SIGKILL)

        try:
            search.run(1, Watch(kill), slots=slots)
        finally:
            slots.close()
        trials = search.study.trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE"]
    assert [trial.user_attrs.get("deaths", 0) for trial in trials] == [0, 1, 2]
    assert trials[2].user_attrs["resumed_epochs"] >= 3
    assert "resume_note" not in trials[2].user_attrs
    check_as_alone(trials[2:], data)
    kept = [path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert kept == ["trial-2.pth"]


def until(slots, number, epoch):
    """Everything that a training gives until it has trained this epoch."""
    given = []
    while not given or getattr(given[-1], "epoch", 0) < epoch:
        given += [event.content for event in slots.wait() if event.number == number]
    return given


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_training_whose_process_is_killed_goes_on_in_another_as_if_nothing_had_been(tmp_path, data):
    config = replace(SMALL, epochs=12, dropout=0.3, lr=1e-2)
    whole = alone(config, data, seed=1, device=CPU, precision="off")
    while whole.stop_reason is None:
        whole.train_epoch()
    checkpoints = Checkpoints(Artifacts.parse(str(tmp_path)), "study")
    slots = ProcessSlots(data, [ONE], checkpoints)
    try:
        slots.start(Task(7, config, 1, "off", "trial-7"))
        before = until(slots, 7, 3)
        os.kill(whose(slots, 7), signal.SIGKILL)
        while not isinstance(before[-1], Failure):
            before += [event.content for event in slots.wait()]
        slots.start(Task(9, config, 1, "off", "trial-7", retry=True))
        resumed, *after = until(slots, 9, 12)
    finally:
        slots.close()
    assert isinstance(resumed, Resumed)
    assert resumed.note is None
    assert len(resumed.results) >= len(before) - 1  # an epoch is saved before anybody hears of it
    assert [replace(result, seconds=0) for result in (*resumed.results, *after)] == [
        replace(result, seconds=0) for result in whole.history
    ]
    assert checkpoints.finish("trial-7", "trial-9") is None
    assert checkpoints.artifacts.names("") == [checkpoints.best_name("trial-9")]


def test_children_get_a_baselines_output_from_the_parent_which_fits_it_once(slots, data, monkeypatch):
    fit, fits = ridge.fit, []
    monkeypatch.setattr(ridge, "fit", lambda data, penalty=None: fits.append(penalty) or fit(data, penalty))
    config = replace(SMALL, inputs="ridge")
    for number in (1, 2):
        slots.start(Task(number, config, number, "off"))
    given = {1: [], 2: []}
    while any(not results or results[-1].stop_reason is None for results in given.values()):
        for event in slots.wait():
            given[event.number].append(event.content)
    assert len(fits) <= 1  # none, if another test has fitted it to these data
    for number, results in given.items():
        training = alone(config, data, seed=number, device=CPU, precision="off")
        while training.stop_reason is None:
            training.train_epoch()
        expected = [replace(result, seconds=0) for result in training.history]
        assert [replace(result, seconds=0) for result in results] == expected


def test_before_a_stop_every_child_saves_without_giving_its_epoch_up(tmp_path, data):
    checkpoints = Checkpoints(Artifacts.parse(str(tmp_path)), "study", every=1e9)
    slots = ProcessSlots(data, [ONE], checkpoints)
    try:
        slots.save_next()  # also to one that has nothing to do yet
        slots.start(Task(1, replace(SMALL, epochs=ENDLESS), 1, "off", "trial-1"))
        first = until(slots, 1, 2)
        assert [result.epoch for result in first] == [1, 2]
        assert checkpoints.artifacts.names("")
    finally:
        slots.close()
    slots = ProcessSlots(data, [ONE], checkpoints)
    try:
        slots.start(Task(2, replace(SMALL, epochs=ENDLESS), 2, "off", "trial-2"))
        until(slots, 2, 2)
        assert not [name for name in checkpoints.artifacts.names("") if "trial-2" in name]
        slots.save_next()
        epochs = [given.epoch for given in until(slots, 2, 60)]
        assert epochs == list(range(3, 3 + len(epochs)))
        assert [name for name in checkpoints.artifacts.names("") if "trial-2" in name]
    finally:
        slots.close()


def test_what_a_child_cannot_save_reaches_the_parent_once(tmp_path, data):
    checkpoints = Checkpoints(Artifacts.parse(str(tmp_path / "kept")), "study")
    (tmp_path / "kept").rmdir()
    (tmp_path / "kept").write_text("a file where the folder was")
    slots = ProcessSlots(data, [ONE], checkpoints)
    try:
        slots.start(Task(1, replace(SMALL, epochs=4), 1, "off", "trial-1"))
        given = until(slots, 1, 4)
    finally:
        slots.close()
    (note,) = [each for each in given if isinstance(each, Note)]
    assert note.text.startswith(f"could not save a checkpoint: cannot write to {tmp_path / 'kept'}: ")
    assert [each.epoch for each in given if each is not note] == [1, 2, 3, 4]
