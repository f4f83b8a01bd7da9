"""No garbage is looked for while tests are collected, and seldom while they run.

This module is imported first of all, since it turns the search off.

Rewriting 5,000 asserts makes millions of short-lived nodes, and each search for garbage among them walks through torch,
too. Collecting takes 8 s of a processor without these searches, and 22 s with them, in every worker.
"""

import gc

import pytest

gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """Look for garbage again, but not among what is there before the first test, and seldom.

    As often as Python does it by itself it takes 8 % of the processor, mostly for walking through what tests import.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()
