"""The confirmation of a search: is its best really better than the presets, on people that no decision has used?

The best trials and the presets are trained again on the same fresh seeds. Validation people choose the winner. Only
then is it compared on the test people, whom nothing else in this package evaluates.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from statistics import mean
from typing import Any

import numpy as np
import optuna
from optuna.storages import RDBStorage

from face3d_tune import seeds
from face3d_tune.analysis.confirmation import chosen_by
from face3d_tune.config import DEFAULTS, TrialConfig
from face3d_tune.data.face_data import FaceData, yaw_band
from face3d_tune.data.pairs import persons
from face3d_tune.data.yaw_bands import YAW_BANDS
from face3d_tune.device import Precision
from face3d_tune.executor.plan import Plan
from face3d_tune.refit import evaluations, intervals
from face3d_tune.refit.baselines import Blended, Fitted, NoModel, fit_one
from face3d_tune.refit.candidates import Candidate
from face3d_tune.refit.retrain import Epoch, Job, Kept, retrain
from face3d_tune.refit.stored_trainings import Record, StoredTrainings, headline, key_of, row_of, trained_trials
from face3d_tune.storage.server_lock import one_at_a_time
from face3d_tune.study.attrs import Attr, StudyAttr
from face3d_tune.study.objective import IDENTITY, Objective
from face3d_tune.study.presence import still_present
from face3d_tune.study.trials import folds_of
from face3d_tune.training.base import PairTensors
from face3d_tune.training.plain import Trainer
from face3d_tune.training.recognition import WHERE, Gallery, Judging

VERSION = 1  # of the keys of a confirmation
_RECOGNITION = ("rank1_enrolled", "tar_enrolled")  # rates that are compared
_ALL = "all"  # beside the bands of |yaw|


class Confirmation(StoredTrainings[Job]):
    """One confirmation of a study: the trainings it needs, those stored already, and its result.

    It has one round, whose test people judge; `rotate.RotatedConfirmation` has several.

    Args:
        study: A study with at least one completed trial.
        storage: The study's storage.
        data: The study's data.
        picked: The result of `candidates`.
        count: Trainings of each candidate in a round.
        note: Receives lines for the user.
    """

    stored_as: Attr[Mapping[str, Any]] = StudyAttr.confirmation
    rotations: int | None = None  # of the people; None: the test people judge

    def __init__(
        self,
        study: optuna.Study,
        storage: RDBStorage,
        data: FaceData,
        picked: Sequence[Candidate],
        count: int,
        note: Callable[[str], object],
    ) -> None:
        self.picked, self._objective = picked, Objective.of_study(study.user_attrs)
        seed = StudyAttr.settings.of(study.user_attrs)["seed"]
        self._rounds = self._cut(data, seed)
        self.seeds = [[self._seed(seed, each, number) for each in range(len(self._rounds))] for number in range(count)]
        prints = [each.fingerprint() for each in self._rounds]
        jobs = [  # by round, then by seed, so that an early end treats all candidates alike
            Job(each, number, drawn[place], _key(each.config, drawn[place], prints[place]), place)
            for place in range(len(self._rounds))
            for number, drawn in enumerate(self.seeds, 1)
            for each in picked
        ]
        super().__init__(study, storage, jobs, note)

    def train(
        self,
        plan: Plan,
        precision: Precision,
        ended: Callable[[Job, Record], object],
        epoch: Epoch,
        keep: Callable[[Job, Kept], object] = lambda job, kept: None,
    ) -> None:
        """Train what is missing and store each training as it ends; `epoch` may raise to end them all.

        `keep` gets each training that has not diverged, before it is stored. Raises TrainingError if a training fails
        for another reason than divergence.
        """
        for place, data in enumerate(self._rounds):
            jobs = [job for job in self.missing if job.round == place]
            if not jobs:
                continue
            with closing(retrain(jobs, data, plan, precision, epoch)) as trainings:
                for job, given in trainings:
                    if not isinstance(given, str):
                        keep(job, given)
                    record = {"error": given} if isinstance(given, str) else _record(job, given, data, plan)
                    self._store(job, record)
                    ended(job, record)

    def _cut(self, data: FaceData, seed: int) -> Sequence[FaceData]:
        """Return the data of every round; `seed` is the study's."""
        return [data]

    def _seed(self, seed: int, place: int, number: int) -> int:
        """Return the seed of a training from the study's, its round's place and its number, both from 0."""
        return seeds.derive(seed, "confirm", number)

    def _chosen_by(self, row: Mapping[str, Any]) -> Any:
        """Return by what the winner is chosen: validation people, never test people, who only judge the winner."""
        return chosen_by(row)["validation"]

    def _described(self) -> dict[str, Any]:
        """Return what a confirmation of this kind stores beside its numbers."""
        return {"seeds": [each for (each,) in self.seeds]}

    def conclude(self, command: str, baseline: str | None) -> dict[str, Any]:
        """Evaluate on the test people; store the result and this evaluation with the study. Raises TrainingError.

        `command` is stored with the evaluation. `baseline` names the preset to compare with first, instead of the best.
        """
        found = self._judged(baseline)
        compared = [candidate["name"] for candidate in found["candidates"]]
        with one_at_a_time(self._storage.engine), still_present(self.study, self._own, self._storage.engine):
            look = {"time": found["time"], "command": command, "compared": compared}
            people = StudyAttr.data_fingerprint.of(self.study.user_attrs)
            found["looks"] = [*evaluations.recorded(self._storage, people), look]
            self.study.set_user_attr(self.stored_as.key, found)
        return found

    def _judged(self, baseline: str | None) -> dict[str, Any]:
        rows = [self._summary(candidate) for candidate in self.picked]
        tables = {each.name: self._tables(each) for each in self.picked}
        presets = [row for row in rows if row["preset"] and row["error"] is None]
        winner = max(trained_trials(rows), key=self._chosen_by)
        best_preset = max(presets, key=self._chosen_by, default=None)
        simple = self._simple_methods()
        against = [
            {"name": name, "kind": kind, **self._compared(tables[winner["name"]], other)}
            for kind, others in (
                ("preset", {row["name"]: tables[row["name"]] for row in presets}),
                ("simple", {name: each["tables"] for name, each in simple.items()}),
            )
            for name, other in others.items()
        ]
        first = headline(presets, best_preset, baseline)
        return {
            "version": VERSION,
            "objective": self._objective.name,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **self._described(),
            "folds": folds_of(self.study.user_attrs),
            "people": sum(len(data.people["test"]) for data in self._rounds),
            "pairs": _pairs(self._rounds),
            "candidates": rows,
            **{key.replace(" ", "_"): each["row"] for key, each in simple.items()},
            "winner": winner,
            "against": against,
            **self._recognised(winner["name"], first["headline"], simple),
            "wanted_difference": intervals.WANTED,
            **first,
            "better_than_every_preset": bool(presets)
            and all(each["verdict"] == "better" for each in against if each["kind"] == "preset"),
        }

    def _simple_methods(self) -> dict[str, dict[str, Any]]:
        """Evaluate every method without training: its row and its tables."""
        methods: dict[str, Callable[[FaceData], Fitted]] = {
            "kernel ridge": lambda data: self._fit("kernel", data),
            "ridge": lambda data: self._fit("ridge", data),
            "no model": lambda data: NoModel(),
        }
        return {name: _simple(self._rounds, method) for name, method in methods.items()}

    def _recognised(self, winner: str, preset: str | None, simple: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Compare whom the winner recognises among all enrolled with the preset and methods without training, by rate.

        Nothing if an earlier version trained the winner; without the preset if it trained that.
        """
        rates = {each.name: self._rates(each) for each in self.picked if each.name in (winner, preset)}
        if not rates[winner]:
            return {}
        others = [(preset, "preset", rates[preset])] if preset is not None and rates[preset] else []
        others += [(name, "simple", each["recognition"]) for name, each in simple.items()]
        compared = {
            rate: {
                "winner": intervals.mean_over_people(of_winner),
                "against": [
                    {
                        "name": name,
                        "kind": kind,
                        "rate": intervals.mean_over_people(other[rate]),
                        **self._compare(of_winner, other[rate]),
                    }
                    for name, kind, other in others
                ],
            }
            for rate, of_winner in rates[winner].items()
        }
        return {"recognition": {"enrolled": len({*self._rounds[0].front_names}), **compared}}

    def _rates(self, candidate: Candidate) -> dict[str, intervals.Values]:
        """Return each of _RECOGNITION of a candidate, [seeds, people]; empty if an earlier version trained it."""
        by_seed = self._of(candidate)
        if not all("test_recognition" in record for rounds in by_seed for record in rounds):
            return {}
        return _recognition_of([[record["test_recognition"][_ALL] for record in rounds] for rounds in by_seed])

    def by_person(self) -> dict[str, intervals.Values]:
        """Return the mean cosine of every judged person, [seeds, people], by candidate and method; none may miss."""
        candidates = {each.name: self._tables(each) for each in self.picked}
        simple = {name: each["tables"] for name, each in self._simple_methods().items()}
        return {name: tables[_ALL] for name, tables in (candidates | simple).items() if tables}

    def _of(self, candidate: Candidate) -> list[list[Record]]:
        """Return the records of a candidate by seed, and of each seed by round."""
        records = {(job.number, job.round): self.records[job.key] for job in self.jobs if job.candidate is candidate}
        return [
            [records[number, place] for place in range(len(self._rounds))] for number in range(1, len(self.seeds) + 1)
        ]

    def _summary(self, candidate: Candidate) -> dict[str, Any]:
        """Summarise a candidate in numbers, as they are stored and shown."""
        by_seed = self._of(candidate)
        records = [record for rounds in by_seed for record in rounds]
        row = row_of(candidate, records)
        if row["error"] is not None:
            return row
        validation = [mean(record["validation"] for record in rounds) for rounds in by_seed]
        if self._objective == IDENTITY:
            row["by_identity"] = _by_identity(candidate, by_seed)
        if rates := self._rates(candidate):
            row["test_rank1_enrolled"] = intervals.mean_over_people(rates["rank1_enrolled"])
        tested = _tables_of(by_seed)
        per_seed = tested[_ALL].mean(axis=1).tolist()
        return row | {
            "validation": mean(validation),
            "validation_sd": intervals.deviation(validation),
            "test": mean(per_seed),
            "test_sd": intervals.deviation(per_seed),
            "test_by_yaw": {band: intervals.mean_over_people(tested[band]) for band in YAW_BANDS},
            "epochs": [record["epochs"] for record in records],
        }

    def _tables(self, candidate: Candidate) -> dict[str, intervals.Values]:
        by_seed = self._of(candidate)
        return {} if any("error" in record for rounds in by_seed for record in rounds) else _tables_of(by_seed)

    def _compared(self, one: Mapping[str, intervals.Values], other: Mapping[str, intervals.Values]) -> dict[str, Any]:
        by_yaw = {band: self._compare(one[band], other[band]) for band in YAW_BANDS}
        return {**self._compare(one[_ALL], other[_ALL]), "by_yaw": by_yaw}

    def _compare(self, one: intervals.Values, other: intervals.Values) -> dict[str, Any]:
        return intervals.compare(one, other)

    def _fit(self, kind: Blended, data: FaceData) -> Fitted:
        return fit_one(kind, data, self.study.user_attrs)


def _key(config: TrialConfig, seed: int, fingerprint: str) -> str:
    """Return the key of a training, without values at their defaults.

    So a parameter of a later version leaves the trainings of this one valid.
    """
    values = {name: value for name, value in config.to_dict().items() if value != DEFAULTS.get(name)}
    return key_of([values, seed, fingerprint])


def _record(job: Job, kept: Kept, data: FaceData, plan: Plan) -> Record:
    """Evaluate the kept weights of a training on validation people and on each test person.

    Records of earlier versions have no `test_recognition`: the means of each person by the queries and the rates of
    `training/recognition`.
    """
    config = job.candidate.config
    trainer = Trainer(config, data, seed=job.seed, device=plan.device, precision=kept.precision)
    trainer.model.load_state_dict(kept.weights)
    pairs = PairTensors(trainer.data, "test", config.pose_unit, plan.device)
    judging = Judging(pairs.gallery)
    _, cosines = trainer.pair_scores(pairs, judging)
    scores, best = judging.end(), kept.best
    return {
        "validation": best.val_cosine,
        "validation_identity": best.recognition.all.identity if best.recognition else None,
        "best_epoch": best.epoch,
        "epochs": len(kept.history),
        "seed": job.seed,
        "precision": kept.precision,
        "device": plan.device.type,
        "engine": plan.engine,
        "test": _by_person(data, cosines.numpy()),
        "test_recognition": {where: scores.by_person(where) for where in WHERE},
    }


def _by_identity(candidate: Candidate, by_seed: Sequence[Sequence[Record]]) -> dict[str, Any]:
    """Summarise what chooses the winner of a study whose objective is identity."""
    values = [mean(record["validation_identity"] for record in rounds) for rounds in by_seed]
    return {"value": candidate.identity, "validation": mean(values), "validation_sd": intervals.deviation(values)}


def _by_person(data: FaceData, cosines: intervals.Values) -> dict[str, list[float | None]]:
    """Average each test person's pairs, over all and by band of |yaw|."""
    pairs = data.parts["test"]
    who, band = persons(pairs), yaw_band(data.yaw[pairs[:, 1]])
    chosen = {_ALL: np.ones(len(pairs), dtype=bool)} | {name: band == place for place, name in enumerate(YAW_BANDS)}
    return {name: intervals.person_means(cosines, who, each) for name, each in chosen.items()}


def _pairs(rounds: Sequence[FaceData]) -> dict[str, int]:
    """Count the pairs of test people, in all and by band."""
    bands = np.concatenate([yaw_band(data.yaw[data.parts["test"][:, 1]]) for data in rounds])
    return {_ALL: len(bands)} | {name: int((bands == place).sum()) for place, name in enumerate(YAW_BANDS)}


def _tables_of(by_seed: Sequence[Sequence[Record]]) -> dict[str, intervals.Values]:
    """Return [seeds, people] for all pairs and for each band, from records by seed and round; people round by round."""
    by_round = list(zip(*by_seed, strict=True))

    def joined(name: str) -> intervals.Values:
        return np.concatenate(
            [intervals.table([each["test"][name] for each in records]) for records in by_round], axis=1
        )

    return {name: joined(name) for name in (_ALL, *YAW_BANDS)}


def _recognition_of(by_seed: Sequence[Sequence[Mapping[str, list[float | None]]]]) -> dict[str, intervals.Values]:
    """Return [seeds, people] of each of _RECOGNITION, from the rates of each person by seed and round."""
    return {
        rate: np.concatenate(
            [intervals.table([each[rate] for each in records]) for records in zip(*by_seed, strict=True)], axis=1
        )
        for rate in _RECOGNITION
    }


def _simple(rounds: Sequence[FaceData], method: Callable[[FaceData], Fitted]) -> dict[str, Any]:
    """Evaluate a method without training, and so without seeds: its numbers, and its tables of one row."""
    validation, judged, recognised = [], [], []
    for data in rounds:
        fitted = method(data)
        cosines = fitted.cosines
        validation.append(float(cosines(data, "validation").mean(dtype=np.float64)))
        judged.append({"test": _by_person(data, cosines(data, "test").astype(np.float64))})
        recognised.append(Gallery(data, "test").scores(fitted.predict(data, "test")).by_person())
    tables = _tables_of([judged])
    means = {name: intervals.mean_over_people(each) for name, each in tables.items()}
    by_yaw = {band: means[band] for band in YAW_BANDS}
    rates = _recognition_of([recognised])
    row = {"validation": mean(validation), "test": means[_ALL], "test_by_yaw": by_yaw}
    row["test_rank1_enrolled"] = intervals.mean_over_people(rates["rank1_enrolled"])
    return {"row": row, "tables": tables, "recognition": rates}
