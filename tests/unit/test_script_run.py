"""A trial of a script: which of its epochs counts, what is stored, and how it ends."""

import math

import pytest

from face3d_tune.executor.tasks import Event, Failure, Note, ScriptEnded, ScriptEpoch
from face3d_tune.script.running.tasks import ScriptTask
from face3d_tune.search.script_run import ScriptRun
from face3d_tune.study.history import ATTR, History
from face3d_tune.study.objective import Objective

COSINE = Objective("Val/Cos", "maximize", script=True)
LOSS = Objective("Val/Loss", "minimize", script=True)
TASK = ScriptTask(3, ("python", "train.py", "--lr", "0.1"), "trial-3")


class Reporter:
    """Takes reports; prunes at an epoch."""

    def __init__(self, prune_at=None):
        self.reports, self.prune_at = [], prune_at

    def report(self, value, step, lr, rank1=None):
        self.reports.append((step, value))

    def should_prune(self):
        return self.reports[-1][0] == self.prune_at


def epochs(*pairs):
    return [ScriptEpoch(number, {"Val/Cos": cos, "Val/Loss": loss}) for number, (cos, loss) in enumerate(pairs, 1)]


def run(contents, objective=COSINE, keep=None, asked=5, reporter=None, **options):
    """Return the outcome, the reporter, the epochs that were shown, and the notes."""
    reporter, shown, notes = reporter or Reporter(), [], []
    trial = ScriptRun(TASK, {"lr": 0.1}, objective, keep, asked, reporter, note=notes.append, **options)
    for content in contents:
        if outcome := trial.take(Event(3, content), shown.append):
            return outcome, reporter, shown, notes
    return None, reporter, shown, notes


CURVE = epochs((0.1, 9.0), (0.5, 7.0), (0.4, 6.0), (0.3, 8.0))


def test_the_value_is_the_best_metric_without_another_rule():
    outcome, reporter, shown, _ = run([*CURVE, ScriptEnded()])
    assert outcome.value == 0.5
    assert outcome.attrs["best_epoch"] == 2
    assert outcome.attrs["numbers"] == {"Val/Cos": 0.5, "Val/Loss": 7.0}
    assert reporter.reports == [(1, 0.1), (2, 0.5), (3, 0.4), (4, 0.3)]
    assert [epoch.epoch for epoch in shown] == [1, 2, 3, 4]


def test_the_value_is_that_of_the_epoch_which_the_script_keeps():
    outcome, *_ = run([*CURVE, ScriptEnded()], keep=LOSS)
    assert (outcome.value, outcome.attrs["best_epoch"]) == (0.4, 3)  # the lowest loss, not the highest cosine


def test_a_loss_is_best_at_its_lowest():
    outcome, *_ = run([*CURVE, ScriptEnded()], objective=LOSS)
    assert (outcome.value, outcome.attrs["best_epoch"]) == (6.0, 3)


def test_a_number_that_an_epoch_lacks_does_not_decide_which_is_kept():
    lacking = [*CURVE[:3], ScriptEpoch(4, {"Val/Cos": 0.9})]
    outcome, *_ = run([*lacking, ScriptEnded()], keep=LOSS)
    assert (outcome.value, outcome.attrs["best_epoch"]) == (0.9, 4)
    assert outcome.history == {"numbers": {"Val/Cos": [0.1, 0.5, 0.4, 0.9]}}


@pytest.mark.parametrize(("asked", "reason"), [(4, "finished"), (None, "finished"), (5, "early_stopping")])
def test_a_script_that_ends_before_its_epochs_has_stopped_early(asked, reason):
    outcome, *_ = run([*CURVE, ScriptEnded()], asked=asked)
    assert (outcome.stop_reason, outcome.attrs["epochs_run"]) == (reason, 4)


def test_a_pruned_trial_has_the_value_of_its_kept_epoch():
    outcome, reporter, *_ = run(CURVE, reporter=Reporter(prune_at=3))
    assert (outcome.stop_reason, outcome.value, len(reporter.reports)) == ("pruned", 0.5, 3)


def test_the_curves_are_stored_with_six_digits_and_read_back():
    outcome, *_ = run([*epochs((0.123456789, 2.0), (0.2, 1.0)), ScriptEnded()])
    stored = type("Trial", (), {"system_attrs": {ATTR: outcome.history}})
    history = History.of(stored, COSINE)
    assert history.values(COSINE) == (0.123457, 0.2)
    assert history.numbers["Val/Loss"] == (2.0, 1.0)


