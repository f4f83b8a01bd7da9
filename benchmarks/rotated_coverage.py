"""How often the intervals of `confirm --rotate` cover the true difference, in simulated rotations.

    python -m benchmarks.rotated_coverage

People have a frontal embedding of 8 numbers; a view is a fixed turn of it, plus what is a person's own, plus noise.
Ridge regression (λ 0.5) learns to turn it back from the training people of a rotation. It is compared with no model,
and with ridge regression of λ 20, which learns from the same people. Each training adds normal noise to the weights,
which is its seed: 0.05, or 0.2 where seeds differ much.

Three intervals stand side by side: the t interval over people and seeds that `confirm` has, the same corrected for
shared training people (Nadeau & Bengio, 2003, Machine Learning 52:239: the variance of the people's means is
multiplied by 1 + K · n_test / n_train), and the t interval over rotations that `confirm --rotate` has. Each is asked
two questions: does it cover the mean of *these* models over all people, and that of models trained on *other* people?
"""

import argparse

import numpy as np

from benchmarks.common import table
from face3d_tune.data.rotation import rotate_people
from face3d_tune.refit import intervals
from face3d_tune.refit.intervals import Values

SIZE, VIEWS, UNSEEN = 8, 6, 300
WEAK, STRONG = 0.5, 20.0  # penalties
CASES = ((15, 5), (36, 5), (36, 10), (80, 5))  # people, rotations


def _unit(vectors: Values) -> Values:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def people(random: np.random.Generator, count: int, turn: Values) -> tuple[Values, Values]:
    """Draw people: frontal embeddings [people, size] and views [people, views, size]."""
    front = _unit(random.normal(size=(count, SIZE)))
    own = 0.5 * random.normal(size=(count, 1, SIZE)) / SIZE**0.5
    return front, _unit(front[:, None] @ turn + own + 0.4 * random.normal(size=(count, VIEWS, SIZE)) / SIZE**0.5)


def fit(front: Values, views: Values, penalty: float) -> Values:
    """Fit ridge regression from a view to the difference with its frontal embedding, [size, size]."""
    columns = views.reshape(-1, SIZE)
    target = np.repeat(front, VIEWS, axis=0) - columns
    return np.linalg.solve(columns.T @ columns + penalty * np.eye(SIZE), columns.T @ target)


def cosines(front: Values, views: Values, weights: Values) -> Values:
    """Return the mean cosine of each person's views, [people]."""
    return np.einsum("pd,pvd->p", front, _unit(views + views @ weights)) / VIEWS


def rotated(
    random: np.random.Generator, count: int, of: int, seeds: int, noise: float, *, learned: bool
) -> tuple[Values, Values, float, float]:
    """Simulate one `confirm --rotate`.

    Returns the differences [seeds, people], the block of each person, what these models reach over many people, and
    people over training people.
    """
    turn = np.linalg.qr(np.eye(SIZE) + 0.4 * np.random.default_rng(1).normal(size=(SIZE, SIZE)))[0]
    unseen = people(np.random.default_rng(2), UNSEEN, turn)
    front, views = people(random, count, turn)
    parts = rotate_people([str(number) for number in range(count)], of, int(random.integers(2**31)))
    tables, reached = [], []
    for part in parts:
        judged, training = (np.array(part[name], dtype=int) for name in ("test", "train"))
        gains = []
        for _ in range(seeds):
            weights = fit(front[training], views[training], WEAK) + noise * random.normal(size=(SIZE, SIZE))
            other = np.zeros((SIZE, SIZE))
            if learned:
                other = fit(front[training], views[training], STRONG) + noise * random.normal(size=(SIZE, SIZE))
            gains.append(cosines(front[judged], views[judged], weights) - cosines(front[judged], views[judged], other))
            reached.append(len(judged) * (cosines(*unseen, weights) - cosines(*unseen, other)).mean())
        tables.append(np.array(gains))
    blocks = np.repeat(np.arange(of), [len(part["test"]) for part in parts])
    trained = np.mean([len(part["train"]) for part in parts])
    return np.concatenate(tables, axis=1), blocks, sum(reached) / count / seeds, count / float(trained)


def widths(difference: Values, blocks: Values, overlap: float) -> list[float]:
    """Return half the width of the three intervals."""
    none = np.zeros((1, difference.shape[1]))
    plain = intervals.compare(difference, none)["half_width"]
    of_people, of_seeds = intervals._variances(difference)
    corrected = intervals._half_width(of_people * (1 + overlap), of_seeds, difference.shape[1], len(difference))
    return [plain, corrected, intervals.compare_blocks(difference, none, blocks)["half_width"]]


def covered(
    count: int, people: int, of: int, seeds: int, noise: float, *, learned: bool, seed: int = 0
) -> list[Values]:
    """Simulate; return for each interval: coverage of these models, of others, and the mean of half its width."""
    random = np.random.default_rng(seed)
    made = [rotated(random, people, of, seeds, noise, learned=learned) for _ in range(count)]
    means = np.array([difference.mean() for difference, *_ in made])
    these = np.array([reached for _, _, reached, _ in made])
    these += means.mean() - these.mean()  # few people are unseen, and the same ones each time: a constant error
    half = np.array([widths(difference, blocks, overlap) for difference, blocks, _, overlap in made])
    truths = these[:, None], means.mean()
    inside = [(abs(means[:, None] - truth) <= half).mean(axis=0) for truth in truths]
    return list(np.column_stack((*inside, half.mean(axis=0))))


def main() -> None:
    """Print a row for each pair of methods, noise, number of people, rotations and seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="simulated confirmations of a row")
    given = parser.parse_args()
    print(f"coverage of these models / of models trained on other people (half width); {given.count} simulations a row")
    rows = []
    for learned in (False, True):
        for noise, seeds in ((0.05, 1), (0.2, 1), (0.2, 2)):
            for number, of in CASES:
                found = covered(given.count, number, of, seeds, noise, learned=learned)
                cells = [f"{these:.3f} / {others:.3f} ({half:.3f})" for these, others, half in found]
                rows.append(["strong ridge" if learned else "no model", noise, number, of, seeds, *cells])
    header = ("against", "noise", "people", "rotations", "seeds", "t over people", "corrected", "t over rotations")
    table(header, rows)


if __name__ == "__main__":
    main()
