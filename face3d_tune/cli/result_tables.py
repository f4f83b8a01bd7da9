"""The tables that `run`, `confirm` and `judge` end with. A column that finds no room is left out, not cut."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.measure import Measurement

from face3d_tune.analysis import confirmation, recognising
from face3d_tune.analysis.likely_best import likely_best
from face3d_tune.cli import script_results
from face3d_tune.cli.console import ANY_WIDTH, Console, TranslatedTable
from face3d_tune.cli.language import translate, word
from face3d_tune.config import TrialConfig
from face3d_tune.data.yaw_bands import COLUMNS, YAW_BANDS, label
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.described_data import describe_kernel_ridge, describe_yaw
from face3d_tune.study.exclusions import excluded
from face3d_tune.study.objective import IDENTITY, Objective
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.trials import (
    best_trial,
    config_of,
    folds_of,
    is_imported,
    kept_cosine,
    origin,
    preset_rows,
    queued_by_request,
)

_WIDTH = 100  # columns without a terminal


def results_console() -> Console:
    """Return the console for tables on stdout: as wide as the terminal, or as every table without one."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def before_and_after(study: optuna.Study) -> None:
    """Print the best trial beside every preset, no model, ridge and kernel ridge regression, to stdout."""
    console, attrs = results_console(), study.user_attrs
    if StudyAttr.script.held_by(attrs):
        script_results.before_and_after(console, study)
    else:
        _before_and_after(console, study, attrs)
    if likely := likely_best(study):
        console.print(f"  {likely.text(Objective.of_study(attrs))}", soft_wrap=True)


