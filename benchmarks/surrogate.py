"""The learning curve of any configuration, in a fraction of a millisecond, from the trainings in `curves.npz`.

    python -m benchmarks.surrogate        # how good it is, and how noisy trainings are

A curve is mean plus noise. The mean: a Gaussian process for each of a few principal components of the curves (cosine
and mean squared error together, and identity in a study that searches for it), Matérn 5/2 with a length of its own for
every parameter, fitted by its likelihood. The noise: what two seeds of one configuration differ by, whole curves of it,
borrowed from the repeated configurations that lie nearest.

Truth is what a configuration is worth before the luck of a seed: the mean, over all noise that its trainings could
have, of the cosine at the epoch that training keeps. Where curves have identity, there is a truth for either objective.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.distributions import CategoricalDistribution, IntDistribution

from benchmarks.common import options, table
from benchmarks.packed import EPOCHS, METRICS, PACKED, Curves, at, read, study_of
from face3d_tune.config import TrialConfig
from face3d_tune.study.objective import COSINE, IDENTITY, OBJECTIVES, ObjectiveName
from face3d_tune.study.study_file import StudyFile

FEATURE_SIZE = 128  # of the sample
PEOPLE = 48  # who validate in it
CACHE = Path("build/surrogate")
_EXPLAINED, _MOST = 0.998, 10  # variance of the curves that the components hold; their number
_ABOVE = 0.012  # units of cosine above the best trained curve that none reaches: three times the noise of a seed
_CLIMBS, _APART = 12, 0.4  # to the best truth; distance of two favourites in the unit cube
_DONORS = 4  # repeated configurations whose noise a configuration borrows
_BY_THE_WAY = {"cosine_weight", "mse_weight", "early_stopping_patience", "early_stopping_min_delta", "d_model"} | {
    "use_mixed_precision",
    "dim_feedforward",
}  # fields that differ without making another curve, or that another one stands for


@dataclass(frozen=True, slots=True)
class Ended:
    """A training as early stopping would have left it."""

    epochs: int
    kept: int  # index of the lowest validation loss

    @classmethod
    def of(cls, config: TrialConfig, cosine: Sequence[float], mse: Sequence[float]) -> "Ended":
        """Replay the config's own loss and early stopping on the curves of one training."""
        weight, other = config.cosine_weight, config.mse_weight
        patience, min_delta = config.early_stopping_patience, config.early_stopping_min_delta
        lowest, kept, best, waited = float("inf"), 0, float("inf"), 0
        for epoch, (c, m) in enumerate(zip(cosine, mse, strict=True)):
            loss = other * m + weight * (1 - c)
            if loss < lowest:
                lowest, kept = loss, epoch
            if loss < best - min_delta:
                best, waited = loss, 0
            else:
                waited += 1
                if 0 < patience <= waited:
                    return cls(epoch + 1, kept)
        return cls(len(cosine), kept)


