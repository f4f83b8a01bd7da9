"""What a search keeps of its trials: enough to go on at the next epoch, and afterwards the best weights of the best."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from searches import CPU, SAMPLED_ONLY, Watch, file_of, open_search, states
from stored_study import study_of, trial_of

from face3d_tune.config import TrialConfig
from face3d_tune.executor.slots import PlainSlot
from face3d_tune.search.retention import Retention
from face3d_tune.search.trial_run import Setup
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage
from face3d_tune.study.settings import Settings
from face3d_tune.study.trials import best_trial
from face3d_tune.training import checkpoint_file
from face3d_tune.training.plain import Trainer

EPOCHS = 3
STUDY = SAMPLED_ONLY.replace("batch_size = 8", "batch_size = 20")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "artifacts"


@pytest.fixture
def opened(sqlite, tmp_path, data, folder):
    """Open the study, as another run of the same command does."""

    def open_it(keep=10, artifacts=folder):
        kept = None if artifacts is None else Artifacts.parse(str(artifacts))
        file, setup = file_of(tmp_path, STUDY), Setup(data, CPU, "off")
        settings = Settings("keypoint", EPOCHS, None)
        return open_search(sqlite, "quick", file, settings, setup, artifacts=kept, keep_checkpoints=keep)

    return open_it


def run(search, trials, watch=None):
    watch = watch or Watch()
    slot = PlainSlot(search.setup.data, CPU, search.retention.checkpoints)
    try:
        search.run(trials, watch, slots=slot)
    finally:
        watch.files = names(search)
    return watch


def names(search):
    """Of all files, without the folder of the study."""
    checkpoints = search.retention.checkpoints
    return [name.partition("/")[2] for name in checkpoints.artifacts.names("")] if checkpoints else []


def curve_alone(trial, data):
    config, seed = TrialConfig(**trial.user_attrs["config"]), trial.user_attrs["seed"]
    trainer = Trainer(config, data, seed=seed, device=CPU)
    while trainer.stop_reason is None:
        trainer.train_epoch()
    return {result.epoch: result.val_cosine for result in trainer.history}


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_an_interrupted_trial_goes_on_at_its_next_epoch_as_if_nothing_had_happened(opened, data, epoch):
    with pytest.raises(KeyboardInterrupt):
        run(opened(), 2, Watch((1, epoch)))
    watch = run(opened(), 2)
    first, stopped, again = opened().study.trials
    assert [trial.state.name for trial in (first, stopped, again)] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert again.intermediate_values == curve_alone(again, data)
    assert again.user_attrs["resumed_epochs"] == epoch
    assert [result.epoch for result in watch.epochs[2]] == list(range(epoch, EPOCHS + 1))  # the last one shown again
    assert watch.notes == [f"trial 2: resumes after epoch {epoch}"]
    assert watch.files == ["best/trial-0.pth", "best/trial-2.pth"]


def test_a_trial_interrupted_again_and_again_never_repeats_an_epoch(opened, data):
    for epoch in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(opened(), 1, Watch((epoch - 1, epoch)))
    watch = run(opened(), 1)
    last = opened().study.trials[2]
    assert [result.epoch for result in watch.epochs[2]] == [2, 3]
    assert last.intermediate_values == curve_alone(last, data)
    assert last.user_attrs["lineage"] == 0


def test_without_its_checkpoints_a_trial_begins_again_and_says_so(opened, data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(opened(), 1, Watch((0, 2)))
    watch = run(opened(artifacts=tmp_path / "elsewhere"), 1)
    again = opened().study.trials[1]
    place = tmp_path / "elsewhere"
    assert watch.notes == [f"trial 1: restarts at epoch 1: {place} has no checkpoint of it"]
    assert again.user_attrs["resumed_epochs"] == 0
    assert again.intermediate_values == curve_alone(again, data)


def test_the_weights_that_are_kept_load_strictly_and_give_the_trials_value(opened, data, tmp_path):
    search = opened()
    run(search, 2)
    checkpoints, path = search.retention.checkpoints, tmp_path / "copy.pth"
    for trial in search.study.trials:
        path.write_bytes(checkpoints.artifacts.read(checkpoints.best_name(f"trial-{trial.number}")))
        held = checkpoint_file.load(path)
        trainer = Trainer(TrialConfig(**trial.user_attrs["config"]), data, seed=0, device=CPU)
        trainer.model.load_state_dict(held["model_state_dict"], strict=True)
        assert trainer.evaluate(trainer.validation).cosine == trial.value
        assert held["epoch"] == trial.user_attrs["best_epoch"] - 1


def test_only_the_best_trials_keep_their_weights(opened):
    search = opened(keep=2)
    files = run(search, 3).files
    best = sorted(search.study.trials, key=lambda trial: -trial.value)[:2]
    assert files == sorted(f"best/trial-{trial.number}.pth" for trial in best)
    assert run(opened(keep=0), 4).files == []


def test_of_equal_trials_the_weights_of_the_best_are_kept():
    study = study_of(*(trial_of("COMPLETE", value) for value in (0.5, 0.6, 0.6)))
    assert best_trial(study).number == 1
    assert Retention(study, None, keep=1)._ranked() == ["trial-1", "trial-2", "trial-0"]


def test_nothing_is_kept_of_a_trial_that_failed_for_good(opened, monkeypatch):
    search = opened()
    search.study.enqueue_trial({"lr": 1e-3, "use_pose_attention": False})
    train_epoch = Trainer.train_epoch

    def fails_later(trainer):
        if trainer.epoch == 2:
            raise RuntimeError("the disk is on fire")
        return train_epoch(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", fails_later)
        patch.setattr("face3d_tune.search.failures_in_a_row._ERRORS_IN_A_ROW", 1)
        with pytest.raises(Exception, match="the disk is on fire"):
            run(search, 1)
    assert search.study.trials[0].state == TrialState.FAIL
    assert names(search) == []


def test_what_a_crash_left_between_the_end_of_a_trial_and_its_filing_is_filed_by_the_next_run(opened, monkeypatch):
    search = opened()
    with monkeypatch.context() as patch:
        patch.setattr(search.retention, "take", lambda trial: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            run(search, 1)
    assert states(search.study) == ["COMPLETE"]
    assert [name.partition(".")[0] for name in names(search)] == ["running/trial-0"] * 2
    assert run(opened(), 1).files == ["best/trial-0.pth"]


def test_two_studies_of_one_name_in_two_databases_share_a_folder_without_touching_each_other(
    opened, tmp_path, data, folder
):
    run(opened(), 2)
    with Storage.parse(f"sqlite:///{(tmp_path / 'other.db').as_posix()}").opened(create=True) as storage:
        file, setup, settings = (
            file_of(tmp_path, STUDY),
            Setup(data, CPU, "off"),
            Settings("keypoint", EPOCHS, 7),
        )
        other = open_search(storage, "quick", file, settings, setup, artifacts=Artifacts.parse(str(folder)))
        assert run(other, 1).files.count("best/trial-0.pth") == 2


def test_no_artifacts_no_files(opened, folder):
    search = opened(artifacts=None)
    run(search, 1)
    assert not folder.exists()
    search.retention.note = pytest.fail
    search.retention.tidy()


class BrokenCheckpoints:
    """Checkpoints of which nothing can be written or removed."""

    def discard(self, key):
        return "could not remove checkpoints: no room"

    def finish(self, key, name, of):
        return f"could not keep the best weights of {name}: no room"

    def keep_best(self, ranked, keep):
        return "could not remove checkpoints: no room"

    def tidy(self, ended):
        return "could not tidy up checkpoints: no room"


def test_each_different_failure_is_noted_once_and_ends_nothing():
    study, notes = optuna.create_study(), []
    for _ in range(2):
        study.add_trial(create_trial(value=0.5, user_attrs={"config": {}, "stop_reason": "finished"}))
    retention = Retention(study, BrokenCheckpoints(), keep=1, folds=3)
    retention.note = notes.append
    for trial in study.trials:
        retention.take(trial)
    retention.tidy()
    assert notes == [
        "could not remove checkpoints: no room",
        "could not keep the best weights of trial-0: no room",
        "could not keep the best weights of trial-1: no room",
        "could not tidy up checkpoints: no room",
    ]
