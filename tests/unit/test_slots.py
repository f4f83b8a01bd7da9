"""Slots in this process: who trains when, what a neighbour notices (nothing), and what is done when memory runs out."""

import random
from dataclasses import replace

import pytest
import torch

from face3d_tune.config import TrialConfig
from face3d_tune.errors import NonFiniteError
from face3d_tune.executor.slots import BatchedSlots, PlainSlot
from face3d_tune.executor.tasks import Failure, Task
from face3d_tune.search.trial_run import Outcome, Setup, TrialRun
from face3d_tune.training.base import Training
from face3d_tune.training.batched.batch import Batch, alone
from face3d_tune.training.plain import Trainer

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CONFIG = TrialConfig(d_model=16, dim_feedforward=16, nhead=2, num_layers=1, batch_size=8, epochs=3, lr=1e-3)
WIDER, OTHER_BATCH = replace(CONFIG, d_model=24), replace(CONFIG, batch_size=12)
WILD = replace(CONFIG, lr=1e20)  # NaN in its first epoch
TOO_LARGE = replace(CONFIG, batch_size=43)  # than the 42 training pairs


def task(number, config=CONFIG, precision="off", **changes):
    return Task(number, replace(config, **changes), 100 + number, precision)


def timeless(given):
    return given if isinstance(given, Failure) else replace(given, seconds=0)


@pytest.fixture(scope="module")
def by_itself(data):
    """Everything that a task gives if it is alone."""
    known = {}

    def train(wanted):
        key = (wanted.config, wanted.seed, wanted.precision)
        if key not in known:
            training = alone(wanted.config, data, seed=wanted.seed, device=CPU, precision=wanted.precision)
            while training.stop_reason is None:
                training.train_epoch()
            known[key] = [timeless(result) for result in training.history]
        return known[key]

    return train


def trained(slots, *tasks, rounds=200):
    """Start all these and train until nothing is left to do; what each has given, by number."""
    for each in tasks:
        slots.start(each)
    given = {each.number: [] for each in tasks}
    for _ in range(rounds):
        if not slots.busy:
            return given
        for event in slots.wait():
            given[event.number].append(timeless(event.content))
    raise AssertionError(f"still at work after {rounds} rounds")


def numbers(events):
    return sorted(event.number for event in events)


@pytest.fixture
def built(monkeypatch):
    """Every use of a place: which batch, and whether it is a new place or that of another training."""
    uses = []

    def spy(name):
        original = getattr(Batch, name)

        def used(self, *arguments):
            uses.append((name, id(self)))
            return original(self, *arguments)

        monkeypatch.setattr(Batch, name, used)

    spy("add")
    spy("replace")
    return uses


# The plain slot


def test_the_plain_slot_gives_what_the_plain_trainer_gives(data):
    slot, given = PlainSlot(data, CPU), []
    assert (slot.engine, slot.count, slot.wait()) == ("plain", 1, [])
    slot.start(task(7))
    while not given or given[-1].stop_reason is None:
        (event,) = slot.wait()
        assert event.number == 7
        given.append(timeless(event.content))
    trainer = Trainer(CONFIG, data, seed=107, device=CPU)
    assert given == [timeless(trainer.train_epoch()) for _ in range(3)]


@pytest.mark.parametrize("kind", ["plain", "batched"])
@pytest.mark.parametrize(
    ("config", "words", "non_finite"), [(WILD, "is nan in epoch 1", True), (TOO_LARGE, "batch_size = 43", False)]
)
def test_a_training_that_cannot_be_is_a_failure_with_its_reason(data, kind, config, words, non_finite):
    slots = PlainSlot(data, CPU) if kind == "plain" else BatchedSlots(data, CPU, 2)
    slots.start(task(3, config))
    (event,) = slots.wait()
    assert (event.number, event.content.non_finite) == (3, non_finite)
    assert words in event.content.message


def test_a_dropped_training_gives_nothing_more_in_a_plain_slot(data):
    slot = PlainSlot(data, CPU)
    slot.start(task(1))
    slot.wait()
    slot.drop(1)
    assert slot.wait() == []
    slot.start(task(2))
    assert [(event.number, event.content.epoch) for event in slot.wait()] == [(2, 1)]
    slot.close()


# Batches


def test_trainings_of_every_kind_side_by_side_give_what_each_gives_alone(data, by_itself):
    tasks = [
        task(0),
        task(1, WIDER, epochs=2),
        task(2, lr=3e-3, dropout=0.4, pose_unit="radians", mse_weight=1.0, weight_decay=0.1),
        task(3, OTHER_BATCH),
        task(4, dropout=0.0, loss_type="cosine", epochs=1),
        task(5, WIDER, precision="bf16", use_mixed_precision=True),
        task(6, early_stopping_patience=1, early_stopping_min_delta=10.0),
    ]
    given = trained(BatchedSlots(data, CPU, 4), *tasks)
    assert given == {each.number: by_itself(each) for each in tasks}
    assert [len(given[number]) for number in range(7)] == [3, 2, 3, 3, 1, 3, 2]
    assert given[6][-1].stop_reason == "early_stopping"


