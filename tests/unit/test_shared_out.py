"""Workers share tests by file, those that watch the clock go to one, and garbage is looked for while tests run."""

import gc
from types import SimpleNamespace

from conftest import ROOT
from shared_out import CLOCK, SharedOut, group_of


def ran(worker, nodeid):
    return SimpleNamespace(worker_id=worker, nodeid=nodeid)


def test_a_group_is_a_file_or_all_files_that_watch_the_clock():
    assert group_of("tests/unit/test_a.py::TestB::test_c[d/e::f]") == "tests/unit/test_a.py"
    assert {group_of(f"tests/integration/{name}::test") for name in CLOCK} == {"clock"}
    assert all((ROOT / "integration" / name).is_file() for name in CLOCK)


def test_a_run_that_tears_a_file_apart_fails():
    session, shared = SimpleNamespace(exitstatus=0), SharedOut()
    shared.pytest_runtest_logreport(ran("gw0", "test_a.py::test_1"))
    shared.pytest_runtest_logreport(ran("gw1", "test_b.py::test_1"))
    shared.pytest_runtest_logreport(SimpleNamespace(nodeid="test_b.py::test_1"))  # without workers
    shared.pytest_sessionfinish(session)
    assert session.exitstatus == 0
    shared.pytest_runtest_logreport(ran("gw1", "test_a.py::test_2"))
    shared.pytest_sessionfinish(session)
    assert (session.exitstatus, shared.torn) == (1, ["test_a.py"])


def test_garbage_is_looked_for_while_tests_run_but_not_among_what_was_there_before():
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000  # pytest alone has more
