"""The order of a trial's folds: what each trains with, and the steps of its epochs."""

from dataclasses import replace

from face3d_tune.config import TrialConfig
from face3d_tune.executor.tasks import Resumed, Task
from face3d_tune.search.fold_sequence import FoldSequence
from face3d_tune.seeds import derive
from face3d_tune.training.base import EpochResult

CONFIG = TrialConfig(d_model=16, dim_feedforward=32, epochs=5)
FIRST = Task(4, CONFIG, seed=7, precision="bf16", key="trial-4", retry=True, folds=3)


def epoch(number, cosine=0.5, stop_reason=None):
    return EpochResult(number, 0.1, 0.2, 0.3, 0.4, cosine, {"0-15": cosine}, True, 0.1, stop_reason, 1.0)


def test_the_first_fold_has_the_trials_own_seed_and_key_and_every_other_its_own():
    folds = FoldSequence(FIRST)
    assert folds.current.task == FIRST
    second, third = folds.begin_next(), folds.begin_next()
    assert second == replace(FIRST, fold=2, seed=derive(7, "fold", 2), key="trial-4-fold-2", retry=False)
    assert third == replace(FIRST, fold=3, seed=derive(7, "fold", 3), key="trial-4-fold-3", retry=False)
    assert folds.current.task == third
    assert FoldSequence(replace(FIRST, key=None)).begin_next().key is None


def test_the_steps_of_a_fold_follow_those_that_the_folds_before_could_have():
    folds = FoldSequence(FIRST)
    folds.current.add(epoch(1, stop_reason="early_stopping"))
    assert [folds.step(1), folds.step(5)] == [1, 5]
    folds.begin_next()
    assert [folds.step(1), folds.step(5)] == [6, 10]


def test_an_epoch_that_is_trained_again_replaces_the_one_that_was_known_and_those_after_it():
    fold = FoldSequence(FIRST).current
    for result in (epoch(1), epoch(2), epoch(3), epoch(2, cosine=0.75)):
        fold.add(result)
    assert fold.epochs == [epoch(1), epoch(2, cosine=0.75)]


def test_a_fold_restarts_without_mixed_precision_once_and_the_next_one_begins_without():
    folds = FoldSequence(FIRST)
    folds.current.add(epoch(1))
    without = replace(FIRST, precision="off", retry=False)
    assert folds.current.restart_without_mixed_precision() == folds.current.task == without
    assert (folds.current.epochs, folds.current.retried) == ([], True)
    assert folds.current.restart_without_mixed_precision() is None
    assert folds.begin_next().precision == "off"
    assert folds.current.retried


def test_a_fold_that_ended_by_itself_keeps_its_reason_and_one_that_did_not_has_the_trials():
    folds = FoldSequence(FIRST)
    folds.current.resume(Resumed((epoch(1), epoch(2, stop_reason="early_stopping")), "bf16", "one was torn"))
    folds.begin_next()
    folds.current.resume(Resumed((epoch(1, cosine=0.25),), "bf16", None))
    summary = folds.summary("error")
    assert [fold["stop_reason"] for fold in summary["folds"]] == ["early_stopping", "error"]
    assert (summary["stop_reason"], summary["val_cosine"], summary["epochs_run"]) == ("error", 0.375, 3)
    assert (summary["resumed_epochs"], summary["resume_note"]) == (3, "one was torn")
