"""The buttons of the dashboard that steer a search, pressed in a real Chromium."""

import os
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect
from served import serving
from stored_study import study_of, trial_of

from face3d_tune.storage.workers import Worker


@pytest.fixture
def study(sqlite):
    return study_of(
        trial_of("COMPLETE", 0.55, preset="baseline"),
        trial_of("COMPLETE", 0.7, minute=1, pose_unit="radians"),
        storage=sqlite,
    )


@contextmanager
def page_of(browser, storage, study, **how):
    """The page of a study, and what it complains of."""
    with serving(storage, **how) as server:
        context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
        complaints = []
        context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/dashboard/studies/{study._study_id}")
        yield page, complaints
        context.close()


def keep(page, name):
    """SCREENSHOTS names a folder to look at what was shown."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def test_a_person_tries_excludes_brings_back_and_stops(browser, sqlite, study):
    Worker(sqlite.engine, study._study_id, alone=True).beat()
    with page_of(browser, sqlite, study, allow_changes=True) as (page, complaints):
        expect(page.get_by_role("heading", name="Best Trial (number=1)")).to_be_visible()
        keep(page, "steering-closed")
        page.get_by_role("button", name="Steer this search").click()
        panel, told = page.get_by_role("dialog", name="Steer this search"), page.get_by_role("status")

        expect(panel.locator("[name=like]")).to_be_hidden()
        panel.get_by_label("Values").fill("lr=2e-3")
        panel.get_by_label("All others").select_option("those of a trial")
        panel.locator("[name=like]").fill("1")
        panel.get_by_role("button", name="Queue it").click()
        expect(told).to_contain_text("queued as trial 2 of study 'faces': pose_unit = radians, lr = 0.002")
        panel.get_by_label("Values").fill("lr=5")
        panel.get_by_role("button", name="Queue it").click()
        expect(told).to_contain_text("lr = 5 is outside the search space")

        form = panel.locator("#exclude")
        form.get_by_label("Trial").fill("1")
        form.get_by_label("Reason").fill("<b>old</b> labels")
        form.get_by_role("button", name="Exclude it").click()
        expect(told).to_contain_text("the best is now trial 0: cosine 0.5500")
        expect(panel.get_by_role("listitem")).to_contain_text('"<b>old</b> labels"')
        keep(page, "steering-open")
        panel.get_by_role("button", name="Bring trial 1 back").click()
        expect(told).to_contain_text("trial 1 counts again")
        expect(panel.get_by_role("listitem")).to_have_count(0)

        panel.get_by_role("button", name="Stop now").click()
        expect(told).to_contain_text("asked 1 worker(s) to stop at once")
        expect(panel.locator("#workers")).to_contain_text("It was stopped by the dashboard of ")
        panel.get_by_role("button", name="Close").click()
        expect(panel).to_be_hidden()
        page.evaluate("history.pushState({}, '', '/dashboard'); dispatchEvent(new PopStateEvent('popstate'))")
        expect(page.get_by_role("button", name="Steer this search")).to_be_hidden()
    assert [line for line in complaints if "400" not in line] == []  # that of lr=5


def test_a_dashboard_that_is_read_only_has_no_buttons(browser, sqlite, study):
    with page_of(browser, sqlite, study) as (page, complaints):
        expect(page.get_by_role("heading", name="Best Trial (number=1)")).to_be_visible()
        assert page.get_by_role("button", name="Steer this search").count() == 0
        assert complaints == []
