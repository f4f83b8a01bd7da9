"""`face3d-tune watch`: the live picture of a search that runs elsewhere."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say
from face3d_tune.cli.options import ONLY_STUDY, storage_option, study_name_option
from face3d_tune.study.attrs import StudyAttr, TrialAttr

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from face3d_tune.cli.live import InTraining, Picture
    from face3d_tune.cli.progress import Tally

_EVERY = 2.0  # seconds between two reads


@click.command(cls=Command, epilog=example("face3d-tune watch\nface3d-tune watch --study-name stage1-lr"))
@storage_option
@study_name_option(ONLY_STUDY)
def watch(storage: str, study_name: str | None) -> None:
    """Follow a search from another terminal until it is done."""
    import optuna
    from optuna.trial import FrozenTrial

    from face3d_tune.analysis.recognising import warning
    from face3d_tune.cli.console import Console
    from face3d_tune.cli.progress import Tally, ended, live_on, room_of
    from face3d_tune.cli.streams import reader_gone
    from face3d_tune.errors import StorageError, StudyError
    from face3d_tune.search.exclude import changes
    from face3d_tune.search.target import reached_by_any
    from face3d_tune.storage.database import Storage
    from face3d_tune.storage.optuna_internals import study_id, trial_id
    from face3d_tune.storage.study_names import existing_name
    from face3d_tune.study.exclusions import Exclusions, exclusions_in, read_trials
    from face3d_tune.study.lookup import find_study
    from face3d_tune.study.objective import Objective
    from face3d_tune.study.other_programs import is_foreign, own_trials
    from face3d_tune.study.storage_cache import StorageCache
    from face3d_tune.study.trials import best_trial, budget_of, effort_of, stopped

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = Storage.parse(storage)
    console = Console(soft_wrap=True)
    with place.opened(curves=False) as opened:
        name = existing_name(opened, study_name)
        cache, key, away = StorageCache(opened, lambda cached: find_study(cached, name)), None, ""
        tally, seen, looked, stop = Tally(name, None), set[int](), False, None
        excluded: Exclusions = {}
        whole: dict[int, FrozenTrial] = {}  # trials read again with their epochs, by id

        def with_epochs(trial: FrozenTrial) -> FrozenTrial:
            key = trial_id(trial)
            return whole.get(key) or whole.setdefault(key, opened.get_trial(key))

        picture = _picture(tally, [], {})
        with live_on(console, lambda: picture):
            while True:
                try:
                    with place.explained():
                        now = cache.look()
                        study = now.built
                        attrs = study.user_attrs
                        effort = effort_of(attrs)  # of the last `run`, which may begin meanwhile
                        trials = read_trials(study)
                    away = ""
                except (StorageError, StudyError, KeyError) as error:  # the storage may come back
                    gone = f"study {name!r} is gone (deleted or renamed); waiting for a study of that name"
                    reason = error.message if isinstance(error, StorageError) else gone
                    if reason != away:
                        console.print(away := reason)
                    picture = _picture(tally, [], {})
                    time.sleep(_EVERY)
                    continue
                if looked and now.keys.get(study_id(study)) != key:
                    console.print(f"study {name!r} was replaced by another of that name, which is watched from here on")
                    tally, seen, looked = Tally(name, None), set[int](), False
                    whole.clear()
                key, tally.objective = now.keys.get(study_id(study)), Objective.of_study(attrs)
                for trial in (trial for trial in trials if trial.state.is_finished() and trial.number not in seen):
                    seen.add(trial.number)
                    best = tally.add(trial)
                    if looked and not is_foreign(trial):
                        console.print(ended(trial, best, room=room_of(console), objective=tally.objective))
                if excluded != (excluded_now := exclusions_in(attrs)):
                    tally.recount(excluded_now)
                    for change in changes(excluded, excluded_now) if looked else ():
                        console.print(change)
                excluded = excluded_now
                looked, tally.budget = True, budget_of(attrs)
                if stop != (stop := stopped(attrs)) and stop:
                    console.print(f"stopped by {stop['by']} at {stop['at']}")
                running = [trial for trial in own_trials(trials) if trial.state == optuna.trial.TrialState.RUNNING]
                picture = _picture(tally, running, attrs)
                if reader_gone() or (
                    not running and (tally.full() or reached_by_any(trials, effort, tally.objective, with_epochs))
                ):
                    line = warning(best_trial(study), attrs)
                    break
                time.sleep(_EVERY)
    if line:
        say(line)
    say(f"study {name!r}: {tally}")


def _picture(tally: "Tally", running: "list[FrozenTrial]", study_attrs: Mapping[str, Any]) -> "Picture":
    """Return the picture of the storage's current content."""
    from datetime import datetime

    from face3d_tune.cli.live import Picture

    began = [trial.datetime_start for trial in running if trial.datetime_start]
    # A clock that was set back, or another machine's, may say that a trial begins later.
    spent = sum(max(0.0, (datetime.now() - start).total_seconds()) for start in began)
    return Picture(tally.standing(len(running), spent), [_in_training(trial, study_attrs) for trial in running])


def _in_training(trial: "FrozenTrial", study_attrs: Mapping[str, Any]) -> "InTraining":
    from face3d_tune.cli.live import InTraining
    from face3d_tune.study.trials import folds_of, origin

    attrs, steps, folds = trial.user_attrs, trial.intermediate_values, folds_of(study_attrs)
    config: Mapping[str, Any] = TrialAttr.config.get(attrs, {})
    if StudyAttr.script.held_by(study_attrs):  # its flags may have any names
        config = {"epochs": config.get("epochs", StudyAttr.settings.of(study_attrs)["epochs"])}
    step, epochs = max(steps, default=0), config.get("epochs") or 0
    fold = (step - 1) // epochs + 1 if folds > 1 and step and epochs else 1
    return InTraining(
        number=trial.number,
        name=origin(trial),
        epochs=epochs,
        epoch=step - (fold - 1) * epochs,
        value=steps.get(step),
        lr=TrialAttr.lr_now.get(attrs, config.get("lr")),
        rank1=TrialAttr.rank1_now.get(attrs),
        fold=fold,
        folds=folds,
    )
