"""The section on the search: which parameters matter, how the best was found, what was pruned."""

from typing import Any

from face3d_tune.analysis.importance import FEWEST, ValueGroup
from face3d_tune.report import charts, scripts
from face3d_tune.report.blocks import Block, Columns, Drawing, Figure, Paragraph, Runs, Table
from face3d_tune.report.content import Content
from face3d_tune.report.words import NOT_KNOWN, Words
from face3d_tune.study.growth import ranges
from face3d_tune.study.presets import OF_SCRIPT

_SLICES, _FEWEST_SLICES = 6, 3  # drawn
_IMPROVEMENTS = 12  # listed at most, the last ones


def parameters(content: Content, say: Words) -> list[Block]:
    """Show importances beside chance, group means, and a slice of each important parameter."""
    best = content.best
    if best is None:
        return []
    space = content.settings["space"]
    first = "baseline" if content.script is None else OF_SCRIPT
    baseline = next((entry.config for entry in content.presets if entry.name == first), {})
    rows = [
        (say.parameter(name), parameter_range(row, say), _value(baseline, name, say), _value(best.config, name, say))
        for name, row in space.items()
    ]
    header = [say.text(f"column_{name}") for name in ("parameter", "range", "before", "found")]
    searched, table = Paragraph(say("searched")), Table(header, rows)
    if not content.importances:
        few = say("too_few", fewest=FEWEST, completed=content.completed)
        return [searched, table, Paragraph(few, "note")]
    sure = [row for row in content.importances if row.sure]
    chance = content.importances[0].chance
    names = say.text("comma").join(say.parameter(row.name) for row in sure)
    verdict = say("sure_parameters", names=names, n=len(sure)) if sure else say("no_sure_parameters")
    text = (*say("importance", completed=content.completed, chance=_percent(chance)), *verdict)
    kinds = (("legend_sure", "s0-dot"), ("legend_unsure", "pruned-dot"), ("legend_chance", "kept"))
    legend = [(say.text(name), kind) for name, kind in kinds]
    pictures = [Drawing(say.text("drawing_share"), charts.shares(content, say))]
    drawn = content.importances[: min(_SLICES, max(_FEWEST_SLICES, len(sure)))]
    slices = [(say.parameter(row.name), charts.slices(content, row.name, say)) for row in drawn]
    groups: list[tuple[str | Runs, ...]] = [
        (
            say.parameter(row.name),
            _percent(row.share),
            say.text("is_sure" if row.sure else "is_unsure"),
            say.text("semicolon").join(_group(group, content, say) for group in row.groups),
        )
        for row in content.importances
    ]
    header = [say.text(f"column_{name}") for name in ("parameter", "share", "sure", "groups")]
    dots = (("legend_best", "s0-dot"), ("legend_complete", "done-dot"), ("legend_pruned_trial", "pruned-dot"))
    return [
        searched,
        table,
        Paragraph(text),
        Figure(pictures, legend, say("caption_share")),
        Figure(
            [Drawing(name, svg) for name, svg in slices if svg is not None],
            [(say.text(name), kind) for name, kind in dots],
            say("caption_slices"),
        ),
        Table(header, groups, numeric=False),
        Paragraph(say("not_cause"), "note"),
    ]


def _value(config: Any, name: str, say: Words) -> str:
    name = "d_model" if name == "width" and name not in config else name  # the field that a width sets
    return say.value(config[name]) if name in config else NOT_KNOWN


def parameter_range(row: dict[str, Any], say: Words) -> str:
    """Format the range `1e-5 … 0.003, log`, or the choices."""
    attributes = row.get("attributes", {})
    if "choices" in attributes:
        return " / ".join(say.value(choice) for choice in attributes["choices"])
    return f"{say.value(attributes['low'])} … {say.value(attributes['high'])}" + (
        say.text("log") if attributes.get("log") else ""
    )


