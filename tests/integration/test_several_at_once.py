"""A search with several trials in training, in slots that only pretend to train: what starts, ends and is put back."""

import random
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import sqlalchemy
import torch
from optuna.trial import TrialState
from searches import DISTINCT, SAMPLED_ONLY, Scripted, Watch, epoch, file_of, search_in, states
from sqlalchemy.exc import OperationalError

from face3d_tune.cli.progress import ended
from face3d_tune.errors import StorageAwayError, TrainingError
from face3d_tune.executor.tasks import Event, Failure
from face3d_tune.search import failures_in_a_row
from face3d_tune.search import trial_loop as loop_module
from face3d_tune.storage.database import Storage
from face3d_tune.study.causes import cause, count_causes
from face3d_tune.study.trials import REQUEUED, preset_rows

STUDY = SAMPLED_ONLY.replace('"tpe"', '"random"').replace("n_startup_trials = 2", "")


def two_epochs(task, number):
    return (0.1 * number, "finished" if number == 2 else None)


def endless(task, number):
    return (0.0,)


@pytest.fixture(scope="module")
def begun(tmp_path_factory, sqlite_without_studies, data):
    """A storage with a study without trials, to be copied."""
    path = Path(shutil.copy(sqlite_without_studies, tmp_path_factory.mktemp("begun")))
    with Storage.parse(f"sqlite:///{path.as_posix()}").opened() as opened:
        search_in(opened, file_of(path.parent, STUDY), data)
    return path


@pytest.fixture
def scripted(begun, sqlite_url, tmp_path, data):
    """Run a search of one parameter in scripted slots; returns it."""
    shutil.copyfile(begun, Storage.parse(sqlite_url).sqlite_file)
    with Storage.parse(sqlite_url).opened() as opened:
        search = search_in(opened, file_of(tmp_path, STUDY), data)

        def run(slots, trials, watch=None, **options):
            search.run(trials, watch or Watch(), slots=slots, **options)
            return search

        run.search = search
        yield run


def test_a_trial_stores_every_kind_of_gpu_that_trains_in_its_search(scripted, monkeypatch):
    gpus = [torch.device(f"cuda:{number}") for number in range(3)]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: ("L4", "L4", "A100")[gpu.index])
    search = scripted.search
    search.setup = replace(search.setup, device=gpus[0], more_gpus=tuple(gpus[1:]))
    scripted(Scripted(2, two_epochs), 1)
    assert search.study.trials[0].user_attrs["device"] == "L4, A100"


def check_put_back(study, numbers, reason):
    """These trials failed for that reason, and others with their parameters, seeds and presets wait in their order."""
    again = [trial for trial in study.trials if trial.state == TrialState.WAITING and "retry_of" in trial.user_attrs]
    assert [trial.user_attrs["retry_of"] for trial in again] == list(numbers)
    for number, successor in zip(numbers, again, strict=True):
        trial = study.trials[number]
        assert (trial.state, trial.user_attrs["error"]) == (TrialState.FAIL, reason)
        assert trial.user_attrs[REQUEUED] is True
        assert successor.system_attrs["fixed_params"] == trial.params
        for name in ("seed", "preset"):
            assert successor.user_attrs.get(name) == trial.user_attrs[name]
    assert "RUNNING" not in states(study)


@pytest.mark.parametrize("chance", range(6))
def test_no_more_trials_run_than_there_are_slots_nor_than_could_be_needed(scripted, chance):
    dice = random.Random(chance)
    count, goal = dice.randint(1, 5), dice.randint(1, 7)
    lengths = {number: dice.randint(1, 3) for number in range(50)}
    failing = {number for number in range(50) if dice.random() < 0.25}

    def play(task, number):
        if task.number in failing:
            return Failure("bad luck")
        return 0.1, "finished" if number == lengths[task.number] else None

    slots, study = Scripted(count, play), scripted.search.study

    def never_too_many(*_):
        held = states(study)
        assert held.count("RUNNING") <= min(count, goal - held.count("COMPLETE"))

    watch = Watch()
    watch.trial_started = watch.trial_ended = never_too_many
    assert scripted(slots, goal, watch).finished() == goal
    assert states(study).count("COMPLETE") == goal
    assert set(states(study)) <= {"COMPLETE", "FAIL"}
    assert len(study.trials) == goal + states(study).count("FAIL")
    assert slots.most == min(count, goal)
    assert slots.tasks == {}
    seeds = [task.seed for task in slots.started]
    assert seeds == [trial.user_attrs["seed"] for trial in study.trials]
    assert len(set(seeds)) == len(seeds)


