"""The section on the result: the answer, before and after, learning curves, yaw bands."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from face3d_tune.data.yaw_bands import FARTHEST
from face3d_tune.report import charts, scripts
from face3d_tune.report.blocks import Block, Columns, Drawing, Figure, Paragraph, Table, Tiles
from face3d_tune.report.content import Content, Entry, Gain
from face3d_tune.report.words import NOT_KNOWN, Words

_BASELINE, _RECOMMENDED = "baseline", "recommended"


def answer(content: Content, say: Words) -> list[Block]:
    """Show the question, the answer by the validation people, any better simple method, and how sure that is."""
    best, gain, script, states = content.best, content.gain, content.script, content.states
    finished = states["complete"] + states["pruned"]
    blocks = _question(content, say) if script is None else scripts.question(content, script, say)
    done = content.budget is not None and finished - content.imported >= content.budget
    if states["running"] or (states["waiting"] and not done):  # a spent budget leaves presets waiting
        going = say("unfinished", finished=finished, running=states["running"], waiting=states["waiting"])
        blocks.insert(0, Paragraph(going, "warning"))
    if best is None or gain is None or best.value is None:
        counted = {key: states[key] for key in ("pruned", "fail")}
        key = "nothing_completed" if any(counted.values()) else "nothing"
        return [*blocks, Paragraph(say(key, **counted), "warning")]
    form = content.measure.number
    tiles = [(form(best.value), say.text("tile_best"), say.text("tile_best_hint", trial=best.trial))]
    imported = [Paragraph(say("best_imported"), "note")] if best.imported else []
    if script is not None:
        for entry in scripts.presets_to_beat(content):
            hint = say.text("tile_best_hint", trial=entry.trial)
            tiles.append((form(entry.value or 0.0), say.preset(entry.name), hint))
        reached = scripts.best(content, best, say)
        return [*blocks, Tiles(tiles), reached, _sure(content, gain, say), *_likely(content, say), *imported]
    if gain.over_preset is not None:
        tiles.append((f"{best.value - gain.over_preset:.4f}", say.text("tile_preset"), say.preset(gain.preset)))
    if "kernel ridge" in content.lines:
        tiles.append(
            (f"{content.lines['kernel ridge']:.4f}", say.text("tile_kernel_ridge"), say.text("tile_kernel_ridge_hint"))
        )
    elif "ridge" in content.lines:
        tiles.append((f"{content.lines['ridge']:.4f}", say.text("tile_ridge"), say.text("tile_ridge_hint")))
    tiles.append((f"{content.lines['no model']:.4f}", say.text("tile_no_model"), say.text("tile_no_model_hint")))
    best_block = _best(gain, best.value, best.trial, content.lines["no model"], say)
    sure = [_sure(content, gain, say), *_likely(content, say)]
    return [*blocks, Tiles(tiles), best_block, _model(best.value, content, say), *sure, *imported]


def _question(content: Content, say: Words) -> list[Block]:
    """Say what was searched, and on whom its values are measured."""
    question = say(
        "question",
        parameters=len(content.settings["space"]),
        names=say.text("comma").join(say.parameter(name) for name in content.settings["space"]),
        trials=content.states["complete"] + content.states["pruned"],
        time=say.duration(content.seconds),
        judged=_judged(content, say),
    )
    warning = [Paragraph(say("warn_split"), "warning")] if content.data["split"] == "none" else []
    unit = [Paragraph(say("objective_is"), "note")] if content.objective == "identity" else []
    return [*warning, Paragraph(question), *unit]


def _model(reached: float, content: Content, say: Words) -> Paragraph:
    """Compare the best trial with the methods that need no training."""
    if "ridge" not in content.lines:
        return Paragraph(say("model_unknown"), "note")
    simple = {"ridge": content.lines["ridge"], "no_model": content.lines["no model"]}
    if "kernel ridge" in content.lines:
        simple["kernel_ridge"] = content.lines["kernel ridge"]
    name = max(simple, key=lambda key: simple[key])
    values = {key: f"{value:.4f}" for key, value in simple.items()}
    if reached > simple[name]:
        line, key = (
            ("ridge", "model_above") if "kernel ridge" not in content.lines else ("kernel_ridge", "model_above_kernel")
        )
        return Paragraph(say(key, **values, by=f"{reached - simple[line]:.4f}"))
    return Paragraph(say(f"model_below_{name}", **values, by=f"{simple[name] - reached:.4f}"), "warning")


def _judged(content: Content, say: Words) -> str:
    """Say on which people the values are measured."""
    people, pairs = content.data["people"], content.data["pairs"]
    if content.folds == 1:
        key = f"judged_{content.data['split']}"
        return say.text(key, people=people["validation"], pairs=pairs["validation"])
    everyone = {name: counts["train"] + counts["validation"] for name, counts in (("people", people), ("pairs", pairs))}
    return say.text("judged_folds", folds=content.folds, **everyone)


def _best(gain: Gain, cosine: float, trial: int, no_model: float, say: Words) -> Paragraph:
    values = {"trial": trial, "cosine": f"{cosine:.4f}", "no_model": f"{no_model:.4f}"}
    values["against_no_model"] = _difference(cosine - no_model, say)
    if gain.over_preset is None:
        return Paragraph(say("best_without_presets", **values))
    preset = {"preset": say.preset(gain.preset), "preset_cosine": f"{cosine - gain.over_preset:.4f}"}
    key = "best_is_preset" if gain.over_preset <= 0 else "best"
    return Paragraph(say(key, **values, **preset, over_preset=f"{gain.over_preset:.4f}"))


def _difference(value: float, say: Words) -> str:
    return say.text("more" if value >= 0 else "less", by=f"{abs(value):.4f}")


def _sure(content: Content, gain: Gain, say: Words) -> Paragraph:
    """Say how sure the answer is: one training, chosen on these people; and whether others agree."""
    confirmation = content.confirmation or content.script_confirmation
    sure = "sure_chosen" if confirmation is None else "sure_confirmed"
    if confirmation is not None and not content.confirmed_best:
        sure = "sure_outdated"
    chosen = say("sure_training_pairs" if content.data.get("split") == "none" else sure, **_chosen(content))
    if content.folds > 1 and content.best is not None and content.confirmation is None:
        values = say.text("comma").join(f"{fold['value']:.4f}" for fold in content.best.folds)
        chosen = say("sure_folds", values=values, folds=content.folds, **_chosen(content))
    if gain.over_preset is None or gain.over_runner_up is None:
        return Paragraph(chosen)
    others = "sure_others" if gain.others_above >= 3 and gain.over_preset > 0 else "sure_alone"
    behind = content.measure.number(abs(gain.over_runner_up))
    return Paragraph((*chosen, *say(others, above=gain.others_above, others=gain.others, behind=behind)))


def _likely(content: Content, say: Words) -> list[Paragraph]:
    """Say what the best would likely reach again, where the study knows the noise of its values."""
    found = content.likely_best
    if found is None:
        return []
    value, likely, noise = (content.measure.number(each) for each in (found.value, found.likely, found.noise))
    key = f"likely_{found.source}"
    return [Paragraph(say(key, trials=found.trials, trial=found.trial, value=value, likely=likely, noise=noise))]


def _chosen(content: Content) -> dict[str, Any]:
    words = shlex.join(["face3d-tune", "confirm", "--study-name", content.study])
    people = {} if content.script else {"test": content.data["people"]["test"]}
    return {"completed": content.completed, **people, "command": words}


def compared(content: Content, say: Words) -> list[Block]:
    """Show the guide's table of before and after, with measured values."""
    if content.best is None:
        return []
    named = {entry.name: entry for entry in content.presets}
    before, recommended = named.get(_BASELINE), named.get(_RECOMMENDED)
    columns = [before, recommended, content.best]
    shown = [row for row in _ROWS if row[0] != "identity" or content.objective == "identity"]
    cut_short = _REACHED if before is not None and before.state == "pruned" else ()
    changes = [_change(None if name in cut_short else before, content.best, read) for name, read, _ in shown]
    rows = [
        (say.text(f"row_{name}"), *(_cell(entry, read, form) for entry in columns), change, "")
        for (name, read, form), change in zip(shown, changes, strict=True)
    ]
    no_model = {"cosine": content.no_model, "beyond": content.no_model_by_yaw.get(FARTHEST)}
    no_model["identity"] = content.lines.get("no model")
    for place, (name, _, form) in enumerate(shown):
        value = no_model.get(name)
        rows[place] = (*rows[place][:-1], NOT_KNOWN if value is None else form(value))
    header = [say.text(f"column_{name}") for name in ("metric", "before", "recommended", "found", "change", "no_model")]
    for place, entry in enumerate(columns, start=1):
        header[place] += f" ({say.text('state_pruned')})" if entry is not None and entry.state == "pruned" else ""
    return [
        Paragraph(say("compared")),
        Table(header, rows),
        Paragraph(say("compared_note"), "note"),
        Paragraph(say("guide_note"), "note"),
    ]


