"""The real browser that tests look through."""

import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def executable():
    return next(filter(None, map(shutil.which, BROWSERS)), None)
