"""The section on recognition: rank-1 and TAR of the best trial, the presets and the baselines, and a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from face3d_tune.data.yaw_bands import YAW_BANDS
from face3d_tune.report import charts
from face3d_tune.report.blocks import Block, Drawing, Figure, Paragraph, Table
from face3d_tune.report.content import Content
from face3d_tune.report.words import NOT_KNOWN, Words

_RATES = {
    "cosine": "{:.4f}",
    "rank1_judged": "{:.3f}",
    "rank1_enrolled": "{:.3f}",
    "tar_judged": "{:.3f}",
    "tar_enrolled": "{:.3f}",
    "identity": "{:.4f}",
}


def warning(content: Content, say: Words) -> list[Block]:
    """Say that the best trial only raises the cosine; nothing if it recognises people better than every baseline."""
    if not content.no_better_than:
        return []
    return [Paragraph(say("only_cosine", names=say.methods(content.no_better_than)), "warning")]


def recognised(content: Content, say: Words) -> list[Block]:
    """Show whom the models name right, among the judged people and among everyone enrolled; nothing if unmeasured."""
    rows = [(say.text(name.replace(" ", "_")), held) for name, held in content.recognition.items()]
    first = len(rows)
    shown = [(label, entry.recognition) for label, entry, _ in charts.series(content, say)]
    rows += [(label, held) for label, held in shown if held is not None]
    if not content.recognition or len(rows) == first:
        return []
    held = rows[0][1]
    sizes = {"judged": held["judged"], "enrolled": held["enrolled"]}
    of_best = content.best is not None and content.best.recognition is not None
    marked = first if of_best else None
    if content.folds == 1:
        told = say("recognised", views=held["views"], people=held["people"], **sizes)
    else:
        told = say("recognised_over_folds", folds=content.folds, people=held["people"], **sizes)
    blocks: list[Block] = [Paragraph(told)]
    if (chart := charts.recognised(content, say)) is not None:
        dots = (("legend_best", "s0-dot"), ("legend_complete", "done-dot"), ("legend_pruned_trial", "pruned-dot"))
        legend = [(say.text(name), kind) for name, kind in dots]
        legend += [(say.text(name.replace(" ", "_")), f"{charts.BASELINES[name]}-dot") for name in content.recognition]
        blocks.append(Figure([Drawing(say.text("drawing_recognised"), chart.svg)], legend, say("caption_recognised")))
    header = [say.text("column_method"), *(say.text(f"column_{name}", **sizes) for name in _RATES)]
    blocks.append(Table(header, [(label, *_rates(held["all"])) for label, held in rows], marked=marked))
    header = [say.text("column_rank1_by", **sizes), *map(say.band, YAW_BANDS), say.text("column_pooled")]
    bands = [(label, *_rank1(held)) for label, held in rows]
    return [*blocks, Paragraph(say("recognised_by")), Table(header, bands, marked=marked)]


def _rates(rates: Mapping[str, float | None]) -> list[str]:
    return [NOT_KNOWN if (value := rates[name]) is None else form.format(value) for name, form in _RATES.items()]


def _rank1(held: Mapping[str, Any]) -> Sequence[str]:
    """Return rank-1 among all enrolled by band of |yaw|, and pooled."""
    each = [*(held["by_yaw"].get(band, {}) for band in YAW_BANDS), held["pooled"]]
    known = [rates.get("rank1_enrolled") for rates in each]
    return [NOT_KNOWN if value is None else f"{value:.3f}" for value in known]
