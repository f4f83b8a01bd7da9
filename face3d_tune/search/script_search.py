"""A search of a script of the user's own: its study, and a run of each trial."""

import platform
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.storages import RDBStorage

from face3d_tune import __version__
from face3d_tune.errors import StudyError
from face3d_tune.script import command, engine_comparison, sources
from face3d_tune.script.engine_comparison import Comparison, NotCompared
from face3d_tune.script.running.tasks import ScriptTask
from face3d_tune.script.study_file import ScriptStudyFile
from face3d_tune.search.algorithms import make_pruner, make_sampler
from face3d_tune.search.open_study import opened
from face3d_tune.search.script_folders import ScriptFolders
from face3d_tune.search.script_run import ScriptRun
from face3d_tune.search.search import Begun, Search
from face3d_tune.search.trial_queue import TrialQueue
from face3d_tune.storage.artifacts import Artifacts, unique_name
from face3d_tune.storage.retry import DEFAULT_TIMEOUT
from face3d_tune.storage.study_names import ANOTHER
from face3d_tune.storage.workers import DEFAULT_SILENCE, this_process
from face3d_tune.study.attrs import StoredScript, StudyAttr, TrialAttr
from face3d_tune.study.growth import as_grown, grow
from face3d_tune.study.objective import Objective
from face3d_tune.study.settings import DEFAULT_SEED, differences, refuse_differences, require_same_optuna
from face3d_tune.study.space import Space

_CHANGED = "start another study with --study-name NEW, or go on with --accept-changed-script"
# What may change without a change of what a number means.
_FREE = ("path", "command", "sources", "environment", "time_limit", "start_in", "resume_flag", "checkpoint", "engine")


