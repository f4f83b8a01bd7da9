"""The memory of `face3d-tune dashboard` while visitors of a large study come and go."""

import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from command_line import start_honestly
from stored_study import add_many, many_trials, our_study

from face3d_tune.storage.database import Storage

MIB = 2**20


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The URL of a study of 2,000 trials, whose uncompressed answer has 7 MB."""
    url = f"sqlite:///{(tmp_path_factory.mktemp('large') / 'studies.db').as_posix()}"
    with Storage.parse(url).opened(create=True) as opened:
        add_many(our_study(opened, "faces"), opened, many_trials(2000))
    return url


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is another one")
def test_no_thread_of_the_dashboard_keeps_the_memory_of_its_answers(large, tmp_path):
    process = start_honestly("dashboard", "--storage", large, "--port", "0", cwd=tmp_path)
    try:
        address = re.search(r"http://\S+", process.stdout.readline())[0]

        def visit(_):
            with urllib.request.urlopen(f"{address}api/studies/1", timeout=60) as answer:
                return len(answer.read())

        first = visit(0)
        before = psutil.Process(process.pid).memory_info().rss
        with ThreadPoolExecutor(8) as visitors:
            sizes = set(visitors.map(visit, range(48)))
        grown = psutil.Process(process.pid).memory_info().rss - before
    finally:
        process.kill()
        process.communicate()
    assert sizes == {first}
    assert grown < 30 * MIB  # 65 without, and 12 a thread in a study of 10,000 trials
