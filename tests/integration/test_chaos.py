"""A search to which everything happens: a short one of `benchmarks/chaos.py`."""

import os

import pytest

from benchmarks.chaos import chaos

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")


def test_workers_die_sleep_and_lose_their_database_and_nothing_is_lost_or_counted_twice():
    report, log = chaos(trials=12, workers=3, kills=4, restarts=1, freezes=1, seed=5, silence=1.5)
    assert report.wrong == [], log
    assert (report.kills, report.restarts, report.freezes) == (4, 1, 1)
    assert "Traceback" not in log