def test_presets_start_first_and_together_and_each_trial_says_which_engine_trained_it(sqlite, quick, data):
    search, watch, slots = search_in(sqlite, quick, data), Watch(), Scripted(3, two_epochs)
    search.enqueue_presets()
    search.run(5, watch, slots=slots)
    assert [preset for _, preset, _ in watch.started] == [*DISTINCT, None]
    assert {trial.user_attrs["engine"] for trial in search.study.trials} == {"scripted"}
    for trial in search.study.trials:
        assert (trial.value, trial.intermediate_values) == (0.2, {1: 0.1, 2: 0.2})


def test_at_the_deadline_no_trial_starts_and_all_that_run_are_finished(scripted, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop_module, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def play(task, number):
        clock.now += 1
        return 0.1, "finished" if number == 4 + task.number else None

    watch = Watch()
    search = scripted(Scripted(3, play), 10, watch, deadline=6.0)
    assert watch.notes == ["the time limit is reached: no further trial starts"]
    assert states(search.study) == ["COMPLETE"] * 3
    assert [trial.user_attrs["epochs_run"] for trial in search.study.trials] == [4, 5, 6]


def test_a_target_puts_the_other_running_trials_back(sqlite, tmp_path, data):
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data, target=0.8)
    slots = Scripted(4, lambda task, number: (0.9 if (task.number, number) == (1, 2) else 0.5,))
    search.run(10, watch := Watch(), slots=slots)
    assert watch.notes == ["the target is reached: trials in training are queued again"]
    assert states(search.study) == ["FAIL", "COMPLETE", "FAIL", "FAIL"] + ["WAITING"] * 3
    assert search.study.trials[1].user_attrs["stop_reason"] == "target"
    check_put_back(search.study, [0, 2, 3], "another trial reached the target")
    assert slots.tasks == {}


def test_five_failures_in_a_row_put_back_whatever_else_runs(scripted):
    slots = Scripted(7, lambda task, number: Failure(f"reason {task.number}") if task.number < 5 else (0.1,))
    with pytest.raises(TrainingError, match=r"^5 trials in a row failed; the last: reason 4$"):
        scripted(slots, 10)
    study = scripted.search.study
    assert [trial.user_attrs["error"] for trial in study.trials[:5]] == [f"reason {number}" for number in range(5)]
    check_put_back(study, [5, 6], "TrainingError: 5 trials in a row failed; the last: reason 4")
    assert slots.tasks == {}


KILLED = "its process was killed (SIGKILL)"


def dying(times, out_of_memory=False):
    """Trainings of two epochs of which the first of all lineages loses its process so often."""
    deaths = []

    def play(task, number):
        if len(deaths) < times and task.number in (deaths[-1:] or [task.number]):
            deaths.append(task.number + 1)
            return Failure(KILLED, out_of_memory=out_of_memory, died=True)
        return two_epochs(task, number)

    return play


@pytest.mark.parametrize("times", [1, 3])
def test_a_trial_whose_process_died_is_tried_again_in_the_same_search(scripted, times):
    watch, slots = Watch(), Scripted(1, dying(times))
    search = scripted(slots, 2, watch)
    *died, done, other = search.study.trials
    assert [trial.state.name for trial in (*died, done, other)] == ["FAIL"] * times + ["COMPLETE"] * 2
    assert [trial.user_attrs.get("retry_of") for trial in (*died, done)] == [None, *range(times)]
    assert [task.retry for task in slots.started] == [False] + [True] * times + [False]
    assert (done.params, done.user_attrs["seed"]) == (died[0].params, died[0].user_attrs["seed"])
    assert done.user_attrs["deaths"] == times
    assert {trial.user_attrs["error"] for trial in died} == {KILLED}
    assert [cause(trial) for trial in died] == [None] * times
    assert [trial.number for trial in watch.ended] == list(range(times + 2))
    assert (watch.lost, search.finished()) == ([], 2)
    assert ended(died[0], best=False).endswith(f"failed, error: {KILLED}; queued again")


