"""The folders of a script's trials: kept while a trial may go on, then those of the best; each log is an artifact."""

import shutil
import tempfile
from collections.abc import Callable, Sequence, Set
from functools import cached_property
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from face3d_tune.errors import ArtifactError
from face3d_tune.script.running import trial_folder
from face3d_tune.search.retries import lineage
from face3d_tune.storage.artifacts import Artifacts, log_of, logs_of, study_folder
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.exclusions import read_trials
from face3d_tune.study.objective import Objective
from face3d_tune.study.trials import trained_best_first


class ScriptFolders:
    """The folders of one study's trials on this machine (`search.KeptFiles`).

    They lie in the folder of the artifacts; with a bucket or without artifacts, in the machine's folder for temporary
    files, where a trial goes on only as long as they are there.

    Args:
        study: The study of the trials.
        artifacts: Where logs are kept; None: nowhere.
        unique: The study's name and id (`artifacts.unique_name`).
        keep: The number of finished trials whose folders are kept.
    """

    def __init__(self, study: optuna.Study, artifacts: Artifacts | None, unique: str, keep: int) -> None:
        self.note: Callable[[str], object] = lambda line: None
        self._study, self._artifacts, self._unique = study, artifacts, unique
        self._keep = keep
        place = artifacts.folder if artifacts else None
        self.root = (place or Path(tempfile.gettempdir()) / "face3d-tune") / study_folder(unique) / "trials"
        self._lasting = place is not None
        self._noted: set[str] = set()
        self._logged: set[int] = set()  # numbers of trials whose logs are kept

    def key(self, trial: FrozenTrial | optuna.Trial) -> str:
        """Return the name of a trial's folder, the same for every retry."""
        return f"trial-{lineage(trial)}"

    def take(self, trial: FrozenTrial) -> None:
        """Keep the log of an ended trial, and its folder if it is among the best; a requeued one goes on in it."""
        if TrialAttr.requeued.held_by(trial.user_attrs):
            return
        self._keep_log(trial)
        self.tidy()

    def tidy(self) -> None:
        """Keep the logs and remove the folders of trials whose worker died between the trial's end and `take`."""
        if not self.root.is_dir():
            return
        there = set(self.root.iterdir())  # first: what comes later may be of a trial that another worker begins
        trials = read_trials(self._study)
        self._keep_logs(there, trials)
        self._remove_others(there, trials)

    def _keep_logs(self, there: Set[Path], trials: Sequence[FrozenTrial]) -> None:
        """Keep the logs of ended trials whose worker has not done so: it died, or this one is faster."""
        ended = (trial for trial in trials if trial.state.is_finished() and trial.number not in self._logged)
        missing = [
            trial
            for trial in ended
            if not TrialAttr.requeued.held_by(trial.user_attrs)
            and trial_folder.log_of(self.root, self.key(trial)) in there
        ]
        if self._artifacts is None or not missing:
            return
        try:
            names = self._artifacts.names(logs_of(self._unique))
        except ArtifactError as error:
            self._note_once(f"the logs of trials are not kept: {error}")
            return
        for trial in missing:
            if log_of(self._unique, f"trial-{trial.number}") in names:
                self._logged.add(trial.number)
            else:
                self._keep_log(trial)

    def _keep_log(self, trial: FrozenTrial) -> None:
        if self._artifacts is None:
            return
        try:
            log = trial_folder.log_of(self.root, self.key(trial))
            if log.is_file():
                self._artifacts.write(log_of(self._unique, f"trial-{trial.number}"), log.read_bytes())
            self._logged.add(trial.number)
        except (ArtifactError, OSError) as error:
            self._note_once(f"the log of trial {trial.number} is not kept: {error}")

    @cached_property
    def _objective(self) -> Objective:
        return Objective.of_study(self._study.user_attrs)

    def _remove_others(self, there: Set[Path], trials: Sequence[FrozenTrial]) -> None:
        """Remove every folder but those of trials that may go on, and of the best that finished here."""
        best = trained_best_first(trials, self._objective)[: self._keep if self._lasting else 0]
        unfinished = [trial for trial in trials if not trial.state.is_finished()]
        keys = [self.key(trial) for trial in (*best, *unfinished)]
        kept = {place(self.root, key) for key in keys for place in (trial_folder.of, trial_folder.log_of)}
        for path in there - kept:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _note_once(self, line: str) -> None:
        if line not in self._noted:
            self._noted.add(line)
            self.note(line)
