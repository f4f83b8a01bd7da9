"""The epochs of a trial, as the storage holds them."""

from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from searches import epoch

from face3d_tune.study.history import ATTR, History, lowest_loss, pack
from face3d_tune.training.base import best_epoch
from face3d_tune.training.recognition import Rates, Recognition


def test_an_epoch_is_stored_with_six_digits_and_read_as_stored(storage):
    epochs = [
        replace(epoch(1, 0.123456789), train_loss=1 / 3, val_loss=2 / 3, lr=1e-7 / 3),
        replace(epoch(2, -0.5), train_loss=0.25, val_loss=123456789.0, lr=0.001),
    ]
    study = optuna.create_study(storage=storage)
    study.add_trial(create_trial(state=TrialState.FAIL, system_attrs={ATTR: pack(epochs)}))
    (trial,) = study.trials
    assert History.of(trial) == History(
        cosine=(0.123457, -0.5),
        train_loss=(0.333333, 0.25),
        val_loss=(0.666667, 123457000.0),
        lr=(3.33333e-8, 0.001),
    )
    assert trial.user_attrs == {}


RATES = Rates(0.9, 0.123456789, None, None, -1 / 3, 0.5)
RECOGNITION = Recognition(3, 12, 3, 18, RATES, {}, RATES)


def test_identity_and_rank_1_among_the_enrolled_are_stored_too():
    epochs = [replace(epoch(number, 0.5), recognition=RECOGNITION) for number in (1, 2)]
    stored = create_trial(state=TrialState.FAIL, system_attrs={ATTR: pack(epochs)})
    held = History.of(stored)
    assert (held.identity, held.rank1_enrolled) == ((-0.333333,) * 2, (0.123457,) * 2)


def test_recognition_is_unknown_if_an_earlier_version_trained_some_epochs():
    held = History.of_epochs([epoch(1, 0.5), replace(epoch(2, 0.5), recognition=RECOGNITION)])
    assert (held.cosine, held.identity, held.rank1_enrolled) == ((0.5, 0.5), (), ())


def test_of_a_trial_without_stored_epochs_the_reported_cosines_are_known():
    trial = create_trial(state=TrialState.PRUNED, intermediate_values={2: 0.2, 1: 0.1, 3: 0.15})
    assert History.of(trial) == History((0.1, 0.2, 0.15))


@pytest.mark.parametrize("attrs", [{}, {ATTR: pack([])}])
def test_a_trial_that_trained_no_epoch_has_none(attrs):
    assert History.of(create_trial(state=TrialState.FAIL, system_attrs=attrs)) == History(())


def test_the_epochs_stored_win_over_those_reported_before_mixed_precision_failed():
    stored = {ATTR: pack([epoch(1, 0.4)])}
    trial = create_trial(state=TrialState.COMPLETE, value=0.4, intermediate_values={1: 0.1}, system_attrs=stored)
    assert History.of(trial).cosine == (0.4,)


def test_of_a_trial_in_training_on_several_folds_the_reported_cosines_are_those_of_the_first():
    steps = {1: 0.1, 2: 0.2, 4: 0.7, 5: 0.8}  # at most three epochs a fold, and the first stopped early
    trial = create_trial(state=TrialState.PRUNED, intermediate_values=steps, user_attrs={"config": {"epochs": 3}})
    assert History.of(trial) == History((0.1, 0.2))


@pytest.mark.parametrize(
    ("val_loss", "expected"), [((0.3,), 1), ((0.3, 0.2, 0.4), 2), ((0.3, 0.2, 0.2), 2), ((0.3, 0.2, 0.1), 3)]
)
def test_the_best_epoch_is_the_first_with_the_lowest_loss(val_loss, expected):
    assert lowest_loss(val_loss) == expected
    lowest = [min(val_loss[:number]) for number in range(1, len(val_loss) + 1)]
    is_best = [number == 0 or lowest[number] < lowest[number - 1] for number in range(len(val_loss))]
    epochs = [replace(epoch(number, 0.5), is_best=best) for number, best in enumerate(is_best, 1)]
    assert best_epoch(epochs) == epochs[expected - 1]


def test_of_no_epochs_none_is_the_best():
    assert best_epoch([]) is None