def test_trainings_of_one_structure_share_a_batch_and_others_have_their_own(data):
    slots = BatchedSlots(data, CPU, 4)
    for number, config in enumerate((CONFIG, WIDER, CONFIG, OTHER_BATCH)):
        slots.start(task(number, config))
    assert numbers(slots.wait()) == [0, 1, 2, 3]
    assert sorted(len(batch.members) for batch in slots._batches.values()) == [1, 1, 2]


def test_an_ended_training_leaves_its_place_to_the_next_of_its_structure_while_its_neighbours_go_on(
    data, by_itself, built
):
    expected = [(2, by_itself(task(2))[0]), (1, by_itself(task(1))[1])]  # 2 where 0 was
    slots = BatchedSlots(data, CPU, 2)
    for each in (task(0, epochs=1), task(1), task(2)):
        slots.start(each)
    built.clear()
    assert numbers(slots.wait()) == [0, 1]
    assert [(event.number, timeless(event.content)) for event in slots.wait()] == expected
    assert [name for name, _ in built] == ["add", "add", "replace"]
    assert len({batch for _, batch in built}) == 1


@pytest.mark.parametrize("how", ["dropped", "failed"])
def test_a_training_that_is_dropped_or_fails_leaves_its_place_too(data, by_itself, built, how):
    expected = [(2, by_itself(task(2))[0]), (1, by_itself(task(1))[1])]
    slots = BatchedSlots(data, CPU, 2)
    for each in (task(0, WILD if how == "failed" else CONFIG), task(1), task(2)):
        slots.start(each)
    built.clear()
    slots.wait()
    slots.drop(0)
    assert [(event.number, timeless(event.content)) for event in slots.wait()] == expected
    assert [name for name, _ in built] == ["add", "add", "replace"]


def test_the_first_in_is_the_first_out_even_if_its_structure_has_no_batch_yet(data):
    slots = BatchedSlots(data, CPU, 2)
    for each in (task(0, epochs=1), task(1), task(2, WIDER), task(3)):
        slots.start(each)
    assert numbers(slots.wait()) == [0, 1]
    assert numbers(slots.wait()) == [1, 2]
    assert numbers(slots.wait()) == [1, 2]
    assert numbers(slots.wait()) == [2, 3]


def test_a_batch_without_trainings_is_given_up(data):
    slots = BatchedSlots(data, CPU, 2)
    trained(slots, task(0), task(1, WIDER, epochs=1))
    trained(slots, task(2, OTHER_BATCH, epochs=1))
    slots.start(task(3, WIDER))
    slots.wait()
    assert [batch.config.d_model for batch in slots._batches.values()] == [24]
    slots.close()
    assert not slots.busy
    assert slots.wait() == []


def test_a_task_that_is_dropped_before_it_began_never_begins(data):
    slots = BatchedSlots(data, CPU, 1)
    for number in range(3):
        slots.start(task(number, epochs=1))
    slots.drop(1)
    slots.drop(99)  # which is nobody
    assert [numbers(slots.wait()), numbers(slots.wait()), slots.wait()] == [[0], [2], []]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_and_goes_every_training_that_is_not_dropped_ends_as_it_does_alone(data, by_itself, seed):
    chance = random.Random(seed)
    count = chance.randint(1, 4)
    slots = BatchedSlots(data, CPU, count)
    tasks, given, running, dropped = {}, {}, [], set()
    for number in range(12):
        config = chance.choice([CONFIG, WIDER, OTHER_BATCH])
        tasks[number] = task(number, replace(config, epochs=chance.randint(1, 3), lr=chance.choice([1e-3, 3e-3])))
    coming = list(tasks)
    for _ in range(100):
        while coming and len(running) < count + chance.randint(0, 2):  # also more than there are places
            number = coming.pop(0)
            running.append(number)
            slots.start(tasks[number])
        if running and chance.random() < 0.15:
            number = running.pop(chance.randrange(len(running)))
            dropped.add(number)
            slots.drop(number)
        if not (coming or running):
            break
        for event in slots.wait():
            assert event.number in running  # nothing comes of one that was dropped
            given.setdefault(event.number, []).append(timeless(event.content))
            if event.content.stop_reason:
                running.remove(event.number)
    assert not slots.busy
    for number in tasks.keys() - dropped:
        assert given[number] == by_itself(tasks[number])
    for number in dropped & given.keys():
        assert given[number] == by_itself(tasks[number])[: len(given[number])]