@pytest.mark.parametrize(("out_of_memory", "why"), [(True, "out_of_memory"), (False, "error")])
def test_after_the_last_retry_a_trial_whose_process_dies_fails_with_the_cause(scripted, out_of_memory, why):
    search = scripted(Scripted(1, dying(4, out_of_memory)), 1)
    *died, last, other = search.study.trials
    assert [trial.state.name for trial in (*died, last, other)] == ["FAIL"] * 4 + ["COMPLETE"]
    assert [cause(trial) for trial in (*died, last)] == [None] * 3 + [why]
    assert last.user_attrs["error"] == f"{KILLED}; that was the last of 3 retries"
    assert other.params != last.params


HUNG = "it gave no epoch for 30 s (--trial-timeout), so its process was ended"


@pytest.mark.parametrize("died", [False, True], ids=["only hangs", "a death between"])
def test_a_trial_that_hangs_is_tried_once_again_and_then_fails_with_that_cause(scripted, died):
    failures = [Failure(HUNG, timed_out=True), *[Failure(KILLED, died=True)] * died, Failure(HUNG, timed_out=True)]

    def play(task, number):
        return failures.pop(0) if failures else two_epochs(task, number)

    search = scripted(Scripted(1, play), 1)
    *before, last, other = search.study.trials
    assert [trial.state.name for trial in (*before, last, other)] == ["FAIL"] * (2 + died) + ["COMPLETE"]
    assert [cause(trial) for trial in (*before, last)] == [None] * (1 + died) + ["timeout"]
    assert last.user_attrs["error"] == f"{HUNG}; it hung before, and was tried once again"
    assert (last.params, last.user_attrs["seed"]) == (before[0].params, before[0].user_attrs["seed"])
    assert last.user_attrs["retry_of"] == before[-1].number
    assert other.params != last.params
    assert count_causes(search.study.trials) | {"timeout": 1, "queued_again": 1 + died} == count_causes(
        search.study.trials
    )


def test_trainings_beside_one_that_hangs_lose_nothing_however_often_it_happens(scripted):
    """A death too many would end their row of retries, and five failures in a row the search."""
    left = [8]

    def play(task, number):
        left[0] -= 1
        return Failure("beside", beside=True) if left[0] >= 0 else two_epochs(task, number)

    search = scripted(Scripted(1, play), 1)
    assert states(search.study) == ["FAIL"] * 8 + ["COMPLETE"]
    assert search.study.trials[-1].user_attrs["deaths"] == 0
    assert {cause(trial) for trial in search.study.trials} == {None}


def test_trials_that_all_hang_end_the_search(scripted):
    with pytest.raises(TrainingError, match=rf"^5 trials in a row failed; the last: {re.escape(HUNG)}"):
        scripted(Scripted(1, lambda task, number: Failure(HUNG, timed_out=True)), 9)


@pytest.mark.parametrize(("out_of_memory", "trials"), [(False, 8), (True, 12)], ids=["by an error", "for memory"])
def test_processes_that_die_for_ever_end_a_search(scripted, monkeypatch, out_of_memory, trials):
    """Of two trials both ends and three deaths make five errors. For want of memory twenty trials must end, here 3."""
    assert failures_in_a_row._HOPELESS_IN_A_ROW == 20
    monkeypatch.setattr(failures_in_a_row, "_HOPELESS_IN_A_ROW", 3)
    slots = Scripted(1, lambda task, number: Failure(KILLED, out_of_memory=out_of_memory, died=True))
    with pytest.raises(TrainingError, match=f"trials in a row failed.*the last: {re.escape(KILLED)}"):
        scripted(slots, 3)
    study = scripted.search.study
    assert len([trial for trial in study.trials if trial.state == TrialState.FAIL]) == trials


