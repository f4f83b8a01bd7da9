"""What a person tells a study from outside of its search: try a config, stop, exclude a trial, bring it back.

Each function returns what to tell the person, in lines. None needs the right to search in a SQLite file, which a
running search has.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from face3d_tune.search.added_trials import enqueue_tried
from face3d_tune.search.exclude import bring_back, exclude
from face3d_tune.search.stop import request_stop
from face3d_tune.search.trial_queue import TrialQueue
from face3d_tune.search.tried_config import tried_config
from face3d_tune.storage.workers import read_workers
from face3d_tune.study.objective import Objective
from face3d_tune.study.trials import FINISHED, best_trial, budget_of


def try_config(
    study: optuna.Study,
    storage: RDBStorage,
    values: Sequence[str],
    *,
    preset: str | None = None,
    like: int | None = None,
) -> list[str]:
    """Queue a config as a trial. Raises the errors of `tried_config`."""
    words = [*values, *(["--preset", preset] if preset else []), *([] if like is None else ["--like", str(like)])]
    config = tried_config(study, values, preset=preset, like=like)
    number = enqueue_tried(study, storage.engine, config.params, config.overrides, words)
    sampled = [f"the sampler chooses {', '.join(config.sampled)}"] if config.sampled else []
    given = _listed({**config.params, **config.overrides})
    return [
        f"queued as trial {number} of study {study.study_name!r}: {given}",
        *sampled,
        _what_is_next(study, TrialQueue(study, storage)),
    ]


def stop_search(study: optuna.Study, storage: RDBStorage, *, now: bool, by: str | None = None) -> list[str]:
    """Ask every worker of the study to stop, if there is one."""
    name, workers = study.study_name, living_workers(study, storage)
    if not workers:
        return [f"no search of study {name!r} runs: nothing to stop"]
    request_stop(study, now=now, by=by)
    listed = ", ".join(workers)
    asked = f"study {name!r}: asked {len(workers)} worker(s) to stop after the epochs that they train: {listed}"
    at_once = f"study {name!r}: asked {len(workers)} worker(s) to stop at once: {listed}"
    return [at_once if now else asked, "trials in training are queued again; `face3d-tune run` resumes them"]


def exclude_trial(
    study: optuna.Study, storage: RDBStorage, number: int, reason: str = "", by: str | None = None
) -> list[str]:
    """Take a trial out of the study. Raises the errors of `exclude`."""
    return _with_best(study, lambda: exclude(study, storage.engine, number, reason, by))


def bring_trial_back(study: optuna.Study, storage: RDBStorage, number: int) -> list[str]:
    """Let an excluded trial count again. Raises the errors of `bring_back`."""
    return _with_best(study, lambda: bring_back(study, storage.engine, number))


def living_workers(study: optuna.Study, storage: RDBStorage) -> list[str]:
    """Name the workers that search the study now, by host and process."""
    rows = read_workers(storage.engine, storage.get_study_id_from_name(study.study_name))
    return [f"{row.host}:{row.pid}" for row in rows if row.alive]


def _with_best(study: optuna.Study, change: Callable[[], str]) -> list[str]:
    """Change which trials count, and say which one is the best now, if it is another."""
    before, line, best = best_trial(study), change(), best_trial(study)
    if best is None or best.value is None:
        return [line, "no completed trial counts now"]
    if before is not None and best.number == before.number:
        return [line]
    return [line, f"the best is now trial {best.number}: {Objective.of_study(study.user_attrs).said(best.value)}"]


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} = {str(value).lower() if isinstance(value, bool) else value}" for name, value in values.items()
    )


def _what_is_next(study: optuna.Study, queue: TrialQueue) -> str:
    """Return who trains the queued trial, and when."""
    counts, budget = queue.counts(), budget_of(study.user_attrs)
    spent = sum(counts.get(state, 0) for state in (*FINISHED, TrialState.RUNNING))
    waiting = counts.get(TrialState.WAITING, 0)
    if budget is not None and spent + waiting > budget:
        return (
            f"the budget of {budget} trials does not reach it: `face3d-tune run --trials {spent + waiting}` trains it"
        )
    if living_workers(study, queue.storage):
        return "a running search trains it as soon as a slot is free"
    return "no search of this study runs: the next `face3d-tune run` trains it"