class Space:
    """Configurations as points of the unit cube: the searched parameters of a study."""

    def __init__(self, file: StudyFile) -> None:
        self.file, self._bound = file, file.bind("keypoint", FEATURE_SIZE, EPOCHS)
        self._axes: list[tuple[str, Any, bool]] = []  # parameter, choice or (low, high), logarithmic
        for name, row in file.space.items():
            if isinstance(row, CategoricalDistribution):
                extra = row.choices[1:] if len(row.choices) > 1 else ()
                self._axes += [(name, choice, False) for choice in extra]
            else:
                self._axes.append((name, (row.low, row.high), row.log))

    def config(self, params: dict[str, Any], overrides: dict[str, Any]) -> TrialConfig:
        """Return the config of a trial: searched parameters and overrides."""
        return self._bound.config(params, overrides)

    def point(self, config: TrialConfig) -> np.ndarray:
        """[dimensions], each in [0, 1]; a value outside its range is taken to the range's end."""
        values = []
        for name, scale, log in self._axes:
            value = self.value(config, name)
            if not isinstance(scale, tuple):
                values.append(float(value == scale))
                continue
            values.append(_along(value, *scale, log=log))
        return np.array(values)

    @staticmethod
    def value(config: TrialConfig, name: str) -> Any:
        """Of a searched parameter."""
        if name == "width":
            return config.d_model / FEATURE_SIZE
        if name == "cosine_weight":  # AdamW does not see the scale of a loss
            return config.cosine_weight / (config.cosine_weight + config.mse_weight)
        return getattr(config, name)

    @property
    def names(self) -> list[str]:
        """Of the dimensions."""
        return [n if isinstance(scale, tuple) else f"{n} {scale}" for n, scale, _ in self._axes]

    def holds(self, config: TrialConfig) -> bool:
        """Whether nothing but searched parameters differs from the study's fixed ones."""
        low = {name: row.choices[0] if hasattr(row, "choices") else row.low for name, row in self.file.space.items()}
        reference = self.config(low, {})
        searched = set(self.file.space) | _BY_THE_WAY
        if "width" not in self.file.space:
            searched -= {"d_model"}
        return all(
            getattr(config, field.name) == getattr(reference, field.name)
            for field in fields(config)
            if field.name not in searched
        )


