"""Charts as SVG elements: two axes with ticks and units, lines, dots and bars. Colours are classes of `svg.css`.

A chart is as wide as a phone, so that its letters stay readable. A report puts charts between its text; `picture` makes
a file of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

STYLE = Path(__file__).with_name("svg.css").read_text(encoding="utf-8")
WIDTH = 340.0  # px
_TOP, _RIGHT, _BOTTOM = 26.0, 14.0, 40.0
_MARGIN, _HEADING, _ENTRY = 18.0, 26.0, 20.0  # px, of a picture: around it, above a chart, for a line of its legend

Scale = Callable[[float], float]


class Chart:
    """One pair of axes.

    Args:
        title: The text for a reader who cannot see the picture.
        x: Lowest and highest value, with the axis' label and unit.
        y: The same.
        log_x: Whether x has a logarithmic scale; so with `log_y`.
        whole_x: Whether x counts something, e.g. epochs: then ticks are whole numbers.
        rows: Names instead of numbers on the y axis, the first at the top; then y is a row's number.
        height: In px; so with `width`.
        x_names: Names for values of x, in place of ticks.
    """

    def __init__(
        self,
        title: str,
        x: tuple[float, float, str],
        y: tuple[float, float, str],
        *,
        log_x: bool = False,
        log_y: bool = False,
        whole_x: bool = False,
        rows: Sequence[str] = (),
        height: float = 230.0,
        width: float = WIDTH,
        left: float = 46.0,
        x_names: Sequence[str] = (),
    ) -> None:
        self.svg = Element(
            "svg", {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": title, "class": "chart"}
        )
        SubElement(self.svg, "title").text = title
        self.width, self.height = width, height
        self._left, self._right, self._bottom = left, width - _RIGHT, height - _BOTTOM
        self.x = _scale(x[0], x[1], self._left, self._right, log_x)
        low, high = (len(rows) - 0.5, -0.5) if rows else y[:2]
        self.y = _scale(low, high, self._bottom, _TOP, log_y)
        at_x = ticks(x[0], x[1], log_x, whole_x)
        names = list(enumerate(x_names)) if x_names else [(tick, tick_text(tick, log_x)) for tick in at_x]
        for value, text in names:
            at = self.x(value)
            self._line("grid", (at, _TOP), (at, self._bottom))
            self.text(at, self._bottom + 15, text, "tick", anchor="middle")
        for value, text in enumerate(rows):
            self.text(self._left - 8, self.y(value) + 4, text, "tick", anchor="end")
        for value in [] if rows else ticks(low, high, log_y):
            at = self.y(value)
            self._line("grid", (self._left, at), (self._right, at))
            self.text(self._left - 6, at + 4, tick_text(value, log_y), "tick", anchor="end")
        self._line("axis", (self._left, self._bottom), (self._right, self._bottom))
        self.text((self._left + self._right) / 2, height - 7, x[2], "label", anchor="middle")
        self.text(4 if not rows else self._left, 14, y[2], "label")

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draw a line through points of the data."""
        if points:
            steps = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
            SubElement(self.svg, "polyline", {"points": steps, "class": f"line {kind}"})

    def dots(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draw dots at points of the data; thousands of them are one element."""
        if points:
            steps = "".join(f"M{self.x(x):.1f} {self.y(y):.1f}h0" for x, y in points)
            SubElement(self.svg, "path", {"d": steps, "class": f"dots {kind}"})

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], kind: str) -> None:
        """Fill the band between two curves over the same values of x."""
        around = [*zip(x, high, strict=True), *reversed(list(zip(x, low, strict=True)))]
        corners = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in around)
        SubElement(self.svg, "polygon", {"points": corners, "class": f"band {kind}"})

    def level(self, value: float, kind: str) -> None:
        """Draw a horizontal line at a value of y."""
        self._line(kind, (self._left, self.y(value)), (self._right, self.y(value)))

    def mark(self, value: float, kind: str, y: tuple[float, float] | None = None) -> None:
        """Draw a vertical line at a value of x, from the bottom to the top or between two values of y."""
        low, high = (self._bottom, _TOP) if y is None else (self.y(y[0]), self.y(y[1]))
        self._line(kind, (self.x(value), low), (self.x(value), high))

    def bar(self, row: float, start: float, end: float, thickness: float, kind: str) -> None:
        """Draw a bar from one value of x to another."""
        low, high = sorted((self.x(start), self.x(end)))
        place = {"x": f"{low:.1f}", "y": f"{self.y(row) - thickness / 2:.1f}"}
        size = {"width": f"{max(high - low, 0.5):.1f}", "height": f"{thickness:g}"}
        SubElement(self.svg, "rect", {**place, **size, "class": f"bar {kind}", "rx": "1.5"})

    def text(self, x: float, y: float, words: str, kind: str, *, anchor: str = "start") -> None:
        """Write text at a place in px."""
        _text(self.svg, x, y, words, kind, anchor)

    def _line(self, kind: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        place = {"x1": f"{start[0]:.1f}", "y1": f"{start[1]:.1f}", "x2": f"{end[0]:.1f}", "y2": f"{end[1]:.1f}"}
        SubElement(self.svg, "line", {**place, "class": kind})


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart of a picture, with its heading and its legend: labels, each with a class of line or dot."""

    heading: str
    chart: Chart
    legend: Sequence[tuple[str, str]]


def picture(panels: Sequence[Panel]) -> str:
    """Return an SVG file with the panels side by side, in light or dark colours as the reader prefers."""
    width = _MARGIN + sum(panel.chart.width + _MARGIN for panel in panels)
    height = max(_HEADING + panel.chart.height + len(panel.legend) * _ENTRY for panel in panels) + 2 * _MARGIN
    size = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    svg = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, "class": "picture"})
    SubElement(svg, "title").text = ", ".join(panel.heading for panel in panels)
    SubElement(svg, "style").text = STYLE
    SubElement(svg, "rect", {"width": "100%", "height": "100%", "class": "ground"})
    left = _MARGIN
    for panel in panels:
        top = _MARGIN
        _text(svg, left, top + 14, panel.heading, "heading")
        top += _HEADING
        chart = panel.chart
        place = {"x": f"{left:g}", "y": f"{top:g}", "width": f"{chart.width:g}", "height": f"{chart.height:g}"}
        chart.svg.attrib |= place
        svg.append(chart.svg)
        top += chart.height + _ENTRY
        for label, kind in panel.legend:
            sample = swatch(kind)
            sample.attrib |= {"x": f"{left:g}", "y": f"{top - 10:g}"}
            svg.append(sample)
            _text(svg, left + 34, top, label, "entry")
            top += _ENTRY
        left += chart.width + _MARGIN
    return tostring(svg, encoding="unicode") + "\n"