def _before_and_after(console: Console, study: optuna.Study, attrs: Mapping[str, Any]) -> None:
    data, folds, sizes = StudyAttr.data.of(attrs), folds_of(attrs), recognising.galleries(attrs)
    whom = f"{data['people']['validation']} people never trained on"
    if folds > 1:  # every person who does not test validates once
        people = data["people"]["train"] + data["people"]["validation"]
        whom = f"{people} people, none trained on in their fold; mean over {folds} folds"
    if data["split"] == "none":
        whom = "the TRAINING pairs: this says nothing about people never seen"
    table, lost = _fitting(console, _rows(study), sizes, Objective.of_study(attrs))
    if said := recognising.warning(best_trial(study), attrs):
        console.print(f"{said}\n")
    console.print(f"Validation on {whom}:\n")
    console.print(table)
    console.print()
    if _SCHEDULER in lost:
        console.print("  factor and patience: in a wider terminal")
    if _LOSS in lost:
        console.print("  validation loss and cosine by |yaw|: in a wider terminal")
    else:
        beside = "\n  cosine by |yaw|: in a wider terminal" if _BANDS in lost else "; cosine also by |yaw|"
        console.print(f"* validation loss with weights 0.5 / 0.5, comparable between trials{beside}")
    for line in filter(None, (describe_yaw(data), describe_kernel_ridge(attrs), *excluded(attrs))):
        console.print(f"  {line}")
    if sizes:
        console.print(f"  rank-1 of {sizes[1]}: the share of views named right among all people enrolled")
        if _RATES not in lost:
            console.print(f"  of {sizes[0]}: among the people judged; TAR 1 %: the share accepted at FAR 1 %")


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table: its name, and its cells by column; cells may be missing."""

    name: str
    cells: Mapping[str, str]
    style: str = ""


# Columns and their headings, in groups.
_TRIAL = {name: name for name in ("trial", "lr", "cos w")}
_SCHEDULER = {name: name for name in ("factor", "patience")}
_INPUT = {"input": "input"}  # only where a trial has another one than the view
_POSE = {"pose": "pose"}
_LOSS = {"loss*": "loss*"}
_IDENTITY = {"identity": "identity"}  # of a study with that objective
_COSINE = {"cosine": "cosine"}
_BANDS = dict(zip(YAW_BANDS, COLUMNS, strict=True))
_RANK1 = {"rank1_enrolled": "rank-1"}
_RATES = {"rank1_judged": "rank-1", "tar_enrolled": "TAR 1 %", "tar_judged": "TAR 1 %"}


def _fitting(
    console: Console, rows: Sequence[_Row], sizes: tuple[int, int] | None, objective: Objective
) -> tuple[TranslatedTable, Sequence[Mapping[str, str]]]:
    """Return the widest table that fits the console, and the groups of columns that find no room.

    `sizes` are those of the galleries; without them no column is about recognition.
    """
    unlimited = console.options.update(max_width=ANY_WIDTH)
    inputs = (_INPUT,) if {row.cells.get("input") for row in rows} - {None, word("view")} else ()
    values = (_IDENTITY, _COSINE) if objective == IDENTITY else (_COSINE,)
    narrowest = (_RATES, _BANDS, _LOSS, *((_SCHEDULER,) if objective == IDENTITY else ()))
    for lost in ((), (_RATES,), (_RATES, _BANDS), (_RATES, _BANDS, _LOSS), narrowest):
        groups = (_TRIAL, _SCHEDULER, *inputs, _POSE, _LOSS, *values, _BANDS, *((_RANK1, _RATES) if sizes else ()))
        table = _table(rows, [group for group in groups if group not in lost], sizes)
        if Measurement.get(console, unlimited, table).maximum <= console.width:
            break
    return table, lost


def _table(rows: Sequence[_Row], groups: Sequence[Mapping[str, str]], sizes: tuple[int, int] | None) -> TranslatedTable:
    judged, enrolled = sizes or (0, 0)
    columns = {key: heading for group in groups for key, heading in group.items()}
    table = TranslatedTable(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for key, heading in columns.items():
        of = f"\nof {enrolled if key.endswith('enrolled') else judged}" if key in _RANK1 or key in _RATES else ""
        table.add_column(f"{heading}{of}", justify="right")
    for row in rows:
        table.add_row(row.name, *(row.cells.get(key, "") for key in columns), style=row.style)
    return table


def _rows(study: optuna.Study) -> list[_Row]:
    rows, attrs = [], study.user_attrs
    recognised = recognising.of_baselines(attrs)
    for name, cosine, by_yaw in (
        ("no model", StudyAttr.no_model_cosine, StudyAttr.no_model_by_yaw),
        ("ridge", StudyAttr.ridge_cosine, StudyAttr.ridge_by_yaw),
        ("kernel ridge", StudyAttr.kernel_ridge_cosine, StudyAttr.kernel_ridge_by_yaw),
    ):
        if cosine.held_by(attrs):  # an older study lacks some of these lines
            cells = _measured(f"{cosine.of(attrs):.4f}", by_yaw.get(attrs, {}), recognised.get(name))
            rows.append(_Row(word(name), cells))
    if stage := WarmStart.of(attrs):
        before = {**_settings(TrialConfig(**stage.config)), stage.objective: f"{stage.value:.4f}"}
        rows.append(_Row(stage.study, before, "dim"))
    for row in preset_rows(study):
        cells = _cells(row.trial) if row.trial else {"trial": word("waiting")}
        same = {"trial": f"= {row.trial.number}"} if row.same_as and row.trial else {}
        rows.append(_Row(row.name, cells | same))
    rows += [_Row(word(origin(each)), {"trial": str(each.number)} | _cells(each)) for each in queued_by_request(study)]
    best = best_trial(study)
    if best is not None:
        rows.append(_Row(word("best, imported" if is_imported(best) else "best trial"), _cells(best), "bold"))
    return rows


def confirmed(found: Mapping[str, Any]) -> None:
    """Print the results of `confirm` on the test people, to stdout: numbers, then verdicts.

    The table has rank-1 where that of every row is stored and there is room for it.
    """
    console, rotated = results_console(), found.get("rotations")
    enrolled = found["recognition"]["enrolled"] if confirmation.rank1_known(found) else None
    table, unlimited = _candidates(found, enrolled), console.options.update(max_width=ANY_WIDTH)
    if enrolled and Measurement.get(console, unlimited, table).maximum > console.width:
        enrolled, table = None, _candidates(found, None)
    if warning := confirmation.no_better_recognised(found):
        console.print(f"{warning}\n")
    seeds = len(found["seeds"])
    times = "Trained again once" if seeds == 1 else f"Trained again {seeds} times: mean ± deviation"
    if rotated:
        console.print(f"Cross-validated: each of {found['people']} people is judged in one of {rotated} rotations,")
        console.print(f"by models trained on others; trainings in each rotation: {seeds}\n")
    else:
        console.print(f"{times}; test and |yaw| of {found['people']} people\nwho took no part in any decision:\n")
    console.print(table)
    for candidate in found["candidates"]:
        if candidate["aliases"]:
            console.print(f"{', '.join(candidate['aliases'])} = {candidate['name']}")
    if enrolled:
        console.print(f"rank-1 of {enrolled}: the share of views named right among all people enrolled")
    console.print()
    for line in confirmation.told(found):
        console.print(line)


def _candidates(found: Mapping[str, Any], enrolled: int | None) -> TranslatedTable:
    """Return the table of candidates and methods without training; None for `enrolled` omits rank-1."""
    table = TranslatedTable(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("mean cosine")
    for header in ("in study", "validation", "judged" if found.get("rotations") else "test"):
        table.add_column(header, justify="right")
    add_band_columns(table)
    if enrolled:
        table.add_column(f"rank-1\nof {enrolled}", justify="right")

    def rates(row: Mapping[str, Any]) -> list[str]:
        by_yaw = bands(row["test_by_yaw"])
        return [*by_yaw, f"{row['test_rank1_enrolled']:.3f}"] if enrolled else by_yaw

    for row in found["candidates"]:
        value = confirmation.value_in_study(row, "")
        style = "bold" if row["name"] == found["winner"]["name"] else ""
        if row["error"] is not None:
            table.add_row(row["name"], value, word("diverged"))
            continue
        means = [_spread(row[part], row[f"{part}_sd"]) for part in ("validation", "test")]
        table.add_row(row["name"], value, *means, *rates(row), style=style)
    for name, key in confirmation.simple_methods(found).items():
        row = found[key]
        means = [_spread(row[part], None) for part in ("validation", "test")]
        table.add_row(word(name), "", *means, *rates(row))
    return table


def judged(found: Mapping[str, Any], where: Container[str] = ("all", *YAW_BANDS, "pooled")) -> None:
    """Print what `judge` found, to stdout: warnings, a table of some of all views, bands and pooled, differences."""
    console, gallery = results_console(), found["gallery"]
    for line in found["warnings"]:
        console.print(f"{line}\n", soft_wrap=True)
    table = TranslatedTable(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold")
    sizes = [f"of {gallery[name]}" for name in ("judged", "enrolled")]
    recognised = [f"{rate}\n{size}" for rate in ("rank-1", "TAR 1 %") for size in sizes]
    for header in ("cosine", *recognised, "identity"):
        table.add_column(header, justify="right")
    bands = {f"|yaw| {label(band)}": band for band in YAW_BANDS}
    for heading, section in {"all views": "all", **bands, "pooled": "pooled"}.items():
        if section not in where:
            continue
        rows = [(row, _section(row["recognition"], section)) for row in found["rows"]]
        if any(rates["cosine"] is not None for _, rates in rows):  # else no view is in this band
            table.add_row(word(heading), style="italic")
        for row, rates in rows:
            if rates["cosine"] is not None:
                style = "" if row["kind"] == "baseline" else "bold"
                table.add_row(word(row["name"]), *_rates(rates), style=style)
    console.print(f"{found['people']} {found['part']} people, {found['views']} views")
    console.print(f"galleries: the {gallery['judged']} people judged, and all {gallery['enrolled']} enrolled\n")
    console.print(table)
    console.print("\nTAR 1 %: the share accepted at FAR 1 %")
    if "pooled" in where:
        console.print("pooled: the mean of a person's predictions, as one query")
    console.print()
    for each in found["differences"]:
        rate = "cosine" if each["rate"] == "cosine" else f"rank-1 {sizes[1]}"
        console.print(f"{each['of']}, {rate}: {confirmation.sentence(each, found['part'])}", soft_wrap=True)


def _section(recognition: Mapping[str, Any], where: str) -> Mapping[str, float | None]:
    """Return the rates of all views, pooled, or of a band."""
    held: Mapping[str, Any] = recognition["by_yaw"] if where in YAW_BANDS else recognition
    rates: Mapping[str, float | None] = held[where]
    return rates


def _rates(rates: Mapping[str, float | None]) -> list[str]:
    digits = {"cosine": 4, **dict.fromkeys(("rank1_judged", "rank1_enrolled", "tar_judged", "tar_enrolled"), 3)}
    digits["identity"] = 4
    return ["–" if (value := rates[name]) is None else f"{value:.{count}f}" for name, count in digits.items()]


def _spread(value: float, deviation: float | None) -> str:
    return f"{value:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def bands(cosine_by_yaw: Mapping[str, float | None]) -> list[str]:
    """Return a cell for each band, in their order."""
    return ["–" if value is None else f"{value:.2f}" for value in cosine_by_yaw.values()]


def add_band_columns(table: TranslatedTable) -> None:
    """Add a column for each band."""
    for header in COLUMNS:
        table.add_column(header, justify="right")


def _cells(trial: FrozenTrial) -> dict[str, str]:
    if not TrialAttr.config.held_by(trial.user_attrs):
        return {"trial": word("waiting")}
    config, attrs, cosine = config_of(trial), trial.user_attrs, kept_cosine(trial)
    settings = {"trial": str(trial.number), **_settings(config)}
    if trial.state == TrialState.RUNNING or cosine is None:
        return settings | {"cosine": word(TrialAttr.stop_reason.get(attrs, trial.state.name.lower()))}
    pruned = translate(" (pruned)") if trial.state == TrialState.PRUNED else ""
    measured = _measured(f"{cosine:.4f}{pruned}", TrialAttr.cosine_by_yaw.of(attrs), recognising.of_trial(trial))
    return settings | {"loss*": f"{TrialAttr.val_loss_equal.of(attrs):.4f}"} | measured


def _measured(cosine: str, by_yaw: Mapping[str, float | None], recognition: Mapping[str, Any] | None) -> dict[str, str]:
    rates = recognition["all"] if recognition else {}
    known = {name: f"{rates[name]:.3f}" for name in (*_RANK1, *_RATES) if rates.get(name) is not None}
    if rates.get("identity") is not None:
        known["identity"] = f"{rates['identity']:.4f}"
    return {"cosine": cosine, **dict(zip(by_yaw, bands(by_yaw), strict=True)), **known}


def _settings(config: TrialConfig) -> dict[str, str]:
    return {
        "lr": f"{config.lr:.1e}",
        "cos w": f"{config.cosine_weight:.2f}",
        "factor": f"{config.scheduler_factor:.2f}",
        "patience": str(config.scheduler_patience),
        "input": word(config.inputs),
        "pose": config.pose_unit[:3],
    }
