"""A study of cheap real trainings on a real PostgreSQL, whose every change is written down, and judged at the end."""

import contextlib
import random
from collections.abc import Sequence
from pathlib import Path

import optuna
import sqlalchemy
import torch
from changes import read, record, violations
from fake_data import write_data
from optuna.trial import FrozenTrial
from servers import Server
from sqlalchemy.exc import OperationalError

from face3d_tune.config import TrialConfig
from face3d_tune.data import face_data
from face3d_tune.search.trainer_search import open_search
from face3d_tune.search.trial_run import Setup
from face3d_tune.storage.database import Storage
from face3d_tune.study import study_file
from face3d_tune.study.settings import Settings
from face3d_tune.study.trials import FINISHED
from face3d_tune.training.plain import Trainer

CPU = torch.device("cpu")
EPOCHS = 3
STUDY = """
[study]
presets = ["baseline", "recommended"]
[budget]
epochs = 3
[sampler]
name = "random"
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-5, high = 3e-3, scale = "log" }
dropout = { low = 0.0, high = 0.5 }
scheduler_min_lr = { low = 1e-8, high = 1e-5, scale = "log" }
"""


class WatchedStudy:
    """A new study of `total` trials, in a database of its own, with files in `folder`."""

    def __init__(self, folder: Path, host: Server, total: int) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.total = folder, total
        write_data(folder / "data")
        (folder / "study.toml").write_text(STUDY, encoding="utf-8")
        self.url = host.new_database()
        self.data = face_data.load(folder / "data")
        with Storage.parse(self.url).opened(create=True) as storage:  # whose tables are there to be watched
            file = study_file.read(str(folder / "study.toml")).bind("keypoint", self.data.feature_size, EPOCHS)
            setup = Setup(self.data, CPU, "off")
            open_search(storage, "study", file, Settings("keypoint", EPOCHS, None), setup)
            record(storage.engine)
        self._engine = sqlalchemy.create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"))
        self._finished = 0

    def words(self, url: str, silence: float) -> list[object]:
        """Return the words of a worker that reaches the database at `url`, and is dead after `silence` seconds."""
        words = ["run", "--study", self.folder / "study.toml", "--data-dir", self.folder / "data", "--storage", url]
        words += ["--trials", self.total, "--slots", 1, "--device", "cpu", "--worker-timeout", f"{silence}s"]
        return [*words, "--artifacts", self.folder / "artifacts"]

    def finished(self) -> int:
        """Count the finished trials; while the database restarts, as before."""
        states = ", ".join(f"'{state.name}'" for state in FINISHED)
        with contextlib.suppress(OperationalError), self._engine.connect() as database:
            question = sqlalchemy.text(f"select count(*) from trials where state in ({states})")
            self._finished = int(database.execute(question).scalar_one())
        return self._finished

    def judge(self, dice: random.Random) -> tuple[list[FrozenTrial], list[str]]:
        """Return the trials, and what is wrong with them: their history, or a curve that training again contradicts."""
        with Storage.parse(self.url).opened() as storage:
            trials = optuna.load_study(study_name="study", storage=storage).trials
            wrong = violations(read(storage.engine), trials, self.total)
        self._engine.dispose()
        finished = [trial for trial in trials if trial.state in FINISHED]
        retried = [trial for trial in finished if "retry_of" in trial.user_attrs]
        sample = [*retried[:10], *dice.sample(finished, min(10, len(finished)))]
        return trials, wrong + [line for trial in _distinct(sample) if (line := self._contradicted(trial))]

    def _contradicted(self, trial: FrozenTrial) -> str | None:
        """Train a trial again, and say if that gives another curve."""
        config, seed = TrialConfig(**trial.user_attrs["config"]), trial.user_attrs["seed"]
        trainer = Trainer(config, self.data, seed=seed, device=CPU)
        while trainer.stop_reason is None:
            trainer.train_epoch()
        curve = {result.epoch: result.val_cosine for result in trainer.history}
        if (trial.value, trial.intermediate_values) != (trainer.best.val_cosine, curve):
            return f"trial {trial.number} gives another curve when it is trained again"
        return None


def _distinct(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return list({trial.number: trial for trial in trials}.values())
