"""The sections after a search: how the best training went, the command that repeats it, and how to search again."""

from typing import Any

from face3d_tune.analysis.diagnostics import Reading
from face3d_tune.report import charts, scripts
from face3d_tune.report.blocks import Block, Code, Paragraph, Runs, Table
from face3d_tune.report.content import Content
from face3d_tune.report.words import NOT_KNOWN, Words
from face3d_tune.script.command import seed_for
from face3d_tune.study.growth import ranges


def watch(content: Content, say: Words) -> list[Block]:
    """Show the guide's four readings: the best trial in full, the presets in brief."""
    best = content.best
    if best is None or not best.readings:
        return []
    rows = [(say.text(f"watch_{row.about}"), say(f"rule_{row.about}"), reading(row, say)) for row in best.readings]
    header = [say.text(f"column_{name}") for name in ("watch", "rule", "reading")]
    fold = [Paragraph(say("of_fold_1", folds=content.folds), "note")] if content.folds > 1 else []
    blocks: list[Block] = [Paragraph(say("watched", trial=best.trial)), *fold, Table(header, rows, numeric=False)]
    brief = [
        (label, *(say.text(f"brief_{row.about}_{row.verdict}") for row in entry.readings))
        for label, entry, _ in charts.series(content, say)
        if entry.readings
    ]
    about = [say.text(f"watch_{row.about}") for row in best.readings]
    return [*blocks, Paragraph(say("watch_brief")), Table([say.text("column_trial"), *about], brief, numeric=False)]


def reading(row: Reading, say: Words) -> Runs:
    """Put a reading's verdict into a sentence with its numbers."""
    numbers = {key: _worded(row.about, key, value, say) for key, value in row.numbers.items()}
    return say(f"reading_{row.about}_{row.verdict}", **numbers)


def _worded(about: str, key: str, value: Any, say: Words) -> Any:
    if key == "decays":
        epochs = ", ".join(map(str, value))
        return say.text("decays", n=len(value), epochs=epochs)
    if key in ("rise", "recent_fall", "val_change", "train_change"):
        return f"{abs(100 * value):.1f} %"
    if not isinstance(value, float):
        return value
    if key == "goal":
        return f"{value:.2f}"
    if about == "lr":
        return say.value(value)
    return f"{value:+.3f}" if about == "gap" else f"{value:.4f}"


def command(content: Content, say: Words) -> list[Block]:
    """Show the command that trains the best trial with the user's own script."""
    if not content.commands:
        return []
    sample = content.commands[0][:3] == ["face3d-tune", "data", "sample"]
    converted = next((words for words in content.commands if words[1:3] == ["data", "convert"]), ())
    blocks: list[Block] = [Paragraph(say("command"))]
    if sample:
        blocks.append(Paragraph(say("command_sample"), "note"))
    if "--inputs" in converted:
        method = say.value(converted[converted.index("--inputs") + 1])
        blocks.append(Paragraph(say("command_inputs", method=method), "note"))
    if "--pose-unit" in converted:
        blocks.append(Paragraph(say("command_convert"), "note"))
    blocks.append(Code(content.commands))
    if content.not_in_commands:
        blocks.append(Paragraph(say("command_lacks", what="; ".join(content.not_in_commands)), "warning"))
    others = Paragraph(say("command_others", study=content.study), "note")
    return [*blocks, others, *scripts.built_in_trainer(content, say)]


def reproduce(content: Content, say: Words) -> list[Block]:
    """Show data or script, versions, seeds and devices, and the command of the search."""
    settings = content.settings
    devices = ", ".join(content.devices) or NOT_KNOWN
    versions = ", ".join(f"{name} {version}" for name, version in content.versions.items())
    fixed = ", ".join(f"{name} = {say.value(value)}" for name, value in settings["fixed"].items()) or NOT_KNOWN
    rows = {
        "study": f"{content.study} ({say.text('study_file', name=settings['study_file'])})",
        **(_of_data(content, say) if content.script is None else scripts.about(content.script, say)),
        "epochs": say.text("at_most", n=settings["epochs"]) if settings["epochs"] else NOT_KNOWN,
        "fixed": fixed,
        "sampler": ", ".join(filter(None, (content.effort.get("sampler"), content.effort.get("pruner")))) or NOT_KNOWN,
        "seed": str(settings["seed"]),
        "best_seed": _seed_of(content, say),
        "device": f"{devices}; {', '.join(content.engines) or NOT_KNOWN}",
        "versions": versions,
    }
    return [
        Paragraph(say("reproduce")),
        Table(("", ""), [(say.text(f"about_{key}"), value) for key, value in rows.items()], numeric=False),
        Paragraph(say("again")),
        Code([content.repeat]),
        *_grown(content, say),
        Paragraph(say("again_note"), "note"),
    ]


def _grown(content: Content, say: Words) -> list[Block]:
    """Name the ranges that the command's study file lacks if it is still the one of the beginning."""
    now = {growth["parameter"]: ranges(growth)[1] for growth in content.settings.get("grown", ())}
    if not now:
        return []
    told = say.text("semicolon").join(f"{name}: {after}" for name, after in now.items())
    return [Paragraph(say("again_grown", ranges=told), "note")]


def _seed_of(content: Content, say: Words) -> str:
    """Return the seed of the best trial, as the script got it if it takes one."""
    seed, script = content.best.seed if content.best else None, content.script
    if seed is None:
        return NOT_KNOWN
    if script is None:
        return str(seed)
    return say.text("script_seed") if script["seed_flag"] is None else str(seed_for(seed))


def _of_data(content: Content, say: Words) -> dict[str, str]:
    """Return the rows on the face data and the model."""
    data = content.data
    parts = [
        say.text("part", part=say.text(f"part_{part}"), people=data["people"][part], pairs=data["pairs"][part])
        for part in ("train", "validation", "test")
    ]
    highest = data["max_yaw"]
    yaw = say.text("yaw_all") if not data["min_yaw"] and highest is None else f"{data['min_yaw']:g}–{highest or 180:g}°"
    if (turn := data["turn_angle"]) != "first":
        yaw = say.text("yaw_is", yaw=yaw, angle=say.value(turn))
    return {
        "data": f"{data['source']}; {say.text('fingerprint')} {data['fingerprint']}",
        "split": say.text(f"split_{data['split']}") + ": " + say.text("semicolon").join(parts),
        **({"folds": say.text("mean_over", n=content.folds)} if content.folds > 1 else {}),
        "yaw": yaw,
        "poses": say.value(data["pose_unit"]),
        "embedding": say.text("numbers", n=data["feature_size"]),
        "layout": content.settings["layout"],
    }
