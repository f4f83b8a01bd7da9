"""`report --format csv|tensorboard`: the trials and curves of a study as files in a folder."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from face3d_tune.cli.language import say

if TYPE_CHECKING:
    import optuna

FileForm = Literal["csv", "tensorboard"]


def write_files(study: "optuna.Study", form: FileForm, folder: Path, *, force: bool) -> None:
    """Write the files of a form, and say which. Raises ConfigError, and StudyError if there is nothing to write."""
    from face3d_tune.errors import StudyError
    from face3d_tune.report.csv_files import csv_files
    from face3d_tune.report.event_files import event_files
    from face3d_tune.study.objective import Objective
    from face3d_tune.study.records import records

    trials = records(study)
    files = csv_files(trials) if form == "csv" else event_files(trials, Objective.of_study(study.user_attrs))
    if not files:
        raise StudyError(
            f"study {study.study_name!r} has no trial with an epoch yet", "let `face3d-tune run` train one first"
        )
    if not force:
        _require_new(folder / name for name in files)
    _write(folder, files)
    if form == "csv":
        say(f"wrote {folder}: trials.csv with {len(trials)} rows, and curves.csv")
    else:
        say(
            f"wrote {len(files)} event file{'' if len(files) == 1 else 's'}; to see them: tensorboard --logdir {folder}"
        )


def _require_new(paths: Iterable[Path]) -> None:
    from face3d_tune.errors import ConfigError

    if existing := next((path for path in paths if path.exists()), None):
        raise ConfigError(
            f"{existing} exists and would be overwritten",
            "name another folder with -o, or overwrite its files with --force",
        )


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    from face3d_tune.errors import ConfigError
    from face3d_tune.system.whole_file import replacing

    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(content)
    except OSError as error:
        raise ConfigError(
            f"--out {folder} cannot be written: {error.strerror}", "name another folder with -o"
        ) from error
