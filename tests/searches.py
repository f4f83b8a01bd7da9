"""What the tests of whole searches share: how one is set up, watched, and looked at afterwards."""

from contextlib import ExitStack, contextmanager
from unittest import mock

import sqlalchemy
import torch
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

from face3d_tune.executor import processes
from face3d_tune.executor.tasks import Event, Failure
from face3d_tune.script.running import slots as script_slots
from face3d_tune.search import doctor, open_study, trainer_search, trial_loop
from face3d_tune.search.trial_run import Setup
from face3d_tune.study import study_file
from face3d_tune.study.settings import Settings
from face3d_tune.training import kernel_ridge, ridge
from face3d_tune.training.base import EpochResult

CPU = torch.device("cpu")
MEASURES = ("no_model_attrs", "ridge_attrs", "kernel_ridge_attrs")
DISTINCT = ["baseline", "recommended", "aggressive", "conservative"]  # quickstart equals recommended

SAMPLED_ONLY = """
[sampler]
name = "tpe"
n_startup_trials = 2
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-5, high = 3e-3, scale = "log" }
use_pose_attention = [false, true]
"""
RANDOM_ONLY = SAMPLED_ONLY.replace('"tpe"', '"random"').replace("n_startup_trials = 2\n", "")

TWO_PRESETS = """
[study]
presets = ["baseline", "recommended"]
[budget]
trials = 3
epochs = 2
[sampler]
name = "random"
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-5, high = 1e-2, scale = "log" }
"""


class Watch:
    """Watches a search, and interrupts it at the end of one epoch of one trial."""

    def __init__(self, interrupt=None, error=KeyboardInterrupt):
        self.interrupt, self.error = interrupt, error
        self.started, self.epochs, self.ended, self.lost, self.notes = [], {}, [], [], []
        self.folds, self.reasons = [], []  # the reasons of the lost

    def trial_started(self, number, preset, config):
        self.started.append((number, preset, config))

    def fold_started(self, number, fold, folds):
        self.folds.append((number, fold, folds))

    def epoch_ended(self, number, result):
        self.epochs.setdefault(number, []).append(result)
        if (number, result.epoch) == self.interrupt:
            raise self.error

    def trial_ended(self, trial):
        self.ended.append(trial)

    def trial_lost(self, number, reason):
        self.lost.append(number)
        self.reasons.append(reason)

    def note(self, line):
        self.notes.append(line)

    warning = note

    def stopping(self):
        return False


class Scripted:
    """Slots whose trainings give what a script says: `play(task, epoch)` is a cosine, the last one, or a failure."""

    engine = "scripted"
    obeys_save_next = True

    def __init__(self, count, play, strangers=()):
        self.count, self.play, self.strangers = count, play, list(strangers)
        self.tasks, self.epochs = {}, {}
        self.started, self.dropped, self.most = [], [], 0

    def start(self, task):
        assert task.number not in self.tasks
        self.tasks[task.number], self.epochs[task.number] = task, 0
        self.started.append(task)
        self.most = max(self.most, len(self.tasks))
        assert self.most <= self.count

    def drop(self, number):
        self.dropped.append(number)
        self.tasks.pop(number, None)

    def save_next(self):
        self.saves = self.obeys_save_next
        return self.saves

    def wait(self):
        assert self.tasks, "nothing trains, so this would wait for ever"
        events = list(self.strangers)
        for number, task in list(self.tasks.items()):
            self.epochs[number] += 1
            given = self.play(task, self.epochs[number])
            given = given if isinstance(given, Failure) else epoch(self.epochs[number], *given)
            if isinstance(given, Failure) or given.stop_reason:
                del self.tasks[number]
            events.append(Event(number, given))
        return events


