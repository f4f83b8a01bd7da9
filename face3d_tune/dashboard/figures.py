"""The findings of a study as Plotly figures: plain JSON, which the browser draws. Readable on white and on black."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from face3d_tune.analysis import recognising
from face3d_tune.analysis.findings import Findings
from face3d_tune.data.yaw_bands import label
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.history import History
from face3d_tune.study.trials import folds_of, kept_cosine

Figure = dict[str, Any]

# Colours of Okabe and Ito (2008), distinct also for colour-blind readers.
_BEST, _NO_MODEL, _FAINT, _TEXT = "#0072B2", "#888888", "rgba(136,136,136,0.45)", "#808080"
_PRESETS = ("#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
_KERNEL_RIDGE = "#999933"  # olive of Tol (2021), which goes with these
_MOST_PRUNED = 100  # curves; more cannot be told apart
_COSINE = "mean cosine, validation people"


def figures(findings: Findings) -> dict[str, Figure]:
    """Build every figure that the study has data for, by a name that may be an id in a page."""
    drawn = {
        "learning-curves": _curves(findings),
        "best-value": _progress(findings),
        "cosine-by-yaw": _by_yaw(findings),
        "recognition": _recognition(findings),
        "importance": _importance(findings),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def pruned_with_curves(findings: Findings) -> list[FrozenTrial]:
    """Return the pruned trials whose learning curves are drawn."""
    return _pruned(findings)[-_MOST_PRUNED:]


def _pruned(findings: Findings) -> list[FrozenTrial]:
    return [trial for trial in findings.trials if trial.state == TrialState.PRUNED]


def _curves(findings: Findings) -> Figure | None:
    """Draw best trial and presets by name, and the pruned trials as one faint trace with gaps."""
    pruned = pruned_with_curves(findings)
    traces = []
    if pruned:
        x: list[int | None] = []
        y: list[float | None] = []
        for trial in pruned:
            curve = _values(findings, trial)
            x += [*range(1, len(curve) + 1), None]
            y += [*curve, None]
        traces.append(_line(f"pruned ({len(_pruned(findings))})", x, y, _FAINT, width=1))
    for (name, trial), colour in zip(_presets(findings), _PRESETS * 9, strict=False):
        traces.append(_curve(name, _values(findings, trial), colour, width=2))
    if findings.best is not None:
        traces.append(_curve(f"best, trial {findings.best.number}", _values(findings, findings.best), _BEST, width=4))
    last = max((step for trace in traces for step in trace["x"] if step), default=0)
    if not last:
        return None
    which = ": best, presets, pruned" if folds_of(findings.attrs) == 1 else ", all of fold 1"
    layout = _layout(f"Learning curves{which}", "epoch", _text(findings.objective.axis))
    return {"data": [*traces, *_levels(findings, 1, last)], "layout": layout}


def _progress(findings: Findings) -> Figure | None:
    """Draw the best value so far, by finished trials on the left and by time on the right."""
    steps = findings.improvements
    if not steps:
        return None
    unit, length = ("minutes", 60.0) if findings.seconds < 2 * 3600 else ("hours", 3600.0)
    halves = (
        ("x", [step.finished for step in steps], findings.finished, "finished trials"),
        ("x2", [step.seconds / length for step in steps], findings.seconds / length, f"{unit} of searching"),
    )
    values, traces = [step.value for step in steps], []
    for axis, at, end, _ in halves:
        first = axis == "x"
        best = _line("best so far", [*at, end], [*values, values[-1]], _BEST, width=3, mode="lines+markers")
        best |= {"line": {**best["line"], "shape": "hv"}, "marker": {"size": [8] * len(at) + [0]}}
        levels = _levels(findings, 0, end)
        if findings.best_preset is not None and findings.best_preset.trial is not None:
            levels.append(
                _level(
                    f"best preset: {_text(findings.best_preset.name)}", findings.best_preset.trial.value, 0, end, "dot"
                )
            )
        traces += [{**trace, "xaxis": axis, "showlegend": first} for trace in (best, *levels)]
    layout = _layout("Best value so far", halves[0][3], _text(findings.objective.axis))
    layout["xaxis"] |= {"domain": [0, 0.47], "rangemode": "tozero"}
    layout["xaxis2"] = {**layout["xaxis"], "title": {"text": halves[1][3]}, "domain": [0.53, 1], "anchor": "y"}
    return {"data": traces, "layout": layout}


def _by_yaw(findings: Findings) -> Figure | None:
    """Draw bars by band of |yaw|."""
    if not StudyAttr.no_model_by_yaw.held_by(findings.attrs):  # a script's study
        return None
    rows = [("no model", StudyAttr.no_model_by_yaw.of(findings.attrs), _NO_MODEL)]
    if findings.kernel_ridge is not None:
        rows.append(("kernel ridge", StudyAttr.kernel_ridge_by_yaw.of(findings.attrs), _KERNEL_RIDGE))
    presets = [(name, trial) for name, trial in _presets(findings) if TrialAttr.cosine_by_yaw.held_by(trial.user_attrs)]
    rows += [
        (name, TrialAttr.cosine_by_yaw.of(trial.user_attrs), colour)
        for (name, trial), colour in zip(presets, _PRESETS * 9, strict=False)
    ]
    if findings.best is None and not presets:
        return None
    if findings.best is not None and TrialAttr.cosine_by_yaw.held_by(findings.best.user_attrs):
        rows.append(
            (f"best, trial {findings.best.number}", TrialAttr.cosine_by_yaw.of(findings.best.user_attrs), _BEST)
        )
    bars = [
        {
            "type": "bar",
            "name": name,
            "x": [_text(label(band)) for band in cosines],
            "y": list(cosines.values()),
            "marker": {"color": colour},
            "hovertemplate": "%{y:.4f}",
        }
        for name, cosines, colour in rows
    ]
    return {"data": bars, "layout": _layout("Cosine by head turn", "|yaw| of the side view", _COSINE)}


def _recognition(findings: Findings) -> Figure | None:
    """Draw rank-1 among all enrolled against the cosine: a dot for each trial, and the baselines by name."""
    sizes, baselines = recognising.galleries(findings.attrs), recognising.of_baselines(findings.attrs)
    rates = [(trial, recognising.rank1(recognising.of_trial(trial))) for trial in findings.trials]
    dots = [(trial, kept_cosine(trial), rank1) for trial, rank1 in rates if rank1 is not None]
    if sizes is None or not dots:
        return None
    best = None if findings.best is None else findings.best.number
    traces = []
    for name, state, colour in (("pruned", TrialState.PRUNED, _FAINT), ("completed", TrialState.COMPLETE, _TEXT)):
        rows = [row for row in dots if row[0].state == state and row[0].number != best]
        traces.append(_dots(name, rows, colour, 7))
    traces.append(_dots(f"best, trial {best}", [row for row in dots if row[0].number == best], _BEST, 13))
    for name, colour in (("no model", _NO_MODEL), ("ridge", _PRESETS[0]), ("kernel ridge", _KERNEL_RIDGE)):
        if name in baselines:
            baseline = baselines[name]["all"]
            mark = {"color": colour, "size": 13, "symbol": "diamond"}
            point = {"x": [baseline["cosine"]], "y": [baseline["rank1_enrolled"]], "marker": mark}
            traces.append({"type": "scatter", "mode": "markers", "name": name, **point})
    layout = _layout("Cosine against recognition", _COSINE, f"rank-1 among {sizes[1]} enrolled people")
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def _dots(name: str, rows: Sequence[tuple[FrozenTrial, float | None, float]], colour: str, size: int) -> Figure:
    x, y = [cosine for _, cosine, _ in rows], [rank1 for _, _, rank1 in rows]
    texts = [f"trial {trial.number}" for trial, _, _ in rows]
    dots = {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "text": texts}
    return {**dots, "marker": {"color": colour, "size": size}}


def _importance(findings: Findings) -> Figure | None:
    """Draw horizontal bars with the line of chance, the most important on top."""
    if not findings.importances:
        return None
    rows = findings.importances[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": "share",
        "x": [100 * row.share for row in rows],
        "y": [_text(row.name) for row in rows],
        "marker": {"color": [_BEST if row.sure else _FAINT for row in rows]},
        "hovertemplate": "%{x:.0f} %",
        "showlegend": False,
    }
    layout = _layout("Parameter importance, beside chance", "share of the variance between trials, %", "")
    layout["yaxis"]["automargin"] = True
    layout["xaxis"]["rangemode"] = "tozero"
    chance, upright = 100 * rows[0].chance, {"yref": "paper", "y0": 0, "y1": 1}
    dashes = _stroke(_NO_MODEL, 2, "dash")
    layout["shapes"] = [{"type": "line", "x0": chance, "x1": chance, **upright, "line": dashes}]
    word = {"text": " chance alone stays left of this", "showarrow": False, "xanchor": "left"}
    layout["annotations"] = [{"x": chance, "y": 0.02, "yref": "paper", **word}]
    return {"data": [bars], "layout": layout}


def _text(held: str) -> str:
    """Return stored text on one line as Plotly shows it, which takes some HTML."""
    return escape(" ".join(held.split()), quote=False)


def _presets(findings: Findings) -> list[tuple[str, FrozenTrial]]:
    """Return the presets that trained, without the best trial."""
    best = findings.best.number if findings.best else None
    rows = [(_text(row.name), row.trial) for row in findings.presets if row.trial is not None and row.same_as is None]
    return [(name, trial) for name, trial in rows if trial.number != best and _values(findings, trial)]


def _values(findings: Findings, trial: FrozenTrial) -> tuple[float | None, ...]:
    """Return what the study's objective gives every epoch of a trial; None where that is no finite number."""
    values = History.of(trial, findings.objective).values(findings.objective)
    return tuple(value if math.isfinite(value) else None for value in values)  # JSON has no NaN


