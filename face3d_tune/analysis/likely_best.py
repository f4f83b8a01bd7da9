"""What the best trial would likely reach again: its value without the luck for which it was chosen.

A trial's value is y = θ + noise: θ is what its config is worth over seeds, the noise is normal with variance s². The
largest of many y is large partly by luck, so it exceeds its own θ on average: the winner's curse.

**Noise.** s² is the pooled variance of trainings that differ only by the seed: configs of the study that were trained
more than once, and the seeds of `confirm`. In a study of K folds a value is a mean over K groups of people. There s² is
the mean square of what is left of the table of trials × folds once its rows' and columns' means are taken away, divided
by K (Scheffé, The Analysis of Variance, 1959, section 4.8).

**Shrinkage.** The θ of all configs come from some distribution G, which the values themselves show. By Bayes, with the
normal density φ of variance s²/m for a mean y of m trainings,

    E[θ | y] = Σ_j w_j g_j φ(y - g_j) / Σ_j w_j φ(y - g_j)

for a G with weights w_j at points g_j. G is fitted by maximum likelihood (Kiefer and Wolfowitz, Annals of Mathematical
Statistics 27, 1956), by the EM steps of Laird (JASA 73, 1978): w_j becomes the mean over configs of point j's share in
their sums. Jiang and Zhang (Annals of Statistics 37, 2009) show that this empirical Bayes estimate is near the best
possible. James and Stein's shrinks towards one mean, which a search with a long tail of bad configs is far from: there
it takes away almost nothing. An expectation given y holds for the largest y, too, so no correction for the choice is
needed (Efron, JASA 106, 2011). What remains is an optimism of about a quarter of s.

No noise is taken from the scatter of epochs: epochs of one training share its seed, so they know little of other seeds.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.objective import COSINE, Objective
from face3d_tune.study.trials import completed_trials, folds_of

_FEWEST_CONFIGS = 5
_FEWEST_DEGREES = 3  # of freedom; with fewer the noise is a guess
_FAR, _BIN = 8.0, 0.02  # of the noise: e^-32 of a share; the error of a value
_STEPS = 200  # of EM; the expectation at the best changes by less than a hundredth of s after them

Source = Literal["seeds", "folds"]
Variance = tuple[float, int]  # sum of squares, degrees of freedom


@dataclass(frozen=True, slots=True)
class LikelyBest:
    """The best trial with the value that it would likely reach again."""

    trial: int
    value: float  # as seen
    likely: float  # as expected of another training
    trials: int  # completed ones, among which it is the best
    noise: float  # standard deviation of a trial's value
    source: Source  # what differs between trainings that tell the noise

    def text(self, objective: Objective) -> str:
        """Say it in one sentence."""
        value, likely, noise = (objective.number(each) for each in (self.value, self.likely, self.noise))
        luck = f"the best of {self.trials} is partly luck"
        reaches = f"trained again, trial {self.trial} likely reaches about {likely} (seen: {value})"
        whom = "another seed changes" if self.source == "seeds" else "other people and seeds change"
        return f"{luck}: {reaches}; {whom} a value by about ±{noise}"


def likely_best(study: optuna.Study) -> LikelyBest | None:
    """Return what the best trial of a study would likely reach again.

    None if the study knows no noise, has too few completed trials, or its confirmation has trained the best again.
    """
    best, attrs = completed_trials(study), study.user_attrs
    if not best or _confirmed(best[0].number, attrs):
        return None
    objective = Objective.of_study(attrs)
    groups = _by_config(best, objective)
    found = _noise_of_folds(best) if folds_of(attrs) > 1 else _noise_of_seeds(groups.values(), attrs, objective)
    if len(groups) < _FEWEST_CONFIGS or found is None:
        return None
    squares, degrees = found
    noise = float(np.sqrt(squares / degrees)) if degrees >= _FEWEST_DEGREES else 0.0
    if noise == 0:
        return None
    value = float(best[0].value or 0.0)
    likely = min(_expected_of(groups, _config(best[0]), noise), objective.key(value))
    source: Source = "folds" if folds_of(attrs) > 1 else "seeds"
    return LikelyBest(best[0].number, value, float(objective.key(likely)), len(best), noise, source)


def _expected_of(groups: Mapping[Any, Sequence[float]], config: Any, noise: float) -> float:
    """Return E[θ | y] of a config. Those too far below it have no share in it, and close ones are counted together."""
    value = float(np.mean(groups[config]))
    rows: dict[tuple[int, int], int] = defaultdict(int)  # in bins, by the number of trainings
    for values in groups.values():
        distance = (float(np.mean(values)) - value) / noise
        if abs(distance) < _FAR:
            rows[round(distance / _BIN), len(values)] += 1
    trained = np.array([trainings for _, trainings in rows])
    binned = np.array([_BIN * place for place, _ in rows])
    means = expected(binned, 1 / np.sqrt(trained), np.array(list(rows.values())))
    return value + noise * float(means[list(rows).index((0, len(groups[config])))])


def expected(values: np.ndarray, noise: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return E[θ | y] of each value y.

    Args:
        values: (n,), larger ones better.
        noise: (n,), the standard deviation of each value, above 0.
        counts: (n,), how often each value stands in the data; None: once.

    Returns:
        (n,).
    """
    often = np.ones(len(values)) if counts is None else counts
    points = np.unique(values)
    distances = (values[:, None] - points[None]) / noise[:, None]
    densities = np.exp(-0.5 * distances**2)  # a row's constant factor cancels
    weights = np.full(len(points), 1 / len(points))
    for _ in range(_STEPS):
        shares = densities * weights
        weights = often @ (shares / shares.sum(axis=1, keepdims=True)) / often.sum()
    shares = densities * weights
    means: np.ndarray = (shares * points).sum(axis=1) / shares.sum(axis=1)
    return means