def epoch(number, cosine, stop_reason=None):
    """An epoch that is better than those before it if its cosine is."""
    return EpochResult(
        epoch=number,
        lr=1e-3,
        train_loss=0.5,
        val_loss=1 - cosine,
        val_loss_equal=1 - cosine,
        val_cosine=cosine,
        cosine_by_yaw={},
        is_best=True,
        next_lr=1e-3,
        stop_reason=stop_reason,
        seconds=0.1,
    )


def file_of(tmp_path, text):
    path = tmp_path / "quick.toml"
    path.write_text(text, encoding="utf-8")
    return study_file.read(str(path))


def search_in(
    storage,
    file,
    data,
    *,
    name="quick",
    layout="keypoint",
    epochs=2,
    seed=None,
    target=None,
    target_epochs=1,
    use_amp=True,
    **options,
):
    setup = Setup(data, CPU, "off", target=target, target_epochs=target_epochs)
    return open_search(storage, name, file, Settings(layout, epochs, seed), setup, use_amp=use_amp, **options)


def open_search(storage, name, file, settings, setup, *, use_amp=True, **options):
    """A search of a study file that is bound to these settings and data."""
    bound = file.bind(settings.layout, setup.data.feature_size, settings.epochs, use_amp=use_amp)
    return trainer_search.open_search(storage, name, bound, settings, setup, **options)


def states(study):
    return [trial.state.name for trial in study.trials]


@contextmanager
def migrations_read_once():
    """Those of Optuna's tables, which alembic otherwise reads from their files twice for each new storage."""
    whole, known = ScriptDirectory.from_config, []

    def once(config):
        known.extend([] if known else [whole(config)])
        return known[0]

    with mock.patch.object(ScriptDirectory, "from_config", once):
        yield


@contextmanager
def statements_compiled_once():
    """Those of SQLAlchemy, which otherwise compiles all of them anew for each storage that is opened.

    A compiled statement depends on the kind of database alone, for all tests of a kind use one version of it.
    """
    made, known = Engine.__init__, LRUCache(2000)

    def sharing(engine, *arguments, **named):
        made(engine, *arguments, **named)
        engine._compiled_cache = known

    with (
        mock.patch.object(Engine, "__init__", sharing),
        mock.patch.object(DefaultDialect, "__eq__", lambda self, other: type(self) is type(other)),
        mock.patch.object(DefaultDialect, "__hash__", lambda self: hash(type(self))),
    ):
        yield


@contextmanager
def baselines_measured_once():
    """What needs no training, which every new study measures on its data; most studies of the tests have the same.

    A test that changes how a baseline is fitted measures it anew.
    """
    with ExitStack() as stack:
        for name in MEASURES:
            stack.enter_context(mock.patch.object(open_study, name, _once(getattr(open_study, name))))
        yield


@contextmanager
def short_waits():
    """Let a search look more often at what it waits for: trials of other workers, processes, files.

    The doctor measures the busy cores for a moment only.
    """
    with (
        mock.patch.object(trial_loop, "_REST", 0.1),
        mock.patch.object(processes, "WAIT", 0.2),
        mock.patch.object(doctor, "_SAMPLE", 0.02),
        mock.patch.multiple(script_slots, WAIT=0.2, _LOOK=0.05),
    ):
        yield


@contextmanager
def in_no_time():
    """Apply all of these, for the tests and for the programs that they start."""
    with (
        disk_not_waited_for(),
        migrations_read_once(),
        statements_compiled_once(),
        baselines_measured_once(),
        short_waits(),
    ):
        yield


def _once(measure):
    known = {}

    def measured(data, folds):
        how = ridge.fit, kernel_ridge.fit, kernel_ridge.CENTRES, kernel_ridge.CENTRES_TO_CHOOSE
        key = data.fingerprint(), folds, how
        if key not in known:
            known[key] = measure(data, folds)
        return known[key]

    return measured


@contextmanager
def disk_not_waited_for():
    """A commit in SQLite then survives a killed process, though not a power cut, and takes no time."""

    def relax(connection, _):
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("pragma synchronous = off")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", relax)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", relax)
