"""Makes the pictures of the documentation: `python docs/pictures.py sqlite:///face3d_tune.db` after a search.

Needs the `test` extra, Chromium, and some minutes for a short search in a pseudo-terminal.
"""

import io
import re
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # also where the package is not installed

from chromium import QUIET, executable  # noqa: E402
from pseudo_terminal import Terminal  # noqa: E402

from face3d_tune.analysis.findings import find  # noqa: E402
from face3d_tune.analysis.svg import Panel, picture  # noqa: E402
from face3d_tune.dashboard.server import make_dashboard  # noqa: E402
from face3d_tune.report import charts  # noqa: E402
from face3d_tune.report.content import content  # noqa: E402
from face3d_tune.report.words import Words  # noqa: E402
from face3d_tune.storage.database import Storage  # noqa: E402
from face3d_tune.study.lookup import find_study  # noqa: E402

PICTURES = Path(__file__).parent / "pictures"
_COLUMNS = 100


def terminal() -> None:
    """Picture a search of some minutes, at a moment when trials have ended and others train."""
    words = ("run", "--trials", "8", "--epochs", "15")
    with tempfile.TemporaryDirectory() as folder:
        shown = Terminal(words, folder, _COLUMNS, settings={})
        shown.until_the_end()
    live = [lines for lines in shown.seen if any(" of 8 done" in line for line in lines)]
    # Between two drawings a trial stands there twice, or not at all.
    whole = [lines for lines in live if len(_numbers(lines)) == len(set(_numbers(lines)))]
    screen = max(whole, key=lambda lines: (len(_numbers(lines)), sum(" on " in line for line in lines)))
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    console.print(Text("\n".join([f"$ face3d-tune {' '.join(words)}", *screen]).rstrip()))
    svg = console.export_svg(title="face3d-tune")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # fonts that it would fetch from somewhere
    (PICTURES / "terminal.svg").write_text(svg, encoding="utf-8")


def _numbers(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.startswith("#")]


def dashboard(page: Page, storage: str) -> None:
    """Picture the first study's page, from its first figure on."""
    with Storage.parse(storage).opened() as opened, make_dashboard(opened) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)  # a page that fails ends the program
        thread.start()
        page.set_viewport_size({"width": 1300, "height": 2600})
        page.goto(f"http://127.0.0.1:{server.server_port}/dashboard/studies/1")
        first = page.locator(".js-plotly-plot .gtitle").first
        first.wait_for(timeout=60_000)
        page.wait_for_timeout(2000)  # until the last figure is drawn
        top = first.bounding_box()["y"] - 30
        page.screenshot(path=PICTURES / "dashboard.png", clip={"x": 65, "y": top, "width": 1235, "height": 960})
        server.shutdown()
        thread.join()


def recognition(storage: str) -> None:
    """Draw rank-1 against the cosine: all finished trials of the only study, and the upper right corner."""
    with Storage.parse(storage).opened() as opened:
        found = content(find(find_study(opened, None)), datetime.now())
    words = Words("en")
    corner = [point for point in found.trials if point.cosine > found.no_model and (point.rank1 or 0) > 0.5]
    legend = [("best trial", "s0-dot"), ("completed trial", "done-dot"), ("pruned trial", "pruned-dot")]
    legend += [(name, f"{charts.BASELINES[name]}-dot") for name in found.recognition]
    panels = []
    for heading, points in (("all trials", found.trials), ("the upper right corner", corner)):
        chart = charts.recognised(replace(found, trials=points), words)
        assert chart is not None, "the study has stored what its trials recognise"
        panels.append(Panel(heading, chart, legend))
    (PICTURES / "recognition.svg").write_text(picture(panels), encoding="utf-8")


def report(page: Page, storage: str) -> None:
    """Picture the beginning of the report, in both languages."""
    with tempfile.TemporaryDirectory() as folder:
        for language in ("en", "zh"):
            path = Path(folder) / f"{language}.html"
            words = ["report", "--storage", storage, "-o", str(path), "--lang", language]
            subprocess.run([sys.executable, "-m", "face3d_tune", *words], cwd=ROOT, check=True)
            page.set_viewport_size({"width": 1100, "height": 1000})
            page.goto(path.as_uri())
            page.screenshot(path=PICTURES / f"report.{language}.png")


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    recognition(sys.argv[1])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=QUIET)
        page = browser.new_page(color_scheme="light")
        dashboard(page, sys.argv[1])
        report(page, sys.argv[1])
        browser.close()
    terminal()
