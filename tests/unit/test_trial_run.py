"""One trial: what it is worth, what it reports, and how it ends, with a reporter in place of Optuna's."""

import json
from dataclasses import replace
from statistics import fmean
from types import MappingProxyType

import pytest
import torch
from reference_model import ReferenceModel

from face3d_tune.config import TrialConfig
from face3d_tune.errors import NonFiniteError, TrainingError
from face3d_tune.executor.slots import PlainSlot
from face3d_tune.executor.tasks import Event, Failure, Note, Resumed, Task
from face3d_tune.search.trial_run import Outcome, Setup, TrialRun
from face3d_tune.seeds import derive
from face3d_tune.study.history import pack
from face3d_tune.training.plain import Evaluation, Trainer

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SMALL = TrialConfig(
    d_model=16, dim_feedforward=32, nhead=2, num_layers=1, batch_size=8, epochs=4, lr=1e-3, mse_weight=0.3
)
MIXED = replace(SMALL, use_mixed_precision=True)
ALWAYS = {"stop_reason", "epochs_run", "lr_decays", "lr_final", "amp", "retried_without_amp"}
OF_THE_BEST = {"best_epoch", "val_cosine", "val_loss", "val_loss_equal", "train_loss", "gap", "cosine_by_yaw"}
OF_THE_BEST |= {"recognition"}


class Reporter:
    """Records what a trial reports; prunes from the step `prune_from` on, and calls it lost after fold `lost_after`."""

    def __init__(self, prune_from=None, lost_after=None):
        self.reports, self.asked, self.prune_from = [], [], prune_from
        self.raced, self.lost_after = [], lost_after
        self.rank1 = []

    def report(self, value, step, lr, rank1=None):
        self.reports.append((step, value))
        self.rank1.append(rank1)

    def should_prune(self):
        step = self.reports[-1][0]
        self.asked.append(step)
        return self.prune_from is not None and step >= self.prune_from

    def is_lost(self, values):
        self.raced.append(list(values))
        return len(values) == self.lost_after

    @property
    def steps(self):
        return [step for step, _ in self.reports]


def train_trial(config, setup, *, seed, reporter, after_epoch, folds=1, **options):
    """One trial alone in a plain slot, as a search drives it."""
    slot, run = (
        PlainSlot(setup.data, setup.device),
        TrialRun(0, config, setup, seed=seed, reporter=reporter, folds=folds, **options),
    )
    slot.start(run.task)
    while True:
        for event in slot.wait():
            verdict = run.take(event, after_epoch)
            if isinstance(verdict, Outcome):
                return verdict
            if verdict is not None:
                slot.start(verdict)


class Trial:
    """A trial that has been trained: its outcome, its reporter, and the epochs seen by `after_epoch`."""

    def __init__(
        self, data, config=SMALL, *, reporter=None, precision="off", target=None, target_epochs=1, seed=3, folds=1
    ):
        self.reporter, self.epochs = reporter or Reporter(), []
        self.outcome = train_trial(
            config,
            Setup(data, CPU, precision, target=target, target_epochs=target_epochs),
            seed=seed,
            reporter=self.reporter,
            after_epoch=self.epochs.append,
            folds=folds,
        )
        self.attrs = self.outcome.attrs


@pytest.fixture
def scripted(data, monkeypatch):
    """Train with (validation loss, cosine) of each epoch from a list."""

    def run(script, config=SMALL, **settings):
        values = iter(script)

        def evaluate(self, pairs):
            loss, cosine = next(values)
            return Evaluation(loss, cosine, MappingProxyType({"0-15": None, "15-45": cosine}))

        monkeypatch.setattr(Trainer, "evaluate", evaluate)
        epochs = len(script) // settings.get("folds", 1)
        return Trial(data, replace(config, loss_type="mse", epochs=epochs), **settings)

    return run


