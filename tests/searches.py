"""What the tests of whole searches share: how one is set up, watched, and looked at afterwards."""

from contextlib import contextmanager

import sqlalchemy
import torch

from face3d_tune import study_file
from face3d_tune.conditions import Settings
from face3d_tune.objective import Setup
from face3d_tune.search import Search

CPU = torch.device("cpu")
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


class Watch:
    """Watches a search, and interrupts it at the end of one epoch of one trial."""

    def __init__(self, interrupt=None, error=KeyboardInterrupt):
        self.interrupt, self.error = interrupt, error
        self.started, self.epochs, self.ended, self.lost, self.notes = [], {}, [], [], []

    def trial_started(self, number, preset, config):
        self.started.append((number, preset, config))

    def epoch_ended(self, number, result):
        self.epochs.setdefault(number, []).append(result)
        if (number, result.epoch) == self.interrupt:
            raise self.error

    def trial_ended(self, trial):
        self.ended.append(trial)

    def trial_lost(self, number):
        self.lost.append(number)

    def note(self, line):
        self.notes.append(line)

    def stopping(self):
        return False


def file_of(tmp_path, text):
    path = tmp_path / "quick.toml"
    path.write_text(text, encoding="utf-8")
    return study_file.read(str(path))


def search_in(storage, file, data, *, name="quick", layout="keypoint", epochs=2, seed=None, target=None, use_amp=True):
    setup = Setup(data, CPU, "off", use_amp=use_amp, target=target)
    return Search(storage, name, file, Settings(layout, epochs, seed), setup)


def states(study):
    return [trial.state.name for trial in study.trials]


@contextmanager
def disk_not_waited_for():
    """A commit in SQLite then survives a killed process, though not a power cut, and takes no time."""

    def relax(connection, _):
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("pragma synchronous = off")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", relax)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", relax)
