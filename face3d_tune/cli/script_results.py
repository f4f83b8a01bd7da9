"""The table that `run` ends with if it searches a script of the user's own."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.measure import Measurement

from face3d_tune.analysis.of_script import further_numbers, kept_epoch
from face3d_tune.cli.console import ANY_WIDTH, Console, TranslatedTable
from face3d_tune.cli.language import translate, word
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.exclusions import excluded
from face3d_tune.study.growth import values_before
from face3d_tune.study.objective import Objective
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.trials import best_trial, is_imported, origin, preset_rows, queued_by_request

_SIGNIFICANT = 4  # digits of a flag's value


def before_and_after(console: Console, study: optuna.Study) -> None:
    """Print the best trial beside every preset: flags and numbers at the kept epoch."""
    attrs = study.user_attrs
    objective, script = Objective.of_study(attrs), StudyAttr.script.of(attrs)
    rows, best = _rows(study), best_trial(study)
    held = TrialAttr.numbers.get(best.user_attrs, {}) if best else {}
    flags, numbers = [*StudyAttr.settings.of(attrs)["space"]], further_numbers(held, script)
    unlimited, fewest = console.options.update(max_width=ANY_WIDTH), [*range(len(flags), 0, -1)] or [0]
    for shown, also in [(fewest[0], numbers), *((count, []) for count in fewest)]:
        table = _table(rows, flags[:shown], [objective.name, *also], objective)
        if Measurement.get(console, unlimited, table).maximum <= console.width:
            break
    console.print(f"{objective.goal}:\n")
    console.print(table)
    console.print(f"\n* at {kept_epoch(script)}")
    for line in excluded(attrs):
        console.print(f"  {line}")
    if lost := [*flags[shown:], *(name for name in numbers if name not in also)]:
        console.print(f"  in a wider terminal: {', '.join(lost)}")


class _Line(NamedTuple):
    """One line of the table; the line of a study before has no trial."""

    name: str
    number: str
    config: Mapping[str, Any]  # values of flags
    trial: FrozenTrial | None
    style: str = ""


def _rows(study: optuna.Study) -> list[_Line]:
    rows = []
    if stage := WarmStart.of(study.user_attrs):
        rows.append(_Line(stage.study, "", stage.config, None, "dim"))
    for row in preset_rows(study):
        number = "" if row.trial is None else f"= {row.trial.number}" if row.same_as else str(row.trial.number)
        rows.append(_Line(row.name, number, _config(row.trial, study), row.trial))
    for trial in queued_by_request(study):
        rows.append(_Line(word(origin(trial)), str(trial.number), _config(trial, study), trial))
    if (best := best_trial(study)) is not None:
        name = word("best, imported" if is_imported(best) else "best trial")
        rows.append(_Line(name, str(best.number), _config(best, study), best, "bold"))
    return rows


def _config(trial: FrozenTrial | None, study: optuna.Study) -> Mapping[str, Any]:
    config = {} if trial is None else TrialAttr.config.get(trial.user_attrs, {})
    return {**values_before(StudyAttr.settings.of(study.user_attrs)), **config} if config else {}


def _table(
    rows: Sequence[_Line], flags: Sequence[str], numbers: Sequence[str], objective: Objective
) -> TranslatedTable:
    table = TranslatedTable(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for heading in ("trial", *flags, *(f"{name}*" for name in numbers)):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [_text(row.config[flag]) if flag in row.config else "" for flag in flags]
        table.add_row(row.name, row.number, *cells, *_reached(row.trial, numbers, objective), style=row.style)
    return table


def _text(value: Any) -> str:
    """Format a flag's value for a table, a float with few digits."""
    return f"{value:.{_SIGNIFICANT}g}" if isinstance(value, float) else str(value)


def _reached(trial: FrozenTrial | None, names: Sequence[str], objective: Objective) -> list[str]:
    """Return the numbers of the kept epoch, or in place of the first why there are none."""
    if trial is None:
        return [""] * len(names)
    attrs = trial.user_attrs
    numbers = TrialAttr.numbers.get(attrs, {})
    if not trial.state.is_finished() or objective.name not in numbers:
        reason = word(TrialAttr.stop_reason.get(attrs, trial.state.name.lower()))
        return [reason, *[""] * (len(names) - 1)]
    cells = [objective.number(numbers[name]) if name in numbers else "–" for name in names]
    pruned = translate(" (pruned)") if trial.state == TrialState.PRUNED else ""
    return [cells[0] + pruned, *cells[1:]]