class ScriptSearch(Search):
    """A search of a script. `open_script_search` makes one.

    Attributes:
        script_file: The study file.
        folders: The folders of its trials.
        device: Where they train, in words.
        remarks: Lines that are shown before the first trial: how the built-in trainer compares.
    """

    def __init__(
        self,
        queue: TrialQueue,
        file: ScriptStudyFile,
        folders: ScriptFolders,
        *,
        device: str,
        target: float | None = None,
        target_epochs: int = 1,
        storage_timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        super().__init__(
            queue,
            file,
            file.objective,
            folders,
            target=target,
            target_epochs=target_epochs,
            storage_timeout=storage_timeout,
        )
        self.script_file, self.folders, self.device = file, folders, device
        self.stored = StudyAttr.script.of(self.study.user_attrs)
        engine = self.stored.get("engine")
        self.remarks: Sequence[str] = engine_comparison.of(engine).lines() if engine else ()

    @property
    def described(self) -> str:
        """Return the script, its files and its metric in one phrase."""
        others = len(self.stored["sources"]) - 1
        more = f" with {others} of its files" if others else ""
        return f"{self.script_file.script.path}{more}; metric {self.objective}, source {self.script_file.script.source}"

    def _run_of(self, begun: Begun) -> ScriptRun:
        _require_unchanged(self.script_file, self.stored)
        file, table = self.script_file, self.script_file.script
        seed = begun.seed if table.seed_flag else None
        made = command.command(self.stored, file.flags, begun.config, seed=seed, epochs=file.epochs)
        keep = Objective(table.keep, table.keep_direction, script=True) if table.keep else None
        return ScriptRun(
            ScriptTask(begun.number, tuple(made.words), str(begun.key), begun.retry, epochs=file.epochs),
            begun.config,
            self.objective,
            keep,
            file.epochs,
            begun.reporter,
            goal=self.target,
            goal_epochs=self.target_epochs,
            note=begun.note,
        )

    def _attrs_of(self, begun: Begun) -> dict[str, Any]:
        return {TrialAttr.device.key: self.device, TrialAttr.script_version.key: sources.digest(self.stored["sources"])}


def open_script_search(
    storage: RDBStorage,
    name: str,
    file: ScriptStudyFile,
    seed: int | None,
    *,
    device: str,
    accept_changed: bool = False,
    target: float | None = None,
    target_epochs: int = 1,
    silence: float = DEFAULT_SILENCE,
    storage_timeout: float = DEFAULT_TIMEOUT,
    artifacts: Artifacts | None = None,
    keep_checkpoints: int = 10,
    note: Callable[[str], object] = lambda line: None,
    compare: Callable[[], Comparison | NotCompared | None] = lambda: None,
    wider: Space | None = None,
) -> ScriptSearch:
    """Open or create a study of a script, join its workers, and return the search.

    Args:
        storage: Where the study lies.
        name: Of the study.
        file: The study file.
        seed: Of the search; None: the study's own.
        device: In words, as trials store it.
        accept_changed: Whether a study goes on although its script changed.
        target: Value that ends the search.
        target_epochs: Epochs in a row that must reach it.
        silence: Seconds without a heartbeat after which this worker is presumed dead.
        storage_timeout: Seconds to wait for a database that does not answer.
        artifacts: Where logs and folders of trials are kept.
        keep_checkpoints: Number of finished trials whose folders are kept.
        note: Takes a line about a script that changed.
        compare: Compares the built-in trainer with the script, once for a study.
        wider: Rows by which the space of a study that exists grows.

    Raises:
        StudyError: The study was made with other settings, or with another version of the script.
        StudyFileError: The study file does not fit.
    """
    study = open_script_study(storage, name, file, seed, accept_changed=accept_changed, note=note, wider=wider)
    file = as_grown(file, StudyAttr.settings.of(study.user_attrs))
    _store_comparison(study, compare)
    queue = TrialQueue(study, storage, silence=silence)
    unique = unique_name(name, StudyAttr.id.of(study.user_attrs))
    folders = ScriptFolders(study, artifacts, unique, keep_checkpoints)
    return ScriptSearch(
        queue,
        file,
        folders,
        device=device,
        target=target,
        target_epochs=target_epochs,
        storage_timeout=storage_timeout,
    )


def open_script_study(
    storage: RDBStorage,
    name: str,
    file: ScriptStudyFile,
    seed: int | None,
    *,
    accept_changed: bool = False,
    note: Callable[[str], object] = lambda line: None,
    wider: Space | None = None,
) -> optuna.Study:
    """Open or create a study of a script; the arguments and errors are those of `open_script_search`."""
    make_pruner(file)
    make_sampler(file, 0)
    attrs = _study_attrs(file, seed)
    wanted: StoredScript = attrs[StudyAttr.script.key]

    def check_before(study: optuna.Study) -> None:
        grown = as_grown(file, StudyAttr.settings.of(study.user_attrs))
        _check_same(name, study, {**attrs, StudyAttr.settings.key: _settings(grown, seed)}, seed)
        if wider:
            grow(study, grown, wider, this_process(), lambda each: each.check())
        before = StudyAttr.script.of(study.user_attrs)
        if changed := sources.changed(before["sources"], wanted["sources"]):
            if not accept_changed:
                raise StudyError(f"study {name!r} was made before {', '.join(changed)} changed", _CHANGED)
            note(f"{', '.join(changed)} changed since the study was made; its trials come from more than one version")
        elif "engine" in before:
            wanted["engine"] = before["engine"]
        if before != wanted:  # what may change, or a change that was accepted
            study.set_user_attr(StudyAttr.script.key, wanted)

    return opened(storage, name, file, attrs, file.objective, check_before)


def _store_comparison(study: optuna.Study, compare: Callable[[], Comparison | NotCompared | None]) -> None:
    """Store how the built-in trainer compares with the script, unless the study has it; other workers do not wait."""
    stored = StudyAttr.script.of(study.user_attrs)
    if "engine" not in stored and (comparison := compare()) is not None:
        study.set_user_attr(StudyAttr.script.key, {**stored, "engine": comparison.to_attr()})


def _study_attrs(file: ScriptStudyFile, seed: int | None) -> dict[str, Any]:
    """Build the user attributes of a study of a script. `settings` comes last: a study that has it has them all."""
    _, aliases = file.distinct_presets()
    return {
        StudyAttr.preset_aliases.key: aliases,
        StudyAttr.script.key: file.stored(),
        StudyAttr.versions.key: {
            "face3d_tune": __version__,
            "optuna": optuna.__version__,
            "python": platform.python_version(),
        },
        StudyAttr.settings.key: _settings(file, seed),
    }


def _settings(file: ScriptStudyFile, seed: int | None) -> dict[str, Any]:
    return {**file.settings(), "seed": DEFAULT_SEED if seed is None else seed}


def _check_same(name: str, study: optuna.Study, wanted: dict[str, Any], seed: int | None) -> None:
    """Raise StudyError with the first difference, unless the study may go on with these attributes."""
    record = study.user_attrs
    if not StudyAttr.script.held_by(record):
        raise StudyError(f"study {name!r} was made with the built-in trainer, not with a script", ANOTHER)
    require_same_optuna(name, record, wanted)
    refuse_differences(name, StudyAttr.settings.of(record), StudyAttr.settings.of(wanted), seed)
    for key, was, is_now in differences(StudyAttr.script.of(record), StudyAttr.script.of(wanted)):
        if key.partition(".")[0] not in _FREE:
            raise StudyError(f"study {name!r} was made with script.{key} = {was}, now it is {is_now}", ANOTHER)


def _require_unchanged(file: ScriptStudyFile, stored: StoredScript) -> None:
    """Raise StudyError if the script was changed during the search: its later trials would be of another one."""
    if changed := sources.changed(stored["sources"], sources.hashes(file.script.path)):
        raise StudyError(f"{', '.join(changed)} changed during the search", _CHANGED)
