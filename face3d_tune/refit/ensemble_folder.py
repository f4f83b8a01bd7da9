"""The members of an ensemble: one config trained with several seeds, kept in one folder.

member-1/ …             each member, with the files of `full_training`
ridge.npz, kernel.npz   the baselines, fitted to the training people, for a blend without them
ensemble.json           the members and baselines by SHA-256, what they reach on validation people, and blend weights
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from face3d_tune import seeds
from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import FaceData
from face3d_tune.device import Precision
from face3d_tune.errors import ConfigError, TrainingError
from face3d_tune.executor.plan import Plan
from face3d_tune.refit import baselines, full_training
from face3d_tune.refit.candidates import Candidate
from face3d_tune.refit.full_training import Trained
from face3d_tune.refit.judge import Judgement, judge
from face3d_tune.refit.retrain import Epoch, Job, Kept, retrain
from face3d_tune.system.whole_file import replacing, sha256_of
from face3d_tune.training import baseline_file, predictor
from face3d_tune.training.model import Model

ABOUT = "ensemble.json"
VERSION = 1  # of its keys
_MEMBER = "member-"


def seeds_of(seed: int, count: int) -> list[int]:
    """Return the seeds of the members: the first is `seed`, the others follow from it, however many there are."""
    return [seed, *(seeds.derive(seed, "member", number) for number in range(2, count + 1))]


_ELSEWHERE = "use --force to train all members again, or another --out"


@dataclass(frozen=True, slots=True)
class Members:
    """One config, trained or to be trained with several seeds in one folder."""

    folder: Path
    config: TrialConfig
    seeds: Sequence[int]
    data: FaceData
    elsewhere: str = _ELSEWHERE  # the hint of an error about a folder that holds something else

    def place(self, number: int) -> Path:
        """Return the folder of a member, from 1."""
        return self.folder / f"{_MEMBER}{number}"

    def missing(self) -> list[int]:
        """Return the numbers of the members that are not there as a whole.

        Raises ConfigError if the folder holds a member of another training, or more members than these.
        """
        if more := [path for path in self.folder.glob(f"{_MEMBER}*") if path not in map(self.place, self._numbers)]:
            raise ConfigError(
                f"{min(more)} would be one member too many for --seeds {len(self.seeds)}",
                "ask for as many members as the folder has, or use another --out",
            )
        return [number for number in self._numbers if not self._complete(number)]

    def remove(self) -> None:
        """Remove everything that an earlier ensemble left in the folder."""
        for place in self.folder.glob(f"{_MEMBER}*"):
            for name in full_training.FILES:
                (place / name).unlink(missing_ok=True)
            with suppress(OSError):  # it holds other files, which stay
                place.rmdir()
        for name in (ABOUT, *(f"{kind}.npz" for kind in baselines.NAMES)):
            (self.folder / name).unlink(missing_ok=True)

    def train(self, plan: Plan, precision: Precision, ended: Callable[[int, Trained], object], epoch: Epoch) -> None:
        """Train the missing members at once, and keep each as it ends; what `epoch` raises ends them all.

        Raises TrainingError if a training diverges or fails.
        """
        candidate = Candidate("member", self.config, None, False, None)
        jobs = [Job(candidate, number, self.seeds[number - 1], "") for number in self.missing()]
        with closing(retrain(jobs, self.data, plan, precision, epoch)) as trainings:
            for job, given in trainings:
                if isinstance(given, str):
                    raise TrainingError(f"member {job.number} (seed {job.seed}): {given}", "try another --seed")
                ended(job.number, self.keep(job.number, given, plan))

    def keep(self, number: int, kept: Kept, plan: Plan) -> Trained:
        """Write a member that has ended."""
        return full_training.keep(kept, self.config, self.seeds[number - 1], self.data, plan, self.place(number))

    def judge(self, plan: Plan, attrs: Mapping[str, Any]) -> Judgement:
        """Judge members, ensemble and blends on validation people, and write what a prediction with a blend needs.

        `attrs` are the user attributes of a study on the same data.
        """
        paths = [self.place(number) / "best_model.pth" for number in self._numbers]
        names = [f"member {number}" for number in self._numbers]
        fitted = baselines.fit(self.data, attrs)
        models = [predictor.read(path, plan.device) for path in paths]
        judgement = judge(
            models,
            self.data,
            "validation",
            unit=None,
            device=plan.device,
            blends=tuple(baselines.NAMES),
            fitted=fitted,
            names=names,
        )
        self._write(judgement, fitted)
        return judgement

    @property
    def _numbers(self) -> range:
        return range(1, len(self.seeds) + 1)

    def _complete(self, number: int) -> bool:
        """Tell whether a member is there. Raises ConfigError if it is of another training."""
        place = self.place(number)
        try:
            held = json.loads((place / "history.json").read_text(encoding="utf-8"))
            same = (held["config"], held["seed"], held["data"]["fingerprint"])
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{place / 'history.json'} cannot be read: {error}", self.elsewhere) from error
        if same != (self.config.to_dict(), self.seeds[number - 1], self.data.fingerprint()):
            raise ConfigError(f"{place} holds a training with another config, seed or data", self.elsewhere)
        return "validation" in held and (place / "best_model.pth").is_file()

    def _write(self, judgement: Judgement, fitted: Mapping[str, baselines.Fitted]) -> None:
        found = judgement.to_dict()
        held: dict[str, Any] = {}
        for kind, name in baselines.NAMES.items():
            path, baseline = self.folder / f"{kind}.npz", fitted[name]
            assert not isinstance(baseline, baselines.NoModel)
            baseline_file.save(path, baseline)
            (row,) = (row for row in judgement.rows if row.baseline == name)
            held[kind] = {"file": path.name, "sha256": sha256_of(path), "weight": row.weight}
        members = [
            {
                "file": f"{_MEMBER}{number}/best_model.pth",
                "sha256": sha256_of(self.place(number) / "best_model.pth"),
                "seed": seed,
            }
            for number, seed in zip(self._numbers, self.seeds, strict=True)
        ]
        about = {
            "version": VERSION,
            **{key: found[key] for key in ("face3d_tune", "time", "data", "people", "gallery")},
        }
        about |= {
            "landmark_scale": self.data.landmark_scale,
            "config": self.config.to_dict(),
            "members": members,
            "baselines": held,
            "validation": found["rows"],
        }
        with replacing(self.folder / ABOUT) as file:
            file.write(json.dumps(about, indent=1, ensure_ascii=False).encode())


def megabytes(config: TrialConfig, feature_size: int) -> float:
    """Return the size of a checkpoint of this config, in 10⁶ bytes."""
    weights = Model(config, feature_size, None).state_dict().values()
    size: int = sum(each.numel() * each.element_size() for each in weights)
    return size / 1e6