Read = Callable[[Entry], Any]


def _setting(name: str) -> Read:
    return lambda entry: entry.config.get(name)


def _power(value: float) -> str:
    return f"{value:.1e}".replace("e-0", "e-")


_REACHED = ("loss", "identity", "cosine", "beyond")  # rows that say nothing about a training cut short
_ROWS: tuple[tuple[str, Read, Callable[[Any], str]], ...] = (
    ("lr", _setting("lr"), _power),
    ("factor", _setting("scheduler_factor"), "{:.2f}".format),
    ("patience", _setting("scheduler_patience"), "{:d}".format),
    ("cosine_weight", _setting("cosine_weight"), "{:.2f}".format),
    ("pace", lambda entry: entry.seconds / entry.epochs if entry.seconds and entry.epochs else None, "{:.2f}".format),
    ("loss", lambda entry: entry.loss, "{:.4f}".format),
    ("identity", lambda entry: entry.value, "{:.4f}".format),  # in a study for it
    ("cosine", lambda entry: entry.cosine, "{:.4f}".format),
    ("beyond", lambda entry: entry.by_yaw.get(FARTHEST), "{:.2f}".format),
)


def _cell(entry: Entry | None, read: Read, form: Callable[[Any], str]) -> str:
    value = read(entry) if entry else None
    return NOT_KNOWN if value is None else form(value)