def test_one_event_that_kills_the_processes_of_many_trials_ends_no_search(scripted):
    """As on a GPU, where one process trains them all."""
    slots = Scripted(
        6, lambda task, number: Failure(KILLED, died=True) if task.number < 6 else two_epochs(task, number)
    )
    assert scripted(slots, 6).finished() == 6
    assert states(scripted.search.study) == ["FAIL"] * 6 + ["COMPLETE"] * 6


def test_a_process_that_dies_while_the_search_is_stopped_costs_nothing_either(scripted):
    watch = Watch()
    watch.stopping = lambda: True
    with pytest.raises(KeyboardInterrupt):
        scripted(Scripted(2, lambda task, number: (0.1,) if task.number else Failure(KILLED, died=True)), 2, watch)
    trials = scripted.search.study.trials
    assert states(scripted.search.study) == ["FAIL", "FAIL", "WAITING", "WAITING"]
    assert [trial.user_attrs["deaths"] for trial in trials[2:]] == [1, 0]


@pytest.mark.parametrize(
    ("when", "error"),
    [
        ("trial_started", KeyboardInterrupt()),
        ("epoch_ended", ValueError("no space left")),
        ("trial_ended", SystemExit(3)),
        ("trial_ended", KeyboardInterrupt()),
    ],
    ids=repr,
)
def test_whatever_a_watcher_raises_puts_all_running_trials_back_in_their_order(sqlite, quick, data, error, when):
    search, watch = search_in(sqlite, quick, data), Watch()
    search.enqueue_presets()
    calls = []

    def fail(*_):
        calls.append(None)
        if len(calls) == 3:
            raise error

    setattr(watch, when, fail)
    slots = Scripted(4, lambda task, number: (0.1, "finished" if number == 1 + task.number % 2 else None))
    with pytest.raises(type(error)):
        search.run(6, watch, slots=slots)
    ran = {"trial_started": [0, 1, 2], "epoch_ended": [1, 2, 3], "trial_ended": [5]}[when]  # 3 and 4 have ended as well
    reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
    check_put_back(search.study, ran, reason)
    assert slots.tasks == {}
    search.run(6, Watch(), slots=Scripted(4, two_epochs))
    assert search.finished() == 6
    assert {row.trial.state for row in preset_rows(search.study)} == {TrialState.COMPLETE}


def test_an_event_of_a_training_that_nobody_waits_for_is_ignored(scripted):
    strangers = [Event(99, epoch(1, 0.9)), Event(98, Failure("late")), Event(0, epoch(7, 0.3))]
    slots = Scripted(2, lambda task, number: (0.1, "finished" if number == 1 else None), strangers[:2])
    search = scripted(slots, 3)
    assert states(search.study) == ["COMPLETE"] * 3
    assert [trial.value for trial in search.study.trials] == [0.1] * 3


