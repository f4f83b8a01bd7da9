"""The private names of optuna-dashboard that the dashboard depends on; no other module has one.

optuna-dashboard may change them in any release. A test compares every field of its own answer with ours.
"""

import copy
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._inmemory_cache import _CachedExtraStudyProperty
from optuna_dashboard._serializer import serialize_frozen_trial, serialize_study_detail
from optuna_dashboard._storage import get_study

from face3d_tune.storage.optuna_internals import NO_RECORD, trial_id

Shape = tuple[Any, ...]
_PREFERENTIAL = "preference:is_preferential"  # the system attribute of a study whose trials people compare by hand
_OF_A_TRIAL = re.compile(r"dashboard:(?:artifacts:)?(\d+):.*", re.DOTALL)  # a note or an upload, stored with the study
_CURVE = "intermediate_values"
_NOT_FINITE = {"NaN": '"nan"', "Infinity": '"inf"', "-Infinity": '"-inf"'}  # JSON has no such numbers
_dumps = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as it is stored now, without its trials."""

    study_id: int
    frozen: Any  # Optuna's record
    of_trials: Mapping[int, Mapping[str, Any]]  # notes and uploads of trials, by id of the trial

    @classmethod
    def read(cls, storage: BaseStorage, study_id: int) -> "StudyRecord":
        """Read it. Raises KeyError if there is no such study."""
        frozen = get_study(storage, study_id)
        if frozen is None:
            raise KeyError(NO_RECORD)
        of_trials: dict[int, dict[str, Any]] = defaultdict(dict)
        for key, value in frozen.system_attrs.items():
            if whose := _OF_A_TRIAL.fullmatch(key):
                of_trials[int(whose[1])][key] = value
        return cls(study_id, frozen, of_trials)

    @property
    def is_plain(self) -> bool:
        """Tell whether its answer is made here: it has one objective, and values that no person compared by hand."""
        return len(self.frozen.directions) == 1 and not self.frozen.system_attrs.get(_PREFERENTIAL, False)

    def fields(self, shapes: Sequence[FrozenTrial]) -> dict[str, Any]:
        """Return the fields of the answer but its trials; `shapes` has a trial of each `shape`, by number."""
        known = _CachedExtraStudyProperty()
        known.update(list(shapes))
        fields: dict[str, Any] = serialize_study_detail(
            self.frozen,
            [],
            [],
            known.intersection_search_space,
            known.union_search_space,
            known.union_user_attrs,
            known.has_intermediate_values,
            get_plotly_graph_objects(self.frozen.system_attrs),
            [],
        )
        return fields

    def trial_fields(self, trial: FrozenTrial, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a trial without its curve; `attrs` are the user attributes to show."""
        stand_in = copy.copy(trial)
        stand_in.intermediate_values, stand_in.user_attrs = {}, dict(attrs)
        own = self.of_trials.get(trial_id(trial), {})
        fields: dict[str, Any] = serialize_frozen_trial(self.study_id, stand_in, own)
        return fields


def shape(trial: FrozenTrial) -> Shape:
    """Return what a trial contributes to the fields of its study: parameters, attributes, and whether it has a curve.

    Trials of one shape contribute the same. Distributions are told apart as objects.
    """
    attrs = tuple(
        (key, isinstance(value, int | float) and not isinstance(value, bool)) for key, value in trial.user_attrs.items()
    )
    if trial.state == TrialState.FAIL:
        return (attrs,)
    space = tuple((name, id(distribution)) for name, distribution in trial.distributions.items())
    return attrs, space, bool(trial.intermediate_values)


def trial_text(fields: dict[str, Any], trial: FrozenTrial) -> str:
    """Return as JSON what `trial_fields` gave, with the trial's curve.

    optuna-dashboard takes most of its time for the curves.
    """
    del fields[_CURVE]
    return f'{_dumps(fields)[:-1]},"{_CURVE}":[{_curve(trial.intermediate_values)}]}}'


def _curve(values: Mapping[int, float]) -> str:
    steps = sorted(values)
    texts: Iterable[str] = _dumps([values[step] for step in steps])[1:-1].split(",") if steps else ()
    if not all(map(math.isfinite, values.values())):
        texts = [_NOT_FINITE.get(text, text) for text in texts]
    return ",".join([f'{{"step":{step},"value":{text}}}' for step, text in zip(steps, texts, strict=True)])
