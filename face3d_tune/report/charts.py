"""The pictures of a report: curves, search, yaw bands, importances and slices."""

import math
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from face3d_tune.analysis.curve import loss_chart
from face3d_tune.analysis.svg import Chart, by_epoch, limits
from face3d_tune.report.content import Content, Entry
from face3d_tune.report.words import Words

Series = Sequence[tuple[str, Entry, str]]  # label, trial, class

_COLOURS = 5  # of presets
BASELINES = {"no model": "s1", "ridge": "s2", "kernel ridge": "s3"}  # their classes beside all trials


def series(content: Content, say: Words) -> Series:
    """Return the trials that every picture compares: the best and the presets, each once."""
    rows = [(say.preset(entry.name), entry) for entry in content.presets if entry.same_as is None]
    best = content.best
    found = [] if best is None else [(say.text("best_of", trial=best.trial), best, "s0")]
    others = [(label, entry) for label, entry in rows if best is None or entry.trial != best.trial]
    return found + [(label, entry, f"s{1 + place % _COLOURS}") for place, (label, entry) in enumerate(others)]


def curves(content: Content, shown: Series, say: Words) -> Element | None:
    """Draw the objective by epoch, of all series, and faintly of pruned trials."""
    drawn = [entry.history.values(content.measure) for _, entry, _ in shown] + list(content.pruned_curves)
    values = [value for curve in drawn for value in curve if math.isfinite(value)]
    if not values:
        return None
    values += _without(content)
    y = (*limits(values), say.text("axis_value"))
    x = (1, max(2, *map(len, drawn)), say.text("axis_epoch"))
    chart = Chart(say.text("chart_cosine"), x, y, whole_x=True, height=270)
    for curve in content.pruned_curves:
        chart.line(by_epoch(curve), "faint")
    for value in _without(content):
        chart.level(value, "level")
    for _, entry, kind in reversed(shown):
        chart.line(by_epoch(entry.history.values(content.measure)), kind)
    for _, entry, kind in shown:
        if entry.kept_epoch and entry.value is not None:
            value = entry.folds[0]["value"] if entry.folds else entry.value
            chart.dots([(entry.kept_epoch, value)], kind)
    return chart.svg


def number(name: str, shown: Series, say: Words) -> Element | None:
    """Draw another number of a script by epoch, of all series, and the kept epochs."""
    drawn = [by_epoch(entry.history.numbers.get(name, ())) for _, entry, _ in shown]
    values = [value for curve in drawn for _, value in curve]
    if not values:
        return None
    x = (1, max(2, *(epoch for curve in drawn for epoch, _ in curve)), say.text("axis_epoch"))
    chart = Chart(say.text("chart_number", name=name), x, (*limits(values), name), whole_x=True, height=270)
    for curve, (_, _, kind) in reversed(list(zip(drawn, shown, strict=True))):
        chart.line(curve, kind)
    for curve, (_, entry, kind) in zip(drawn, shown, strict=True):
        chart.dots([point for point in curve if point[0] == entry.kept_epoch], kind)
    return chart.svg


def rates(shown: Series, say: Words) -> Element | None:
    """Draw the learning rate by epoch."""
    drawn = [entry.history.lr for _, entry, _ in shown if entry.history.lr]
    values = [value for curve in drawn for value in curve if value > 0]
    if not values:
        return None
    x = (1, max(2, *map(len, drawn)), say.text("axis_epoch"))
    low, high = 10.0 ** math.floor(math.log10(min(values))), 10.0 ** math.ceil(math.log10(max(values)))
    y = (low, max(high, 10 * low), say.text("axis_lr"))
    chart = Chart(say.text("chart_lr"), x, y, log_y=True, whole_x=True, height=270)
    for _, entry, kind in reversed(shown):
        chart.line(by_epoch(entry.history.lr), kind)
    return chart.svg


def losses(label: str, entry: Entry, say: Words) -> Element | None:
    """Draw training and validation loss of one trial by epoch, and the kept epoch."""
    labels = {"title": say.text("chart_loss", name=label), "x": say.text("axis_epoch"), "y": say.text("axis_loss")}
    chart = loss_chart(entry.history, entry.kept_epoch, **labels)
    return None if chart is None else chart.svg


def search(content: Content, say: Words) -> Element | None:
    """Draw every finished trial's value, and the best so far."""
    if not content.trials:
        return None
    x = (0, max(1, *(point.trial for point in content.trials)), say.text("axis_trial"))
    y = (*limits([*(point.value for point in content.trials), *_without(content)]), say.text("axis_value"))
    chart = Chart(say.text("chart_search"), x, y, whole_x=True, height=250)
    for value in _without(content):
        chart.level(value, "level")
    best: list[tuple[float, float]] = []
    for point in content.trials:
        if point.state == "complete" and content.measure.better(point.value, best[-1][1] if best else None):
            best += [(point.trial, best[-1][1]), (point.trial, point.value)] if best else [(point.trial, point.value)]
    chart.line([*best, (x[1], best[-1][1])] if best else [], "s0")
    for state, kind in (("pruned", "pruned"), ("complete", "done")):
        chart.dots([(p.trial, p.value) for p in content.trials if p.state == state], kind)
    return chart.svg


def _without(content: Content) -> list[float]:
    """Return the value of no model; none in a study of a script."""
    return [value for name, value in content.lines.items() if name == "no model"]


