"""When so many trials in a row failed that a search has to end: the cause is the machine, the space or the data."""

from collections import Counter

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.errors import TrainingError
from face3d_tune.search.retries import lineage
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.causes import OF_THE_CONFIG, cause, count_causes, in_words

_ERRORS_IN_A_ROW = 5  # after so many failures in a row the cause is not the config
_HOPELESS_IN_A_ROW = 20  # per slot; after so many failures by their config the space is to blame


class FailuresInARow:
    """The trials of one worker that failed since one finished.

    Args:
        study: What is searched.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._failures: list[FrozenTrial] = []

    def take(self, trial: FrozenTrial, slots: int) -> None:
        """Count a trial that has ended, with so many in training at once now. Raises TrainingError after too many."""
        self._failures = [*self._failures, trial] if trial.state == TrialState.FAIL else []
        errors = [failed for failed in self._failures if TrialAttr.cause.get(failed.user_attrs) not in OF_THE_CONFIG]
        # One event may kill many processes, so of the retried deaths only those of one lineage count.
        deaths = Counter(lineage(failed) for failed in errors if TrialAttr.requeued.held_by(failed.user_attrs))
        in_a_row = len(errors) - deaths.total() + max(deaths.values(), default=0)
        if trial in errors and in_a_row >= _ERRORS_IN_A_ROW:
            raise TrainingError(
                f"{in_a_row} trials in a row failed; the last: {_reason(trial)}",
                "fix the cause and run the same command again; finished trials are kept",
            )
        hopeless = [failed for failed in self._failures if cause(failed) in OF_THE_CONFIG]
        if len(hopeless) >= _HOPELESS_IN_A_ROW * max(1, slots):
            raise TrainingError(
                f"{len(self._failures)} trials in a row failed ({in_words(count_causes(self._failures))}); "
                f"the last: {_reason(trial)}",
                self._hint_of_hopeless(),
            )

    def _hint_of_hopeless(self) -> str:
        """Blame the space; or the data, if the loss was not finite at once with presets, too: they work elsewhere."""
        at_once = all(cause(trial) == "diverged" and not trial.intermediate_values for trial in self._failures)
        if not at_once or not any(TrialAttr.preset.get(trial.user_attrs) for trial in self._failures):
            return (
                "narrow [space] in a copy of the study file (lr where trials diverge, num_layers and width where "
                "memory runs out) and search that as another study"
            )
        if StudyAttr.script.held_by(self._study.user_attrs):
            return "not even a preset got through its first epoch, so the cause is the data, not lr"
        return (
            "not even a preset got through its first epoch, so the cause is the data, not lr: "
            "`face3d-tune data check` names rows of huge numbers"
        )


def _reason(trial: FrozenTrial) -> str:
    return str(TrialAttr.error.get(trial.user_attrs, "no reason given"))
