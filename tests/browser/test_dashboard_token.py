"""The dashboard with a token, and odd content, in a real Chromium: what a person sees, and what the address says."""

import os

import pytest
from playwright.sync_api import expect
from served import ours, serving
from stored_study import trial_of

TOKEN = "0123456789abcdef"
ODD = "a\n# heading <img src=x> *b* [link](http://evil.example) $x^2$ www.evil.example"
# As optuna-dashboard's page shows it: the line break is written, and what joins no letters has no width.
SHOWN = r"a\n# heading <img src=x> *b* [link](http://evil.example) $x^2$ www.evil.example"


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1000, "height": 900}, reduced_motion="reduce")
    yield context.new_page()
    context.close()


def keep(page, name):
    """SCREENSHOTS names a folder to look at what was shown."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def test_a_person_without_the_token_types_it_and_it_never_stays_in_the_address(browser, page, sqlite):
    study = ours(sqlite, name=ODD)
    study.add_trial(trial_of("COMPLETE", curve=[0.5], preset=ODD))
    with serving(sqlite, token=TOKEN) as made:
        here = f"http://127.0.0.1:{made.server_port}"
        assert page.goto(f"{here}/dashboard/studies/1").status == 401
        expect(page.get_by_role("heading", name="This dashboard needs a token")).to_be_visible()
        expect(page.get_by_text("Open the address that face3d-tune dashboard printed")).to_be_visible()
        keep(page, "token-missing")
        page.get_by_label("The token").fill("wrong")
        page.get_by_role("button", name="Open the dashboard").click()
        expect(page.get_by_role("heading", name="This token is not the right one")).to_be_visible()
        keep(page, "token-wrong")

        page.get_by_label("The token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{here}/dashboard")
        expect(page.get_by_text("Direction: MAXIMIZE")).to_be_visible()
        assert page.evaluate("document.cookie") == ""  # scripts do not see it

        page.goto(f"{here}/dashboard/studies/1/note?token={TOKEN}")  # as the terminal printed it, once more
        assert page.url == f"{here}/dashboard/studies/1/note"
        expect(page.get_by_role("heading", name="heading <img").first).to_be_visible()
        keep(page, "odd-note")
        note = page.locator("h2").first
        assert note.inner_text().replace("\u2060", "") == SHOWN
        assert page.locator("main img[src='x'], main a[href*='evil']").count() == 0
        page.go_back()
        assert "token" not in page.url
