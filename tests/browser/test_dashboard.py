"""What a person sees in the browser: the real dashboard of a finished study, in a real Chromium."""

import os
import random
import re
import signal
import socket
import urllib.request
import warnings
from contextlib import contextmanager
from unittest import mock

import optuna
import pytest
from chromium import ANOTHER_NAME
from command_line import call, start
from optuna.trial import TrialState
from playwright.sync_api import expect
from served import serving
from stored_script import searched_script, study_of_script
from stored_study import add_many, add_trial, our_study, trial_of

from face3d_tune.storage.artifacts import Artifacts, log_of, unique_name
from face3d_tune.storage.database import Storage

STUDY = """
[budget]
trials = 3
epochs = 4

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
[presets.slower]
lr = 2e-5
"""


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


@contextmanager
def served(storage, **how):
    """The address of a real server."""
    with serving(storage, **how) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def all_kinds(place, storage):
    """The address of `curves`, and of studies finished, running, empty, failed, large or of a script; and paths."""
    artifacts = Artifacts.parse(str(place / "kept"))
    names = ("finished", "running", "empty", "failed", "large")
    studies = {name: our_study(storage, name) for name in names}
    for name in ("finished", "running"):
        add_trial(studies[name], "COMPLETE", [0.4, 0.55, 0.6], preset="baseline")
        add_trial(studies[name], "COMPLETE", [0.3, 0.6, 0.65], pose_unit="radians")
        add_trial(studies[name], "PRUNED", [0.2, 0.3])
    add_trial(studies["running"], "RUNNING", [0.4, 0.5])
    for _ in range(3):
        add_trial(studies["failed"], "FAIL", [], error="out of memory")
    add_many(studies["large"], storage, many_trials())
    trials = searched_script("minimize")
    studies["script"] = study_of_script(*trials, direction="minimize", name="script", storage=storage)
    log = log_of(unique_name("script", studies["script"].user_attrs["id"]), "trial-15")
    artifacts.write(log, b"torch.OutOfMemoryError: CUDA out of memory")
    (place / "page.html").write_text("<script>document.title = 'executed'</script>")
    artifact = optuna.artifacts.upload_artifact(
        artifact_store=artifacts.optuna_store,
        file_path=str(place / "page.html"),
        study_or_trial=studies["finished"],
    )
    with served(storage, artifacts=artifacts) as address:
        paths = {name: f"/dashboard/studies/{study._study_id}" for name, study in studies.items()}
        yield address, paths, f"/artifacts/{studies['finished']._study_id}/{artifact}"


def many_trials():
    draw = random.Random(0)
    for number in range(220):  # more of them pruned than a figure shows
        best, unit = draw.uniform(0.5, 0.65), draw.choice(["degrees", "radians"])
        curve, rate = [best - 0.2, best - 0.1, best], 10 ** draw.uniform(-5, -1)
        state = "PRUNED" if number % 2 else "COMPLETE"
        yield trial_of(state, curve=curve, lr=rate, pose_unit=unit, minute=number)


@contextmanager
def opened_page(browser, url):
    """A page that shows the studies, and what it complains of."""
    context = browser.new_context(base_url=url, viewport={"width": 1400, "height": 2600}, reduced_motion="reduce")
    complaints = []
    context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    opened = context.new_page()
    opened.goto("/")
    opened.wait_for_url("/dashboard")
    yield opened, complaints
    context.close()


def look(page, path):
    """Lead a page to another view as its own links do: starting its application anew takes seconds."""
    page.evaluate("path => {history.pushState({}, '', path); dispatchEvent(new PopStateEvent('popstate'))}", path)


@pytest.fixture(scope="module")
def module_page(browser, all_kinds):
    """One page for all tests: every new one would load, compile and draw the application anew."""
    with opened_page(browser, all_kinds[0]) as opened:
        yield opened


@contextmanager
def without_complaints(opened):
    """A page that may not complain; SCREENSHOTS names a folder to look at what it showed."""
    page, complaints = opened
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some regimes for parameter")  # of the importance plot: few trials
        yield page
    assert complaints == []


@pytest.fixture
def page(module_page, all_kinds):
    with without_complaints(module_page) as page:
        page.paths = all_kinds[1]
        yield page


def keep(page, name):
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def test_the_first_page_lists_the_study_and_leads_to_it(page):
    look(page, "/dashboard")  # where the first address has led to
    entry = page.get_by_role("link", name="curves")
    expect(entry).to_contain_text("Direction: MAXIMIZE")
    keep(page, "studies")
    entry.click()
    expect(page.get_by_role("heading", name="Best Trial")).to_be_visible()


