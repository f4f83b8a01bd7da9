"""Additions to optuna-dashboard's answers on a study: notes, figures, artifacts, numbers to sort by.

Nothing is stored. A request works the additions out from the study, so they are never stale. They exist also for
studies that other people or earlier versions made, and need neither a right to write nor room in the database.
"""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from face3d_tune.analysis.curve import curve_picture, numbers_picture
from face3d_tune.analysis.findings import Findings, find
from face3d_tune.analysis.of_script import further_numbers
from face3d_tune.dashboard import excluded_notes
from face3d_tune.dashboard.figures import figures
from face3d_tune.dashboard.guard import DRAWN
from face3d_tune.dashboard.notes import FOREIGN, command, study_note, trial_note
from face3d_tune.dashboard.wsgi import READING, refuse, send, whole
from face3d_tune.errors import ArtifactError
from face3d_tune.storage.artifacts import Artifacts, best_weights, log_of, logs_of, unique_name
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.exclusions import exclusions_in, said
from face3d_tune.study.history import History
from face3d_tune.study.other_programs import is_foreign, is_own_study
from face3d_tune.study.trials import cause

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_STUDY = re.compile(r"/api/studies/(\d+)")
_ARTIFACT = re.compile(r"/artifacts/(\d+)/(\d+)/([0-9a-f-]+)")
_FRESH = 5.0  # seconds for which additions are reused, at least
_SHARE = 20  # and this many times the seconds of working them out: at most a twentieth of one core
# In the note, counted by `confirm`, or too long for a table.
_UNSHOWN_OF_STUDY = re.compile(r"confirm:.*|.*confirmation|rotation|look:.*|.*_recognition|script|excluded")
# Too long for a table, or shown number by number.
_UNSHOWN = ("config", "overrides", "cosine_by_yaw", "recognition", "folds", "numbers")
_EXCLUDED = "excluded"  # the column of excluded trials
_FAILED = 20  # of the last failed trials of a script that get a note


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a trial, made or fetched on request."""

    filename: str
    mimetype: str
    read: Callable[[], bytes]
    drawn: bool = False  # by us: it contains nothing from outside


@dataclass(slots=True)
class StudyAdditions:
    """The additions to one study; trials by number, artifacts by id."""

    note: str = ""
    figures: list[dict[str, str]] = field(default_factory=list)
    trial_notes: dict[int, str] = field(default_factory=dict)
    trial_artifacts: dict[int, dict[str, Artifact]] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)  # who took a trial out, when and why
    stale_at: float = 0.0  # of time.monotonic

    def artifact(self, key: str) -> Artifact | None:
        """Return the artifact with that id."""
        return next((artifacts[key] for artifacts in self.trial_artifacts.values() if key in artifacts), None)


class Additions:
    """A WSGI application around optuna-dashboard's own.

    Args:
        app: optuna-dashboard.
        storage: The one that it shows.
        artifacts: Where best weights were kept, if anywhere.
        say: Told once what could not be worked out; then the study is shown as Optuna shows it.
    """

    def __init__(
        self, app: "WSGIApplication", storage: BaseStorage, artifacts: Artifacts | None, say: Callable[[str], object]
    ) -> None:
        self._app, self._storage, self._artifacts, self._say = app, storage, artifacts, say
        self._views: dict[int, StudyAdditions] = {}
        self._working = threading.Lock()
        self._reported: set[str] = set()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer with Optuna's answer and the additions."""
        path = environ.get("PATH_INFO", "").rstrip("/")
        if environ["REQUEST_METHOD"] == "GET":
            if study := _STUDY.fullmatch(path):
                number = int(study[1])
                return self._changed(environ, start_response, lambda answer: self._enrich(number, answer))
            if path == "/api/meta":
                return self._changed(environ, start_response, lambda meta: meta | {"artifact_is_available": True})
        if environ["REQUEST_METHOD"] in READING and (file := _ARTIFACT.fullmatch(path)):
            if artifact := self.view(int(file[1])).artifact(file[3]):
                environ[DRAWN] = artifact.drawn
                return self._send(artifact, start_response)
            if not self._holds(file[2]):  # where Optuna's own answer would fail
                return refuse(start_response, HTTPStatus.NOT_FOUND, f"trial_id={file[2]} is not found")
        return self._app(environ, start_response)

    def _holds(self, trial_id: str) -> bool:
        try:
            self._storage.get_trial(int(trial_id))
        except (KeyError, OverflowError, ValueError):
            return False
        return True

    def view(self, study_id: int) -> StudyAdditions:
        """Return the additions to a study, worked out again if they are stale."""
        with self._working:  # one at a time: the second request finds it done
            view = self._views.get(study_id)
            if view is None or view.stale_at < time.monotonic():
                started = time.monotonic()
                view = self._views[study_id] = self._work_out(study_id)
                ended = time.monotonic()
                view.stale_at = ended + max(_FRESH, _SHARE * (ended - started))
            return view

    def forget(self, study_id: int) -> None:
        """Work the additions to a study out again at the next request: it has just been changed."""
        self._views.pop(study_id, None)

    def _work_out(self, study_id: int) -> StudyAdditions:
        name = "?"
        try:
            name = self._storage.get_study_name_from_id(study_id)
            study = optuna.load_study(study_name=name, storage=self._storage)
            if not is_own_study(study):
                return StudyAdditions()
            findings = find(study)
            foreign = [trial.number for trial in study.get_trials(deepcopy=False) if is_foreign(trial)]
            noted, logs = findings.notable, self._logs(findings)
            if findings.script is not None:
                noted += [trial for trial in findings.trials if cause(trial)][-_FAILED:]
            files = {trial.number: self._files(findings, trial) for trial in noted}
            for number, log in logs.items():
                files.setdefault(number, []).append(log)
            return StudyAdditions(
                note=study_note(findings),
                figures=[{"id": key, "graph_object": json.dumps(drawn)} for key, drawn in figures(findings).items()],
                trial_notes=dict.fromkeys(foreign, FOREIGN)
                | {trial.number: trial_note(findings, trial) for trial in noted}
                | {trial.number: excluded_notes.of_trial(findings, trial) for trial in findings.excluded},
                excluded={number: said(number, each) for number, each in exclusions_in(findings.attrs).items()},
                trial_artifacts={number: _by_id(study_id, number, each) for number, each in files.items()},
            )
        except Exception as error:  # whatever it is, the dashboard itself must stay up
            self._tell(f"study {name}: notes and figures could not be made: {type(error).__name__}: {error}")
            return StudyAdditions()

    def _files(self, findings: Findings, trial: FrozenTrial) -> list[Artifact]:
        files, history = [], History.of(trial, findings.objective)
        if TrialAttr.best_epoch.held_by(trial.user_attrs) and any(
            map(math.isfinite, history.values(findings.objective))
        ):
            files.append(Artifact("learning-curve.svg", "image/svg+xml", lambda: _picture(findings, trial), drawn=True))
        if line := command(findings, trial):
            files.append(Artifact("command.txt", "text/plain", line.encode))
        if weights := self._weights(findings, trial):
            files.append(weights)
        return files

    def _logs(self, findings: Findings) -> dict[int, Artifact]:
        """Return what a script printed in each trial whose log is kept, by number; none for the built-in trainer."""
        artifacts = self._artifacts
        if artifacts is None or findings.script is None or not StudyAttr.id.held_by(findings.attrs):
            return {}
        unique = unique_name(findings.name, StudyAttr.id.of(findings.attrs))
        names = {
            log_of(unique, f"trial-{trial.number}"): trial.number for trial in (*findings.trials, *findings.excluded)
        }
        try:
            kept = artifacts.names(logs_of(unique))
        except ArtifactError as error:
            self._tell(error.message)
            return {}

        def log(name: str) -> Artifact:
            return Artifact("log.txt", "text/plain; charset=utf-8", lambda: artifacts.read(name) or b"")

        return {names[name]: log(name) for name in kept if name in names}

    def _weights(self, findings: Findings, trial: FrozenTrial) -> Artifact | None:
        if self._artifacts is None or not StudyAttr.id.held_by(findings.attrs):
            return None
        artifacts, name = (
            self._artifacts,
            best_weights(unique_name(findings.name, StudyAttr.id.of(findings.attrs)), f"trial-{trial.number}"),
        )
        try:
            if not artifacts.names(name):
                return None
        except ArtifactError as error:
            self._tell(error.message)
            return None
        return Artifact("best_model.pth", "application/octet-stream", lambda: artifacts.read(name) or b"")

    def _tell(self, line: str) -> None:
        if line not in self._reported:
            self._reported.add(line)
            self._say(line)

    def _changed(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", change: Callable[[Any], Any]
    ) -> list[bytes]:
        """Change the JSON that Optuna answers; pass on anything else as it is."""
        status, headers, body = whole(self._app, environ)
        if status.startswith("200"):
            body = json.dumps(change(json.loads(body))).encode()
        return send(start_response, status, headers, body)

    def _enrich(self, study_id: int, answer: dict[str, Any]) -> dict[str, Any]:
        view = self.view(study_id)
        if not view.note:
            return answer
        if not answer["note"]["body"]:  # keep what a person wrote: optuna-dashboard 0 lets people overwrite ours
            answer["note"] = {"version": answer["note"]["version"], "body": view.note}
        answer["user_attrs"] = [attr for attr in answer["user_attrs"] if not _UNSHOWN_OF_STUDY.fullmatch(attr["key"])]
        answer["plotly_graph_objects"] += view.figures
        for trial in answer["trials"] + answer["best_trials"]:
            if not trial["note"]["body"] and (note := view.trial_notes.get(trial["number"])):
                trial["note"] = {"version": trial["note"]["version"], "body": note}
            trial["artifacts"] += [
                {"artifact_id": key, "filename": file.filename, "mimetype": file.mimetype, "encoding": None}
                for key, file in view.trial_artifacts.get(trial["number"], {}).items()
            ]
            marks = (
                [{"key": _EXCLUDED, "value": view.excluded[trial["number"]]}]
                if trial["number"] in view.excluded
                else []
            )
            trial["user_attrs"] = _to_display(trial["user_attrs"]) + marks
        columns = {column["key"]: column for column in answer["union_user_attrs"] if column["key"] not in _UNSHOWN}
        bands = {attr["key"] for trial in answer["trials"] for attr in trial["user_attrs"]} - columns.keys()
        columns |= {key: {"key": key, "sortable": key != _EXCLUDED} for key in sorted(bands)}
        answer["union_user_attrs"] = list(columns.values())
        return answer

    def _send(self, artifact: Artifact, start_response: "StartResponse") -> list[bytes]:
        try:
            content = artifact.read()
        except ArtifactError as error:
            return refuse(start_response, HTTPStatus.BAD_GATEWAY, error.message)
        headers = {"Content-Type": artifact.mimetype}
        headers["Content-Disposition"] = f'inline; filename="{artifact.filename}"'
        return send(start_response, "200 OK", headers, content)


