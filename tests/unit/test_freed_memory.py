"""The memory that threads have freed goes back to the system."""

import subprocess
import sys

import pytest

_THREADS = """
import re, sys, threading
from pathlib import Path
from face3d_tune.system.freed_memory import give_freed_memory_back

def memory():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

def answer():
    for size in (4, 12, 12):  # MiB
        block = b"x" * (size << 20)
        del block
    ended.wait()

if sys.argv[1] == "back":
    give_freed_memory_back()
before, ended = memory(), threading.Barrier(9)
for _ in range(8):
    threading.Thread(target=answer, daemon=True).start()
ended.wait()
print(memory() - before)
"""


def kept(how):
    """MiB that eight threads keep."""
    asked = [sys.executable, "-c", _THREADS, how]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is another one")
def test_no_thread_keeps_the_memory_of_its_largest_block():
    assert kept("back") < 10 < 40 < kept("as it is")
