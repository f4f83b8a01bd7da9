"""Additions to optuna-dashboard's answers on a study: notes, figures, artifacts, numbers to sort by.

Nothing is stored. A request works the additions out from the study, so they are never stale. They exist also for
studies that other people or earlier versions made, and need neither a right to write nor room in the database.
"""

import json
import math
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl
from uuid import NAMESPACE_URL, uuid5

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from face3d_tune.analysis.curve import curve_picture, numbers_picture
from face3d_tune.analysis.findings import Findings, find
from face3d_tune.analysis.of_script import further_numbers
from face3d_tune.dashboard import excluded_notes
from face3d_tune.dashboard.figures import figures, pruned_with_curves
from face3d_tune.dashboard.guard import DRAWN
from face3d_tune.dashboard.notes import FOREIGN, command, study_note, trial_note
from face3d_tune.dashboard.shown_study import ShownStudy
from face3d_tune.dashboard.study_additions import Artifact, StudyAdditions
from face3d_tune.dashboard.wsgi import READING, refuse, send, send_pieces, whole
from face3d_tune.errors import ArtifactError
from face3d_tune.storage.artifacts import Artifacts, best_weights, log_of, logs_of, unique_name
from face3d_tune.storage.failures import is_away
from face3d_tune.storage.optuna_internals import NO_RECORD
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.causes import cause
from face3d_tune.study.exclusions import exclusions_in, said
from face3d_tune.study.history import History, with_histories
from face3d_tune.study.other_programs import is_foreign, is_own_study

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_STUDY = re.compile(r"/api/studies/(\d+)")
_READS = re.compile(r"/(?:api/studies|csv|artifacts)/(\d+)(?:/.*)?")  # all trials of a study
_ARTIFACT = re.compile(r"/artifacts/(\d+)/(\d+)/([0-9a-f-]+)")
_FAILED = 20  # of the last failed trials of a script that get a note


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
        self._shown: dict[int, ShownStudy] = {}
        self._adding = threading.Lock()
        self._reported: set[str] = set()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer with Optuna's answer and the additions."""
        path = environ.get("PATH_INFO", "").rstrip("/")
        if environ["REQUEST_METHOD"] in READING:
            if reads := _READS.fullmatch(path):
                with suppress(KeyError):  # the study is gone, which the answer says
                    self._one(int(reads[1])).read()
            if study := _STUDY.fullmatch(path):
                return self._study(int(study[1]), environ, start_response)
            if path == "/api/meta":
                return self._meta(environ, start_response)
            if file := _ARTIFACT.fullmatch(path):
                if artifact := self._one(int(file[1])).additions().artifact(file[3]):
                    environ[DRAWN] = artifact.drawn
                    return self._send(artifact, start_response)
                if not self._holds(file[2]):  # where Optuna's own answer would fail
                    return refuse(start_response, HTTPStatus.NOT_FOUND, f"trial_id={file[2]} is not found")
        return self._app(environ, start_response)

    def _study(self, study_id: int, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        try:
            pieces = self._one(study_id).pieces(_after(environ))
        except KeyError as error:
            if error.args != (NO_RECORD,):
                raise
            return refuse(start_response, HTTPStatus.NOT_FOUND, f"study_id={study_id} is not found")
        return self._app(environ, start_response) if pieces is None else send_pieces(environ, start_response, pieces)

    def _meta(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        status, headers, body = whole(self._app, environ)
        if status.startswith("200") and body:
            body = json.dumps(json.loads(body) | {"artifact_is_available": True}).encode()
        return send(start_response, status, headers, body)

    def prepare(self, study_id: int) -> None:
        """Make the answer on a study before a visitor asks for it."""
        self._one(study_id).prepare()

    def forget(self, study_id: int) -> None:
        """Work the additions to a study out again at the next request: it has just been changed."""
        self._one(study_id).forget()

    def _one(self, study_id: int) -> ShownStudy:
        with self._adding:
            if study_id not in self._shown:
                self._shown[study_id] = ShownStudy(self._storage, study_id, self._work_out)
            return self._shown[study_id]

    def _holds(self, trial_id: str) -> bool:
        try:
            self._storage.get_trial(int(trial_id))
        except (KeyError, OverflowError, ValueError):
            return False
        return True

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
            whole = with_histories(study, [*noted, *pruned_with_curves(findings)])
            findings, noted = findings.with_records(whole), [whole[trial.number] for trial in noted]
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
            if is_away(error):
                raise
            self._tell(f"study {name}: notes and figures could not be made: {type(error).__name__}: {error}")
            return StudyAdditions()

    def _files(self, findings: Findings, trial: FrozenTrial) -> list[Artifact]:
        files, values = [], History.of(trial, findings.objective).values(findings.objective)
        kept = TrialAttr.best_epoch.get(trial.user_attrs)  # any JSON, if another program stored it
        if type(kept) is int and 1 <= kept <= len(values) and any(map(math.isfinite, values)):
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


def _after(environ: "WSGIEnvironment") -> int:
    """Return the number of the first trial that a visitor asks for."""
    asked = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    return int(asked.get("after", 0))


def _picture(findings: Findings, trial: FrozenTrial) -> bytes:
    history, best_epoch = History.of(trial, findings.objective), TrialAttr.best_epoch.of(trial.user_attrs)
    if findings.script is not None:
        names = [findings.objective.name, *further_numbers(history.numbers, findings.script)]
        return numbers_picture(history, best_epoch, names).encode()
    return curve_picture(history, best_epoch, findings.no_model).encode()