def _by_id(study_id: int, number: int, files: Iterable[Artifact]) -> dict[str, Artifact]:
    return {str(uuid5(NAMESPACE_URL, f"{study_id}/{number}/{file.filename}")): file for file in files}


def _to_display(attrs: list[dict[str, str]]) -> list[dict[str, str]]:
    """Select a trial's user attributes that fit a table: numbers and short texts."""
    rows = [attr for attr in attrs if attr["key"] not in _UNSHOWN and attr["value"] != "null"]
    several = ("cosine_by_yaw", "folds", "numbers")
    stored = {attr["key"]: json.loads(attr["value"]) for attr in attrs if attr["key"] in several}
    by_yaw, folds, numbers = (stored.get(key) for key in several)
    if isinstance(by_yaw, dict):  # another program may have stored something else under that name
        bands = {band: value for band, value in by_yaw.items() if value is not None}
        rows += [{"key": f"cosine |yaw| {band}°", "value": str(value)} for band, value in bands.items()]
    if isinstance(folds, list):
        measured = [fold for fold in folds if isinstance(fold, dict) and {"fold", "value"} <= fold.keys()]
        rows += [
            {"key": f"{'value' if 'val_cosine' in fold else 'cosine'} fold {fold['fold']}", "value": str(fold["value"])}
            for fold in measured
        ]
    if isinstance(numbers, dict):
        taken = {attr["key"] for attr in attrs}
        named = {f"{name} of the script" if name in taken else name: value for name, value in numbers.items()}
        rows += [{"key": name, "value": str(value)} for name, value in named.items()]
    return rows


def _picture(findings: Findings, trial: FrozenTrial) -> bytes:
    history, best_epoch = History.of(trial, findings.objective), TrialAttr.best_epoch.of(trial.user_attrs)
    if findings.script is not None:
        names = [findings.objective.name, *further_numbers(history.numbers, findings.script)]
        return numbers_picture(history, best_epoch, names).encode()
    return curve_picture(history, best_epoch, findings.no_model).encode()
