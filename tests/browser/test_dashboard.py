"""What a person sees in the browser: the real dashboard of a finished study, in a real Chromium."""

import os
import shutil
import signal
import socket
import threading
import urllib.request
import warnings
from unittest import mock

import optuna
import pytest
from command_line import call, start
from optuna.trial import TrialState
from playwright.sync_api import expect, sync_playwright

from face3d_tune.dashboard import make_dashboard
from face3d_tune.storage import Storage

STUDY = """
[budget]
trials = 5
epochs = 6

[pruner]
name = "median"
n_startup_trials = 1
n_warmup_steps = 2

[fixed]
batch_size = 8
nhead = 2
num_layers = 1
pose_unit = "radians"

[space]
lr = { low = 1e-5, high = 1e-2, scale = "log" }

[presets.fast]
lr = 3e-3
[presets.slow]
lr = 1e-5
[presets.faster]
lr = 1e-2
[presets.slower]
lr = 2e-5
"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_folder):
    """A folder with a finished study in the default storage."""
    folder = tmp_path_factory.mktemp("dashboard")
    (folder / "curves.toml").write_text(STUDY, encoding="utf-8")
    answer = call("run", "--study", "curves.toml", "--data-dir", data_folder, "--device", "cpu", cwd=folder)
    assert answer.code == 0, answer.err
    return folder


@pytest.fixture(scope="module")
def storage(place):
    with Storage.parse(f"sqlite:///{(place / 'face3d_tune.db').as_posix()}").opened() as opened:
        yield opened


@pytest.fixture(scope="module")
def trials(storage):
    found = optuna.load_study(study_name="curves", storage=storage).trials
    assert {trial.state for trial in found} == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in found:
        if trial.state == TrialState.COMPLETE:  # so what the curves show is the metric itself
            assert trial.value == trial.intermediate_values[trial.user_attrs["best_epoch"]]
    return found


@pytest.fixture(scope="module")
def url(storage):
    """The address of a real server, which serves until the tests end."""
    with make_dashboard(storage, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing = f"no browser: none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, headless=True, args=QUIET)
        yield running
        running.close()


@pytest.fixture
def page(browser, url, tmp_path):
    """A page that may not complain; SCREENSHOTS names a folder to look at what it showed."""
    context = browser.new_context(base_url=url, viewport={"width": 1400, "height": 2600}, reduced_motion="reduce")
    opened, complaints = context.new_page(), []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some regimes for parameter")  # of the importance plot: few trials
        yield opened
    context.close()
    assert complaints == []


def keep(page, name):
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def test_the_first_page_lists_the_study_and_leads_to_it(page):
    page.goto("/")
    entry = page.get_by_role("link", name="curves")
    expect(entry).to_contain_text("Direction: MAXIMIZE")
    keep(page, "studies")
    entry.click()
    expect(page.get_by_role("heading", name="Best Trial")).to_be_visible()


def test_the_study_page_shows_the_best_trial_and_the_history_by_the_name_of_the_metric(page, trials):
    page.goto("/dashboard/studies/1")
    best = max((trial for trial in trials if trial.state == TrialState.COMPLETE), key=lambda trial: trial.value)
    expect(page.get_by_role("heading", name=f"Best Trial (number={best.number})")).to_be_visible()
    expect(page.get_by_role("heading", name=str(best.value))).to_be_visible()
    history = page.get_by_role("heading", name="History").locator(
        "xpath=ancestor::*[.//*[contains(@class, 'js-plotly-plot')]][1]"
    )
    expect(history).to_contain_text("val_cosine")
    expect(page.get_by_text("data_fingerprint")).to_be_visible()
    expect(page.get_by_text("no_model_cosine")).to_be_visible()


def test_the_study_page_shows_every_learning_curve_point_by_point(page, trials):
    page.goto("/dashboard/studies/1")
    heading = page.get_by_role("heading", name="Intermediate values")
    expect(heading).to_be_visible()
    plot = heading.locator("xpath=ancestor::*[.//*[contains(@class, 'js-plotly-plot')]][1]")
    expect(plot.locator("g.trace")).to_have_count(len(trials))
    for trial in trials:
        expect(plot.get_by_text(f"trial #{trial.number}", exact=False)).to_be_visible()
    points = plot.locator("g.trace").evaluate_all(
        "curves => curves.map(curve => curve.querySelectorAll('path.point').length)"
    )
    assert sorted(points) == sorted(len(trial.intermediate_values) for trial in trials)
    keep(page, "study")


def test_the_trial_list_shows_every_trial_with_state_value_and_attributes(page, trials):
    page.goto("/dashboard/studies/1/trials")
    expect(page.get_by_text(f"{len(trials)} Trials")).to_be_visible()
    for trial in trials:
        entry = page.get_by_role("button", name=f"Trial {trial.number} ")
        expect(entry).to_contain_text(trial.state.name.capitalize())
        entry.click()
        main = page.get_by_role("main")
        expect(page.get_by_role("heading", name=f"Trial {trial.number} (trial_id=")).to_be_visible()
        if trial.state == TrialState.COMPLETE:
            expect(main.get_by_text(str(trial.value), exact=True).first).to_be_visible()
        for step, value in trial.intermediate_values.items():
            expect(main.get_by_text(f"{step} {value}")).to_be_visible()
        expect(main.get_by_text(f"stop_reason {trial.user_attrs['stop_reason']}")).to_be_visible()
        keep(page, f"trial-{trial.number}")


def test_the_command_serves_the_storage_and_ends_on_ctrl_c(place):
    with start("dashboard", "--port", "0", "--no-browser", cwd=place) as process:
        try:
            said = process.stdout.readline()
            assert said.startswith("dashboard of sqlite:///face3d_tune.db at http://127.0.0.1:")
            address = said.split()[4]
            with urllib.request.urlopen(f"{address}dashboard/", timeout=30) as answer:
                assert answer.status == 200
                assert b"Optuna Dashboard" in answer.read()
            with urllib.request.urlopen(f"{address}api/studies", timeout=30) as answer:
                assert b'"curves"' in answer.read()
            if os.name != "nt":
                process.send_signal(signal.SIGINT)
                process.wait(timeout=30)
        finally:
            process.kill()
        out, err = process.communicate(timeout=30)
    if os.name != "nt":
        assert process.returncode == 130
        assert err.split() == ["interrupted"]
    assert out == ""


def test_the_command_opens_the_browser_and_warns_of_an_address_that_others_reach(place, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("socketserver.BaseServer.serve_forever", mock.Mock(side_effect=KeyboardInterrupt))
    answer = call("dashboard", "--port", "0", "--host", "0.0.0.0", cwd=place)
    assert answer.code == 130
    assert opened == [answer.out.split()[4]]
    assert answer.err.startswith("warning: anyone who reaches this address can change and delete studies\n")


def test_the_command_listens_on_ipv6(place, monkeypatch):
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr("socketserver.BaseServer.serve_forever", mock.Mock(side_effect=KeyboardInterrupt))
    answer = call("dashboard", "--port", "0", "--host", "::1", "--no-browser", cwd=place)
    assert answer.out.split()[4].startswith("http://[::1]:")


def test_a_mistyped_storage_is_an_error_and_not_a_new_file(tmp_path, monkeypatch):
    monkeypatch.setattr("socketserver.BaseServer.serve_forever", mock.Mock(side_effect=KeyboardInterrupt))
    answer = call("dashboard", "--port", "0", "--no-browser", "--storage", "sqlite:///mistyped.db", cwd=tmp_path)
    assert answer.code == 2
    assert answer.err.startswith("error: storage sqlite:///mistyped.db: file does not exist\nhint: ")
    assert list(tmp_path.iterdir()) == []