def swatch(kind: str) -> Element:
    """Return a piece of a line or a dot, for a legend."""
    svg = Element("svg", {"viewBox": "0 0 26 12", "width": "26", "height": "12", "aria-hidden": "true"})
    if kind in ("level", "kept"):
        SubElement(svg, "line", {"x1": "1", "x2": "25", "y1": "6", "y2": "6", "class": kind})
    elif kind.endswith("-dot"):
        SubElement(svg, "path", {"d": "M13 6h0", "class": f"dots {kind.removesuffix('-dot')}"})
    else:
        SubElement(svg, "polyline", {"points": "1,6 25,6", "class": f"line {kind}"})
    return svg


def by_epoch(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return points of a curve, from epoch 1 on; an epoch without a finite value has none."""
    return [(epoch, value) for epoch, value in enumerate(values, 1) if math.isfinite(value)]


def limits(values: Sequence[float], floor: float | None = None) -> tuple[float, float]:
    """Return a little below the lowest and above the highest finite value, or from `floor` if that is lower."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    air = (high - low or abs(high) or 1.0) * 0.05
    return (low - air if floor is None else min(floor, low)), high + air


def _text(parent: Element, x: float, y: float, words: str, kind: str, anchor: str = "start") -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}"}
    SubElement(parent, "text", {**place, "class": kind, "text-anchor": anchor}).text = words


def _scale(low: float, high: float, start: float, end: float, log: bool) -> Scale:
    """Map values to px; a value outside the limits is clamped."""
    place = math.log10 if log else float
    low, high = place(low), place(high)
    if low == high:
        low, high = low - 0.5, high + 0.5
    span = high - low

    def scaled(value: float) -> float:
        share = (place(value) - low) / span if not log or value > 0 else 0.0
        return start + (end - start) * min(1.0, max(0.0, share))

    return scaled


def ticks(low: float, high: float, log: bool = False, whole: bool = False) -> list[float]:
    """Return two to six round numbers from `low` to `high`; powers of ten on a logarithmic scale."""
    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        powers = [10.0**power for power in range(first, last + 1, max(1, (last - first) // 4))]
        return powers if len(powers) > 1 else [low, high]
    if low == high:
        return [low]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough - 1e-12)
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [count * step for count in range(first, last + 1)]


def tick_text(value: float, log: bool = False) -> str:
    """Format a tick, `0.5`, `1e-5` or `200`, without rounding errors; on a logarithmic scale always as a power."""
    if log or (value != 0 and not 1e-3 <= abs(value) < 1e5):
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    return f"{value:.6g}"
