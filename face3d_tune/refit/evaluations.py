"""Evaluations on the test people, counted for all studies of a storage with the same data.

`confirm` stores its own with what it found, with and without rotations. Any other command stores one as an attribute of
its own with every such study, so that none is lost when two commands end at once.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage

from face3d_tune.study.attrs import StudyAttr

_STORED = "look:"  # prefix of a study's user attributes: one evaluation each

Evaluation = Mapping[str, Any]  # `time`, `command`, and `compared`: names of what was evaluated


def recorded(storage: BaseStorage, fingerprint: str) -> list[Evaluation]:
    """Return all evaluations on the test people of these data so far, the first first."""
    looks: list[Evaluation] = []
    for attrs in _related(storage, fingerprint).values():
        for kind in (StudyAttr.confirmation, StudyAttr.rotation):  # each also stores the earlier ones
            looks += kind.get(attrs, {}).get("looks", [])
        looks += [value for key, value in attrs.items() if key.startswith(_STORED)]
    return sorted({(look["time"], look["command"]): look for look in looks}.values(), key=lambda look: look["time"])


def record(storage: BaseStorage, fingerprint: str, look: Evaluation) -> list[Evaluation] | None:
    """Store an evaluation with every study on these data; return all so far, or None if there is no such study."""
    studies = _related(storage, fingerprint)
    digest = hashlib.sha256(json.dumps(look, sort_keys=True).encode()).hexdigest()[:16]
    for name in studies:
        optuna.load_study(study_name=name, storage=storage).set_user_attr(_STORED + digest, dict(look))
    return recorded(storage, fingerprint) if studies else None


def _related(storage: BaseStorage, fingerprint: str) -> dict[str, Mapping[str, Any]]:
    """Return the attributes of every study on these data, by its name."""
    studies = optuna.get_all_study_summaries(storage, include_best_trial=False)
    return {
        each.study_name: each.user_attrs
        for each in studies
        if StudyAttr.data_fingerprint.get(each.user_attrs) == fingerprint
    }