def fail_in(monkeypatch, epoch, error, *, if_precision=("off", "bf16", "fp16")):
    """Let the training of that epoch raise; returns the list of (precision, epoch) begun."""
    begun, train_epoch = [], Trainer.train_epoch

    def failing(self):
        begun.append((self.precision, len(self.history) + 1))
        if begun[-1][1] == epoch and self.precision in if_precision:
            raise error
        return train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", failing)
    return begun


# What a trial is worth


def test_the_value_is_the_cosine_of_the_epoch_with_the_lowest_validation_loss_not_the_highest_cosine(scripted):
    trial = scripted([(1.0, 0.5), (0.5, 0.4), (0.75, 0.9), (0.5, 0.7)])
    assert trial.outcome.value == 0.4
    assert (trial.attrs["best_epoch"], trial.attrs["epochs_run"]) == (2, 4)
    assert trial.attrs["train_loss"] == trial.epochs[1].train_loss != trial.epochs[3].train_loss
    assert trial.reporter.reports == [(1, 0.5), (2, 0.4), (3, 0.9), (4, 0.7)]


def recomputed_cosine(config, data, seed, best_epoch):
    """The mean validation cosine, by the reference model, of the checkpoint after `best_epoch`."""
    trainer = Trainer(config, data, seed=seed, device=CPU)
    for _ in range(best_epoch):
        trainer.train_epoch()
    names = ("d_model", "nhead", "num_layers", "dim_feedforward", "dropout", "layout")
    flags = ("use_spatial_attention", "use_pose_attention")
    model = ReferenceModel(
        feature_size=data.feature_size, **{name: getattr(config, name) for name in (*names, *flags)}
    ).eval()
    model.load_state_dict(trainer.checkpoint({})["model_state_dict"])
    front, video = data.parts["validation"].T
    poses = torch.from_numpy(data.poses[video]).float()
    with torch.no_grad():
        out = model(torch.from_numpy(data.video_features[video]), torch.from_numpy(data.landmarks[video]), poses)
    target = torch.from_numpy(data.front_features[front])
    return ((out * target).sum(1) / out.norm(dim=1) / target.norm(dim=1)).mean().item()


def test_loss_weights_cannot_rescale_the_value(data):
    """With both weights ten times smaller the loss is, and the value is still the cosine of the kept checkpoint."""
    scaled = replace(SMALL, mse_weight=0.1 * SMALL.mse_weight, cosine_weight=0.1 * SMALL.cosine_weight)
    trials = [Trial(data, config) for config in (SMALL, scaled)]
    for config, trial in zip((SMALL, scaled), trials, strict=True):
        expected = recomputed_cosine(config, data, 3, trial.attrs["best_epoch"])
        assert trial.outcome.value == pytest.approx(expected, abs=1e-6)
        assert trial.outcome.value != pytest.approx(recomputed_cosine(config, data, 3, 1), abs=1e-6)
    plain, small = trials
    assert small.attrs["val_loss"] == pytest.approx(0.1 * plain.attrs["val_loss"], rel=0.1)
    assert small.outcome.value == pytest.approx(plain.outcome.value, abs=0.05)
    assert small.attrs["val_loss_equal"] == pytest.approx(plain.attrs["val_loss_equal"], abs=0.05)


def test_a_trial_repeats_exactly_from_its_config_and_seed(data):
    one, again, other = Trial(data), Trial(data), Trial(data, seed=4)
    assert one.outcome == again.outcome
    assert one.reporter.reports == again.reporter.reports
    assert one.outcome.value != other.outcome.value


# What it tells


def test_every_epoch_is_reported_once_in_order_and_then_told(data):
    trial = Trial(data)
    assert trial.reporter.reports == [(result.epoch, result.val_cosine) for result in trial.epochs]
    assert trial.reporter.rank1 == [result.recognition.all.rank1_enrolled for result in trial.epochs]
    assert trial.reporter.steps == [1, 2, 3, 4]


