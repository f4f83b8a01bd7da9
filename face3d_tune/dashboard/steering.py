"""Buttons of the dashboard that steer a search: try a config, stop, exclude a trial. Only where changes are allowed.

The page of optuna-dashboard has no place for them. A script of ours adds them; it sends what a person typed as JSON,
which a form of another site cannot send.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RDBStorage

from face3d_tune.dashboard.wsgi import READING, refuse, send, send_json
from face3d_tune.errors import ConfigError, TuneError
from face3d_tune.search import steering
from face3d_tune.search.stop import Stop
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.exclusions import excluded, exclusions_in
from face3d_tune.study.other_programs import is_own_study
from face3d_tune.study.trials import every_preset, stopped
from face3d_tune.system.person import person

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

SCRIPT = "/face3d-tune-steering.js"
_STEERING = re.compile(r"/api/studies/(\d+)/steering(?:/(try|stop|exclude))?")
_LONGEST = 20_000  # bytes of a request


class Steering:
    """A WSGI application around another, which answers what the buttons ask.

    Args:
        app: The dashboard.
        storage: Where the studies are.
        changed: Called with the id of a study that was changed.
    """

    def __init__(self, app: "WSGIApplication", storage: RDBStorage, changed: Callable[[int], object]) -> None:
        self._app, self._storage, self._changed = app, storage, changed
        self._script = files("face3d_tune.dashboard").joinpath("steering.js").read_bytes()
        self._actions: dict[str, Callable[[optuna.Study, Mapping[str, Any]], list[str]]] = {
            "try": self._try,
            "stop": self._stop,
            "exclude": self._exclude,
        }

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer with what was done, in lines, or with why it was not."""
        path, reading = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"] in READING
        if path == SCRIPT:
            return send(start_response, "200 OK", {"Content-Type": "text/javascript"}, self._script)
        asked = _STEERING.fullmatch(path)
        if asked is None:
            return self._app(environ, start_response)
        if reading == (asked[2] is not None):
            return refuse(start_response, HTTPStatus.METHOD_NOT_ALLOWED, "look with GET, change with POST")
        try:
            study = self._study(int(asked[1]))
            if reading:
                return send_json(start_response, HTTPStatus.OK, self._state(study))
            lines = self._actions[asked[2]](study, _content(environ))
            self._changed(int(asked[1]))
        except TuneError as error:
            reason = f"{error.message} ({error.hint})" if error.hint else error.message
            return refuse(start_response, HTTPStatus.BAD_REQUEST, reason)
        except KeyError as error:  # the study was deleted meanwhile
            return refuse(start_response, HTTPStatus.NOT_FOUND, f"the study is gone: {error}")
        return send_json(start_response, HTTPStatus.OK, {"lines": lines})

    def _study(self, study_id: int) -> optuna.Study:
        name = self._storage.get_study_name_from_id(study_id)
        study = optuna.load_study(study_name=name, storage=self._storage)
        if not is_own_study(study):
            raise ConfigError(f"study {name!r} was not made by face3d-tune")
        return study

    def _state(self, study: optuna.Study) -> dict[str, Any]:
        """Return what the forms show: names to choose, workers, a stop, excluded trials."""
        attrs = study.user_attrs
        return {
            "study": study.study_name,
            "parameters": list(StudyAttr.settings.of(attrs)["space"]),
            "presets": [row.name for row in every_preset(study) if row.trial is not None],
            "workers": steering.living_workers(study, self._storage),
            "stop": str(Stop(**held)) if (held := stopped(attrs)) else None,
            "excluded": dict(zip(exclusions_in(attrs), excluded(attrs), strict=True)),
        }

    def _try(self, study: optuna.Study, content: Mapping[str, Any]) -> list[str]:
        try:
            values = shlex.split(_text(content, "values"))
        except ValueError as error:
            raise ConfigError(f"the values cannot be read: {error}", "e.g. lr=3e-4 dropout=0.3") from error
        preset, like = _text(content, "preset"), _number(content, "like")
        if preset and like is not None:
            raise ConfigError("a preset and a trial both give the other values; expected one of them")
        if not values and not preset and like is None:
            raise ConfigError("nothing to try; expected NAME=VALUE, a preset or a trial")
        return steering.try_config(study, self._storage, values, preset=preset or None, like=like)

    def _stop(self, study: optuna.Study, content: Mapping[str, Any]) -> list[str]:
        return steering.stop_search(study, self._storage, now=content.get("now") is True, by=_visitor())

    def _exclude(self, study: optuna.Study, content: Mapping[str, Any]) -> list[str]:
        number = _number(content, "trial")
        if number is None:
            raise ConfigError("no trial to exclude; expected its number")
        if content.get("undo") is True:
            return steering.bring_trial_back(study, self._storage, number)
        return steering.exclude_trial(study, self._storage, number, _text(content, "reason"), _visitor())


def _visitor() -> str:
    """Name the dashboard: it knows who started it, not who opens it."""
    return f"the dashboard of {person()}"


def _content(environ: "WSGIEnvironment") -> Mapping[str, Any]:
    """Return the JSON object of a request. Raises ConfigError."""
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != "application/json":
        raise ConfigError("expected a request with Content-Type: application/json")
    try:
        size = int(environ.get("CONTENT_LENGTH") or 0)
        content = json.loads(environ["wsgi.input"].read(size)) if size <= _LONGEST else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ConfigError(f"expected a JSON object of at most {_LONGEST} bytes")
    return content


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name, "")
    if not isinstance(value, str):
        raise ConfigError(f"{name} should be a text")
    return value.strip()


def _number(content: Mapping[str, Any], name: str) -> int | None:
    value = content.get(name)
    if value is not None and type(value) is not int:
        raise ConfigError(f"{name} should be the number of a trial")
    return value