def test_the_study_page_shows_the_best_trial_and_the_history_by_the_name_of_the_metric(page, trials):
    look(page, "/dashboard/studies/1")
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
    look(page, "/dashboard/studies/1")
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
    look(page, "/dashboard/studies/1/trials")
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


def titles(page):
    return page.locator(".js-plotly-plot .gtitle")


def test_the_study_page_shows_our_figures_with_axes_that_say_what_and_in_what(page):
    page.goto(page.paths["finished"])  # as someone who was sent the address
    expect(titles(page)).to_contain_text(
        ["Learning curves: best, presets, pruned", "Best value so far", "Cosine by head turn"]
    )
    for axis in ("epoch", "finished trials", "minutes of searching", "|yaw| of the side view"):
        expect(page.locator(".js-plotly-plot").get_by_text(axis, exact=True)).to_be_visible()
    keep(page, "figures")


def test_the_note_page_says_what_the_study_is_about(page):
    look(page, f"{page.paths['finished']}/note")
    expect(page.get_by_role("cell", name="best trial")).to_be_visible()
    expect(page.get_by_role("cell", name="+0.1500")).to_be_visible()
    expect(page.get_by_text("without a model it is 0.5000")).to_be_visible()
    keep(page, "note")


def test_the_best_trials_page_has_its_command_its_curve_and_no_wider_than_the_window(page):
    look(page, f"{page.paths['finished']}/trials?numbers=1")
    expect(page.get_by_text("The best trial", exact=True)).to_be_visible()
    expect(page.get_by_text("python train_transformer3D/train_3d.py", exact=False)).to_be_visible()
    expect(page.get_by_text("command.txt")).to_be_visible()
    picture = page.locator("img[src*='/artifacts/'], [style*='/artifacts/']").first
    expect(picture).to_be_visible()
    address = picture.get_attribute("src") or re.search(r"/artifacts/[\w/-]+", picture.get_attribute("style"))[0]
    width = "address => new Promise(done => Object.assign(new Image(), {src: address, onload() {done(this.width)}}))"
    assert page.evaluate(width, address) == 734  # its own: it was read as a picture
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    keep(page, "best-trial")
    alone = page.context.new_page()
    alone.goto(address)
    expect(alone.get_by_text("kept: epoch 3, 0.650")).to_be_visible()
    ground = "getComputedStyle(document.querySelector('.ground')).fill"
    for scheme, colour in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 28)")):
        alone.emulate_media(color_scheme=scheme)
        assert alone.evaluate(ground) == colour
        keep(alone, f"curve-{scheme}")
    alone.close()


def test_the_trial_table_sorts_by_our_numbers(page):
    look(page, f"{page.paths['finished']}/smartSelection")
    for column in ("cosine |yaw| 15-45°", "epochs_run", "val_loss_equal"):
        header = page.get_by_role("columnheader", name=f"UserAttribute {column}")
        header.scroll_into_view_if_needed()
        header.locator("span, div").first.click()
    expect(page.get_by_role("columnheader", name="UserAttribute config")).to_have_count(0)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("running", "3 of 50 finished trials (2 complete, 1 pruned, 1 running)"),
        ("empty", "No trial has completed yet."),
        ("failed", "0 of 50 finished trials (3 fail)"),
        ("large", "220 of 50 finished trials (110 complete, 110 pruned)"),
        ("script", "val_loss, the lower the better. A trial has the numbers of the epoch with the lowest val_loss"),
    ],
)
def test_a_study_of_every_kind_has_a_page_and_a_note(page, kind, said):
    look(page, "/dashboard")  # led from one study to another, it would show the other at the next poll
    page.get_by_role("link", name=kind).click()
    page.wait_for_url(f"**{page.paths[kind]}")
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    if kind in ("running", "large", "script"):
        expect(titles(page).first).to_contain_text("Learning curves")
    keep(page, f"{kind}-study")
    look(page, f"{page.paths[kind]}/note")
    expect(page.get_by_text(said, exact=False)).to_be_visible()
    keep(page, f"{kind}-note")


def test_a_failed_trial_of_a_script_says_why_and_has_its_log(page):
    look(page, f"{page.paths['script']}/trials?numbers=15")
    expect(page.get_by_text("Failed: out of memory", exact=True)).to_be_visible()
    expect(page.get_by_text("log.txt")).to_be_visible()
    keep(page, "script-trial")


def test_a_change_is_refused_and_the_page_says_so(module_page, all_kinds):
    page, complaints = module_page
    look(page, f"{all_kinds[1]['finished']}/note")
    page.get_by_test_id("EditIcon").click()
    page.get_by_role("textbox").first.fill("mine")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("nothing can be changed here", exact=False)).to_be_visible()
    keep(page, "refused")
    look(page, "/dashboard")
    expect(page.get_by_role("link", name="finished")).to_be_visible()
    status = page.evaluate("fetch('/api/studies/1', {method: 'DELETE'}).then(answer => answer.status)")
    assert status == 403
    complaints.clear()  # of the two refusals