def test_a_finished_trial_has_all_promised_attributes_as_plain_values(data):
    trial = Trial(data)
    attrs, best = trial.attrs, trial.epochs[trial.attrs["best_epoch"] - 1]
    assert attrs.keys() == ALWAYS | OF_THE_BEST
    assert json.loads(json.dumps(attrs, allow_nan=False)) == attrs
    assert best == min(trial.epochs, key=lambda result: result.val_loss)
    assert attrs == {
        "stop_reason": "finished",
        "epochs_run": 4,
        "lr_decays": 0,
        "lr_final": SMALL.lr,
        "amp": "off",
        "retried_without_amp": False,
        "best_epoch": best.epoch,
        "val_cosine": best.val_cosine,
        "val_loss": best.val_loss,
        "val_loss_equal": best.val_loss_equal,
        "train_loss": best.train_loss,
        "gap": best.val_loss - best.train_loss,
        "cosine_by_yaw": best.cosine_by_yaw,
        "recognition": best.recognition.to_dict(),
    }
    assert trial.outcome == Outcome("finished", best.val_cosine, attrs, pack(trial.epochs))


def test_decays_of_the_learning_rate_are_told_with_the_last_one(scripted):
    config = replace(SMALL, lr=0.4, scheduler_patience=0, scheduler_factor=0.5, scheduler_min_lr=0.15)
    trial = scripted([(1, 0.5), (1, 0.5), (0.5, 0.5), (0.5, 0.5)], config)
    assert trial.attrs["lr_decays"] == 2
    assert trial.attrs["lr_final"] == pytest.approx(0.15)


def test_the_precision_that_was_used_is_told(data):
    assert Trial(data, MIXED, precision="bf16").attrs["amp"] == "bf16"
    assert Trial(data, SMALL, precision="bf16").attrs["amp"] == "off"


# How it ends


def test_a_judge_that_says_so_prunes_a_trial_and_its_best_so_far_is_kept(scripted):
    trial = scripted([(1, 0.5), (0.5, 0.6), (0.75, 0.7), (0.25, 0.8)], reporter=Reporter(prune_from=3))
    assert trial.outcome.stop_reason == trial.attrs["stop_reason"] == "pruned"
    assert (trial.outcome.value, trial.attrs["best_epoch"], trial.attrs["epochs_run"]) == (0.6, 2, 3)
    assert trial.reporter.steps == [1, 2, 3]


def test_a_trial_that_is_over_is_not_pruned(scripted):
    script = [(1, 0.5), (1, 0.5), (1, 0.5), (1, 0.5)]
    finished = scripted(script, reporter=Reporter(prune_from=4))
    assert (finished.outcome.stop_reason, finished.reporter.asked) == ("finished", [1, 2, 3])
    config = replace(SMALL, early_stopping_patience=2)
    stopped = scripted(script, config, reporter=Reporter(prune_from=3))
    assert (stopped.outcome.stop_reason, stopped.reporter.asked) == ("early_stopping", [1, 2])
    reached = scripted([(1, 0.5), (0.5, 0.9), (1, 0.5)], reporter=Reporter(prune_from=2), target=0.9)
    assert (reached.outcome.stop_reason, reached.reporter.asked) == ("target", [1])


def test_the_target_ends_a_trial_when_the_kept_checkpoint_reaches_it(scripted):
    # Epoch 2 reaches it, but is not the checkpoint that training would keep.
    trial = scripted([(0.5, 0.5), (0.75, 0.9), (0.25, 0.8), (0.125, 0.9)], target=0.8)
    assert (trial.outcome.stop_reason, trial.outcome.value, trial.attrs["epochs_run"]) == ("target", 0.8, 3)
    assert scripted([(0.5, 0.5), (0.25, 0.79)], target=0.8).outcome.stop_reason == "finished"


