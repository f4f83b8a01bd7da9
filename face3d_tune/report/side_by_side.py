"""A report on two studies, from its first sentence to its last."""

from collections.abc import Sequence
from typing import Literal
from xml.etree.ElementTree import Element

from face3d_tune.analysis.svg import Chart, limits
from face3d_tune.report.blocks import Block, Document, Drawing, Figure, Paragraph, Section, Table, Tiles
from face3d_tune.report.content import Entry
from face3d_tune.report.searching import parameter_range
from face3d_tune.report.story import time_of, words_of
from face3d_tune.report.two_studies import StudySide, TwoStudies, configs
from face3d_tune.report.words import NOT_KNOWN, Language, Words


def tell_two(pair: TwoStudies, language: Language) -> Document:
    """Compose the report on two studies in one language. Numbers stand side by side only where they compare."""
    say = words_of(pair.first.content, language)
    sections = {
        "do_they_compare": _compare(pair, say),
        "two_best": _best(pair, say),
        "two_presets": _presets(pair, say),
        "two_curves": _curves(pair, say),
        "two_configs": _configs(pair, say),
        "two_importances": _importances(pair, say),
    }
    version = pair.first.content.versions["face3d_tune"]
    return Document(
        language=say.html,
        title=say.text("title_two", first=pair.first.name, second=pair.second.name),
        subtitle=say.text("subtitle", made=time_of(pair.made), version=version),
        contents=say.text("contents"),
        copy=(say.text("copy"), say.text("copied")),
        sections=[Section(name, say.text(f"title_{name}"), blocks) for name, blocks in sections.items() if blocks],
    )


def _header(pair: TwoStudies, first: str, say: Words) -> list[str]:
    return [say.text(first), pair.first.name, pair.second.name]


def _compare(pair: TwoStudies, say: Words) -> list[Block]:
    """Say whether values compare, and list the settings that differ."""
    why = [say.text(f"fact_{each.setting}") for each in pair.differences if each.of_values]
    said = (
        Paragraph(say("two_compare" if pair.first.content.script is None else "two_same_script"))
        if pair.comparable
        else Paragraph(say("two_differ", why=say.text("comma").join(why)), "warning")
    )
    if not pair.differences:
        return [said, Paragraph(say("no_differences"))]
    rows = [
        (
            _setting(each.setting, say),
            _in_words(each.setting, each.first, pair.first, say),
            _in_words(each.setting, each.second, pair.second, say),
        )
        for each in pair.differences
    ]
    return [said, Table(_header(pair, "column_setting", say), rows, numeric=False)]


def _setting(name: str, say: Words) -> str:
    table, dot, parameter = name.partition(".")
    return say.text(f"fact_{table}", name=say.parameter(parameter)) if dot else say.text(f"fact_{name}")


def _in_words(name: str, told: str | None, side: StudySide, say: Words) -> str:
    """Format the value of a setting as the report on one study does."""
    table, _, parameter = name.partition(".")
    if told is None:
        return NOT_KNOWN
    if table == "space":
        return parameter_range(side.content.settings["space"][parameter], say)
    return say.value(side.content.settings["fixed"][parameter]) if table == "fixed" else told


def _best(pair: TwoStudies, say: Words) -> list[Block]:
    """Show both best values, and their difference where they compare."""
    tiles = []
    for side in (pair.first, pair.second):
        if (best := side.content.best) is not None and best.value is not None:
            hint = say.text("two_best_hint", trial=best.trial, n=side.trials, epochs=side.epochs)
            measure = side.content.measure
            label = side.name if pair.comparable else f"{side.name}: {measure}"
            tiles.append((measure.number(best.value), label, hint))
    blocks: list[Block] = [Tiles(tiles)] if tiles else []
    if (lead := pair.lead) is not None:
        number = pair.first.content.measure.number
        names = {"better": pair.second.name, "other": pair.first.name}
        if lead < 0:
            names = {"better": pair.first.name, "other": pair.second.name}
        key = "two_equal" if lead == 0 else "two_lead"
        blocks += [Paragraph(say(key, by=number(abs(lead)), **names)), Paragraph(say("two_luck"), "note")]
    for side in (pair.first, pair.second):
        if found := side.content.likely_best:
            number = side.content.measure.number
            values = {"likely": number(found.likely), "value": number(found.value), "noise": number(found.noise)}
            blocks.append(Paragraph(say("two_likely", name=side.name, trial=found.trial, **values)))
    return blocks or [Paragraph(say("nothing"), "warning")]


