"""How often the 95 % intervals of `confirm` cover the true difference, in simulated confirmations.

    python -m benchmarks.coverage

A simulated difference is person + seed + rest. Seeds and rest are normal with deviations 0.005 and 0.01; people have
0.04, which is about what the test people of the sample have. Their distribution is the row of the table:

- normal;
- bounded: Beta(1, 4), to the right, skewness 1.0. Ridge minus no model on the sample's validation people has 0.6;
- exponential, skewness 2; log-normal with sigma 1, skewness 6. Both are centred and scaled to the same deviation;
- shares: rank-1 of two methods, each person's share of 20 views that were won. Both methods meet the same views and
  are alike but for a deviation of each person, seed and training, so the true difference is 0, and many people tie;
- shares, -0.05: the same, where one method loses more; the true difference is simulated with 400,000 people.

Beside the interval of `face3d_tune/refit/intervals.py` stands the percentile bootstrap of version 0.1.0.
"""

import argparse
from collections.abc import Callable

import numpy as np

from benchmarks.common import table
from face3d_tune.refit.intervals import Values, compare

PEOPLE, SEEDS = (5, 9, 16, 30, 80), (5, 3, 1)
OF_PEOPLE, OF_SEEDS, REST = 0.04, 0.005, 0.01  # standard deviations
VIEWS = 20
_RESAMPLES = 500
Shape = Callable[[np.random.Generator, tuple[int, ...]], Values]

SHAPES: dict[str, Shape] = {  # mean 0, deviation 1
    "normal": lambda random, size: random.normal(size=size),
    "bounded": lambda random, size: (random.beta(1, 4, size) - 0.2) / np.sqrt(4 / 150),
    "exponential": lambda random, size: random.exponential(size=size) - 1,
    "log-normal": lambda random, size: (random.lognormal(size=size) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e),
}


def differences(
    shape: str, random: np.random.Generator, count: int, seeds: int, people: int, *, of_seeds: float = OF_SEEDS
) -> Values:
    """Draw `count` confirmations with a true difference of 0: [count, seeds, people]."""
    return np.asarray(
        OF_PEOPLE * SHAPES[shape](random, (count, 1, people))
        + of_seeds * random.normal(size=(count, seeds, 1))
        + REST * random.normal(size=(count, seeds, people))
    )


def shares(random: np.random.Generator, count: int, seeds: int, people: int, shift: float = 0.0) -> Values:
    """Draw differences between shares of views won, [count, seeds, people], in steps of 1 / VIEWS.

    Args:
        random: The source of randomness.
        count: Confirmations.
        seeds: Trainings of each method.
        people: People who judge.
        shift: Change of one method's probability to win a view, before it is cut to 0 to 1.
    """
    ease = random.beta(3, 0.8, (count, 1, people))  # a person's probability to be named: 0.79 on average, often near 1
    difficulty = random.random((count, 1, people, VIEWS))  # of a view, whichever method meets it

    def won(shift: float) -> Values:
        deviation = sum(
            scale * random.normal(size=size)
            for scale, size in (
                (0.08, (count, 1, people)),
                (0.005, (count, seeds, 1)),
                (0.02, (count, seeds, people)),
            )
        )
        return np.asarray((difficulty < (ease + deviation + shift)[..., None]).mean(axis=-1))

    return won(shift) - won(0.0)


def covered(drawn: Values, truth: float) -> float:
    """Return the share of confirmations whose interval covers the truth."""
    found = [compare(each, np.zeros((1, drawn.shape[2]))) for each in drawn]
    return float(np.mean([each["low"] - 1e-12 <= truth <= each["high"] + 1e-12 for each in found]))


def covered_by_percentiles(drawn: Values, truth: float, random: np.random.Generator) -> float:
    """Do the same for the percentile bootstrap over people and seeds (Efron & Tibshirani, 1993, chapter 13)."""
    _, seeds, people = drawn.shape
    inside = []
    for each in drawn:
        of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), _RESAMPLES) / seeds
        of_people = random.multinomial(people, np.full(people, 1 / people), _RESAMPLES) / people
        low, high = np.percentile(((of_seeds @ each) * of_people).sum(axis=1), (2.5, 97.5))
        inside.append(low - 1e-12 <= truth <= high + 1e-12)
    return float(np.mean(inside))


def main() -> None:
    """Print one row for each distribution and number of seeds, with both intervals for each number of people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4000, help="simulated confirmations of a cell")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random = np.random.default_rng(given.seed)
    lost = -0.05
    rows = {name: (lambda *size, name=name: differences(name, random, *size), 0.0) for name in SHAPES}
    rows["normal, seeds 0.02"] = (lambda *size: differences("normal", random, *size, of_seeds=0.02), 0.0)
    rows["shares"] = (lambda *size: shares(random, *size), 0.0)
    truth = float(np.mean([shares(random, 400, 1, 100, lost).mean() for _ in range(10)]))
    rows[f"shares, {lost}"] = (lambda *size: shares(random, *size, shift=lost), truth)
    print(f"coverage of t / percentile bootstrap; {given.count} confirmations, {given.count // 4} of the bootstrap")
    cells = []
    for name, (draw, true) in rows.items():
        for seeds in SEEDS:
            row = [name, seeds]
            for people in PEOPLE:
                drawn = draw(given.count, seeds, people)
                old = covered_by_percentiles(drawn[: given.count // 4], true, random)
                row.append(f"{covered(drawn, true):.3f} / {old:.3f}")
            cells.append(row)
    table(["people's distribution", "seeds", *(f"{people} people" for people in PEOPLE)], cells)


if __name__ == "__main__":
    main()