def test_the_target_is_a_value_of_the_epoch_that_is_kept_in_its_direction():
    reached, *_ = run(CURVE, goal=0.5)
    assert (reached.stop_reason, reached.attrs["epochs_run"]) == ("target", 2)
    low, *_ = run(CURVE, objective=LOSS, goal=6.5)
    assert (low.stop_reason, low.attrs["epochs_run"]) == ("target", 3)
    assert run(CURVE, objective=LOSS, goal=5.0)[0] is None
    twice, *_ = run(CURVE, goal=0.35, goal_epochs=2)
    assert twice.attrs["epochs_run"] == 3  # 0.5 and 0.4


def test_epochs_of_a_resumed_training_are_reported_once():
    again = [*CURVE[:3], ScriptEpoch(3, {"Val/Cos": 0.45, "Val/Loss": 6.0}), CURVE[3]]
    outcome, reporter, shown, _ = run([*again, ScriptEnded()])
    assert reporter.reports == [(1, 0.1), (2, 0.5), (3, 0.4), (4, 0.3)]
    assert len(shown) == 4
    assert outcome.history["numbers"]["Val/Cos"] == [0.1, 0.5, 0.45, 0.3]


@pytest.mark.parametrize(
    ("failure", "reason", "cause", "death"),
    [
        (Failure("Val/Cos is nan in epoch 2", non_finite=True), "non_finite", "diverged", None),
        (Failure("out of memory: …", out_of_memory=True), "error", "out_of_memory", None),
        (Failure("it ended with exit code 1"), "error", "error", None),
        (Failure("its process was killed (SIGKILL)", died=True), "error", "error", "error"),
    ],
)
def test_a_failure_says_its_cause_and_only_a_death_is_tried_again(failure, reason, cause, death):
    outcome, *_ = run([CURVE[0], failure])
    assert (outcome.stop_reason, outcome.attrs["cause"], outcome.death) == (reason, cause, death)
    assert outcome.attrs["error"] == failure.message


def test_a_failure_before_the_first_epoch_has_no_value():
    outcome, *_ = run([Failure("it ended with exit code 1")])
    assert outcome.value is None
    assert outcome.history == {}


def test_a_trial_at_its_time_limit_counts_as_pruned_with_what_it_reached():
    outcome, _, _, notes = run([*CURVE[:2], ScriptEnded(over_time=True)])
    assert (outcome.stop_reason, outcome.value) == ("over_time", 0.5)
    assert notes == ["ended by the time limit after epoch 2"]


def test_a_script_that_has_trained_all_epochs_and_does_not_end_has_finished():
    outcome, _, _, notes = run([*CURVE, ScriptEnded(over_time=True)], asked=len(CURVE))
    assert outcome.stop_reason == "finished"
    assert notes == [f"ended by the time limit after epoch {len(CURVE)}"]


def test_a_person_hears_what_a_script_left_behind():
    contents = [CURVE[0], Note("resumes from last.pth"), ScriptEnded(strays=("python daemon.py",), changed=("x.log",))]
    *_, notes = run(contents)
    assert notes == [
        "resumes from last.pth",
        "the script left a process running, which was ended: python daemon.py",
        "changed beside the script meanwhile: x.log",
    ]


def test_at_most_thirty_numbers_are_stored_the_metric_among_them():
    many = {f"number {place:02}": float(place) for place in range(50)} | {"Val/Cos": 0.5}
    outcome, *_ = run([ScriptEpoch(1, many), ScriptEnded()])
    assert len(outcome.attrs["numbers"]) == 30
    assert outcome.attrs["numbers"]["Val/Cos"] == 0.5


def test_a_number_that_is_not_finite_is_not_part_of_a_curve():
    odd = [ScriptEpoch(1, {"Val/Cos": 0.5, "grad": math.inf}), ScriptEpoch(2, {"Val/Cos": 0.6, "grad": 1.0})]
    outcome, *_ = run([*odd, ScriptEnded()])
    assert set(outcome.history["numbers"]) == {"Val/Cos"}


def test_a_config_shows_its_epochs():
    assert ScriptRun(TASK, {"lr": 0.1}, COSINE, None, 5, Reporter()).config == {"lr": 0.1, "epochs": 5}
    assert ScriptRun(TASK, {"lr": 0.1}, COSINE, None, None, Reporter()).config == {"lr": 0.1}