def test_no_training_waits_while_a_later_one_begins(data):
    chance, slots, begun = random.Random(3), BatchedSlots(data, CPU, 3), []
    for number in range(15):
        slots.start(task(number, chance.choice([CONFIG, WIDER, OTHER_BATCH]), epochs=chance.randint(1, 3)))
    while slots.busy:
        events = slots.wait()
        assert len(events) <= 3
        begun.append(sorted(event.number for event in events if event.content.epoch == 1))
    assert [number for together in begun for number in together] == list(range(15))


# Trainings that fail


def test_a_batch_size_above_the_number_of_pairs_fails_alone(data, by_itself):
    tasks = [task(0), task(1, TOO_LARGE), task(2)]
    given = trained(BatchedSlots(data, CPU, 3), *tasks)
    assert given[1] == [Failure("batch_size = 43 is more than the 42 training pairs")]
    assert (given[0], given[2]) == (by_itself(tasks[0]), by_itself(tasks[2]))


def test_a_training_that_becomes_nan_fails_and_its_neighbours_do_not_notice(data, by_itself):
    tasks = [task(0), task(1, WILD), task(2), task(3)]
    given = trained(BatchedSlots(data, CPU, 3), *tasks)
    (failure,) = given.pop(1)
    assert failure.non_finite
    assert "is nan in epoch 1" in failure.message
    assert given == {number: by_itself(tasks[number]) for number in (0, 2, 3)}


class Reporter:
    """Takes a curve and never prunes."""

    def __init__(self):
        self.curve = {}

    def report(self, value, step, lr, rank1=None):
        assert step not in self.curve
        self.curve[step] = value

    def should_prune(self):
        return False


def test_mixed_precision_that_leads_to_nan_begins_again_without_it_beside_the_others(data, by_itself, monkeypatch):
    end_epoch = Training.end_epoch

    def fail_lower(self, *arguments):
        if self.precision == "bf16" and self.epoch == 2 and self.seed == 3:
            raise NonFiniteError("training loss is nan in epoch 2")
        return end_epoch(self, *arguments)

    mixed = replace(CONFIG, use_mixed_precision=True)
    neighbour = task(5, mixed, precision="bf16")
    expected = by_itself(neighbour)
    first = by_itself(Task(8, mixed, 3, "bf16"))[0].val_cosine
    monkeypatch.setattr(Training, "end_epoch", fail_lower)
    slots, reporter, given = BatchedSlots(data, CPU, 2), Reporter(), []
    run = TrialRun(8, mixed, Setup(data, CPU, "bf16"), seed=3, reporter=reporter)
    slots.start(run.task)
    slots.start(neighbour)
    outcome = None
    while slots.busy:
        for event in slots.wait():
            if event.number == 5:
                given.append(timeless(event.content))
                continue
            match run.take(event, lambda _: None):
                case Task() as again:
                    assert again == Task(8, mixed, 3, "off")
                    slots.start(again)
                case Outcome() as outcome:
                    pass
    assert given == expected
    without = by_itself(Task(8, mixed, 3, "off"))
    best = min(without, key=lambda result: result.val_loss)
    assert (outcome.stop_reason, outcome.value) == ("finished", best.val_cosine)
    assert (outcome.attrs["amp"], outcome.attrs["retried_without_amp"], outcome.attrs["epochs_run"]) == ("off", True, 3)
    assert outcome.attrs["error"] == "training loss is nan in epoch 2 (mixed precision: bf16)"
    # Optuna takes each step once: the first is that of the first attempt
    assert reporter.curve == {1: first, 2: without[1].val_cosine, 3: without[2].val_cosine}


# Memory


def short_of_memory(monkeypatch, name, room, error=torch.OutOfMemoryError):
    """Let a method of a batch fail if more than `room` models would be trained at once; `room` may be 0."""
    original = getattr(Batch, name)

    def limited(self, *arguments):
        if len(self.members) + (name == "add") > room:
            raise error("CUDA out of memory")
        return original(self, *arguments)

    monkeypatch.setattr(Batch, name, limited)


@pytest.mark.parametrize(
    ("name", "room", "left"),
    [
        *(("add", 3, 3), ("add", 2, 2), ("add", 1, 1)),  # whoever finds no room waits, and the others go on
        *(("train_epoch", 3, 2), ("train_epoch", 2, 2), ("train_epoch", 1, 1)),  # halved until they fit
    ],
)
def test_when_memory_runs_out_fewer_train_at_once_and_all_end_as_alone(data, by_itself, monkeypatch, name, room, left):
    tasks = [task(number) for number in range(4)]
    expected = {each.number: by_itself(each) for each in tasks}
    short_of_memory(monkeypatch, name, room)
    slots = BatchedSlots(data, CPU, 4)
    assert trained(slots, *tasks) == expected
    assert slots.count == left


