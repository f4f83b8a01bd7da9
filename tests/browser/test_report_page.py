"""A report as it is opened from a disk: a real Chromium without a network, on a desktop and on a phone."""

import os
from datetime import datetime

import optuna
import pytest
from playwright.sync_api import expect
from stored_study import searched, study_of, trial_of

from face3d_tune.analysis.findings import find
from face3d_tune.report.render import report

SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
KINDS = {
    "finished": searched,
    "empty": list,
    "failed": lambda: [trial_of("FAIL")],
    "large": lambda: [
        *searched(),
        *(trial_of("PRUNED", 0.3 + 1e-4 * each, lr=1e-5 * (each + 1), epochs=4) for each in range(300)),
    ],
}
LONG = "a study whose name is longer than a phone is wide, 名字很长的研究，".replace(" ", "_") * 3


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A folder with a report of every kind in both languages."""
    folder = tmp_path_factory.mktemp("reports")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for kind, trials in KINDS.items():
        found = find(study_of(*trials(), name=f"{LONG}<b>"))
        for language in ("en", "zh"):
            (folder / f"{kind}-{language}.html").write_text(
                report(found, "html", language, datetime(2026, 1, 2)), encoding="utf-8"
            )
    return folder


@pytest.fixture(scope="module")
def module_page(browser):
    """One page for all tests: every new one starts a process of the browser."""
    context = browser.new_context(offline=True)
    yield context.new_page()
    context.close()


@pytest.fixture
def opened(module_page, reports):
    """Opens a report; nothing but its file may be asked for, and nothing may be complained of."""
    page, complaints = module_page, []
    heard = {
        "console": lambda message: complaints.append(message.text),
        "pageerror": lambda error: complaints.append(str(error)),
        "request": lambda asked: asked.url.startswith("file:") or complaints.append(asked.url),
    }

    def look(name):
        page.goto((reports / f"{name}.html").as_uri())
        return page

    for event, hear in heard.items():
        page.on(event, hear)
    page.set_viewport_size(SIZES["desktop"])
    yield look
    for event, hear in heard.items():
        page.remove_listener(event, hear)
    page.emulate_media(media="null", color_scheme="null")  # as it was
    assert complaints == []


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_report_is_read_without_scrolling_sideways_and_without_a_network(opened, kind, language):
    page = opened(f"{kind}-{language}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{LONG}<b>")
    charts = page.locator("[role=img]")
    for size in SIZES:
        page.set_viewport_size(SIZES[size])
        widest, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert (widest <= window, window) == (True, SIZES[size]["width"]), size
        named = charts.evaluate_all("elements => elements.map(element => element.firstChild.textContent)")
        assert (len(named) > 5) == (kind in ("finished", "large"))
        expect(page.get_by_role("img")).to_have_count(len(named))  # all of them are there for a reader of the screen
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{folder}/report-{kind}-{language}-{size}.png", full_page=True)
    for chart, name in zip(charts.all(), named, strict=True):
        expect(chart).to_have_accessible_name(name)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_lines_and_dots_stand_out_from_the_ground(opened, scheme):
    page = opened("finished-en")
    page.emulate_media(color_scheme=scheme)
    read = "name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()"
    names = ("ground", "ink", "quiet", "accent", "warn", "warn-ground", "s0", "s1", "s2", "s3", "s4", "s5")
    colours = {name: page.evaluate(read, name) for name in names}
    assert contrast(colours["warn"], colours["warn-ground"]) > 4.5
    for name in ("ink", "quiet", "accent"):
        assert contrast(colours[name], colours["ground"]) > 4.5, name
    for name in ("s0", "s1", "s2", "s3", "s4", "s5"):
        assert contrast(colours[name], colours["ground"]) > 3, name
    dark = contrast(page.evaluate("getComputedStyle(document.body).backgroundColor"), "#000000")
    assert (dark < 2) == (scheme == "dark")


def test_a_command_is_copied_as_it_is_typed(opened):
    page = opened("finished-en")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    convert, train = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert convert == "face3d-tune data convert faces faces-radians --pose-unit radians"
    assert train.startswith("python train_transformer3D/train_3d.py --data_dir faces-radians --d_model 16 ")
    assert " --lr 0.003 " in train


def test_on_paper_there_is_nothing_to_press_and_nothing_cut_off(opened):
    page = opened("finished-zh")
    page.emulate_media(media="print")
    expect(page.get_by_role("button", name="复制").first).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def contrast(one, other):
    """Of two colours, as the Web Content Accessibility Guidelines count it: 1 to 21."""
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


def brightness(colour):
    parts = (
        [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        if colour.startswith("#")
        else [int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    )
    linear = [part / 255 / 12.92 if part / 255 <= 0.04045 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
