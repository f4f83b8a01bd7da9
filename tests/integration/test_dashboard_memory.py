"""The memory of `face3d-tune dashboard` while visitors of a large study come and go."""

import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import start_honestly
from stored_study import add_many, many_trials, our_study

from face3d_tune.storage.database import Storage


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The URL of a study of 4,000 trials, whose uncompressed answer has 13 MB."""
    url = f"sqlite:///{(tmp_path_factory.mktemp('large') / 'studies.db').as_posix()}"
    with Storage.parse(url).opened(create=True) as opened:
        add_many(our_study(opened, "faces"), opened, many_trials(4000))
    return url


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak")
@pytest.mark.parametrize(("path", "visits", "most"), [("api/studies/1", 48, 30), ("csv/1", 16, 60)])
def test_the_answers_of_eight_visitors_at_once_pass_through_little_memory(large, tmp_path, path, visits, most):
    process = start_honestly("dashboard", "--storage", large, "--port", "0", cwd=tmp_path)
    try:
        address = re.search(r"http://\S+", process.stdout.readline())[0]

        def visit(_):
            with urllib.request.urlopen(f"{address}{path}", timeout=60) as answer:
                return len(answer.read())

        def memory(which):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            return int(re.search(rf"{which}:\s+(\d+) kB", status)[1]) / 1024

        first = visit(0)
        Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
        before = memory("VmRSS")
        with ThreadPoolExecutor(8) as visitors:
            sizes = set(visitors.map(visit, range(visits)))
        grown = memory("VmHWM") - before
    finally:
        process.kill()
        process.communicate()
    assert sizes == {first}
    assert grown < most
