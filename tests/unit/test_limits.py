"""How many cores and how much memory a process may use: of the machine, or of the cgroup that a container is."""

from types import SimpleNamespace

import psutil
import pytest

from face3d_tune.system import limits
from face3d_tune.system.limits import Limit

MIB = 2**20
NO_LIMIT_1 = "9223372036854771712\n"  # what version 1 says where there is none


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Pretend to be in the cgroup that `own` says, with these `files` of cgroups, on 4 cores with 8 GiB free."""
    monkeypatch.setattr(limits, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "_OWN", tmp_path / "own")
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(cpu_affinity=lambda: [0, 1, 2, 3]))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8192 * MIB))

    def pretend(own, files):
        (tmp_path / "own").write_text(own, encoding="utf-8")
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    return pretend


def test_without_cgroups_the_machine_has_what_it_has(cgroups):
    assert (limits.cores(), limits.memory()) == (Limit(4, False), Limit(8192 * MIB, False))


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", Limit(4, False)),
        ("50000 100000\n", Limit(1, True)),  # half a core
        ("200000 100000\n", Limit(2, True)),
        ("75000 25000\n", Limit(3, True)),
        ("250000 100000\n", Limit(2, True)),  # the half is no slot
        ("400000 100000\n", Limit(4, False)),
        ("1600000 100000\n", Limit(4, False)),  # more than there are
        ("", Limit(4, False)),
        ("nonsense\n", Limit(4, False)),
    ],
)
def test_a_quota_of_version_2_limits_the_cores(cgroups, quota, cores):
    cgroups("0::/\n", {"cpu.max": quota})
    assert limits.cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", Limit(4, False)), ("150000\n", Limit(1, True))])
@pytest.mark.parametrize("own", ["4:cpu,cpuacct:/\n", "12:pids:/x\n4:cpu:/docker/0123\n0::/\n"], ids=["set", "docker"])
def test_a_quota_of_version_1_limits_them_also_where_a_container_does_not_see_its_own_path(cgroups, quota, cores, own):
    cgroups(own, {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000\n"})
    assert limits.cores() == cores


def test_the_least_quota_of_a_cgroup_and_of_those_around_it_counts(cgroups):
    files = {"cpu.max": "max 100000\n", "jobs/cpu.max": "200000 100000\n", "jobs/mine/cpu.max": "300000 100000\n"}
    cgroups("0::/jobs/mine\n", {**files, "jobs/others/cpu.max": "100000 100000\n"})
    assert limits.cores() == Limit(2, True)


def test_the_memory_of_version_2_is_what_its_limit_leaves_with_cached_files_that_are_not_in_use(cgroups):
    files = {"memory.max": f"{800 * MIB}\n", "memory.current": f"{600 * MIB}\n"}
    cgroups("0::/\n", files)
    assert limits.memory() == Limit(200 * MIB, True)
    cgroups("0::/\n", {"memory.stat": f"anon {400 * MIB}\nfile {200 * MIB}\ninactive_file {150 * MIB}\n"})
    assert limits.memory() == Limit(350 * MIB, True)
    cgroups("0::/\n", {"memory.max": "max\n"})
    assert limits.memory() == Limit(8192 * MIB, False)


def test_the_memory_of_version_1_is_the_same_by_other_names(cgroups):
    where = "memory/memory."
    files = {f"{where}limit_in_bytes": f"{800 * MIB}\n", f"{where}usage_in_bytes": f"{600 * MIB}\n"}
    statistics = f"inactive_file 7\nhierarchical_memory_limit {800 * MIB}\ntotal_inactive_file {150 * MIB}\n"
    cgroups("7:memory:/docker/0123\n", {**files, f"{where}stat": statistics})
    assert limits.memory() == Limit(350 * MIB, True)
    cgroups("7:memory:/\n", {f"{where}limit_in_bytes": NO_LIMIT_1})
    assert limits.memory() == Limit(8192 * MIB, False)


def test_a_limit_that_is_used_up_leaves_nothing(cgroups):
    cgroups("0::/\n", {"memory.max": "1000\n", "memory.current": "1200\n"})
    assert limits.memory() == Limit(0, True)


def test_a_machine_with_less_free_memory_than_a_cgroup_leaves_decides(cgroups):
    cgroups("0::/\n", {"memory.max": f"{16384 * MIB}\n", "memory.current": "0\n"})
    assert limits.memory() == Limit(8192 * MIB, False)