def test_a_target_that_must_hold_ends_a_trial_when_so_many_epochs_in_a_row_have_it(scripted):
    # Epoch 2 is lucky and kept; epochs 3 to 5 reach the target in a row, and epoch 4 is the next that is kept.
    script = [(1, 0.5), (0.5, 0.8), (0.6, 0.7), (0.4, 0.8), (0.7, 0.9), (0.8, 0.85), (0.9, 0.5)]
    ended = {n: scripted(script, target=0.8, target_epochs=n).outcome for n in (1, 2, 3, 4)}
    reasons = {n: (outcome.stop_reason, outcome.attrs["epochs_run"]) for n, outcome in ended.items()}
    assert reasons == {1: ("target", 2), 2: ("target", 5), 3: ("target", 6), 4: ("finished", 7)}
    assert [outcome.value for outcome in ended.values()] == [0.8] * 4


def test_epochs_in_a_row_count_only_round_the_kept_one(scripted):
    # Epochs 3 and 4 reach it in a row, but training keeps neither; epoch 6, which it keeps, stands alone.
    script = [(0.9, 0.5), (0.5, 0.5), (0.6, 0.9), (0.7, 0.9), (0.8, 0.5), (0.4, 0.9), (0.9, 0.5)]
    assert scripted(script, target=0.8, target_epochs=2).outcome.stop_reason == "finished"


def test_early_stopping_ends_a_trial(scripted):
    trial = scripted([(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.5)], replace(SMALL, early_stopping_patience=1))
    assert (trial.outcome.stop_reason, trial.attrs["epochs_run"]) == ("early_stopping", 2)


# How it fails


def test_mixed_precision_that_leads_to_nan_is_tried_once_more_without(data, monkeypatch):
    plain = Trial(data, MIXED, precision="off")
    mixed = Trial(data, MIXED, precision="bf16")
    begun = fail_in(monkeypatch, 3, NonFiniteError("training loss is nan in epoch 3"), if_precision=("bf16",))
    trial = Trial(data, MIXED, precision="bf16")
    assert begun == [("bf16", 1), ("bf16", 2), ("bf16", 3), *(("off", epoch) for epoch in (1, 2, 3, 4))]
    assert (trial.outcome.stop_reason, trial.outcome.value) == ("finished", plain.outcome.value)
    assert (trial.attrs["retried_without_amp"], trial.attrs["amp"]) == (True, "off")
    assert trial.attrs["error"] == "training loss is nan in epoch 3 (mixed precision: bf16)"
    ours = {"retried_without_amp", "error"}
    assert {key: value for key, value in trial.attrs.items() if key not in ours} == {
        key: value for key, value in plain.attrs.items() if key not in ours
    }
    # Optuna takes each step once, so the first two values are those of the first attempt.
    assert trial.reporter.reports == mixed.reporter.reports[:2] + plain.reporter.reports[2:]
    assert mixed.reporter.reports[0] != plain.reporter.reports[0]


def test_nan_in_the_first_epoch_of_mixed_precision_is_tried_once_more_too(data, monkeypatch):
    fail_in(monkeypatch, 1, NonFiniteError("training loss is nan in epoch 1"), if_precision=("bf16",))
    trial = Trial(data, MIXED, precision="bf16")
    assert (trial.outcome.stop_reason, trial.reporter.steps) == ("finished", [1, 2, 3, 4])


def test_nan_in_both_attempts_ends_a_trial(data, monkeypatch):
    begun = fail_in(monkeypatch, 2, NonFiniteError("cosine is nan in epoch 2"))
    trial = Trial(data, MIXED, precision="bf16")
    assert begun == [("bf16", 1), ("bf16", 2), ("off", 1), ("off", 2)]
    assert trial.outcome.stop_reason == "non_finite"
    assert trial.attrs["retried_without_amp"] is True
    assert trial.attrs["error"] == (
        "cosine is nan in epoch 2 (mixed precision: bf16); cosine is nan in epoch 2 (mixed precision: off)"
    )
    assert trial.reporter.steps == [1]


