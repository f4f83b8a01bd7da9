"""The cores and the memory that this process may use: those of the machine, or less where its cgroup has a limit.

A container, a Slurm job or a systemd unit is a cgroup. Its files are described at
https://docs.kernel.org/admin-guide/cgroup-v2.html and https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Limit:
    """An amount that this process may use, and whether its cgroup allows less than the machine has."""

    amount: int  # cores, or bytes
    of_cgroup: bool


def cores() -> Limit:
    """Return the number of cores, at least 1; of a quota such as 2.5 cores, the whole ones."""
    affinity = getattr(psutil.Process(), "cpu_affinity", None)  # macOS has none
    count = len(affinity()) if affinity else psutil.cpu_count() or 1
    allowed = min((max(1, math.floor(quota)) for quota in _cpu_quotas()), default=count)
    return Limit(min(count, allowed), allowed < count)


def memory() -> Limit:
    """Return the bytes of free memory."""
    free = psutil.virtual_memory().available
    allowed = min(_free_in_cgroups(), default=free)
    return Limit(min(free, allowed), allowed < free)


def _cpu_quotas() -> Iterator[float]:
    """Yield the quota, in cores, of each cgroup around this process that has one."""
    for folder in _folders("cpu"):
        quota = _words(folder / "cpu.max")  # version 2: "50000 100000", or "max 100000"
        quota = quota or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")  # 1: -1 for none
        match quota:
            case [quota_us, period_us] if quota_us.isdecimal() and period_us.isdecimal():
                yield int(quota_us) / int(period_us)


def _free_in_cgroups() -> Iterator[int]:
    """Yield what each cgroup around this process leaves free, with cached files that no process has read lately."""
    for folder in _folders("memory"):
        names = ("memory.max", "memory.current", "inactive_file")
        if not (folder / names[0]).exists():
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        match _words(folder / names[0]) + _words(folder / names[1]):
            case [limit, used] if limit.isdecimal() and used.isdecimal():
                statistics = _words(folder / "memory.stat")
                cached = dict(zip(statistics[::2], statistics[1::2], strict=False)).get(names[2], "0")
                yield max(0, int(limit) - int(used) + int(cached))


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folder of this process's cgroup and those around it, in both versions of cgroups.

    A container often sees its own cgroup as the outermost one, and the path of the machine in /proc.
    """
    for line in _lines(_OWN):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        outermost = _CGROUPS / controller if controllers else _CGROUPS
        folder = outermost / path.lstrip("/")
        yield folder
        while folder != outermost:
            folder = folder.parent
            yield folder


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    """Return the lines of a file; none where there is no such file."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").splitlines()
    return []