class Transform:
    """Curves of some metrics as one row of numbers in which good curves are told apart better than bad ones.

    No sum of such numbers comes back as a cosine or an identity of its ceiling: without one the model promises in the
    corners of the space, where it has seen little, what no training there keeps.
    """

    def __init__(self, curves: Curves, rows: Sequence[int], metrics: Sequence[str]) -> None:
        self.metrics = tuple(metrics)
        self._ceilings = {
            name: float(np.nanmax(getattr(curves, name)[rows])) + _ABOVE for name in metrics if name in OBJECTIVES
        }

    def forward(self, curves: Curves, rows: Sequence[int]) -> np.ndarray:
        """[rows, metrics · EPOCHS]; NaN holds the value before it."""
        parts = []
        for name in self.metrics:
            curve = getattr(curves, name)[rows]
            if name in self._ceilings:
                part = -np.log(np.maximum(self._ceilings[name] - curve, 1e-4))
            else:
                part = 0.3 * np.log(np.maximum(curve, 1e-7))
            for epoch in range(1, EPOCHS):
                gone = np.isnan(part[:, epoch])
                part[gone, epoch] = part[gone, epoch - 1]
            parts.append(part)
        return np.concatenate(parts, axis=1)

    def back(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """[..., metrics · EPOCHS] to curves by metric, [..., EPOCHS] each."""
        parts = np.split(numbers, len(self.metrics), axis=-1)
        return {
            name: self._ceilings[name] - np.exp(-part) if name in self._ceilings else np.exp(part / 0.3)
            for name, part in zip(self.metrics, parts, strict=True)
        }


class Surrogate:
    """Curves of any configuration of a study's space, after the trainings of fold 1 in a table.

    A study for identity has the trainings of the part `identity` alone, and their identity beside the other curves.
    """

    def __init__(self, curves: Curves, study: str = "default") -> None:
        self.space, self._curves = Space(study_of(study)), curves
        self.objective = self.space.file.objective  # of the study
        with_identity = self.objective == IDENTITY.name
        self.objectives = OBJECTIVES if with_identity else (COSINE.name,)  # that have a truth
        configs = {i: self.space.config(_known(curves.params[i]), {}) for i in curves.rows(of_identity=with_identity)}
        rows = [i for i, c in configs.items() if curves.folds[i] == 1 and self.space.holds(c)]
        if not rows:
            raise SystemExit(f"no training of the table is of the space of {study}; make its part first")
        self.configs = [configs[i] for i in rows]
        self.x = np.array([self.space.point(c) for c in self.configs])  # [rows, dimensions]
        self.transform = Transform(curves, rows, tuple(METRICS) if with_identity else tuple(METRICS)[:2])
        self.y = y = self.transform.forward(curves, rows)  # [rows, metrics · EPOCHS]
        self._centre = y.mean(axis=0)
        _, s, axes = np.linalg.svd(y - self._centre, full_matrices=False)
        held = int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), _EXPLAINED)) + 1
        self._axes = axes[: min(held, _MOST)]  # [components, metrics · EPOCHS]
        scores = (y - self._centre) @ self._axes.T
        self._scale = scores.std(axis=0)
        self._scores = scores / self._scale  # [rows, components]
        key = hashlib.sha256(self.x.tobytes() + self._scores.tobytes()).hexdigest()[:16]
        self.key = f"{study}-{key}"
        self._fit()
        self._collect_noise(y)

    def _fit(self) -> None:
        """Lengths, signal and noise of every component, kept in a file."""
        path = CACHE / f"{self.key}.npy"
        if path.exists():
            fitted = np.load(path)
        else:
            fitted = np.array([_most_likely(self.x, target) for target in self._scores.T])
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, fitted)
        self._lengths, self._signal, self._noise = np.exp(fitted[:, :-2]), np.exp(fitted[:, -2]), np.exp(fitted[:, -1])
        self._inverses = []
        for lengths, signal, noise in zip(self._lengths, self._signal, self._noise, strict=True):
            kernel = signal * _matern(_distances(self.x, self.x, lengths)) + noise * np.eye(len(self.x))
            self._inverses.append(np.linalg.inv(kernel))
        self._weights = np.array(
            [inverse @ target for inverse, target in zip(self._inverses, self._scores.T, strict=True)]
        )  # [components, rows]
        self._scaled = self.x[None] / self._lengths[:, None]  # [components, rows, dimensions]

    @cached_property
    def folds(self) -> tuple[np.ndarray, np.ndarray]:
        """Every configuration that was trained on all folds, [configurations, dimensions], and what each fold added
        beside the main effects, [configurations, 3, metrics · EPOCHS].

        A two-way layout, as in `face3d_tune.search.racing`; scaled so that variances are right in spite of the two
        means. The noise of a seed is still in it.
        """
        held: dict[tuple[float, ...], dict[int, int]] = {}
        curves = self._curves
        for i in curves.rows(of_identity=self.objective == IDENTITY.name):
            config = self.space.config(_known(curves.params[i]), {})
            if self.space.holds(config) and "/seed" not in curves.ids[i]:
                held.setdefault(tuple(self.space.point(config)), {})[curves.folds[i]] = i
        whole = {point: [rows[fold] for fold in (1, 2, 3)] for point, rows in held.items() if rows.keys() >= {1, 2, 3}}
        if not whole:
            raise SystemExit("no configuration of the table was trained on all folds; make the part folds first")
        flat = np.array(list(whole.values())).ravel().tolist()
        y = self.transform.forward(curves, flat).reshape(len(whole), 3, -1)
        left = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean(axis=(0, 1))
        freedom = (1 - 1 / len(whole)) * (1 - 1 / 3)
        return np.array(list(whole)), left / np.sqrt(freedom)

    def _collect_noise(self, y: np.ndarray) -> None:
        """Return the differences between the seeds of every repeated configuration, as curves."""
        groups: dict[bytes, list[int]] = {}
        for row, point in enumerate(self.x):
            groups.setdefault(point.tobytes(), []).append(row)
        repeated = [rows for rows in groups.values() if len(rows) > 1]
        if not repeated:
            raise SystemExit("no configuration of the table has a second seed; make the part presets first")
        self._donors = np.array([self.x[rows[0]] for rows in repeated])
        self.noise = [
            (y[rows] - y[rows].mean(axis=0)) * np.sqrt(len(rows) / (len(rows) - 1)) for rows in repeated
        ]  # of each, [seeds, metrics · EPOCHS]

    def mean(self, points: np.ndarray) -> np.ndarray:
        """Curves without noise in transformed numbers: [points, dimensions] to [points, metrics · EPOCHS]."""
        scores = np.empty((len(points), len(self._axes)))
        for i, point in enumerate(points):
            difference = self._scaled - (point / self._lengths)[:, None]
            kernel = _matern(np.sqrt(np.einsum("crd,crd->cr", difference, difference)))
            scores[i] = self._signal * np.einsum("cr,cr->c", kernel, self._weights)
        return self._centre + (scores * self._scale) @ self._axes

    def _noise_near(self, point: np.ndarray) -> np.ndarray:
        """[curves, metrics · EPOCHS] of the nearest repeated configurations."""
        distances = _distances(point[None], self._donors, self._lengths[0])[0]
        return np.concatenate([self.noise[i] for i in np.argsort(distances)[:_DONORS]])

    def train(
        self, config: TrialConfig, rng: np.random.Generator, fold: int | None = None, stretch: float = 1.0
    ) -> dict[str, np.ndarray]:
        """One training: every metric after each epoch.

        `fold`, from 0, of the three: on its people, what that adds times `stretch`.
        """
        point = self.space.point(config)
        near = self._noise_near(point)
        curve = self.mean(point[None])[0] + near[rng.integers(len(near))] * rng.choice((-1.0, 1.0))
        if fold is not None:
            curve = curve + stretch * self._of_fold(point, fold)
        return self.transform.back(curve)

    def _of_fold(self, point: np.ndarray, fold: int) -> np.ndarray:
        """Return what a fold adds to a curve only here, from the nearest configuration that had all folds."""
        donors, added = self.folds
        return added[np.argmin(_distances(point[None], donors, self._lengths[0])[0]), fold]

    def truths(self, config: TrialConfig) -> dict[ObjectiveName, float]:
        """Return the worth of the configuration: what it keeps, on average over all noise it could meet."""
        point = self.space.point(config)
        near = self._noise_near(point)
        y = self.mean(point[None]) + np.concatenate((near, -near))
        return {name: float(values.mean()) for name, values in self.kept([config] * len(y), y).items()}

    def kept(self, configs: Sequence[TrialConfig], y: np.ndarray) -> dict[ObjectiveName, np.ndarray]:
        """Return what each config's training keeps, [rows], of curves in transformed numbers [rows, metrics · EPOCHS].

        It is the value of the epoch with the lowest validation loss, whatever the objective.
        """
        curves = self.transform.back(y)
        losses = zip(configs, curves["cosine"].tolist(), curves["mse"].tolist(), strict=True)
        epochs = [Ended.of(*each).kept for each in losses]
        return {name: curves[name][np.arange(len(y)), epochs] for name in self.objectives}

    def best(self, objective: ObjectiveName) -> tuple[float, TrialConfig]:
        """Return the best truth there is, as far as many random points and a climb from the best of them find it."""
        name = "best" if objective == COSINE.name else f"best-{objective}"
        path, rows = CACHE / f"{self.key}-{name}.npy", list(self.space.file.space.items())
        u = np.load(path) if path.exists() else self._climbed(objective)[0][1]
        np.save(path, u)
        config = self._config(u, rows)
        return self.truths(config)[objective], config

    def favourites(self, count: int) -> list[dict[str, Any]]:
        """Params of the points that it holds for the best, no two of them near each other: to be trained, since a
        search finds whatever a surrogate is wrong about in its own favour.
        """
        rows, chosen = list(self.space.file.space.items()), list[np.ndarray]()
        for _, u in self._climbed(self.objective):
            if len(chosen) < count and all(np.linalg.norm(u - other) > _APART for other in chosen):
                chosen.append(u)
        return [{name: at(row, float(v)) for (name, row), v in zip(rows, u, strict=True)} for u in chosen]

    def _climbed(self, objective: ObjectiveName) -> list[tuple[float, np.ndarray]]:
        """Truths and points, the highest first, each climbed to from one of the best of many random points or of what
        was trained.
        """
        rng, rows = np.random.default_rng(0), list(self.space.file.space.items())
        drawn = [*rng.random((6000, len(rows))), *(self._cube(config) for config in self.configs)]
        quick = [self._last(u, rows, objective) for u in drawn]
        climbed = []
        for i in np.argsort(quick)[-_CLIMBS:]:
            u, value, step = drawn[i], self.truths(self._config(drawn[i], rows))[objective], 0.2
            while step > 0.01:
                moved = np.where(rng.random(len(u)) < 0.4, u + step * rng.normal(size=len(u)), u).clip(0, 1 - 1e-9)
                other = self.truths(self._config(moved, rows))[objective]
                u, value, step = (moved, other, step) if other > value else (u, value, step * 0.97)
            climbed.append((value, u))
        return sorted(climbed, key=lambda pair: -pair[0])

    def _last(self, u: np.ndarray, rows: list[tuple[str, Any]], objective: ObjectiveName) -> float:
        mean = self.transform.back(self.mean(self.space.point(self._config(u, rows))[None])[0])
        return float(mean[objective].max())

    def _cube(self, config: TrialConfig) -> np.ndarray:
        """Where `_config` gives a trained one, or what is nearest to it in the space."""
        values = []
        for name, row in self.space.file.space.items():
            value = self.space.value(config, name)
            if isinstance(row, CategoricalDistribution):
                values.append((row.choices.index(value) + 0.5) / len(row.choices))
            elif isinstance(row, IntDistribution):  # each whole number has a part of its own
                values.append(_along(value, row.low - 0.5, row.high + 0.5))
            else:
                values.append(_along(value, row.low, row.high, log=row.log))
        return np.minimum(values, 1 - 1e-9)

    def _config(self, u: np.ndarray, rows: list[tuple[str, Any]]) -> TrialConfig:
        params = {name: at(row, float(v)) for (name, row), v in zip(rows, u, strict=True)}
        return replace(self.space.config(params, {}), early_stopping_patience=0)

    def left_out(self) -> np.ndarray:
        """Of every training of the table the curve that the others predict, transformed: leave-one-out in closed form.

        A configuration with several seeds is left out seed by seed, so such rows are no test and get NaN.
        """
        scores = np.column_stack(
            [
                target - inverse @ target / np.diag(inverse)
                for inverse, target in zip(self._inverses, self._scores.T, strict=True)
            ]
        )
        alone = np.array([(self.x == point).all(axis=1).sum() == 1 for point in self.x])
        return np.where(alone[:, None], self._centre + (scores * self._scale) @ self._axes, np.nan)


