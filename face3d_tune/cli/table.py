"""The guide's before/after table, with measured numbers, in 80 columns."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.measure import Measurement

from face3d_tune.analysis import confirmation
from face3d_tune.cli.console import Console, Table
from face3d_tune.cli.language import translate, word
from face3d_tune.config import TrialConfig
from face3d_tune.data.yaw_bands import COLUMNS, YAW_BANDS, label
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.settings import describe_kernel_ridge, describe_yaw
from face3d_tune.study.trials import best_trial, config_of, folds_of, is_imported, kept_cosine, preset_rows
from face3d_tune.study.warm_start import WarmStart

_WIDTH = 100  # columns without a terminal
_ANY = 1000  # columns, to measure how many a table needs


def results_console() -> Console:
    """Return the console for tables on stdout: as wide as the terminal, or as every table without one."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def before_and_after(study: optuna.Study) -> None:
    """Print the best trial beside every preset, no model, ridge and kernel ridge regression, to stdout."""
    console, data = results_console(), StudyAttr.data.of(study.user_attrs)
    whom, folds = f"{data['people']['validation']} people never trained on", folds_of(study.user_attrs)
    if folds > 1:  # every person who does not test validates once
        people = data["people"]["train"] + data["people"]["validation"]
        whom = f"{people} people, none trained on in their fold; mean over {folds} folds"
    if data["split"] == "none":
        whom = "the TRAINING pairs: this says nothing about people never seen"
    table = _table(study, with_bands=True)
    narrow = Measurement.get(console, console.options.update(max_width=_ANY), table).maximum > console.width
    console.print(f"Validation on {whom}:\n")
    console.print(_table(study, with_bands=False) if narrow else table)
    beside = "\n  cosine by |yaw|: in a wider terminal" if narrow else "; cosine also by |yaw|"
    for said in filter(None, (describe_yaw(data), describe_kernel_ridge(study.user_attrs))):
        beside += f"\n  {said}"
    console.print(f"\n* validation loss with weights 0.5 / 0.5, comparable between trials{beside}")


def _table(study: optuna.Study, *, with_bands: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for header in ("trial", "lr", "cos w", "factor", "patience", "pose", "loss*", "cosine"):
        table.add_column(header, justify="right")
    if with_bands:
        add_band_columns(table)
    used = len(table.columns)
    attrs = study.user_attrs
    no_model = (StudyAttr.no_model_cosine.get(attrs), StudyAttr.no_model_by_yaw.get(attrs, {}))
    ridge = (StudyAttr.ridge_cosine.get(attrs), StudyAttr.ridge_by_yaw.get(attrs, {}))
    kernel_ridge = (StudyAttr.kernel_ridge_cosine.get(attrs), StudyAttr.kernel_ridge_by_yaw.get(attrs, {}))
    for name, (cosine, by_yaw) in (("no model", no_model), ("ridge", ridge), ("kernel ridge", kernel_ridge)):
        if cosine is not None:  # an older study lacks some of these lines
            values = [f"{cosine:.4f}", *bands(by_yaw)]
            table.add_row(*[word(name), *[""] * 7, *values][:used])
    if stage := WarmStart.of(study.user_attrs):
        before = [*_settings(TrialConfig(**stage.config)), "", f"{stage.value:.4f}"]
        table.add_row(stage.study, "", *before, style="dim")
    for row in preset_rows(study):
        cells = _cells(row.trial) if row.trial else [word("waiting")]
        cells = [f"= {row.trial.number}", *cells[1:]] if row.same_as and row.trial else cells
        table.add_row(*[row.name, *cells][:used])
    best = best_trial(study)
    if best is not None:
        name = "best, imported" if is_imported(best) else "best trial"
        table.add_row(*[word(name), *_cells(best)][:used], style="bold")
    return table


def confirmed(found: Mapping[str, Any]) -> None:
    """Print the results of `confirm` on the test people, to stdout: numbers, then verdicts."""
    console = results_console()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("mean cosine")
    for header in ("in study", "validation", "test"):
        table.add_column(header, justify="right")
    add_band_columns(table)
    for row in found["candidates"]:
        value = "" if row["value"] is None else f"{row['value']:.4f}"
        style = "bold" if row["name"] == found["winner"]["name"] else ""
        if row["error"] is not None:
            table.add_row(row["name"], value, word("diverged"))
            continue
        means = [_spread(row[part], row[f"{part}_sd"]) for part in ("validation", "test")]
        table.add_row(row["name"], value, *means, *bands(row["test_by_yaw"]), style=style)
    for name, key in confirmation.simple_methods(found).items():
        row = found[key]
        table.add_row(
            word(name), "", *(_spread(row[part], None) for part in ("validation", "test")), *bands(row["test_by_yaw"])
        )
    seeds = len(found["seeds"])
    times = "Trained again once" if seeds == 1 else f"Trained again {seeds} times: mean ± deviation"
    console.print(f"{times}; test and |yaw| of {found['people']} people\nwho took no part in any decision:\n")
    console.print(table)
    for candidate in found["candidates"]:
        if candidate["aliases"]:
            console.print(f"{', '.join(candidate['aliases'])} = {candidate['name']}")
    console.print()
    for line in confirmation.told(found):
        console.print(line)


def judged(found: Mapping[str, Any]) -> None:
    """Print what `judge` found, to stdout: warnings, a table of all views, of each band and pooled, differences."""
    console, gallery = results_console(), found["gallery"]
    for line in found["warnings"]:
        console.print(f"{line}\n", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold")
    sizes = [f"of {gallery[name]}" for name in ("judged", "enrolled")]
    recognised = [f"{rate}\n{size}" for rate in ("rank-1", "TAR 1 %") for size in sizes]
    for header in ("cosine", *recognised, "identity"):
        table.add_column(header, justify="right")
    bands = {f"|yaw| {label(band)}": band for band in YAW_BANDS}
    for heading, where in {"all views": "all", **bands, "pooled": "pooled"}.items():
        rows = [(row, _section(row["recognition"], where)) for row in found["rows"]]
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
    console.print("pooled: the mean of a person's predictions, as one query\n")
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


def add_band_columns(table: Table) -> None:
    """Add a column for each band."""
    for header in COLUMNS:
        table.add_column(header, justify="right")


def _cells(trial: FrozenTrial) -> list[str]:
    if not TrialAttr.config.held_by(trial.user_attrs):
        return [word("waiting")]
    config, attrs, cosine = config_of(trial), trial.user_attrs, kept_cosine(trial)
    settings = [str(trial.number), *_settings(config)]
    if trial.state == TrialState.RUNNING or cosine is None:
        return [*settings, "", word(TrialAttr.stop_reason.get(attrs, trial.state.name.lower()))]
    pruned = translate(" (pruned)") if trial.state == TrialState.PRUNED else ""
    return [
        *settings,
        f"{TrialAttr.val_loss_equal.of(attrs):.4f}",
        f"{cosine:.4f}{pruned}",
        *bands(TrialAttr.cosine_by_yaw.of(attrs)),
    ]


def _settings(config: TrialConfig) -> list[str]:
    return [
        f"{config.lr:.1e}",
        f"{config.cosine_weight:.2f}",
        f"{config.scheduler_factor:.2f}",
        str(config.scheduler_patience),
        config.pose_unit[:3],
    ]
