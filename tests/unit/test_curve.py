"""The picture of one training: what it shows, where, and whether a reader can see it."""

import re
from itertools import pairwise
from math import nan
from xml.etree import ElementTree

import pytest

from face3d_tune.analysis.curve import curve_picture, loss_chart, numbers_picture
from face3d_tune.analysis.svg import STYLE, Panel, picture, ticks
from face3d_tune.study.history import History

SVG = "{http://www.w3.org/2000/svg}"
HISTORY = History(cosine=(0.5, 0.6, 0.64, 0.62), train_loss=(0.4, 0.3, 0.2, 0.1), val_loss=(0.5, 0.3, 0.25, 0.35))


def drawn(history=HISTORY, kept=3, no_model=0.55):
    return ElementTree.fromstring(curve_picture(history, kept, no_model))


def charts(picture):
    return picture.findall(f"{SVG}svg[@class='chart']")


def texts(element, kind):
    return [text.text for text in element.findall(f"{SVG}text[@class='{kind}']")]


def points(chart, kind):
    line = chart.find(f"{SVG}polyline[@class='line {kind}']")
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


def test_both_charts_say_what_their_axes_show():
    loss, cosine = charts(drawn())
    assert texts(loss, "label") == ["epoch", "loss (the trial's own weights)"]
    assert texts(cosine, "label") == ["epoch", "mean cosine similarity"]
    for chart in (loss, cosine):
        assert texts(chart, "tick")[:4] == ["1", "2", "3", "4"]
        assert len(texts(chart, "tick")) >= 4 + 3


def test_the_legend_names_every_line():
    assert texts(drawn(), "heading") == ["Loss", "Validation cosine"]
    assert texts(drawn(), "entry") == [
        *("training", "validation", "kept: epoch 3"),
        *("validation", "no model: 0.550", "kept: epoch 3, 0.640"),
    ]


def test_a_curve_runs_through_its_values():
    loss, cosine = charts(drawn())
    for chart, kind, values in (
        (loss, "s1", HISTORY.train_loss),
        (loss, "s0", HISTORY.val_loss),
        (cosine, "s0", HISTORY.cosine),
    ):
        shown = points(chart, kind)
        step = (shown[-1][0] - shown[0][0]) / (len(values) - 1)
        assert [after - before for (before, _), (after, _) in pairwise(shown)] == pytest.approx([step] * 3, abs=0.2)
        per_unit = (shown[0][1] - shown[1][1]) / (values[1] - values[0])  # px; y grows downwards
        for (_, y), value in zip(shown, values, strict=True):
            assert y == pytest.approx(shown[0][1] - per_unit * (value - values[0]), abs=0.3)


def test_the_kept_epoch_is_marked_in_both_charts_and_its_value_on_the_curve():
    loss, cosine = charts(drawn())
    at, height = points(cosine, "s0")[2]
    assert cosine.find(f"{SVG}path").get("d") == f"M{at:.1f} {height:.1f}h0"
    for chart in (loss, cosine):
        mark = chart.find(f"{SVG}line[@class='kept']")
        assert mark.get("x1") == mark.get("x2") == f"{at:.1f}"


def test_a_trial_whose_losses_are_not_known_has_its_cosine_alone():
    picture = drawn(History(cosine=HISTORY.cosine))
    assert texts(picture, "heading") == ["Validation cosine"]
    assert float(picture.get("width")) < float(drawn().get("width")) / 1.8


def test_a_single_epoch_is_a_dot():
    picture = drawn(History(cosine=(0.5,), train_loss=(0.4,), val_loss=(0.5,)), kept=1)
    for chart in charts(picture):
        assert texts(chart, "tick")[:2] == ["1", "2"]


def test_an_epoch_without_a_finite_loss_is_left_out_and_spoils_no_axis():
    loss, _ = charts(drawn(History(HISTORY.cosine, (0.4, nan, 0.2, 0.1), (0.5, 0.3, float("inf"), 0.35))))
    assert (len(points(loss, "s1")), len(points(loss, "s0"))) == (3, 3)
    assert not {"nan", "inf"} & {word for text in loss.iter() for word in re.findall(r"[a-z]+", text.get("points", ""))}


def test_a_number_of_a_script_without_a_finite_value_has_no_chart():
    history = History(cosine=(), numbers={"loss": (0.4, 0.3), "rank1": (nan, nan)})
    picture = ElementTree.fromstring(numbers_picture(history, 2, ["loss", "rank1", "never printed"]))
    assert texts(picture, "heading") == ["loss"]


@pytest.mark.parametrize("kept", [3, None])
def test_a_training_whose_kept_epoch_is_not_known_has_its_losses_without_a_mark(kept):
    chart = loss_chart(HISTORY, kept, title="Loss", x="epoch", y="loss")
    drawing = picture([Panel("Loss", chart, [])])
    assert ("class='kept'" in drawing.replace('"', "'")) == (kept is not None)
    assert drawing.count("<polyline") == 2


def test_a_count_has_no_tick_between_two_whole_numbers():
    assert ticks(1, 2, whole=True) == [1, 2]
    assert ticks(1, 3, whole=True) == [1, 2, 3]
    assert ticks(0, 1, whole=False) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(1, 100, whole=True) == [20, 40, 60, 80, 100]


def test_the_picture_needs_nothing_from_elsewhere():
    text = curve_picture(HISTORY, 3, 0.55).replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"http|url\(|@import|href|<script|\bon\w+=", text)


def palettes():
    """The colours of `svg.css` by name, in light, in dark and on paper."""
    return [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)]


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", palettes(), ids=["light", "dark", "paper"])
def test_text_and_lines_stand_out_from_the_ground(colours):
    ground = luminance(colours["ground"])

    def contrast(name):
        low, high = sorted((luminance(colours[name]), ground))
        return (high + 0.05) / (low + 0.05)

    assert min(map(contrast, ("ink", "quiet"))) >= 4.5  # WCAG 2, text
    assert min(contrast(f"s{number}") for number in range(6)) >= 3  # WCAG 2, graphics