def _presets(pair: TwoStudies, say: Words) -> list[Block]:
    """Show the lines without a model and the presets that either study has."""
    if not pair.comparable:
        return []
    rows: list[tuple[str, ...]] = []
    lines = [side.content.lines for side in (pair.first, pair.second)]
    for name in dict.fromkeys([*lines[0], *lines[1]]):
        rows.append((say.text(name.replace(" ", "_")), *(_number(pair.first, held.get(name)) for held in lines)))
    presets = [side.presets for side in (pair.first, pair.second)]
    for name in dict.fromkeys([*presets[0], *presets[1]]):
        rows.append((say.preset(name), *(_reached(pair.first, held.get(name), say) for held in presets)))
    return [Table(_header(pair, "column_preset", say), rows)] if rows else []


def _number(side: StudySide, value: float | None) -> str:
    return NOT_KNOWN if value is None else side.content.measure.number(value)


def _reached(side: StudySide, entry: Entry | None, say: Words) -> str:
    if entry is None:
        return NOT_KNOWN
    number = _number(side, entry.value)
    return number if entry.state == "complete" else f"{number} ({say.text(f'state_{entry.state}')})"


def _curves(pair: TwoStudies, say: Words) -> list[Block]:
    """Draw the best so far of both by trials and by epochs."""
    sides = (pair.first, pair.second)
    if not pair.comparable or not all(side.steps for side in sides):
        return []
    axes: Sequence[Literal["trials", "epochs"]] = ("trials", "epochs")
    drawings = [Drawing(say.text(f"drawing_by_{axis}"), _drawn(sides, axis, say)) for axis in axes]
    legend = [(pair.first.name, "s0"), (pair.second.name, "s1")]
    quarters = _quarters(pair)
    rows = [(side.name, *(_number(side, _at(side, epochs)) for epochs in quarters)) for side in sides]
    header = [say.text("column_epochs_so_far"), *(f"{epochs:,d}" for epochs in quarters)]
    return [Figure(drawings, legend, say("caption_two_curves")), Table(header, rows)]


def _drawn(sides: Sequence[StudySide], axis: Literal["trials", "epochs"], say: Words) -> Element:
    values = [step.value for side in sides for step in side.steps]
    x = (0.0, float(max(1, *(getattr(side, axis) for side in sides))), say.text(f"axis_{axis}"))
    y = (*limits(values), say.text("axis_value"))
    chart = Chart(say.text("chart_two", axis=x[2]), x, y, whole_x=True, height=250)
    for kind, side in reversed(list(zip(("s0", "s1"), sides, strict=True))):
        points: list[tuple[float, float]] = []
        for step in side.steps:
            points += [(getattr(step, axis), points[-1][1])] if points else []
            points.append((getattr(step, axis), step.value))
        chart.line([*points, (getattr(side, axis), points[-1][1])], kind)
    return chart.svg


def _quarters(pair: TwoStudies) -> list[int]:
    """Return four numbers of epochs at which the two are compared: quarters of what the shorter one trained."""
    shorter = min(pair.first.epochs, pair.second.epochs)
    return sorted({max(1, round(shorter * part / 4)) for part in range(1, 5)})


def _at(side: StudySide, epochs: int) -> float | None:
    reached = [step.value for step in side.steps if step.epochs <= epochs]
    return reached[-1] if reached else None


def _configs(pair: TwoStudies, say: Words) -> list[Block]:
    """Show the settings in which the winners differ."""
    rows, equal = configs(pair)
    if not rows and not equal:
        return []
    shown = [
        (say.axis(name), *(NOT_KNOWN if value is None else say.value(value) for value in (first, second)))
        for name, first, second in rows
    ]
    blocks: list[Block] = [Table(_header(pair, "column_parameter", say), shown)] if shown else []
    return [*blocks, Paragraph(say("configs_equal", n=equal), "note")]


def _importances(pair: TwoStudies, say: Words) -> list[Block]:
    """Show each parameter's share of the differences in both studies."""
    held = [{row.name: row for row in side.content.importances} for side in (pair.first, pair.second)]
    names: Sequence[str] = [*dict.fromkeys([*held[0], *held[1]])]
    if not names:
        return []
    rows = []
    for name in names:
        found = [shares.get(name) for shares in held]
        cells = [NOT_KNOWN if row is None else f"{100 * row.share:.0f} %{'' if row.sure else ' ?'}" for row in found]
        rows.append((say.parameter(name), *cells))
    return [Table(_header(pair, "column_parameter", say), rows), Paragraph(say("two_importances"), "note")]