def by_yaw(content: Content, shown: Series, say: Words) -> Element | None:
    """Draw, for each band of |yaw|, the difference between a trial and the no-model baseline."""
    bands = [band for band, value in content.no_model_by_yaw.items() if value is not None]
    rows = [(label, entry, kind) for label, entry, kind in shown if any(entry.by_yaw.get(band) for band in bands)]
    if not rows:
        return None
    cosines = [entry.by_yaw.get(band) for _, entry, _ in rows for band in bands]
    values = [value for value in cosines if value is not None]
    x = (*limits([*values, *_values(content.no_model_by_yaw, bands)]), say.text("axis_cosine"))
    names = [say.band(band) for band in bands]
    height = 26 + 40 + len(bands) * (len(rows) * 13 + 18)
    title, y = say.text("chart_yaw"), (0.0, 1.0, say.text("axis_yaw"))
    chart = Chart(title, x, y, rows=names, height=height, left=84)
    step = 13 / (len(rows) * 13 + 18)  # of a band
    for place, band in enumerate(bands):
        start = _values(content.no_model_by_yaw, [band])[0]
        for order, (_, entry, kind) in enumerate(rows):
            row = place + (order - (len(rows) - 1) / 2) * step
            value = entry.by_yaw.get(band)
            if value is not None:
                chart.bar(row, start, value, 3, kind)
                chart.dots([(value, row)], kind)
        chart.mark(start, "start", (place + 0.42, place - 0.42))
    return chart.svg


def recognised(content: Content, say: Words) -> Chart | None:
    """Draw rank-1 among all enrolled against the cosine: a dot for each finished trial, and the baselines."""
    points = [
        (point.trial, point.state, point.cosine, point.rank1)
        for point in content.trials
        if point.rank1 is not None and point.cosine is not None
    ]
    held = {name: recognition["all"] for name, recognition in content.recognition.items()}
    simple = {name: (rates["cosine"], rates["rank1_enrolled"]) for name, rates in held.items()}
    if not points or not simple:
        return None
    enrolled = next(iter(content.recognition.values()))["enrolled"]
    drawn = [*((cosine, rank1) for _, _, cosine, rank1 in points), *simple.values()]
    x = (*limits([cosine for cosine, _ in drawn]), say.text("axis_cosine"))
    y = (*limits([rank1 for _, rank1 in drawn]), say.text("axis_rank1", enrolled=enrolled))
    chart = Chart(say.text("chart_recognised"), x, y, height=270)
    for state, kind in (("pruned", "pruned"), ("complete", "done")):
        chart.dots([(cosine, rank1) for _, each, cosine, rank1 in points if each == state], kind)
    for name, baseline in simple.items():
        chart.dots([baseline], f"{BASELINES[name]} big")
    best = content.best.trial if content.best else None
    chart.dots([(cosine, rank1) for number, _, cosine, rank1 in points if number == best], "s0 big")
    return chart


def shares(content: Content, say: Words) -> Element:
    """Draw each parameter's share of the differences between trials, beside the share of chance; there is one."""
    found = content.importances
    names = [say.parameter(row.name) for row in found]
    longest = max(sum(2 if ord(letter) > 0x2E80 else 1 for letter in name) for name in names)
    left = min(170.0, 24 + longest * 6.4)
    x = (0.0, max(100.0 * found[0].share, 100.0 * found[0].chance) * 1.05, say.text("axis_share"))
    chart = Chart(say.text("chart_share"), x, (0, 1, ""), rows=names, height=66 + 22 * len(names), left=left)
    for place, row in enumerate(found):
        chart.bar(place, 0.0, 100 * row.share, 11, "s0" if row.sure else "pruned")
    chart.mark(100 * found[0].chance, "kept")
    return chart.svg


def slices(content: Content, name: str, say: Words) -> Element | None:
    """Draw the value against one parameter, a dot for each finished trial."""
    points = [(point.values[name], point) for point in content.trials if name in point.values]
    if not points:
        return None
    row = content.settings["space"][name]
    log = bool(row.get("attributes", {}).get("log"))
    y = (*limits([point.value for _, point in points]), say.text("axis_value"))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in points)
    title = say.text("chart_slice", name=say.parameter(name))
    if numeric:
        ends = [end for key, end in row["attributes"].items() if key in ("low", "high")]  # choices have none
        finite = [value for value, _ in points if value > 0 or not log] + ends
        low, high = min(finite), max(finite)
        chart = Chart(title, (low, high, say.axis(name)), y, log_x=log, height=210)
        place = {id(point): value for value, point in points}
    else:
        choices = sorted({str(value) for value, _ in points})
        x_names = [say.value(next(value for value, _ in points if str(value) == choice)) for choice in choices]
        chart = Chart(title, (-0.5, len(choices) - 0.5, say.axis(name)), y, x_names=x_names, height=210)
        place = {  # side by side, so that dots do not hide each other
            id(point): choices.index(str(value)) + ((point.trial * 0.618) % 1 - 0.5) * 0.5 for value, point in points
        }
    for state, kind in (("pruned", "pruned"), ("complete", "done")):
        chart.dots([(place[id(point)], point.value) for _, point in points if point.state == state], kind)
    best = content.best.trial if content.best else None
    chart.dots([(place[id(point)], point.value) for _, point in points if point.trial == best], "s0 big")
    return chart.svg


def _values(by_yaw: Mapping[str, float | None], bands: Sequence[str]) -> list[float]:
    return [value for value in (by_yaw[band] for band in bands) if value is not None]