def test_memory_that_runs_out_later_lets_trainings_begin_again(data, by_itself, monkeypatch):
    tasks = [task(0), task(1)]
    expected = {each.number: by_itself(each)[:1] + by_itself(each) for each in tasks}
    train_epoch = Batch.train_epoch

    def too_much_for_two(self, *arguments):
        if len(self.members) == 2 and self.members[0].epoch == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_epoch(self, *arguments)

    monkeypatch.setattr(Batch, "train_epoch", too_much_for_two)
    assert trained(BatchedSlots(data, CPU, 2), *tasks) == expected


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
@pytest.mark.parametrize("name", ["add", "train_epoch"])
def test_a_training_that_does_not_even_fit_alone_fails_with_the_reason(data, monkeypatch, name, error):
    short_of_memory(monkeypatch, name, 0, error)
    given = trained(BatchedSlots(data, CPU, 4), task(9))
    assert given[9] == [Failure(f"{error.__name__}: CUDA out of memory", out_of_memory=True)]


def test_a_training_that_fits_nowhere_fails_and_those_that_wait_for_its_place_go_on(data, by_itself, monkeypatch):
    tasks = [task(0), task(1, WIDER), task(2), task(3)]
    expected = {number: by_itself(tasks[number]) for number in (0, 2, 3)}
    add = Batch.add

    def no_room_for_wide_models(self, config, *arguments):
        if config.d_model == 24:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return add(self, config, *arguments)

    monkeypatch.setattr(Batch, "add", no_room_for_wide_models)
    given = trained(BatchedSlots(data, CPU, 4), *tasks)
    assert given.pop(1) == [Failure("OutOfMemoryError: CUDA out of memory", out_of_memory=True)]
    assert {number: results[-3:] for number, results in given.items()} == expected


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_training_that_ends_in_the_epoch_in_which_another_batch_fails_is_not_forgotten(data, monkeypatch, error):
    train_epoch = Batch.train_epoch

    def failing(self, *arguments):
        if self.config.d_model == 24:
            raise error("no")
        return train_epoch(self, *arguments)

    monkeypatch.setattr(Batch, "train_epoch", failing)
    given = trained(BatchedSlots(data, CPU, 2), task(0, epochs=1), task(1, WIDER))
    assert given[1] == [Failure(f"{error.__name__}: no", out_of_memory=error is torch.OutOfMemoryError)]
    last = given[0][-1]
    assert isinstance(last, Failure) or last.stop_reason == "finished"


def test_an_error_of_the_device_that_is_not_about_memory_fails_whatever_was_in_training(data, monkeypatch):
    def broken(*_):
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(Batch, "train_epoch", broken)
    slots = BatchedSlots(data, CPU, 3)
    given = trained(slots, task(0), task(1))
    assert given == {number: [Failure("RuntimeError: device-side assert")] for number in (0, 1)}
    assert slots.count == 3


def test_a_stop_in_the_middle_of_an_epoch_gives_no_event(data):
    slots, asked = BatchedSlots(data, CPU, 1), []
    slots.start(task(0))

    def stop():
        asked.append(None)
        return len(asked) > 2

    assert slots.wait(stop) == []
    assert len(asked) == 3  # of 5 steps
    slots.drop(0)
    slots.start(task(1))
    assert [(event.number, event.content.epoch) for event in slots.wait()] == [(1, 1)]


# Folds


def test_trainings_of_several_folds_side_by_side_give_what_each_gives_alone(data):
    tasks = [replace(task(number), fold=fold, folds=3) for number, fold in enumerate((1, 2, 3, 2))]
    given = trained(BatchedSlots(data, CPU, 3), *tasks)
    for each in tasks:
        training = alone(CONFIG, data.fold(each.fold, of=3), seed=each.seed, device=CPU, precision="off")
        assert given[each.number] == [timeless(training.train_epoch()) for _ in range(3)]
    assert given[0] == trained(BatchedSlots(data, CPU, 1), task(0))[0]  # the first of three is the ordinary split
    assert given[1] != given[3]  # of other seeds


def test_a_plain_slot_trains_on_the_fold_of_its_task(data):
    slot = PlainSlot(data, CPU)
    slot.start(replace(task(1), fold=2, folds=3))
    (event,) = slot.wait()
    trainer = Trainer(CONFIG, data.fold(2, of=3), seed=101, device=CPU)
    assert timeless(event.content) == timeless(trainer.train_epoch())
