"""What the shapes of stored curves say about where a training ends: the constants of `face3d_tune.search.shape_pruner`.

    python -m benchmarks.shapes        # seconds: the constants, and how well they decide on trainings left out

Every training of fold 1 in `curves.npz`, those of the part `identity` aside, is stopped as early stopping would have
stopped it. At some epochs it is asked whether it will end above the best of up to 15 others, if it is not above it
already. A logistic regression answers. Those of the part `identity`, which it was not fitted to, are asked the same
about their identity.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.common import options, table
from benchmarks.packed import PACKED, read
from benchmarks.surrogate import FEATURE_SIZE, Ended
from face3d_tune.config import TrialConfig
from face3d_tune.search.shape_pruner import terms

_AT = (3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30, 36, 42, 50, 60, 70, 80, 90)  # epochs
_OTHERS, _SEED_NOISE = 15, 0.003  # whose best is to be passed; standard deviation between seeds, in cosine
_EACH, _PARTS = 4, 6  # questions for each training and epoch; parts of the cross-validation
_PENALTY = 1.0
_CHANCE = 0.05

Question = tuple[int, int, tuple[float, ...], bool]  # training, epoch, terms, whether it ended above


def ended(packed: Path, *, of_identity: bool = False) -> list[tuple[str, list[float], float]]:
    """Return id, curve and kept value of every training, one seed each: of cosine, or of the part `identity`."""
    curves, found = read(packed), []
    for i in curves.rows(of_identity=of_identity):
        name = curves.ids[i]
        if curves.folds[i] == 1 and "/seed" not in name and curves.errors[i] is None:
            weight = curves.params[i].get("cosine_weight", 0.5)
            config = TrialConfig(
                d_model=FEATURE_SIZE,
                dim_feedforward=4 * FEATURE_SIZE,
                cosine_weight=weight,
                mse_weight=1 - weight,
                early_stopping_patience=15,
            )
            cosine = curves.cosine[i].tolist()
            end = Ended.of(config, cosine, curves.mse[i].tolist())
            curve = curves.identity[i].tolist() if of_identity else cosine
            found.append((name, curve[: end.epochs], curve[end.kept]))
    return found


def questions(trainings: list[tuple[str, list[float], float]]) -> Iterator[Question]:
    """Ask every training at every epoch that it reached."""
    rng, ends = np.random.default_rng(0), np.array([end for _, _, end in trainings])
    for i, (_, curve, end) in enumerate(trainings):
        for epoch in (epoch for epoch in _AT if epoch < len(curve)):
            for _ in range(_EACH):
                best = rng.choice(ends, rng.integers(1, _OTHERS + 1)).max() + _SEED_NOISE * rng.normal()
                if best > max(curve[:epoch]):
                    yield i, epoch, terms(curve[:epoch], best), end > best


def _columns(trainings: list[tuple[str, list[float], float]]) -> tuple[np.ndarray, ...]:
    """Return the questions about them: training, epoch, terms, and whether it ended above."""
    return tuple(np.array(column) for column in zip(*questions(trainings), strict=True))


def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Logistic regression by Newton's method, [terms]; its penalty is on standardised terms, not on the first one."""
    centre, scale = x.mean(axis=0), x.std(axis=0)
    centre[0], scale[0] = 0.0, 1.0
    z, weights = (x - centre) / scale, np.zeros(x.shape[1])
    penalty = np.array([0.0] + [_PENALTY] * (x.shape[1] - 1))
    for _ in range(25):
        p = 1 / (1 + np.exp(-z @ weights))
        curvature = (z.T * (p * (1 - p))) @ z + np.diag(penalty)
        weights += np.linalg.solve(curvature, z.T @ (y - p) - penalty * weights)
    weights /= scale
    weights[0] -= weights[1:] @ centre[1:]
    return weights


def main() -> None:
    """Fit, and decide on what was left out."""
    parser = options(__doc__)
    parser.add_argument("--packed", type=Path, default=PACKED)
    packed = parser.parse_args().packed
    training, epoch, x, y = _columns(trainings := ended(packed))
    explore = np.array([name.startswith("explore") for name, _, _ in trainings])[training]
    answered = np.empty(len(y))
    for part in range(_PARTS):
        out = training % _PARTS == part
        answered[out] = 1 / (1 + np.exp(-x[out] @ fit(x[~out], y[~out])))
    other = np.empty(len(y))  # by the trainings of the other space
    for out in (explore, ~explore):
        other[out] = 1 / (1 + np.exp(-x[out] @ fit(x[~out], y[~out])))
    judged = {"other trainings": (epoch, y, answered), "the other space": (epoch, y, other)}
    if of_identity := ended(packed, of_identity=True):
        _, at, terms_of, above = _columns(of_identity)
        judged["all of these, asked identity"] = (at, above, 1 / (1 + np.exp(-terms_of @ fit(x, y))))
    rows = []
    for name, (at, above, p) in judged.items():
        for low, high in ((3, 8), (10, 18), (22, 36), (42, 90)):
            held = (at >= low) & (at <= high)
            share = [f"{(p[held & (above == won)] < _CHANCE).mean():.2f}" for won in (False, True)]
            rows.append((f"{name}, epochs {low} to {high}", int(held.sum()), f"{above[held].mean():.3f}", *share))
    table((f"chance below {_CHANCE}, fitted to", "questions", "end above", "of the others", "of these"), rows)
    print(f"{len(trainings)} trainings:", ", ".join(f"{weight:.4f}" for weight in fit(x, y)))


if __name__ == "__main__":
    main()