@pytest.mark.parametrize(
    ("config", "precision"), [(SMALL, "off"), (MIXED, "off"), (SMALL, "bf16")], ids=["neither", "machine", "config"]
)
def test_nan_without_mixed_precision_ends_a_trial_at_once_with_its_best_so_far(data, monkeypatch, config, precision):
    begun = fail_in(monkeypatch, 3, NonFiniteError("validation loss is nan in epoch 3"))
    trial = Trial(data, config, precision=precision)
    assert begun == [("off", 1), ("off", 2), ("off", 3)]
    assert trial.outcome.stop_reason == trial.attrs["stop_reason"] == "non_finite"
    assert trial.attrs["error"] == "validation loss is nan in epoch 3 (mixed precision: off)"
    assert trial.attrs["retried_without_amp"] is False
    assert trial.outcome.value == trial.epochs[trial.attrs["best_epoch"] - 1].val_cosine
    assert trial.attrs["epochs_run"] == 2


def test_a_real_overflow_in_the_first_epoch_has_no_value(data):
    trial = Trial(replace(data, video_features=data.video_features * 1e30))
    assert (trial.outcome.stop_reason, trial.outcome.value) == ("non_finite", None)
    assert trial.attrs.keys() == ALWAYS | {"cause", "error"}
    assert trial.attrs["cause"] == "diverged"
    assert "in epoch 1" in trial.attrs["error"]
    assert trial.reporter.reports == []


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "error"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (MemoryError("no more"), "out_of_memory"),
        (TrainingError("the disk is full"), "error"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
@pytest.mark.parametrize("precision", ["off", "bf16"])
def test_any_other_failure_of_a_training_ends_it_as_an_error_without_a_second_attempt(
    data, monkeypatch, error, cause, precision
):
    begun = fail_in(monkeypatch, 2, error)
    trial = Trial(data, MIXED, precision=precision)
    assert begun == [(precision, 1), (precision, 2)]
    assert trial.outcome.stop_reason == trial.attrs["stop_reason"] == "error"
    assert (trial.attrs["error"], trial.attrs["cause"]) == (f"{type(error).__name__}: {error}", cause)
    assert trial.attrs["retried_without_amp"] is False
    assert (trial.attrs["best_epoch"], trial.outcome.value) == (1, trial.epochs[0].val_cosine)


def test_a_failure_in_the_second_attempt_names_both_reasons(data, monkeypatch):
    fail_in(monkeypatch, 2, NonFiniteError("training loss is nan in epoch 2"), if_precision=("bf16",))
    fail_in(monkeypatch, 3, RuntimeError("out of memory"), if_precision=("off",))
    trial = Trial(data, MIXED, precision="bf16")
    assert trial.outcome.stop_reason == "error"
    assert trial.attrs["retried_without_amp"] is True
    nan = "training loss is nan in epoch 2 (mixed precision: bf16)"
    assert trial.attrs["error"] == f"{nan}; RuntimeError: out of memory"


def test_a_model_that_cannot_even_be_built_is_an_error_with_its_reason(data, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("not enough memory: you tried to allocate 4000000000000 bytes")

    monkeypatch.setattr("face3d_tune.training.plain.Model", refuse)
    trial = Trial(data)
    assert (trial.outcome.stop_reason, trial.outcome.value) == ("error", None)
    assert trial.attrs.keys() == ALWAYS | {"cause", "error"}
    assert trial.attrs["cause"] == "out_of_memory"
    assert trial.attrs["epochs_run"] == 0
    assert "4000000000000 bytes" in trial.attrs["error"]


def test_an_interrupt_goes_through(data):
    reporter, seen = Reporter(), []

    def interrupt(result):
        seen.append(result.epoch)
        if result.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_trial(SMALL, Setup(data, CPU, "off"), seed=3, reporter=reporter, after_epoch=interrupt)
    assert seen == reporter.steps == [1, 2]  # the epoch was reported before


# A trial that somebody has begun before


def begun(data, config=SMALL, precision="off"):
    """Epochs of a training, as a checkpoint holds them."""
    trainer = Trainer(config, data, seed=3, device=CPU, precision=precision)
    while trainer.stop_reason is None:
        trainer.train_epoch()
    return trainer.history


def resuming(data, results, *, config=SMALL, reporter, precision="off", in_precision=None, note=None, target=None):
    """A trial run that has taken these epochs over: itself, its verdict, what it said, the epochs others saw."""
    said, seen = [], []
    setup = Setup(data, CPU, precision, target=target)
    run = TrialRun(4, config, setup, seed=3, reporter=reporter, key="trial-1", retry=True, note=said.append)
    verdict = run.take(Event(4, Resumed(tuple(results), in_precision or precision, note)), seen.append)
    return run, verdict, said, seen


def test_the_task_of_a_trial_says_where_its_checkpoints_are_and_whether_there_should_be_one(data):
    run = TrialRun(4, SMALL, Setup(data, CPU, "off"), seed=3, reporter=Reporter(), key="trial-1", retry=True)
    assert run.task == Task(4, SMALL, 3, "off", "trial-1", True)


def test_of_a_resumed_trial_every_epoch_is_reported_but_only_the_last_is_judged_and_shown(data):
    history, reporter = begun(data), Reporter()
    run, verdict, said, seen = resuming(data, history[:3], reporter=reporter)
    assert (verdict, said, seen) == (None, ["resumes after epoch 3"], [history[2]])
    assert reporter.reports == [(result.epoch, result.val_cosine) for result in history[:3]]
    assert reporter.asked == [3]
    outcome = run.take(Event(4, history[3]), seen.append)
    best = min(history, key=lambda result: result.val_loss)
    assert (outcome.stop_reason, outcome.value) == ("finished", best.val_cosine)
    assert (outcome.attrs["epochs_run"], outcome.attrs["best_epoch"]) == (4, best.epoch)
    assert outcome.attrs["resumed_epochs"] == 3
    assert outcome.attrs.keys() == ALWAYS | OF_THE_BEST | {"resumed_epochs"}


def test_a_resumed_trial_is_pruned_by_its_last_epoch(data):
    _, outcome, _, _ = resuming(data, begun(data)[:2], reporter=Reporter(prune_from=2))
    assert (outcome.stop_reason, outcome.attrs["epochs_run"]) == ("pruned", 2)


def test_a_resumed_trial_that_had_ended_or_reached_the_target_is_told_at_once(data):
    history = begun(data)
    _, outcome, _, _ = resuming(data, history, reporter=Reporter())
    assert outcome.stop_reason == "finished"
    _, outcome, _, _ = resuming(data, history[:2], reporter=Reporter(), target=-1.0)
    assert outcome.stop_reason == "target"


def test_a_trial_that_begins_again_says_why_and_records_it(data):
    history, why = begun(data), "restarts at epoch 1: its checkpoints are torn"
    run, verdict, said, seen = resuming(data, [], reporter=Reporter(), note=why)
    assert (verdict, said, seen) == (None, [why], [])
    for result in history:
        outcome = run.take(Event(4, result), seen.append)
    assert (outcome.attrs["resumed_epochs"], outcome.attrs["resume_note"]) == (0, why)
    assert outcome.attrs["epochs_run"] == 4


def test_a_trial_resumed_in_its_second_attempt_stays_without_mixed_precision(data):
    history = begun(data, MIXED)
    run, _, _, _ = resuming(data, history[:2], config=MIXED, reporter=Reporter(), precision="bf16", in_precision="off")
    assert run.task == Task(4, MIXED, 3, "off", "trial-1", True)
    outcome = run.take(Event(4, Failure("loss is nan", non_finite=True)), lambda _: None)
    assert (outcome.stop_reason, outcome.attrs["amp"]) == ("non_finite", "off")
    assert outcome.attrs["retried_without_amp"]


def test_a_resumed_trial_that_becomes_nan_begins_again_without_expecting_a_checkpoint_of_that(data):
    run, _, _, _ = resuming(data, begun(data, MIXED)[:1], config=MIXED, reporter=Reporter(), precision="bf16")
    again = run.take(Event(4, Failure("loss is nan", non_finite=True)), lambda _: None)
    assert again == run.task == Task(4, MIXED, 3, "off", "trial-1", False)


def test_steps_that_are_known_are_not_reported_again_when_a_training_is_resumed_within_one_run(data):
    history, reporter = begun(data), Reporter()
    run = TrialRun(4, SMALL, Setup(data, CPU, "off"), seed=3, reporter=reporter, key="trial-4")
    for result in history[:2]:
        run.take(Event(4, result), lambda _: None)
    run.take(Event(4, Resumed(tuple(history[:3]), "off", None)), lambda _: None)
    assert reporter.steps == [1, 2, 3]


def test_a_note_is_said_and_ends_nothing(data):
    said = []
    run = TrialRun(4, SMALL, Setup(data, CPU, "off"), seed=3, reporter=Reporter(), note=said.append)
    assert run.take(Event(4, Note("could not save a checkpoint")), lambda _: None) is None
    assert said == ["could not save a checkpoint"]


# Several folds


def test_a_trial_of_several_folds_is_the_mean_of_trainings_on_other_people_each_with_a_seed_of_its_own(data):
    trial, alone = Trial(data, folds=3), []
    for fold in (1, 2, 3):
        seed = 3 if fold == 1 else derive(3, "fold", fold)
        trainer = Trainer(SMALL, data.fold(fold, of=3), seed=seed, device=CPU)
        alone.append([trainer.train_epoch() for _ in range(4)])
    kept = [min(epochs, key=lambda result: result.val_loss) for epochs in alone]
    assert trial.outcome.value == trial.attrs["val_cosine"] == fmean(best.val_cosine for best in kept)
    assert [fold["value"] for fold in trial.attrs["folds"]] == [best.val_cosine for best in kept]
    assert [fold["best_epoch"] for fold in trial.attrs["folds"]] == [best.epoch for best in kept]
    assert trial.reporter.reports == [(step, r.val_cosine) for step, r in enumerate((r for e in alone for r in e), 1)]
    assert trial.outcome.history == pack(alone[0])
    assert (trial.attrs["epochs_run"], trial.attrs["best_epoch"]) == (12, kept[0].epoch)
    assert trial.attrs.keys() == ALWAYS | OF_THE_BEST | {"folds"}
    assert json.loads(json.dumps(trial.attrs, allow_nan=False)) == trial.attrs
    assert Trial(data).outcome.value == kept[0].val_cosine  # the first of three is what a trial of one trains


def test_the_steps_of_a_fold_begin_at_a_place_of_their_own_and_only_the_first_fold_is_pruned(scripted):
    script = [(1, 0.5), (2, 0.5), (0.5, 0.6), (0.25, 0.7), (0.125, 0.8), (1, 0.7)]  # fold 1 stops early, after two
    trial = scripted(script, replace(SMALL, early_stopping_patience=1), folds=2)
    assert trial.reporter.steps == [1, 2, 4, 5, 6]  # epochs of three: fold 2 begins at 4
    assert trial.reporter.asked == [1]  # 2 ends fold 1 by itself
    assert [fold["stop_reason"] for fold in trial.attrs["folds"]] == ["early_stopping", "finished"]
    assert (trial.outcome.value, trial.outcome.stop_reason) == ((0.5 + 0.8) / 2, "finished")


def test_the_pruner_ends_a_trial_in_its_first_fold(scripted):
    trial = scripted([(1, 0.5), (0.5, 0.6), (1, 0.5), (1, 0.5)], reporter=Reporter(prune_from=1), folds=2)
    assert (trial.outcome.stop_reason, trial.outcome.value, trial.reporter.raced) == ("pruned", 0.5, [])
    assert [fold["value"] for fold in trial.attrs["folds"]] == [0.5]
    assert "raced_out_after_fold" not in trial.attrs


def test_a_trial_that_loses_the_race_after_a_fold_trains_on_no_other(scripted):
    script = [(1, 0.5), (0.5, 0.6), (1, 0.2), (2, 0.4), (1, 0.9), (1, 0.9)]
    trial = scripted(script, reporter=Reporter(lost_after=2), folds=3)
    assert (trial.outcome.stop_reason, trial.attrs["raced_out_after_fold"]) == ("pruned", 2)
    assert trial.reporter.raced == [[0.6], [0.6, 0.2]]
    assert (trial.outcome.value, trial.attrs["epochs_run"]) == ((0.6 + 0.2) / 2, 4)
    assert [fold["stop_reason"] for fold in trial.attrs["folds"]] == ["finished", "finished"]
    whole = scripted(script, folds=3)
    assert whole.reporter.raced == [[0.6], [0.6, 0.2]]  # after the last there is nothing to decide
    assert whole.outcome.stop_reason == "finished"


def test_no_epoch_of_one_fold_reaches_the_target(scripted):
    trial = scripted([(1, 0.9), (0.5, 0.9), (1, 0.9), (0.5, 0.9)], folds=2, target=0.8)
    assert (trial.outcome.stop_reason, trial.outcome.value, trial.attrs["epochs_run"]) == ("finished", 0.9, 4)


def test_nan_in_mixed_precision_begins_only_its_fold_again_and_the_next_trains_without(data, monkeypatch):
    begun, train_epoch = [], Trainer.train_epoch

    def failing(self):
        begun.append((self.precision, self.epoch))
        if len(begun) == 6:  # the second epoch of fold 2
            raise NonFiniteError("training loss is nan in epoch 2")
        return train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", failing)
    trial = Trial(data, MIXED, precision="bf16", folds=3)
    off = [("off", epoch) for epoch in (1, 2, 3, 4)]
    assert begun == [*(("bf16", epoch) for epoch in (1, 2, 3, 4)), ("bf16", 1), ("bf16", 2), *off, *off]
    assert [fold["amp"] for fold in trial.attrs["folds"]] == ["bf16", "off", "off"]
    assert trial.attrs["retried_without_amp"] is True
    assert trial.attrs["error"] == "fold 2: training loss is nan in epoch 2 (mixed precision: bf16)"
    assert trial.reporter.steps == list(range(1, 13))
    assert trial.outcome.stop_reason == "finished"


def test_a_failure_in_a_later_fold_ends_a_trial_and_what_it_had_is_told(data, monkeypatch):
    train_epoch, count = Trainer.train_epoch, iter(range(99))

    def failing(self):
        if next(count) == 4:
            raise RuntimeError("out of memory")
        return train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", failing)
    trial = Trial(data, folds=2)
    assert (trial.outcome.stop_reason, trial.attrs["error"]) == ("error", "fold 2: RuntimeError: out of memory")
    assert ([fold["fold"] for fold in trial.attrs["folds"]], trial.attrs["epochs_run"]) == ([1], 4)


def test_folds_that_have_ended_are_taken_over_from_their_checkpoints_and_a_fold_in_training_at_its_epoch(data):
    """As slots give it: what each checkpoint holds, before any other event of that fold."""
    whole, said = Trial(data, folds=3), []
    epochs, reporter = whole.epochs, Reporter()
    run = TrialRun(
        0, SMALL, Setup(data, CPU, "off"), seed=3, reporter=reporter, key="trial-0", folds=3, note=said.append
    )
    second = run.take(Event(0, Resumed(tuple(epochs[:4]), "off", None)), lambda _: None)
    assert (second.fold, second.seed, second.key) == (2, derive(3, "fold", 2), "trial-0-fold-2")
    assert run.take(Event(0, Resumed(tuple(epochs[4:6]), "off", None)), lambda _: None) is None
    assert said == ["resumes after epoch 2 of fold 2"]
    taken = [run.take(Event(0, result), lambda _: None) for result in epochs[6:]]
    assert taken[:1] == [None]
    assert (taken[1].fold, taken[1].key) == (3, "trial-0-fold-3")
    outcome = taken[-1]
    assert outcome.attrs.pop("resumed_epochs") == 6
    assert outcome == whole.outcome
    assert reporter.reports == whole.reporter.reports