def test_a_page_left_open_shows_the_next_study_with_its_id_and_no_trial_of_the_deleted_one(module_page, storage):
    def study_of(name, *cosines):
        study = our_study(storage, name, id=name * 8)
        for cosine in cosines:
            add_trial(study, "COMPLETE", [cosine])
        return study._study_id

    page, complaints = module_page
    number = study_of("olden", 0.61, 0.62, 0.63)
    look(page, "/dashboard")
    expect(page.get_by_role("link", name="curves")).to_be_visible()
    look(page, f"/dashboard/studies/{number}/trials")
    expect(page.get_by_text("3 Trials")).to_be_visible()
    page.evaluate("window.loadedBefore = true")
    optuna.delete_study(study_name="olden", storage=storage)
    assert study_of("newer", 0.71, 0.72, 0.73, 0.74) == number
    expect(page.get_by_text("4 Trials")).to_be_visible()
    assert page.evaluate("window.loadedBefore") is None
    page.get_by_role("button", name="Trial 0 ").click()
    expect(page.get_by_role("main").get_by_text("0.71", exact=True).first).to_be_visible()
    keep(page, "replaced")
    complaints.clear()  # in between it may have said: not found


def test_another_name_that_leads_to_this_machine_shows_nothing(all_kinds, browser):
    address, _, _ = all_kinds
    port = address.rpartition(":")[2]
    page = browser.new_page()
    answer = page.goto(f"http://{ANOTHER_NAME}:{port}/api/studies")
    assert answer.status == 421
    expect(page.get_by_text("does not go by the name", exact=False)).to_be_visible()
    page.close()


def test_a_page_among_the_artifacts_is_not_executed_but_downloaded(page, all_kinds):
    *_, artifact = all_kinds
    with page.expect_download() as download:
        page.evaluate(f"location.href = '{artifact}'")
    assert "<script>" in download.value.path().read_text()
    assert page.title() != "executed"
    framed = page.evaluate(
        f"""new Promise(done => {{
            const frame = document.createElement('iframe');
            frame.src = '{artifact}';
            document.body.append(frame);
            setTimeout(() => {{done(frame.contentDocument?.title ?? ''); frame.remove()}}, 400);
        }})"""
    )
    assert framed != "executed"


def test_the_command_opens_the_browser_with_the_token_that_it_made_up(place, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("face3d_tune.dashboard.server.Server.serve_forever", mock.Mock(side_effect=KeyboardInterrupt))
    answer = call("dashboard", "--port", "0", "--host", "0.0.0.0", "--token", "auto", cwd=place)
    assert answer.code == 130
    assert opened == [answer.out.split()[4]]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[0-9a-f]{32}", opened[0])


def test_the_command_says_that_others_would_get_in_without_a_token(place):
    answer = call("dashboard", "--port", "0", "--host", "0.0.0.0", "--no-browser", cwd=place)
    assert (answer.code, answer.out) == (2, "")
    assert "everyone in the network" in answer.err
    assert "--token auto" in answer.err


def test_the_command_warns_where_changes_are_allowed(place, monkeypatch):
    monkeypatch.setattr("face3d_tune.dashboard.server.Server.serve_forever", mock.Mock(side_effect=KeyboardInterrupt))
    answer = call("dashboard", "--port", "0", "--no-browser", "--allow-changes", cwd=place)
    assert answer.err.startswith("warning: visitors can steer searches, and rename and delete studies\n")


def test_the_command_listens_on_ipv6(place, monkeypatch):
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr("face3d_tune.dashboard.server.Server.serve_forever", mock.Mock(side_effect=KeyboardInterrupt))
    answer = call("dashboard", "--port", "0", "--host", "::1", "--no-browser", cwd=place)
    assert answer.out.split()[4].startswith("http://[::1]:")


def test_a_mistyped_storage_is_an_error_and_not_a_new_file(tmp_path, monkeypatch):
    monkeypatch.setattr("face3d_tune.dashboard.server.Server.serve_forever", mock.Mock(side_effect=KeyboardInterrupt))
    answer = call("dashboard", "--port", "0", "--no-browser", "--storage", "sqlite:///mistyped.db", cwd=tmp_path)
    assert answer.code == 2
    assert answer.err.startswith("error: storage sqlite:///mistyped.db: file does not exist\nhint: ")
    assert list(tmp_path.iterdir()) == []
