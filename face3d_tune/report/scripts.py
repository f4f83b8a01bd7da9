"""What only a report on a script of the user's own says: its number, its flags, its failures, its files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from face3d_tune.analysis import script_confirmation
from face3d_tune.analysis.of_script import further_numbers
from face3d_tune.report import charts
from face3d_tune.report.blocks import Block, Code, Drawing, Paragraph, Runs, Table
from face3d_tune.report.content import Content, Entry
from face3d_tune.report.words import NOT_KNOWN, Words
from face3d_tune.script import engine_comparison
from face3d_tune.study.attrs import StoredScript
from face3d_tune.study.presets import OF_SCRIPT

_FLAGS = 5  # columns for flags in the table of trials
_HASH = 12  # characters of a sha256


def confirmed(content: Content, say: Words) -> list[Block]:
    """Show what the script reached when it trained the best trial and the presets again; empty without that."""
    found = content.script_confirmation
    if found is None:
        return []
    first, *others = script_confirmation.sentences(found, say.language)
    rows = script_confirmation.rows(found)
    marked = next((place for place, row in enumerate(rows) if row[0].split(" = ")[0] == found["winner"]), None)
    cells = [[cell or NOT_KNOWN for cell in row] for row in rows]
    return [
        *([] if content.confirmed_best else [Paragraph(say("confirmed_outdated"), "warning")]),
        Paragraph((("strong", first),)),
        Table(script_confirmation.headings(found, say.language), cells, marked=marked),
        *(Paragraph((("plain", sentence),), "note") for sentence in others),
    ]


def question(content: Content, script: StoredScript, say: Words) -> list[Block]:
    """Say what was searched, by which number, and what the program cannot know of it."""
    asked = say(
        "question",
        parameters=len(content.settings["space"]),
        names=say.text("comma").join(content.settings["space"]),
        script=script["path"],
        trials=content.states["complete"] + content.states["pruned"],
        time=say.duration(content.seconds),
    )
    kept = say("script_value", epoch=kept_epoch(script, say))
    versions = len(content.script_versions)
    changed = [Paragraph(say("script_changed", n=versions), "warning")] if versions > 1 else []
    return [*changed, Paragraph((*asked, *kept)), Paragraph(say("script_unknown"), "note")]


def kept_epoch(script: StoredScript, say: Words) -> str:
    """Say which epoch's numbers a trial has."""
    name, direction = script["keep"], script["keep_direction"]
    if name is None:
        name, direction = script["metric"], script["direction"]
    return say.text(f"script_epoch_{direction}", name=name)


def presets_to_beat(content: Content) -> list[Entry]:
    """Return the completed trials that the best is compared with: the script's defaults, and the best other preset."""
    completed = [entry for entry in content.presets if entry.state == "complete" and entry.same_as is None]
    own = [entry for entry in content.presets if entry.name == OF_SCRIPT and entry.state == "complete"]
    numbers = {entry.trial for entry in own}
    others = [entry for entry in completed if entry.trial not in numbers]
    return own + sorted(others, key=lambda entry: content.measure.key(entry.value), reverse=True)[:1]


def name_of(entry: Entry, say: Words) -> str:
    """Return the name of a preset within a sentence."""
    name = say.preset(entry.name)
    return name if entry.name == OF_SCRIPT else say.text("script_preset", name=name)


def best(content: Content, trial: Entry, say: Words) -> Paragraph:
    """Name the best trial, and by how much it is better than the script's defaults and the best preset."""
    values = {"trial": trial.trial, "value": _number(content, trial.value)}
    against = presets_to_beat(content)
    if not against:
        return Paragraph((*say("best", **values), *say("script_no_preset")))
    same = next((entry for entry in against if entry.trial == trial.trial), None)
    runs = say("best", **values) if same is None else say("best_is_preset", preset=name_of(same, say), **values)
    for entry in against:
        runs = (*runs, *(() if entry is same else _lead(content, trial, entry, say)))
    return Paragraph(runs)


def _lead(content: Content, trial: Entry, entry: Entry, say: Words) -> Runs:
    """Say by how much a trial is better than a preset, and in which direction better is."""
    if trial.value is None or entry.value is None:
        return ()
    by = content.measure.number(abs(trial.value - entry.value))
    key = "script_higher" if trial.value > entry.value else "script_lower"
    return say(key, by=by, preset=name_of(entry, say), value=_number(content, entry.value))


def compared(content: Content, say: Words) -> list[Block]:
    """Show the flags and numbers of the script's defaults, of the best preset, and of the best trial."""
    found, script = content.best, content.script
    if found is None or script is None:
        return []
    presets = presets_to_beat(content)
    before = [entry for entry in presets if entry.name == OF_SCRIPT]
    others = [entry for entry in presets if entry.name != OF_SCRIPT]
    columns = [before[0] if before else None, *others, found]
    header = [say.text(f"column_{name}") for name in ("metric", "before")]
    header += [say.preset(entry.name) for entry in others]
    header += [say.text(f"column_{name}") for name in ("found", "change")]
    rows = [_compared(name, columns, _flag(name), say.value) for name in content.settings["space"]]
    form, names = content.measure.number, further_numbers(found.numbers, script)
    rows += [_compared(name, columns, _reached(name), form) for name in (script["metric"], *names)]
    rows[len(content.settings["space"])][0] += f" ({say.text(f'better_{content.direction}')})"
    rows.append(_compared(say.text("row_pace"), columns, _pace, "{:.2f}".format))
    marked = len(content.settings["space"])
    return [Paragraph(say("compared")), Table(header, rows, marked=marked), Paragraph(say("compared_note"), "note")]


