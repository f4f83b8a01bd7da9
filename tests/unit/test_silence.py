"""How long a training has given no epoch, by a clock that tests set."""

from face3d_tune.executor.silence import Silence


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def looks(silence, clock, *seconds):
    """What it says after each of these pauses."""
    said = []
    for pause in seconds:
        clock.now += pause
        said.append(silence.is_too_long())
    return said


def test_it_is_too_long_once_the_limit_is_passed_and_an_epoch_begins_it_anew():
    silence = Silence(3, clock := Clock())
    assert looks(silence, clock, 1, 1, 1, 1) == [False, False, False, True]
    silence.heard()
    assert looks(silence, clock, 1, 1, 1, 0.5) == [False, False, False, True]


def test_a_pause_of_the_one_who_looks_counts_as_ten_seconds_at_most():
    """The laptop was closed, or the database did not answer: nothing could be heard meanwhile."""
    silence = Silence(60, clock := Clock())
    assert looks(silence, clock, 1, 3600, 1, 40, 1) == [False] * 5
    assert looks(silence, clock, *[10] * 4) == [False, False, False, True]


def test_without_a_limit_it_is_never_too_long():
    assert looks(Silence(None, clock := Clock()), clock, 1e9) == [False]