def _known(params: dict[str, Any]) -> dict[str, Any]:
    """Without what never changes a curve here."""
    return {name: value for name, value in params.items() if name != "use_mixed_precision"}


def _along(value: float, low: float, high: float, *, log: bool = False) -> float:
    """Where a value lies between the ends of a range, from 0 to 1; outside, at the nearest end."""
    if low == high:
        return 0.0
    value = min(max(value, low), high)
    return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)


def _distances(a: np.ndarray, b: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.sqrt((((a[:, None] - b[None]) / lengths) ** 2).sum(axis=-1))


def _matern(r: np.ndarray) -> np.ndarray:
    """Matérn 5/2 at distance r."""
    s = 5**0.5 * r
    return (1 + s + s * s / 3) * np.exp(-s)


def _most_likely(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Logarithms of the lengths, the signal's and the noise's variance with the highest posterior density."""
    from scipy.optimize import minimize  # of the extra `bench`; all else here runs without it

    points, values = torch.from_numpy(x), torch.from_numpy(target.copy())
    dimensions = x.shape[1]
    middle = 0.5 * np.log(dimensions) - 0.5  # lengths grow with dimensions, as distances do
    squares = (points[:, None] - points[None]) ** 2
    unit = torch.eye(len(x), dtype=torch.float64)

    def cost(theta: np.ndarray) -> tuple[float, np.ndarray]:
        t = torch.tensor(theta, requires_grad=True)
        r = ((squares * torch.exp(-2 * t[:-2])).sum(-1) + 1e-12).sqrt() * 5**0.5
        kernel = torch.exp(t[-2]) * (1 + r + r * r / 3) * torch.exp(-r) + (torch.exp(t[-1]) + 1e-6) * unit
        factor = torch.linalg.cholesky(kernel)
        solved = torch.linalg.solve_triangular(factor, values[:, None], upper=False)
        likelihood = 0.5 * (solved**2).sum() + factor.diagonal().log().sum()
        prior = 0.5 * ((t[:-2] - middle) ** 2).sum() / 1.5**2 + 0.5 * ((t[-1] + 4) / 2) ** 2 + 0.5 * t[-2] ** 2 / 4
        total = likelihood + prior
        total.backward()
        return total.item(), t.grad.numpy()

    start = np.concatenate((np.full(dimensions, middle), (0.0, -4.0)))
    bounds = [(-3, 5)] * dimensions + [(-4, 4), (-10, 0)]
    return minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}).x


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def quality(surrogate: Surrogate) -> None:
    """Print how well left-out trainings are predicted, and how large the noise of a seed is."""
    for objective in surrogate.objectives:
        _tell_left_out(surrogate, objective)
        _tell_noise(surrogate, objective)
    lengths = " ".join(
        f"{name} {length:.2g}" for name, length in zip(surrogate.space.names, surrogate._lengths[0], strict=True)
    )
    print(f"{len(surrogate.x)} trainings, {len(surrogate._axes)} components; lengths of the first: {lengths}")
    for objective in surrogate.objectives:
        value, config = surrogate.best(objective)
        chosen = {name: getattr(config, name, None) for name in surrogate.space.file.space}
        truths = ", ".join(f"{name} {truth:.4f}" for name, truth in surrogate.truths(config).items())
        print(f"best truth of {objective} {value:.4f} ({truths}): {chosen}")


def _tell_left_out(surrogate: Surrogate, objective: ObjectiveName) -> None:
    predicted = surrogate.left_out()
    held = ~np.isnan(predicted[:, 0])
    configs = [c for c, keep in zip(surrogate.configs, held, strict=True) if keep]
    rows = []
    for name, patience in (("100 epochs", 0), ("early stopping", 15)):
        stopping = [replace(c, early_stopping_patience=patience) for c in configs]
        real, guess = (surrogate.kept(stopping, y[held])[objective] for y in (surrogate.y, predicted))
        for part, chosen in (("all", real > -1), ("the better half", real >= np.median(real))):
            r, g = real[chosen], guess[chosen]
            r2 = 1 - np.square(r - g).sum() / np.square(r - r.mean()).sum()
            rank = np.corrcoef(_ranks(r), _ranks(g))[0, 1]
            error = np.sqrt(np.mean((r - g) ** 2))
            rows.append((f"{name}, {part}", len(r), f"{r.std():.4f}", f"{error:.4f}", f"{r2:.3f}", f"{rank:.3f}"))
    table((f"kept {objective} of left-out trainings", "n", "SD", "error", "R²", "rank r"), rows)


def _tell_noise(surrogate: Surrogate, objective: ObjectiveName) -> None:
    real, rows = surrogate.kept(surrogate.configs, surrogate.y)[objective], []
    for point in surrogate._donors:
        same = np.flatnonzero((surrogate.x == point).all(axis=1))
        config, values = surrogate.configs[same[0]], real[same]
        name = f"{config.pose_unit} lr {config.lr:.1e} wd {config.weight_decay:.0e}"
        if len(surrogate.objectives) > 1:
            name += f" {config.inputs} {config.identity_weight:.1f}"
        rows.append((name, len(same), f"{values.mean():.4f}", f"{values.std(ddof=1):.4f}"))
    table((f"kept {objective} of repeated configurations", "seeds", "mean", "SD"), sorted(rows, key=lambda row: row[2]))
    deviations = [float(row[3]) ** 2 for row in rows]
    print(f"noise of a seed: SD {np.mean(deviations) ** 0.5:.4f}")


def main() -> None:
    """Say how good it is."""
    parser = options(__doc__)
    parser.add_argument("--study", default="default", choices=("default", "explore", "identity"))
    parser.add_argument("--packed", type=Path, default=PACKED)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    quality(Surrogate(read(asked.packed), asked.study))


if __name__ == "__main__":
    main()
