"""A resumed script that does not go on where the known epochs end begins again."""

from pathlib import Path

import pytest

from face3d_tune.script.running.resumed_from import ResumedFrom


@pytest.mark.parametrize(
    ("known", "steps", "left_out"),
    [
        (2, [1, 2], False),  # no new epoch yet
        (2, [1, 2, 3], False),
        (2, [1, 2, 4], True),
        (1, [0, 1], False),  # epochs from 0
        (1, [0, 2], True),
        (3, [100, 200, 300, 400], False),  # batches
        (3, [100, 200, 300, 500], True),
        (1, [5, 10], False),  # validated every fifth epoch
        (1, [5, 15], True),
        (3, [1, 5, 6, 10], False),  # as irregular as before
        (0, [1], False),
        (0, [3], True),
        (2, [], False),  # the source names no epochs
    ],
)
def test_epochs_between_the_known_ones_and_the_first_new_one_were_lost(known, steps, left_out):
    assert ResumedFrom(Path("last.pth"), known).left_out_epochs(steps) is left_out


@pytest.mark.parametrize(
    ("told", "steps", "asked", "lost"),
    [
        (3, [1, 2, 3], 3, False),  # its worker died between the last epoch and the trial's end
        (3, [1, 2, 3], 5, True),  # it did nothing: its checkpoint was of epoch 5, or it stops early at once
        (3, [1, 2, 3], None, True),
        (4, [1, 2, 3, 4], 5, False),  # it stopped early
        (4, [], 5, True),  # nothing shows which epoch the fourth number is of
        (5, [], 5, False),
        (4, [], None, False),
    ],
)
def test_a_script_that_ends_well_may_have_trained_epochs_that_nothing_shows(told, steps, asked, lost):
    assert ResumedFrom(Path("last.pth"), 3).may_have_lost_epochs(steps, told, asked) is lost
