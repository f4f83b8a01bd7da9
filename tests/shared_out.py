"""Which worker runs which tests: those of a file the same one, for they share what it prepares.

`--dist=loadgroup` is to do this, and from pytest 9.2 on pytest-xdist 3.8 silently does not.
"""

from collections import defaultdict
from pathlib import PurePosixPath

import pytest
from xdist.scheduler import LoadScopeScheduling

CLOCK = ("test_workers.py", "test_chaos.py")  # they watch the clock, so none of them runs beside another


def group_of(nodeid):
    file = nodeid.partition("::")[0]
    return "clock" if PurePosixPath(file).name in CLOCK else file


class ByFile(LoadScopeScheduling):
    """Gives each worker whole groups."""

    def _split_scope(self, nodeid):
        return group_of(nodeid)


class SharedOut:
    """The plugin that chooses `ByFile`, and fails a run in which a group was not kept together."""

    def __init__(self):
        self.workers = defaultdict(set)  # of each group

    @pytest.hookimpl
    def pytest_xdist_make_scheduler(self, config, log):
        return ByFile(config, log)

    def pytest_runtest_logreport(self, report):
        if worker := getattr(report, "worker_id", None):
            self.workers[group_of(report.nodeid)].add(worker)

    @property
    def torn(self):
        return sorted(group for group, workers in self.workers.items() if len(workers) > 1)

    def pytest_sessionfinish(self, session):
        if self.torn:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if self.torn:
            terminalreporter.write_line(f"two workers ran tests of: {', '.join(self.torn)}", red=True)