def _confirmed(trial: int, attrs: Mapping[str, Any]) -> bool:
    found = StudyAttr.confirmation.get(attrs) or StudyAttr.script_confirmation.get(attrs)
    return found is not None and trial in [each["trial"] for each in found["candidates"]]


def _config(trial: FrozenTrial) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in TrialAttr.config.get(trial.user_attrs, {}).items()))


def _by_config(trials: Sequence[FrozenTrial], objective: Objective) -> dict[Any, list[float]]:
    """Group values by config, larger ones better; trainings of one config with the same seed are the same training."""
    groups: dict[Any, dict[int | None, float]] = defaultdict(dict)
    for trial in trials:
        groups[_config(trial)].setdefault(TrialAttr.seed.get(trial.user_attrs), objective.key(trial.value))
    return {config: list(values.values()) for config, values in groups.items()}


def _noise_of_seeds(groups: Iterable[Sequence[float]], attrs: Mapping[str, Any], objective: Objective) -> Variance:
    """Pool the variance within configs that were trained with several seeds, here or by `confirm`."""
    squares = sum(float(np.var(values)) * len(values) for values in groups if len(values) > 1)
    degrees = sum(len(values) - 1 for values in groups)
    for deviation, count in _confirmed_deviations(attrs, objective):
        squares += (count - 1) * deviation**2
        degrees += count - 1
    return squares, degrees


def _confirmed_deviations(attrs: Mapping[str, Any], objective: Objective) -> list[tuple[float, int]]:
    """Return the deviation over seeds of each candidate of a confirmation, and the number of its trainings."""
    if found := StudyAttr.script_confirmation.get(attrs):
        rows = [row for row in found["candidates"] if row["error"] is None and row["sd"] is not None]
        return [(row["sd"], found["count"]) for row in rows] if found["metric"] == objective.name else []
    found = StudyAttr.confirmation.get(attrs)
    if not found or found.get("objective", COSINE.name) != objective.name:
        return []
    rows = [row.get("by_identity", row) for row in found["candidates"] if row["error"] is None]
    return [(row["validation_sd"], len(found["seeds"])) for row in rows if row["validation_sd"] is not None]


def _noise_of_folds(best: Sequence[FrozenTrial]) -> Variance | None:
    """Return the variance that is left of the better half's trials × folds, divided by the number of folds."""
    whole = [[fold["value"] for fold in TrialAttr.folds.get(trial.user_attrs, ())] for trial in best]
    folds = max(map(len, whole))
    rows = [row for row in whole if len(row) == folds and None not in row]
    rows = rows[: max(2, len(rows) // 2)]
    if folds < 2 or len(rows) < 2:
        return None
    table = np.array(rows, dtype=float)
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    return float((left**2).sum()) / folds, (len(rows) - 1) * (folds - 1)