def _change(before: Entry | None, after: Entry, read: Read) -> str:
    start, end = (read(before) if before else None), read(after)
    if start is None or end is None or start == 0:
        return NOT_KNOWN
    if start < 0:  # of an identity, whose zero is the best there is: a share would say nothing
        return f"{'↑' if end > start else '↓'} {abs(end - start):.4f}"
    share = end / start - 1
    return "= 0 %" if abs(share) < 0.005 else f"{'↑' if share > 0 else '↓'} {abs(share):.0%}".replace("%", " %")


def curves(content: Content, say: Words) -> list[Block]:
    """Show the best trial and the presets: settings in a table, epochs in pictures."""
    series = charts.series(content, say)
    if not series:
        return []
    blocks: list[Block] = [Paragraph(say("curves"))]
    if content.folds > 1:
        blocks.append(Paragraph(say("of_fold_1", folds=content.folds), "note"))
    cosine, rates = charts.curves(content, series, say), charts.rates(series, say)
    pictures = (("drawing_cosine", cosine), ("drawing_lr", rates))
    drawings = [Drawing(say.text(title), svg) for title, svg in pictures if svg is not None]
    drawings += scripts.drawings(content, series, say)
    if drawings:
        legend = [(label, kind) for label, _, kind in series]
        if content.lines:
            legend.append((say.text("legend_no_model"), "level"))
        if content.pruned_curves:
            legend.append((say.text("legend_pruned"), "faint"))
        blocks.append(Figure(drawings, legend, say("caption_curves", pruned=len(content.pruned_curves))))
    each = [(label, charts.losses(label, entry, say)) for label, entry, _ in series]
    if losses := [Drawing(label, svg) for label, svg in each if svg is not None]:
        names = (("legend_validation", "s0"), ("legend_training", "s1"), ("legend_kept", "kept"))
        blocks.append(Figure(losses, [(say.text(name), kind) for name, kind in names], say("caption_losses")))
    elif not drawings or content.script is None:
        blocks.append(Paragraph(say("no_histories"), "note"))
    same = [(f"{say.preset(entry.name)} = {entry.same_as}", entry) for entry in content.presets if entry.same_as]
    named = [*((label, entry) for label, entry, _ in series), *same]
    if content.script is not None:
        return [*blocks, scripts.trials_table(content, named, say)]
    settings = _shown_settings([entry for _, entry in named])
    header = [say.text(f"column_{name}") for name in ("trial", *settings, "loss", "cosine", "kept")]
    if content.objective == "identity":
        header.insert(-2, say.text("row_identity"))
    rows = [(label, *_settings(content, settings, entry, say)) for label, entry in named]
    return [*blocks, Table(header, rows, marked=0 if content.best else None), Paragraph(say("loss_note"), "note")]