def _group(group: ValueGroup, content: Content, say: Words) -> str:
    low, high = say.value(group.low), say.value(group.high)
    span = low if low == high else f"{low} … {high}"
    mean = f"{group.mean:.3f}" if content.script is None else content.measure.number(group.mean)
    return say.text("group", span=span, mean=mean, n=group.trials)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _reached(value: float | None, content: Content) -> str:
    return NOT_KNOWN if value is None else content.measure.number(value)


def search(content: Content, say: Words) -> list[Block]:
    """Show all trials in the order in which they began, and what pruning saved."""
    states, pruning = content.states, content.pruning
    drawing = charts.search(content, say)
    if drawing is None:
        return []
    counted = {key: states[key] for key in ("complete", "pruned", "fail")}
    text = say("went", **counted, epochs=content.epochs, time=say.duration(content.seconds))
    blocks: list[Block] = [Paragraph(text)]
    if causes := [say.text(f"cause_{name}", n=count) for name, count in content.causes.items() if count]:
        blocks.append(Paragraph(say("causes", causes=say.text("comma").join(causes))))
    if before := content.follows:
        value = content.measure.number(before["value"])
        key = "follows_from_identity" if before.get("objective") == "identity" else "follows"
        blocks.append(Paragraph(say(key, study=before["study"], trial=before["trial"], value=value)))
    for growth in content.settings.get("grown", ()):
        was, now = ranges(growth)
        said = {"name": say.parameter(growth["parameter"]), "before": was, "after": now, "by": growth["by"]}
        key = "grown" if "before" in growth else "grown_from_fixed"
        blocks.append(Paragraph(say(key, **said, at=growth["at"].replace("T", " ").replace("Z", " UTC"))))
    if content.like:
        winners = [
            say.text(
                "like_trial",
                **{**row, "value": _reached(row["value"], content), "there": content.measure.number(row["there"])},
            )
            for row in content.like
        ]
        blocks.append(Paragraph(say("like", trials=say.text("semicolon").join(winners))))
    if pruning["trials"]:
        saved = {key: pruning[key] for key in ("trials", "epochs", "saved_epochs")}
        would = content.epochs + pruning["saved_epochs"]
        share = _percent(pruning["saved_epochs"] / would) if would else "0 %"
        time = say.duration(pruning["saved_seconds"])
        blocks.append(Paragraph(say("pruned", **saved, share=share, time=time)))
        if pruning["raced"]:
            blocks.append(Paragraph(say("raced", n=pruning["raced"])))
    else:
        blocks.append(Paragraph(say("none_pruned")))
    if content.imported:
        blocks.append(Paragraph(say("imported", n=content.imported)))
    if content.by_hand:
        blocks.append(Paragraph(say("by_hand", n=content.by_hand)))
    for each in content.excluded:
        key = "excluded_because" if each["reason"] else "excluded"
        blocks.append(Paragraph(say(key, **{name: each[name] for name in ("trial", "by", "at", "reason")})))
    if content.over_time:
        blocks.append(Paragraph(say("over_time", n=content.over_time)))
    kinds = (("legend_so_far", "s0"), ("legend_complete", "done-dot"), ("legend_pruned_trial", "pruned-dot"))
    levels = (("no_model", "level"),) if content.lines else ()
    legend = [(say.text(name), kind) for name, kind in (*kinds, *levels)]
    figure = Figure([Drawing(say.text("drawing_search"), drawing)], legend, say("caption_search"))
    if not content.improvements:
        return [*blocks, figure, *scripts.failures(content, say)]
    header = [say.text(f"column_{name}") for name in ("best_so_far", "trial", "after_trials", "after_time")]
    rows = [
        (
            content.measure.number(step["value"]),
            str(step["trial"]),
            str(step["finished"]),
            say.duration(step["seconds"]),
        )
        for step in content.improvements[-_IMPROVEMENTS:]
    ]
    return [*blocks, Columns((figure, Table(header, rows))), *scripts.failures(content, say)]