def _curve(name: str, curve: Sequence[float | None], colour: str, width: int) -> Figure:
    return _line(name, list(range(1, len(curve) + 1)), list(curve), colour, width)


def _line(
    name: str, x: Sequence[Any], y: Sequence[Any], colour: str, width: int, mode: str = "lines", dash: str = "solid"
) -> Figure:
    line = _stroke(colour, width, dash)
    return {"type": "scatter", "mode": mode, "name": name, "x": list(x), "y": list(y), "line": line}


def _levels(findings: Findings, start: float, end: float) -> list[Figure]:
    """Draw no model, and kernel ridge where it is known."""
    lines = findings.lines
    levels = [_level("no model", lines["no model"], start, end)] if "no model" in lines else []
    if "kernel ridge" in lines:
        ends = [lines["kernel ridge"]] * 2
        levels.append(_line("kernel ridge", [start, end], ends, _KERNEL_RIDGE, 2, dash="dashdot"))
    return levels


def _level(name: str, value: float | None, start: float, end: float, dash: str = "dash") -> Figure:
    return _line(name, [start, end], [value, value], _NO_MODEL, 2, dash=dash)


def _stroke(colour: str, width: int, dash: str = "solid") -> Figure:
    return {"color": colour, "width": width, "dash": dash}


def _layout(title: str, x: str, y: str) -> Figure:
    """Return the layout of a figure. Plotly's tool bar covers what a title of more than 40 characters says last."""
    grid = {"gridcolor": "rgba(128,128,128,0.25)", "zerolinecolor": "rgba(128,128,128,0.5)"}
    return {
        "title": {"text": title, "x": 0.02, "font": {"size": 18}},
        "xaxis": {"title": {"text": x}, **grid},
        "yaxis": {"title": {"text": y}, **grid},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": _TEXT, "size": 13},
        "legend": {"orientation": "h", "y": -0.2},
        "margin": {"l": 70, "r": 20, "t": 50, "b": 60},
    }
