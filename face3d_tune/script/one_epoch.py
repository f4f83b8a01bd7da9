"""The command of a trial of a user's script, tried until its first epoch has ended, in a temporary folder."""

import math
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev

from face3d_tune.errors import ScriptError
from face3d_tune.executor.tasks import Failure, ScriptEpoch
from face3d_tune.script.command import command
from face3d_tune.script.export_trial import epochs_of, values_of
from face3d_tune.script.flags import Script
from face3d_tune.script.running import trial_folder
from face3d_tune.script.running.slots import ScriptSlots
from face3d_tune.script.running.tasks import ScriptTask
from face3d_tune.script.study_running import running
from face3d_tune.study.attrs import StoredScript, StudyAttr, TrialAttr
from face3d_tune.study.history import History
from face3d_tune.study.lookup import StoredTrial
from face3d_tune.study.objective import Objective

_KEY = "check"
_STORED = 1e-5  # relative: histories are stored with six digits
_ENOUGH_TRIALS = 5  # to know how far trials differ


@dataclass(frozen=True, slots=True)
class OneEpoch:
    """The numbers of a first epoch, by name, and how long it took with the script's start."""

    numbers: Mapping[str, float]
    seconds: float


def try_command(stored: StoredTrial, table: StoredScript, script: Script, timeout: float) -> OneEpoch:
    """Run the command of a trial, as it is, until its first epoch has ended; then end it with all that it started.

    Every epoch of a schedule depends on how many there are, so the script is told the trial's. Raises ScriptError, with
    what the script printed, if it gives no epoch within `timeout` seconds.
    """
    attrs, epochs = stored.trial.user_attrs, epochs_of(stored.study_attrs, stored.trial.user_attrs)
    config, seed = values_of(stored.study_attrs, attrs), TrialAttr.seed.get(attrs)
    words = command(table, script, config, seed=seed, epochs=epochs).words
    with tempfile.TemporaryDirectory(prefix="face3d-tune-", ignore_cleanup_errors=True) as name:
        folder, started = Path(name), time.monotonic()
        how = replace(running(table, script, study=folder.name), time_limit=timeout)
        with closing(ScriptSlots(how, folder, 1, ["cpu"], os.cpu_count() or 1)) as slots:
            slots.start(ScriptTask(0, tuple(words), _KEY))
            while True:
                for event in slots.wait():
                    match event.content:
                        case ScriptEpoch(_, numbers):
                            return OneEpoch(numbers, time.monotonic() - started)
                        case Failure(message):
                            log = trial_folder.log_of(folder, _KEY)
                            printed = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
                            raise ScriptError(
                                f"{script.path} does not train with these flags: {message}", None, printed
                            )


def difference(tried: OneEpoch, stored: StoredTrial) -> list[str]:
    """Compare a first epoch with the trial's, as lines for a person.

    "Far" is farther than the standard deviation of the study's trials there.
    """
    objective = Objective.of_study(stored.study_attrs)
    table, number = StudyAttr.script.of(stored.study_attrs), stored.trial.number
    values, now = History.of(stored.trial, objective).values(objective), tried.numbers[objective.name]
    if not values:
        return ["check: nothing to compare: the trial stored no first epoch"]
    lines = [
        f"check: after epoch 1 {objective.said(now)}; trial {number} had {objective.said(values[0])}",
    ]
    if math.isclose(now, values[0], rel_tol=_STORED):
        return [*lines, "check: that is the same number"]
    if table["seed_flag"] is not None:
        lines.append("note: the seed is the trial's, so the script is not exact, or its data or this machine differ")
    firsts = [History.of(trial, objective).values(objective)[:1] for trial in stored.trials]
    known = [first for (first,) in filter(None, firsts)]
    if len(known) >= _ENOUGH_TRIALS and abs(now - values[0]) > stdev(known):
        lines.append(
            f"warning: that is far: the trials of this study differ from each other by {stdev(known):.4g} there"
        )
    return lines