Read = Callable[[Entry], Any]


def _flag(name: str) -> Read:
    return lambda entry: entry.config.get(name)


def _reached(name: str) -> Read:
    return lambda entry: entry.numbers.get(name)


def _pace(entry: Entry) -> float | None:
    return entry.seconds / entry.epochs if entry.seconds and entry.epochs else None


def _compared(name: str, columns: Sequence[Entry | None], read: Read, form: Callable[[Any], str]) -> list[str]:
    values = [None if entry is None else read(entry) for entry in columns]
    cells = [NOT_KNOWN if value is None else form(value) for value in values]
    return [name, *cells, _change(values[0], values[-1])]


def _change(start: Any, end: Any) -> str:
    """Return the change from the defaults to the best: in percent of a positive number, else the difference."""
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (start, end))
    if not numbers or start == end:
        return "=" if start == end and start is not None else NOT_KNOWN
    arrow = "↑" if end > start else "↓"
    return f"{arrow} {abs(end / start - 1):.0%}".replace("%", " %") if start > 0 else f"{arrow} {abs(end - start):.4g}"


def trials_table(content: Content, named: Sequence[tuple[str, Entry]], say: Words) -> Table:
    """Show the best trial and the presets: the flags that matter most, numbers, the kept epoch."""
    script = content.script
    ranked = [row.name for row in content.importances] or list(content.settings["space"])
    flags = [name for name in content.settings["space"] if name in ranked[:_FLAGS]]
    names = [content.objective, *(further_numbers(named[0][1].numbers, script) if script else [])]
    header = [say.text("column_trial"), *flags, *names, say.text("column_kept")]
    rows = []
    for label, entry in named:
        settings = [say.value(entry.config[name]) if name in entry.config else NOT_KNOWN for name in flags]
        numbers = [_number(content, entry.numbers.get(name)) for name in names]
        numbers[0] += "" if entry.state == "complete" else f" ({say.text(f'state_{entry.state}')})"
        kept = entry.kept_epoch
        epoch = NOT_KNOWN if kept is None else say.text("of", part=kept, whole=entry.epochs)
        rows.append((label, *settings, *numbers, epoch))
    return Table(header, rows, marked=0 if content.best else None)


def drawings(content: Content, series: charts.Series, say: Words) -> list[Drawing]:
    """Draw up to three further numbers by epoch, of the best trial and the presets."""
    if content.script is None:
        return []
    names = (name for _, entry, _ in series for name in entry.history.numbers)
    pictures = [(name, charts.number(name, series, say)) for name in further_numbers(names, content.script)]
    return [Drawing(say.text("drawing_number", name=name), svg) for name, svg in pictures if svg is not None]


def failures(content: Content, say: Words) -> list[Block]:
    """Show why the last trials failed, as the script's output tells it; empty for the built-in trainer."""
    if not content.failures:
        return []
    header = [say.text(f"column_{name}") for name in ("trial", "cause", "error")]
    rows = [(str(row["trial"]), say.text(f"why_{row['cause']}"), row["error"] or NOT_KNOWN) for row in content.failures]
    return [Paragraph(say("failures")), Table(header, rows, numeric=False)]


def built_in_trainer(content: Content, say: Words) -> list[Block]:
    """Say how the built-in trainer compares, if the script is the documented one and the two were compared."""
    stored = content.script.get("engine") if content.script else None
    compared = None if stored is None else engine_comparison.of(stored)
    if not isinstance(compared, engine_comparison.Comparison):
        return []
    apart = f"{compared.apart:.4f}"
    if not compared.same:
        return [Paragraph(say("engine_differs", apart=apart), "note")]
    if compared.times is None:
        text = say("engine_same", apart=apart)
    else:
        key = "engine_up_to" if compared.start_counted else "engine_faster"
        text = say(key, apart=apart, times=f"{compared.times:.1f}")
    lacking = say("engine_lacks", flags=say.text("comma").join(compared.lacking)) if compared.lacking else ()
    return [Paragraph((*text, *lacking, *say("engine_search"))), Code([["face3d-tune", "run", *compared.options]])]


def about(script: StoredScript, say: Words) -> dict[str, str]:
    """Return the rows on the script, for the section on how to repeat it."""
    source = say.text(f"source_{script['source']}")
    return {
        "script": script["path"],
        "sources": say.text("comma").join(_hashes(script["sources"])) or NOT_KNOWN,
        "metric": f"{script['metric']}; {source}; {say.text('better')}",
        "kept": kept_epoch(script, say),
    }


def _hashes(sources: Mapping[str, str]) -> Iterable[str]:
    return (f"{path} {digest[:_HASH]}" for path, digest in sources.items())


def _number(content: Content, value: float | None) -> str:
    return NOT_KNOWN if value is None else content.measure.number(value)
