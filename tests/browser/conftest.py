"""One browser for the tests of a module."""

import os

import pytest
from chromium import BROWSERS, QUIET, executable
from playwright.sync_api import expect, sync_playwright


@pytest.fixture(scope="module")
def browser():
    found = executable()
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
