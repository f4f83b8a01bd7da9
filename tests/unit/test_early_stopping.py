"""Early stopping, by tables written by hand. All numbers are exact in binary, so that equal means equal."""

import pytest

from face3d_tune.training.early_stopping import EarlyStopping


def stops_at(patience, min_delta, losses):
    """The epoch, from 1, at which training should stop; None if never."""
    stopping = EarlyStopping(patience, min_delta)
    for epoch, loss in enumerate(losses, start=1):
        if stopping.update(loss):
            return epoch
    return None


@pytest.mark.parametrize(
    ("patience", "min_delta", "losses", "expected"),
    [
        (1, 0.0, [1, 0.5, 0.25], None),
        (1, 0.0, [1, 0.5, 0.75], 3),
        (1, 0.0, [1, 1], 2),  # equal is no fall
        (2, 0.0, [1, 1, 1], 3),
        (2, 0.0, [1, 2, 0.5, 2, 2], 5),  # the count starts over with every progress
        (2, 0.0, [1, 2, 0.5, 2, 0.25, 2], None),
        (3, 0.0, [4, 5, 6, 7], 4),
        (3, 0.0, [4, 5, 6, 3, 5, 6, 7], 7),
        (2, 0.0, [1, 2, 1.5], 3),  # falls, but not below the best
        (1, 0.25, [1, 0.75], 2),  # a fall of exactly min_delta is no progress
        (1, 0.25, [1, 0.74], None),  # a little more is
        (1, 0.0, [-1, -2, -3, -3], 4),  # losses below 0 fall, too
    ],
)
def test_training_stops_after_patience_epochs_in_a_row_without_progress(patience, min_delta, losses, expected):
    assert stops_at(patience, min_delta, losses) == expected


def test_slow_falls_do_not_count_even_though_each_is_the_lowest_loss_so_far():
    falling = [1, 0.9375, 0.875, 0.8125]  # by 1/16 each time, 3/16 in all
    assert stops_at(3, 0.25, falling) == 4
    assert stops_at(3, 0.0, falling) is None


def test_slow_falls_count_from_the_last_progress_and_together_make_one():
    falling = [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25]  # by 1/8; every third epoch is 3/8 below the last progress
    stopping = EarlyStopping(3, 0.25)
    assert [stopping.update(loss) for loss in falling] == [False] * 7
    assert stopping.best == 0.25
    assert stops_at(2, 0.25, falling) == 3


def test_patience_0_never_stops():
    assert stops_at(0, 0.0, [1.0] * 1000) is None


def test_the_first_loss_is_progress_however_high_it_is():
    stopping = EarlyStopping(1, 1e30)
    assert not stopping.update(1e30)
    assert stopping.epochs_without_progress == 0
    assert stopping.update(1e30)


def test_the_count_since_the_last_progress_is_told():
    stopping = EarlyStopping(5, 0.0)
    counts = []
    for loss in (3, 2, 2, 4, 1, 1):
        stopping.update(loss)
        counts.append((stopping.epochs_without_progress, stopping.best))
    assert counts == [(0, 3), (0, 2), (1, 2), (2, 2), (0, 1), (1, 1)]


def test_it_goes_on_saying_stop_until_there_is_progress():
    stopping = EarlyStopping(1, 0.0)
    assert [stopping.update(loss) for loss in (1, 2, 2, 0.5, 0.5)] == [False, True, True, False, True]
