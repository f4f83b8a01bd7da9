"""The real browser that tests look through."""

import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium")
ANOTHER_NAME = "evil.example"  # of this machine, for the browser alone
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    f"--host-resolver-rules=MAP {ANOTHER_NAME} 127.0.0.1",
)


def executable():
    return next(filter(None, map(shutil.which, BROWSERS)), None)
