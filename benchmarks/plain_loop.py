"""What a search was before the engine: `study.optimize` over the plain trainer with torch's own choice of threads.

    python -m benchmarks.plain_loop --trials 50 > plain.log

The same study file, presets, sampler, pruner and seeds as `face3d-tune run`. One JSON line a trial, its times without
what the process slept (a clock that ticks in it misses those ticks), and with --each-epoch one line an epoch. The other
benchmarks read this.
"""

import json
import tempfile
import threading
import time
from typing import Any

import optuna
import torch

from benchmarks.common import SHAPES, data_of, options
from face3d_tune import seeds
from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import NonFiniteError
from face3d_tune.search.algorithms import make_pruner, make_sampler
from face3d_tune.study import study_file
from face3d_tune.study.settings import DEFAULT_SEED
from face3d_tune.study.space import suggest
from face3d_tune.study.study_file import StudyFile
from face3d_tune.training.plain import Trainer

_TICK, _LATE = 0.2, 1.0  # seconds; a tick that comes so much too late was slept through


class Clock(threading.Thread):
    """Seconds that this process was stopped, by signal or by a sleeping machine."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.slept = 0.0

    def run(self) -> None:
        """Tick."""
        last = time.perf_counter()
        while True:
            time.sleep(_TICK)
            late = time.perf_counter() - last - _TICK
            self.slept += late if late > _LATE else 0.0
            last = time.perf_counter()

    def now(self) -> float:
        """Seconds awake."""
        return time.perf_counter() - self.slept


class Loop:
    """The objective of one study."""

    def __init__(self, file: StudyFile, data: FaceData, study: optuna.Study, epochs: int, each_epoch: bool) -> None:
        self.file, self.data, self.study, self.epochs, self.each_epoch = file, data, study, epochs, each_epoch
        self.clock = Clock()
        self.clock.start()

    def config(self, params: dict[str, Any], overrides: dict[str, Any]) -> TrialConfig:
        """Return the config of a trial: searched parameters and overrides."""
        return self.file.bind("keypoint", self.data.feature_size, self.epochs).config(params, overrides)

    def enqueue_presets(self) -> None:
        """In the order of the study file, equal ones once."""
        seen: list[TrialConfig] = []
        for preset in self.file.initial_trials():
            params, overrides = dict(preset.params), dict(preset.overrides)
            if (config := self.config(params, overrides)) not in seen:
                seen.append(config)
                self.study.enqueue_trial(params, user_attrs={"preset": preset.name, "overrides": overrides})

    def __call__(self, trial: optuna.Trial) -> float:
        """Train one trial to its end; its value."""
        started, overrides = self.clock.now(), trial.user_attrs.get("overrides", {})
        self.study.sampler = make_sampler(self.file, seeds.derive(DEFAULT_SEED, "sampler", trial.number))
        params = {name: suggest(trial, name, row) for name, row in self.file.space.items() if name not in overrides}
        seed = seeds.derive(DEFAULT_SEED, "trial", trial.number)
        trainer = Trainer(self.config(params, overrides), self.data, seed=seed, device=torch.device("cpu"))
        how, seconds = None, 0.0
        try:
            while how is None:
                began = self.clock.now()
                result = trainer.train_epoch()
                seconds += self.clock.now() - began
                if self.each_epoch:
                    _say(epoch=result.epoch, trial=trial.number, seconds=result.seconds)
                trial.report(result.val_cosine, result.epoch)
                how = trainer.stop_reason or ("pruned" if trial.should_prune() else None)
        except NonFiniteError:
            how = "non_finite"
            raise
        finally:
            best, whole = trainer.best, self.clock.now() - started
            _say(
                trial=trial.number,
                preset=trial.user_attrs.get("preset"),
                how=how,
                epochs=len(trainer.history),
                value=best and best.val_cosine,
                best_epoch=best and best.epoch,
                seconds=whole,
                sum_epochs=seconds,
                slept=self.clock.slept,
            )
        if how == "pruned":
            raise optuna.TrialPruned
        return best.val_cosine if best else float("nan")


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def main() -> None:
    """Run the loop to its end, or until it is killed."""
    parser = options(__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--shape", choices=SHAPES, default="sample")
    parser.add_argument("--steps", type=int, default=20, help="of an epoch at d=512")
    parser.add_argument("--each-epoch", action="store_true")
    given = parser.parse_args()
    trials, epochs = (2, 2) if given.quick else (given.trials, given.epochs)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file, data = study_file.read("default"), data_of(given.shape, given.steps)
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/plain.db"
        study = optuna.create_study(storage=storage, direction="maximize", pruner=make_pruner(file))
        loop = Loop(file, data, study, epochs, given.each_epoch)
        loop.enqueue_presets()
        _say(threads=torch.get_num_threads())
        started = loop.clock.now()
        study.optimize(loop, n_trials=trials, catch=(NonFiniteError,))
        _say(total=loop.clock.now() - started)


if __name__ == "__main__":
    main()
