"""optuna-dashboard's answer on a study, which may hold 10,000 trials: its own fields, with the additions.

Finished trials never change. They are made into JSON a hundred at a time, once, and kept compressed. Such a piece is
made again when what may change about one of its trials does: its note, its files, whether a person excluded it.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.dashboard.gzip_pieces import Piece
from face3d_tune.dashboard.study_additions import (
    StudyAdditions,
    to_display,
    trial_with_additions,
    with_additions,
)
from face3d_tune.dashboard.upstream import Shape, StudyRecord, shape, trial_text
from face3d_tune.storage.optuna_internals import trial_id
from face3d_tune.system.collector import collector_paused

_SIZE = 100  # trials of a piece
_COMMA = Piece.of(b",")


@dataclass(frozen=True, slots=True)
class _Part:
    """Up to a hundred trials in a row."""

    piece: Piece
    shapes: Mapping[Shape, FrozenTrial]  # the last trial of each shape
    columns: set[str]  # of the table of trials
    made_of: Any  # what may change about finished trials


class StudyAnswer:
    """The answer on one study; for one request at a time.

    Args:
        storage: Optuna's cache of the storage.
        study_id: Of the study.
    """

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id
        self._finished: dict[int, _Part] = {}  # by the place of the first trial

    def pieces(self, after: int, additions: StudyAdditions) -> list[Piece] | None:
        """Return the answer with the trials from place `after` on.

        None if optuna-dashboard has to answer: the study has several objectives, or people compare its trials. Raises
        KeyError if the study is gone.
        """
        record = StudyRecord.read(self._storage, self._study_id)
        if not record.is_plain:
            return None
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        answer = _Answer(record, additions)
        pieces, shapes, columns = [], dict[Shape, FrozenTrial](), set[str]()
        changeable = answer.changeable(trials)
        with collector_paused():
            for start in range(0, len(trials), _SIZE):
                part = self._part(start, trials[start : start + _SIZE], answer, changeable.get(start, {}))
                shapes |= part.shapes
                columns |= part.columns
                if start >= after:
                    pieces += [_COMMA, part.piece]
                elif rest := trials[after : start + _SIZE]:
                    pieces += [_COMMA, answer.piece(rest)[0]]
        best = [self._storage.get_best_trial(self._study_id)] if _any_completed(trials) else []
        newest = sorted(shapes.values(), key=lambda trial: trial.number)
        ending = answer.ending(newest, best, columns)
        return [Piece.of(b'{"trials":['), *pieces[1:], Piece.of(b"]," + ending[1:])]

    def _part(self, start: int, trials: Sequence[FrozenTrial], answer: "_Answer", changeable: Any) -> _Part:
        known = self._finished.get(start)
        if known is not None and known.made_of == (answer.own, changeable):
            return known
        piece, columns = answer.piece(trials)
        part = _Part(piece, {shape(trial): trial for trial in trials}, columns, (answer.own, changeable))
        if len(trials) == _SIZE and all(trial.state.is_finished() for trial in trials):
            self._finished[start] = part
        return part


class _Answer:
    """One study as it is now."""

    def __init__(self, record: StudyRecord, additions: StudyAdditions) -> None:
        self._record, self._additions = record, additions
        self.own = bool(additions.note)

    def changeable(self, trials: Sequence[FrozenTrial]) -> dict[int, dict[int, Any]]:
        """Return what may change about finished trials, by number of the trial, and by place of the part's first."""
        found: dict[int, dict[int, Any]] = defaultdict(dict)
        added, stored = self._additions.numbers(), self._record.of_trials
        for place, trial in enumerate(trials if added or stored else ()):
            if trial.number in added or trial_id(trial) in stored:
                of_trial = self._additions.of_trial(trial.number), stored.get(trial_id(trial))
                found[place // _SIZE * _SIZE][trial.number] = of_trial
        return found

    def piece(self, trials: Sequence[FrozenTrial]) -> tuple[Piece, set[str]]:
        """Return trials as compressed JSON, with commas between them, and the columns that they have in the table."""
        columns, texts = set[str](), []
        for trial in trials:
            attrs = self._attrs(trial)
            columns.update(attrs)
            texts.append(self._text(trial, attrs))
        return Piece.of(",".join(texts).encode()), columns

    def _attrs(self, trial: FrozenTrial) -> Mapping[str, Any]:
        """Return the user attributes that the table shows."""
        return to_display(trial, self._additions.of_trial(trial.number)) if self.own else trial.user_attrs

    def _text(self, trial: FrozenTrial, attrs: Mapping[str, Any]) -> str:
        fields = self._record.trial_fields(trial, attrs)
        if self.own:
            fields = trial_with_additions(fields, self._additions.of_trial(trial.number))
        return trial_text(fields, trial)

    def ending(self, shapes: Sequence[FrozenTrial], best: Sequence[FrozenTrial], columns: set[str]) -> bytes:
        """Return the fields of the study, without its trials, as JSON."""
        fields = self._record.fields(shapes)
        if self.own:
            fields = with_additions(fields, self._additions, columns)
        del fields["trials"]
        fields["best_trials"] = [json.loads(self._text(trial, self._attrs(trial))) for trial in best]
        return json.dumps(fields).encode()


def _any_completed(trials: Sequence[FrozenTrial]) -> bool:
    return any(trial.state == TrialState.COMPLETE for trial in trials)
