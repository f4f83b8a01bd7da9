"""The rules of the changes to a search: a sound record breaks none, and each broken one is named."""

from datetime import datetime

import pytest
from changes import Change, _settled, violations
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.study.trials import REQUEUED


def trial(number, state="COMPLETE", **attrs):
    """With the attributes of a trial that trained two epochs."""
    ended = TrialState[state].is_finished()
    trained = {"seed": 100 + number, "ordinal": number, "config": {}, "epochs_run": 2, "best_epoch": 2}
    return FrozenTrial(
        number=number,
        trial_id=number + 1,
        state=TrialState[state],
        value=0.2 if state == "COMPLETE" else None,
        datetime_start=datetime.now(),
        datetime_complete=datetime.now() if ended else None,
        params={},
        distributions={},
        user_attrs={**trained, "val_cosine": 0.2, **attrs},
        system_attrs={},
        intermediate_values={1: 0.1, 2: 0.2},
    )


def lived(number, *happened, owner="a"):
    """The changes of one trial: states, 'claimed' and 'released'."""
    words = {"claimed": {"owner": owner}, "released": {"owner": ""}}
    return [Change(number + 1, **words.get(word, {"state": word})) for word in happened]


def ended(number, state="COMPLETE", owner="a"):
    return lived(number, "RUNNING", "claimed", state, "released", owner=owner)


def died(number):
    """Its worker is dead, and another one noticed."""
    return lived(number, "RUNNING", "claimed", "released", "FAIL")


RETRIED = [trial(0, "FAIL", **{REQUEUED: True}), trial(1, retry_of=0, deaths=1, seed=100, ordinal=0)]


@pytest.mark.parametrize(
    ("changes", "trials"),
    [
        ([], []),
        (ended(0) + ended(1, "PRUNED", "b"), [trial(0), trial(1, "PRUNED")]),
        (lived(0, "WAITING") + ended(0), [trial(0)]),
        (died(0) + lived(1, "WAITING") + ended(1, owner="b"), RETRIED),
        (ended(0, "FAIL"), [trial(0, "FAIL")]),
        (lived(0, "WAITING"), [trial(0, "WAITING")]),  # more presets than trials
        (
            lived(0, "RUNNING", "FAIL") + ended(1),  # dead before it was claimed or had anything
            [trial(0, "FAIL", **{REQUEUED: True, "ordinal": 1, "config": None})],
        ),
    ],
    ids=["nothing", "two workers", "queued", "retried", "failed", "left over", "died at once"],
)
def test_a_sound_history_breaks_no_rule(changes, trials):
    if trials and REQUEUED in trials[0].user_attrs and len(trials) == 1:
        del trials[0].user_attrs["config"], trials[0].user_attrs["seed"]
        trials = [*trials, trial(1)]
    finished = sum(held.state.name in ("COMPLETE", "PRUNED") for held in trials)
    assert violations(changes, trials, finished) == []


@pytest.mark.parametrize(
    ("happened", "state", "said"),
    [
        (["COMPLETE"], "COMPLETE", "trial 0 became COMPLETE when it was None"),
        (["WAITING", "claimed", "COMPLETE"], "COMPLETE", "trial 0 was claimed when it was WAITING"),
        (["RUNNING", "COMPLETE"], "COMPLETE", "trial 0 became COMPLETE without an owner"),
        (["RUNNING", "claimed", "released", "PRUNED"], "PRUNED", "trial 0 became PRUNED without an owner"),
        (["RUNNING", "claimed", "FAIL", "COMPLETE"], "COMPLETE", "trial 0 became COMPLETE when it was FAIL"),
        (["RUNNING", "claimed", "COMPLETE", "COMPLETE"], "COMPLETE", "trial 0 became COMPLETE when it was COMPLETE"),
        (
            ["RUNNING", "claimed", "WAITING", "RUNNING", "COMPLETE"],
            "COMPLETE",
            "trial 0 became WAITING when it was RUN",
        ),
        (["RUNNING", "claimed", "claimed", "COMPLETE"], "COMPLETE", "trial 0 had two owners at a time"),
        (["RUNNING", "claimed"], "COMPLETE", "trial 0 is COMPLETE, but its history ends as RUNNING"),
        (["RUNNING", "claimed"], "RUNNING", "trial 0 is still RUNNING"),
    ],
)
def test_a_trial_that_takes_another_path_is_named(happened, state, said):
    finished = state in ("COMPLETE", "PRUNED")
    assert any(line.startswith(said) for line in violations(lived(0, *happened), [trial(0, state)], finished))


def test_a_trial_has_one_owner_in_its_life():
    changes = lived(0, "RUNNING", "claimed", "released") + lived(0, "claimed", "COMPLETE", "released", owner="b")
    assert violations(changes, [trial(0)], 1) == ["trial 0 had one owner after the other"]


def test_a_state_that_a_transaction_leaves_at_once_is_none():
    rows = [(7, Change(1, "RUNNING")), (7, Change(1, "WAITING")), (7, Change(2, "RUNNING")), (8, Change(1, "RUNNING"))]
    rows.insert(2, (7, Change(1, owner="a")))
    assert list(_settled(rows)) == [Change(1, "WAITING"), Change(1, owner="a"), Change(2, "RUNNING"), rows[4][1]]


@pytest.mark.parametrize(
    ("trials", "total", "said"),
    [
        ([trial(0), trial(2)], 2, "the numbers are [0, 2]"),
        ([trial(0), trial(1)], 1, "2 trials are finished, not 1"),
        ([trial(0)], 2, "1 trials are finished, not 2"),
        ([trial(0, epochs_run=3)], 1, "trial 0 trained 3 epochs, but reported [1, 2]"),
        ([trial(0, "PRUNED", best_epoch=1)], 1, "trial 0 has a value that is not the one of its best epoch"),
        ([RETRIED[0], *(trial(n, retry_of=0, seed=100, ordinal=0) for n in (1, 2))], 2, "trial 0 was queued again 2 t"),
        ([RETRIED[0], *(trial(n, retry_of=0, seed=100, ordinal=0) for n in (1, 2))], 2, "trials [1, 2] continue one"),
        ([trial(0), trial(1, retry_of=0, seed=100, ordinal=0)], 2, "trial 0 was queued again, but it is COMPLETE"),
        ([trial(0), trial(1, retry_of=0, seed=100, ordinal=0)], 2, "trials [0, 1] continue one another, and both are"),
        ([RETRIED[0]], 0, "trial 0 was put back, but nothing continues it"),
        (
            [RETRIED[0], trial(1, retry_of=0, deaths=4, seed=100, ordinal=0)],
            1,
            "trial 1 was tried again after 4 deaths",
        ),
        ([RETRIED[0], trial(1, retry_of=0, ordinal=0)], 1, "trial 0 and those that continue it have several seeds"),
        (
            [RETRIED[0], trial(1, retry_of=0, seed=100)],
            1,
            "trial 0 and those that continue it have several ordinals: [",
        ),
        ([trial(0), trial(1, seed=100)], 2, "trials 0 and 1 have the same seed"),
        ([trial(0), trial(1, ordinal=0)], 2, "trials 0 and 1 have the same ordinal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_study_that_cannot_be_is_named(trials, total, said):
    changes = [change for held in trials for change in ended(held.number, held.state.name)]
    assert any(line.startswith(said) for line in violations(changes, trials, total))
