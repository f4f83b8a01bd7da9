"""The guide's before/after table, with measured numbers, in 80 columns."""

from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from face3d_tune.config import TrialConfig
from face3d_tune.results import IMPORTED, best_trial, config_of, kept_cosine, origin, preset_rows
from face3d_tune.stages import Stage

_WIDTH = 100  # columns, where there is no terminal to ask
_ANY = 1000  # columns, to ask how many a table would like
_BANDS = ("<15°", "<45°", ">45°")  # of |yaw|


def results_console() -> Console:
    """For tables on stdout: as wide as the terminal, or wide enough for every table if there is none."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=_WIDTH)


def before_and_after(study: optuna.Study) -> None:
    """Print the best trial beside every preset and the no-model cosine, to stdout."""
    console, data = results_console(), study.user_attrs["data"]
    whom = f"{data['people']['validation']} people never trained on"
    if data["split"] == "none":
        whom = "the TRAINING pairs: this says nothing about people never seen"
    table = _table(study, with_bands=True)
    narrow = Measurement.get(console, console.options.update(max_width=_ANY), table).maximum > console.width
    console.print(f"Validation on {whom}:\n")
    console.print(_table(study, with_bands=False) if narrow else table)
    beside = "\n  cosine by |yaw|: in a wider terminal" if narrow else "; cosine also by |yaw|"
    console.print(f"\n* validation loss with weights 0.5 / 0.5, comparable between trials{beside}")


def _table(study: optuna.Study, *, with_bands: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for header in ("trial", "lr", "cos w", "factor", "patience", "pose", "loss*", "cosine"):
        table.add_column(header, justify="right")
    if with_bands:
        add_band_columns(table)
    used = len(table.columns)
    no_model = [f"{study.user_attrs['no_model_cosine']:.4f}", *bands(study.user_attrs["no_model_by_yaw"])]
    table.add_row(*["no model", *[""] * 7, *no_model][:used])
    if stage := Stage.of(study.user_attrs):
        before = [*_settings(TrialConfig(**stage.config)), "", f"{stage.value:.4f}"]
        table.add_row(stage.study, "", *before, style="dim")
    for row in preset_rows(study):
        cells = _cells(row.trial) if row.trial else ["waiting"]
        cells = [f"= {row.trial.number}", *cells[1:]] if row.same_as and row.trial else cells
        table.add_row(*[row.name, *cells][:used])
    best = best_trial(study)
    if best is not None:
        name = "best, imported" if origin(best) == IMPORTED else "best trial"
        table.add_row(*[name, *_cells(best)][:used], style="bold")
    return table


def bands(cosine_by_yaw: Mapping[str, float | None]) -> list[str]:
    """A cell for each band, in their order."""
    return ["–" if value is None else f"{value:.2f}" for value in cosine_by_yaw.values()]


def add_band_columns(table: Table) -> None:
    """A column for each band."""
    for header in _BANDS:
        table.add_column(header, justify="right")


def _cells(trial: FrozenTrial) -> list[str]:
    if "config" not in trial.user_attrs:
        return ["waiting"]
    config, attrs, cosine = config_of(trial), trial.user_attrs, kept_cosine(trial)
    settings = [str(trial.number), *_settings(config)]
    if trial.state == TrialState.RUNNING or cosine is None:
        return [*settings, "", attrs.get("stop_reason", trial.state.name.lower())]
    pruned = " (pruned)" if trial.state == TrialState.PRUNED else ""
    return [*settings, f"{attrs['val_loss_equal']:.4f}", f"{cosine:.4f}{pruned}", *bands(attrs["cosine_by_yaw"])]


def _settings(config: TrialConfig) -> list[str]:
    return [
        f"{config.lr:.1e}",
        f"{config.cosine_weight:.2f}",
        f"{config.scheduler_factor:.2f}",
        str(config.scheduler_patience),
        config.pose_unit[:3],
    ]
