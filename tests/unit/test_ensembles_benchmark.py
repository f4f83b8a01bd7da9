"""`benchmarks/ensembles.py`: the values of people from all rotations, method by method."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.ensembles import BLEND, ENSEMBLE, ONE, by_person, compared
from face3d_tune.training.recognition import ALL, RATES


def row(kind, name, cosines):
    """Stand in for a judged row: each person's mean cosine; every other rate is 0."""
    means = np.zeros((len(RATES), len(cosines)))
    means[RATES.index("cosine")] = cosines
    return SimpleNamespace(kind=kind, name=name, scores=SimpleNamespace(person_means=lambda: {ALL: means}))


ROTATIONS = [
    SimpleNamespace(
        rows=[
            row("baseline", "kernel ridge", [0.4, 0.4]),
            row("checkpoint", "identity", [0.5, 0.6]),
            row("checkpoint", "identity", [0.7, 0.6]),
            row("ensemble", "ensemble of 2", [0.7, 0.7]),
            row("blend", "blend, 0.30 kernel ridge", [0.8, 0.7]),
        ]
    ),
    SimpleNamespace(
        rows=[
            row("baseline", "kernel ridge", [0.2]),
            row("checkpoint", "identity", [0.4]),
            row("checkpoint", "identity", [0.6]),
            row("ensemble", "ensemble of 2", [0.6]),
            row("blend", "blend, 0.90 kernel ridge", [0.5]),
        ]
    ),
]


def test_every_person_stands_once_with_one_value_for_each_member():
    values = by_person(ROTATIONS)
    assert values[f"{ONE}, identity"]["cosine"].tolist() == [[0.5, 0.6, 0.4], [0.7, 0.6, 0.6]]
    assert values[ENSEMBLE]["cosine"].tolist() == [[0.7, 0.7, 0.6]]
    assert values[BLEND]["cosine"].tolist() == [[0.8, 0.7, 0.5]]  # whatever its weight in a rotation


def test_a_difference_is_the_mean_over_people_and_its_interval_counts_rotations():
    # Gains of the blend are 0.4, 0.3 and 0.3, their mean 1/3. With blocks of two people and one, the sums of
    # deviations are 1/30 and -1/30: a variance of 2 · 2/900 / 9 = 4/8100. t with one degree of freedom is 12.7062.
    half = 12.7062 * (4 / 8100) ** 0.5
    found = compared(by_person(ROTATIONS), BLEND, "kernel ridge", "cosine", [2, 1])
    assert found == f"+0.3333 ({1 / 3 - half:+.4f} to {1 / 3 + half:+.4f})"


def test_members_count_with_their_mean():
    found = compared(by_person(ROTATIONS), f"{ONE}, identity", "kernel ridge", "cosine", [2, 1])
    assert float(found.split()[0]) == pytest.approx((0.2 + 0.2 + 0.3) / 3, abs=5e-5)