_SETTINGS = ("lr", "cosine_weight", "factor", "patience", "dropout", "pose_unit")


def _shown_settings(entries: Sequence[Entry]) -> Sequence[str]:
    """Return the settings that the table shows: the model's input only where one is not the view."""
    others = any(entry.config.get("inputs", "view") != "view" for entry in entries)
    return ("inputs", *_SETTINGS) if others else _SETTINGS


def _settings(content: Content, settings: Sequence[str], entry: Entry, say: Words) -> list[str]:
    forms: Mapping[str, tuple[str, Callable[[Any], str]]] = {
        "inputs": ("inputs", say.value),
        "lr": ("lr", _power),
        "cosine_weight": ("cosine_weight", "{:.2f}".format),
        "factor": ("scheduler_factor", "{:.2f}".format),
        "patience": ("scheduler_patience", "{:d}".format),
        "dropout": ("dropout", "{:.2f}".format),
        "pose_unit": ("pose_unit", say.value),
    }
    chosen = [forms[name] for name in settings]
    cells = [form(entry.config[name]) if name in entry.config else NOT_KNOWN for name, form in chosen]
    cosine = NOT_KNOWN if entry.cosine is None else f"{entry.cosine:.4f}"
    cosine += "" if entry.state == "complete" else f" ({say.text(f'state_{entry.state}')})"
    epochs = entry.folds[0]["epochs_run"] if entry.folds else entry.epochs
    epoch = NOT_KNOWN if entry.kept_epoch is None else say.text("of", part=entry.kept_epoch, whole=epochs)
    reached = (entry.loss, entry.value) if content.objective == "identity" else (entry.loss,)
    return [*cells, *(NOT_KNOWN if value is None else f"{value:.4f}" for value in reached), cosine, epoch]


def by_yaw(content: Content, say: Words) -> list[Block]:
    """Show the cosine by head turn."""
    series = [row for row in charts.series(content, say) if row[1].by_yaw]
    drawing = charts.by_yaw(content, series, say)
    if drawing is None:
        return []
    bands = list(content.no_model_by_yaw)
    rows = [(say.text("no_model"), *map(_two, content.no_model_by_yaw.values()))]
    rows.append((say.text("ridge"), *(_two(content.ridge_by_yaw.get(band)) for band in bands)))
    if content.kernel_ridge is not None:
        rows.append((say.text("kernel_ridge"), *(_two(content.kernel_ridge_by_yaw.get(band)) for band in bands)))
    first = len(rows)
    rows += [(label, *(_two(entry.by_yaw.get(band)) for band in bands)) for label, entry, _ in series]
    legend = [(label, kind) for label, _, kind in series] + [(say.text("no_model"), "kept")]
    return [
        Paragraph(say("yaw")),
        Columns(
            (
                Figure([Drawing(say.text("drawing_yaw"), drawing)], legend, say("caption_yaw")),
                Table([say.text("column_by_yaw"), *map(say.band, bands)], rows, marked=first if content.best else None),
            )
        ),
    ]


def _two(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.3f}"