class Pruner(optuna.pruners.BasePruner):
    """Prunes these trials at their second epoch."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def prune(self, study, trial):
        return trial.number in self.numbers and trial.last_step == 2


def test_a_pruned_trial_leaves_its_slot_to_the_next_one_at_once_and_its_last_events_count_no_more(scripted):
    scripted.search.study.pruner = Pruner(0)

    def play(task, number):
        return 0.1 * number, "finished" if number == 5 else None

    slots = Scripted(2, play)
    late = []
    wait = slots.wait

    def wait_and_send_what_was_on_its_way():
        events = wait()
        if slots.dropped and not late:
            late.append(Event(0, epoch(3, 0.9, "finished")))
            events = late + events
        return events

    slots.wait = wait_and_send_what_was_on_its_way
    search = scripted(slots, 3)
    assert states(search.study) == ["PRUNED", "COMPLETE", "COMPLETE"]
    assert (search.study.trials[0].intermediate_values, slots.dropped[0]) == ({1: 0.1, 2: 0.2}, 0)
    assert slots.most == 2
    assert late


def test_a_training_that_begins_again_reports_no_epoch_twice(scripted):
    """As it does when memory ran out in its process, or without mixed precision."""
    given = iter([epoch(1, 0.1), epoch(2, 0.2), epoch(1, 0.3), epoch(2, 0.4), epoch(3, 0.5, "finished")])
    slots = Scripted(1, endless)
    slots.wait = lambda: [Event(0, next(given))]
    watch = Watch()
    search = scripted(slots, 1, watch)
    (trial,) = search.study.trials
    assert trial.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.5}
    assert (trial.value, trial.user_attrs["epochs_run"], trial.user_attrs["best_epoch"]) == (0.5, 3, 3)
    assert [result.val_cosine for result in watch.epochs[0]] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_a_trial_that_becomes_nan_in_mixed_precision_begins_again_in_its_slot(sqlite, quick, data):
    search = search_in(sqlite, quick, data)
    object.__setattr__(search.setup, "precision", "bf16")

    def play(task, number):
        mixed = task.precision == "bf16" and number == 2
        return Failure("nan in epoch 2", non_finite=True) if mixed else two_epochs(task, number)

    slots = Scripted(2, play)
    search.run(3, Watch(), slots=slots)
    assert states(search.study) == ["COMPLETE"] * 3
    assert [(task.number, task.precision) for task in slots.started].count((1, "off")) == 1
    by_number = {number: [t for t in slots.started if t.number == number] for number in range(3)}
    for first, again in by_number.values():
        assert again == replace(first, precision="off")
    for trial in search.study.trials:
        assert (trial.user_attrs["amp"], trial.user_attrs["retried_without_amp"]) == ("off", True)
        assert trial.user_attrs["error"] == "nan in epoch 2 (mixed precision: bf16)"


def test_a_config_that_no_model_can_have_takes_no_slot(sqlite, tmp_path, data):
    text = "fixed = { batch_size = 8, num_layers = 1 }\nspace = { nhead = [2, 4, 1], d_model = [16, 18, 8] }"
    search = search_in(sqlite, file_of(tmp_path, text), data)
    for nhead, d_model in ((4, 18), (2, 18), (4, 18), (1, 8)):
        search.study.enqueue_trial({"nhead": nhead, "d_model": d_model})
    slots = Scripted(2, two_epochs)
    search.run(2, Watch(), slots=slots)
    assert states(search.study) == ["FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    assert [task.number for task in slots.started] == [1, 3]


def test_an_interrupt_while_a_trial_is_told_leaves_it_told_and_puts_the_others_back(scripted, monkeypatch):
    tell, told = scripted.search.queue._tell, []

    def told_and_interrupted(*arguments):
        told.append(tell(*arguments))
        if len(told) == 1:
            raise KeyboardInterrupt
        return told[0]

    monkeypatch.setattr(scripted.search.queue, "_tell", told_and_interrupted)
    with pytest.raises(KeyboardInterrupt):
        scripted(Scripted(3, lambda task, number: (0.1, "finished" if task.number == 1 else None)), 9)
    assert states(scripted.search.study)[:3] == ["FAIL", "COMPLETE", "FAIL"]
    check_put_back(scripted.search.study, [0, 2], "interrupted")


def test_a_stop_lets_every_epoch_end_saves_it_and_puts_the_trials_back(scripted):
    watch, slots = (
        Watch(),
        Scripted(3, lambda task, number: (0.1, "finished" if (task.number, number) == (1, 4) else None)),
    )
    watch.stopping = lambda: len(watch.epochs.get(0, [])) >= 3
    with pytest.raises(KeyboardInterrupt):
        scripted(slots, 9, watch)
    study = scripted.search.study
    assert slots.saves is True
    assert states(study) == ["FAIL", "COMPLETE", "FAIL", "WAITING", "WAITING"]  # the one that ended by itself counts
    check_put_back(study, [0, 2], "interrupted")
    assert [len(trial.intermediate_values) for trial in study.trials[:3]] == [4, 4, 4]
    assert slots.tasks == {}


def test_a_stop_trains_no_further_epoch_where_none_would_be_saved_on_request(scripted):
    """An epoch of a script may last hours, and has saved itself."""
    watch, slots = Watch(), Scripted(3, endless)
    slots.obeys_save_next = False
    watch.stopping = lambda: len(watch.epochs.get(0, [])) >= 3
    with pytest.raises(KeyboardInterrupt):
        scripted(slots, 9, watch)
    study = scripted.search.study
    check_put_back(study, [0, 1, 2], "interrupted")
    assert [len(trial.intermediate_values) for trial in study.trials[:3]] == [3, 3, 3]


def test_a_stop_is_noticed_before_an_epoch_has_ended(scripted):
    watch, slots = Watch(), Scripted(2, endless)
    train, looks = slots.wait, []

    def wait():
        looks.append(slots.saves)
        return train() if len(looks) in (1, 9) else []  # the second epoch takes long

    slots.saves, slots.wait = False, wait
    watch.stopping = lambda: len(looks) >= 4
    with pytest.raises(KeyboardInterrupt):
        scripted(slots, 9, watch)
    assert looks == [False] * 4 + [True] * 5
    assert [len(trial.intermediate_values) for trial in scripted.search.study.trials[:2]] == [2, 2]


def away(monkeypatch, search, *, when):
    """The database of this search is away while `when()` says so; returns how often it was asked in vain."""
    engine, vain = search.queue.engine, []

    def refuse(*_):
        if when():
            vain.append(None)
            raise OperationalError("select 1", {}, Exception("connection refused"))

    sqlalchemy.event.listen(engine, "engine_connect", refuse)
    monkeypatch.setattr("face3d_tune.storage.retry._PAUSES", (0.0, 0.0))
    return vain


def test_while_the_database_is_away_training_goes_on_and_the_reports_arrive_later_in_order(scripted, monkeypatch):
    search, watch = scripted.search, Watch()

    def play(task, number):
        return 0.01 * number, "finished" if number == 10 + task.number else None

    slots = Scripted(2, play)
    vain = away(monkeypatch, search, when=lambda: slots.epochs.get(0, 0) >= 3 and slots.epochs.get(1, 0) < 8)
    scripted(slots, 2, watch)
    assert len(vain) > 5
    for trial in search.study.trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.intermediate_values == {step: 0.01 * step for step in range(1, 11 + trial.number)}
    gone, back = watch.notes
    assert gone == "the storage does not answer (connection refused); training continues, and its results wait here"
    assert back.startswith("the storage answers again after ")


def test_a_full_disk_is_waited_for_and_nothing_is_lost(scripted, monkeypatch):
    engine, watch = scripted.search.queue.engine, Watch()
    slots = Scripted(1, lambda task, number: (number / 1000, "finished" if number == 60 else None))
    with engine.connect() as database:  # small pages, so that few reports need another one
        database.exec_driver_sql("pragma page_size = 512")
        database.exec_driver_sql("vacuum")

    def no_more_pages(connection, _):
        if 3 <= slots.epochs.get(0, 0) < 50:
            (held,) = connection.execute("pragma page_count").fetchone()
            connection.execute(f"pragma max_page_count = {held}")

    sqlalchemy.event.listen(engine, "connect", no_more_pages)
    monkeypatch.setattr("face3d_tune.storage.retry._PAUSES", (0.0, 0.0))
    scripted(slots, 1, watch)
    assert scripted.search.study.trials[0].intermediate_values == {step: step / 1000 for step in range(1, 61)}
    assert watch.notes[0].startswith("the storage does not answer (database or disk is full); training continues")
    assert watch.notes[-1].startswith("the storage answers again")


def test_a_stop_while_the_database_is_away_does_not_wait_for_it_as_long_as_a_search_would(scripted, monkeypatch):
    slots, watch = Scripted(2, endless), Watch()
    monkeypatch.setattr(loop_module, "_LAST_WAIT", 0.05)
    vain = away(monkeypatch, scripted.search, when=lambda: slots.epochs.get(0, 0) >= 3)
    watch.stopping = lambda: slots.epochs.get(0, 0) >= 3
    with pytest.raises(KeyboardInterrupt):
        scripted(slots, 9, watch)
    assert vain
    assert watch.notes[0].startswith("the storage does not answer (connection refused)")
    assert "the storage does not answer: it gets 0 s more before this run stops" in watch.notes
    assert "the storage does not answer: the next run takes over what was running" in watch.notes


def test_a_stop_that_the_database_still_hears_puts_the_trials_back(scripted, monkeypatch):
    slots, watch = Scripted(1, endless), Watch()
    vain = away(monkeypatch, scripted.search, when=lambda: slots.epochs.get(0, 0) >= 3 and len(vain) < 5)
    watch.stopping = lambda: slots.epochs.get(0, 0) >= 3
    with pytest.raises(KeyboardInterrupt):
        scripted(slots, 9, watch)
    check_put_back(scripted.search.study, [0], "interrupted")


def test_a_trial_that_ends_while_the_database_is_away_is_told_when_it_is_back(scripted, monkeypatch):
    slots = Scripted(2, lambda task, number: (0.1, "finished" if number == (2, 9)[task.number] else None))
    away(monkeypatch, scripted.search, when=lambda: 2 <= slots.epochs.get(1, 0) < 7)
    scripted(slots, 2)
    assert states(scripted.search.study) == ["COMPLETE"] * 2
    assert slots.most == 2


def test_a_database_that_stays_away_ends_the_search_after_the_epochs_are_saved(sqlite, tmp_path, data, monkeypatch):
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data)
    search._storage_timeout = 0.2
    slots, gone = Scripted(2, endless), []
    away(monkeypatch, search, when=lambda: gone or (slots.epochs.get(1, 0) >= 3 and gone.append(True) is None))

    slots_wait = slots.wait

    def slow_wait():
        time.sleep(0.02)
        return slots_wait()

    slots.wait = slow_wait
    with pytest.raises(StorageAwayError, match="the storage did not answer for"):
        search.run(9, Watch(), slots=slots)
    assert slots.saves is True
    gone.clear()  # back again: the next run takes over what was left


def test_a_trial_that_another_worker_took_is_dropped_and_the_search_goes_on(scripted):
    search, watch = scripted.search, Watch()

    def given_away(number, result):
        if (number, result.epoch) == (1, 2):
            trial = search.study.trials[1]
            search.queue.worker.release(trial._trial_id)
            search.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    watch.epoch_ended = given_away
    slots = Scripted(2, lambda task, number: (0.1, "finished" if number == 5 else None))
    scripted(slots, 3, watch)
    assert watch.lost == [1]
    assert states(search.study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert search.study.trials[1].intermediate_values.keys() == {1, 2}


def test_a_trial_that_lost_its_claim_is_not_told(scripted):
    """Whoever took it may have died before failing it."""
    search, watch = scripted.search, Watch()
    ids = []

    def released(number, result):
        if (number, result.epoch) == (0, 4):
            ids.append(search.study.trials[0]._trial_id)
            search.queue.worker.release(ids[0])

    watch.epoch_ended = released
    slots = Scripted(1, lambda task, number: (0.1, "finished" if number == 5 else None))
    scripted(slots, 1, watch)
    assert watch.lost == [0]
    first, again = search.study.trials
    assert (first.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert first.user_attrs["error"] == "no worker claims it"
    assert again.user_attrs["retry_of"] == 0
    assert (again.params, again.user_attrs["seed"]) == (first.params, first.user_attrs["seed"])


def test_a_trial_whose_workers_die_is_tried_again_three_times_and_then_fails_for_good(scripted):
    search, watch = scripted.search, Watch()
    died = []

    def dies(number, result):
        if len(died) < 4:
            died.append(number)
            search.queue.worker.release(search.study.trials[number]._trial_id)
            raise SystemExit

    watch.epoch_ended = dies
    for _ in range(4):
        with pytest.raises(SystemExit):
            scripted(Scripted(1, two_epochs), 1, watch)
    scripted(Scripted(1, two_epochs), 1, watch)
    trials = search.study.trials
    assert [trial.user_attrs.get("deaths", 0) for trial in trials] == [0, 1, 2, 3, 0]
    assert states(search.study) == ["FAIL"] * 4 + ["COMPLETE"]
    assert [trial.user_attrs.get("retry_of") for trial in trials] == [None, 0, 1, 2, None]
    assert trials[3].user_attrs["error"].endswith("; that was the last of 3 retries")
    assert trials[4].params != trials[3].params
