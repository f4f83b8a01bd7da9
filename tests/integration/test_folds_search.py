"""Searches whose trials are means over folds: what they find, what an interrupt changes (nothing), and the race."""

import json
import os
import re
import shutil

import doomed
import optuna
import pytest
from command_line import call, start
from optuna.trial import TrialState, create_trial
from searches import CPU, Scripted, Watch, file_of, open_search, states

import face3d_tune
from face3d_tune.config import TrialConfig
from face3d_tune.errors import StudyError
from face3d_tune.executor.child import Share
from face3d_tune.executor.processes import ProcessSlots
from face3d_tune.executor.slots import BatchedSlots, PlainSlot
from face3d_tune.script.check import ScriptCheck, difference
from face3d_tune.script.first_epoch import FirstEpoch
from face3d_tune.search.trial_run import Setup
from face3d_tune.seeds import derive
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage
from face3d_tune.study.lookup import StoredTrial
from face3d_tune.study.settings import Settings
from face3d_tune.training.plain import Trainer

EPOCHS, FOLDS = 2, 3
STUDY = """
[budget]
trials = 2
epochs = 2
[sampler]
name = "random"
[fixed]
batch_size = 18
nhead = 2
num_layers = 1
[space]
lr = { low = 4e-3, high = 2e-2, scale = "log" }
dropout = { low = 0.0, high = 0.3 }
"""


class InFold(Watch):
    """Interrupts at the end of one epoch of one fold of one trial."""

    def __init__(self, number, fold, epoch):
        super().__init__()
        self.when = number, fold, epoch

    def epoch_ended(self, number, result):
        super().epoch_ended(number, result)
        if (*self.folds[-1][:2], result.epoch) == self.when:
            raise KeyboardInterrupt


def opener(storage, folder, data):
    """Opens a study, as another run of the same command does."""

    def open_it(folds=FOLDS, name="quick"):
        artifacts, settings = Artifacts.parse(str(folder / "artifacts")), Settings("keypoint", EPOCHS, None, folds)
        return open_search(
            storage, name, file_of(folder, STUDY), settings, Setup(data, CPU, "off"), artifacts=artifacts
        )

    return open_it


@pytest.fixture
def opened(sqlite, tmp_path, data):
    """Open the study, which has no trial."""
    return opener(sqlite, tmp_path, data)


@pytest.fixture(scope="module")
def one_trained(tmp_path_factory, data):
    """A folder with a study of one trial, and its artifacts."""
    folder = tmp_path_factory.mktemp("one")
    with Storage.parse(f"sqlite:///{folder / 'studies.db'}").opened(create=True) as storage:
        run(opener(storage, folder, data)(), 1)
    return folder


@pytest.fixture
def begun(one_trained, tmp_path, data):
    """Open the study in which the first trial is trained."""
    shutil.copytree(one_trained, tmp_path, dirs_exist_ok=True)
    with Storage.parse(f"sqlite:///{tmp_path / 'studies.db'}").opened() as storage:
        yield opener(storage, tmp_path, data)


def run(search, trials=2, watch=None, slots=None):
    watch = watch or Watch()
    slots = slots or PlainSlot(search.setup.data, CPU, search.retention.checkpoints)
    try:
        search.run(trials, watch, slots=slots)
    finally:
        slots.close()
    return watch


def alone(trial, data, fold):
    """The epochs of one fold of a trial, trained by themselves."""
    config, seed = TrialConfig(**trial.user_attrs["config"]), trial.user_attrs["seed"]
    seed = seed if fold == 1 else derive(seed, "fold", fold)
    trainer = Trainer(config, data.fold(fold, of=FOLDS), seed=seed, device=CPU)
    while trainer.stop_reason is None:
        trainer.train_epoch()
    return trainer.history


def found(study):
    """What may not depend on interrupts, by parameters."""
    completed = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    facts = [(trial.params, trial.value, trial.user_attrs["folds"], trial.intermediate_values) for trial in completed]
    return sorted(facts, key=str)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("undisturbed")
    with Storage.parse(f"sqlite:///{folder / 'studies.db'}").opened(create=True) as storage:
        settings, setup = Settings("keypoint", EPOCHS, None, FOLDS), Setup(data, CPU, "off")
        search = open_search(storage, "quick", file_of(folder, STUDY), settings, setup)
        search.run(2, Watch())
        return found(search.study)


def test_the_value_of_a_trial_is_the_mean_over_folds_trained_by_themselves(opened, data):
    search = opened()
    watch = run(search, 1)
    (trial,) = search.study.trials
    curves = [alone(trial, data, fold) for fold in (1, 2, 3)]
    kept = [min(curve, key=lambda result: result.val_loss).val_cosine for curve in curves]
    assert [fold["value"] for fold in trial.user_attrs["folds"]] == kept
    assert trial.value == sum(kept) / 3
    steps = {EPOCHS * place + r.epoch: r.val_cosine for place, curve in enumerate(curves) for r in curve}
    assert trial.intermediate_values == steps
    assert watch.folds == [(0, 1, 3), (0, 2, 3), (0, 3, 3)]


@pytest.mark.parametrize("fold", [1, 2, 3])
@pytest.mark.parametrize("epoch", [1, EPOCHS])
def test_a_trial_interrupted_in_any_fold_goes_on_there_and_ends_as_if_nothing_had_happened(
    begun, data, undisturbed, fold, epoch
):
    with pytest.raises(KeyboardInterrupt):
        run(begun(), watch=InFold(1, fold, epoch))
    watch = run(begun())
    search = begun()
    assert states(search.study) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert found(search.study) == undisturbed
    trained = [result.epoch for result in watch.epochs[2]]
    ended = [EPOCHS] * (
        fold - 1
    )  # the last epoch of each fold that had ended is shown again, and nothing of it trained
    rest = [*range(epoch, EPOCHS + 1), *[*range(1, EPOCHS + 1)] * (FOLDS - fold)]
    assert trained == ended + rest
    assert search.study.trials[2].user_attrs["resumed_epochs"] == EPOCHS * (fold - 1) + epoch
    said = [] if epoch == EPOCHS and fold < FOLDS else [f"trial 2: resumes after epoch {epoch} of fold {fold}"]
    assert watch.notes == said
    assert kept_files(search) == ["best/trial-0.pth", "best/trial-2.pth"]


def kept_files(search):
    return [name.partition("/")[2] for name in search.retention.checkpoints.artifacts.names("")]


def test_a_trial_interrupted_again_and_again_ends_as_if_nothing_had_happened(begun, undisturbed):
    for number, (fold, epoch) in enumerate([(1, 1), (2, 1), (2, 2), (3, 1)], 1):
        with pytest.raises(KeyboardInterrupt):
            run(begun(), watch=InFold(number, fold, epoch))
    run(begun())
    assert found(begun().study) == undisturbed


def test_without_checkpoints_a_trial_begins_again_at_its_first_fold(begun, data, undisturbed):
    with pytest.raises(KeyboardInterrupt):
        run(begun(), watch=InFold(1, 2, 1))
    search = begun()
    watch = run(search, slots=PlainSlot(data, CPU))
    assert watch.notes == ["trial 2: restarts at epoch 1: no checkpoints are kept"]
    assert found(search.study) == undisturbed


def test_the_weights_that_are_kept_are_those_of_the_first_fold(begun, data, tmp_path):
    search = begun()
    (trial,), checkpoints = search.study.trials, search.retention.checkpoints
    path = tmp_path / "copy.pth"
    path.write_bytes(checkpoints.artifacts.read(checkpoints.best_name("trial-0")))
    trainer = Trainer(TrialConfig(**trial.user_attrs["config"]), data.fold(1, of=3), seed=0, device=CPU)
    trainer.model.load_state_dict(face3d_tune.training.checkpoint_file.load(path)["model_state_dict"])
    assert trainer.evaluate(trainer.validation).cosine == trial.user_attrs["folds"][0]["value"] != trial.value
    assert kept_files(search) == ["best/trial-0.pth"]


def test_what_a_crash_left_of_all_folds_is_filed_by_the_next_run(opened, monkeypatch):
    search = opened()
    with monkeypatch.context() as patch:
        patch.setattr(search.retention, "take", lambda trial: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            run(search, 1)
    left = {name.split(".")[0] for name in kept_files(search)}
    assert left == {"running/trial-0", "running/trial-0-fold-2", "running/trial-0-fold-3"}
    run(opened(), 1)
    assert kept_files(search) == ["best/trial-0.pth"]


@pytest.mark.parametrize("where", ["processes", "one process"])
def test_several_trials_at_once_in_different_folds_give_what_each_gives_alone(opened, data, where):
    search = opened()
    if where == "processes":
        slots = ProcessSlots(data, [Share(CPU, 1)] * 2, search.retention.checkpoints)
    else:
        slots = BatchedSlots(data, CPU, 2, search.retention.checkpoints)
    run(search, 3, slots=slots)
    for trial in search.study.trials:
        for fold, told in enumerate(trial.user_attrs["folds"], 1):
            best = min(alone(trial, data, fold), key=lambda result: result.val_loss)
            assert told["value"] == pytest.approx(best.val_cosine, abs=1e-4)  # the plain engine's, in float32
            assert told["best_epoch"] == best.epoch
    assert states(search.study) == ["COMPLETE"] * 3
    assert kept_files(search) == [f"best/trial-{number}.pth" for number in range(3)]


def test_several_trials_at_once_that_are_interrupted_in_their_second_fold_go_on_there(opened, data):
    with_interrupt, without = opened(name="one"), opened(name="other")
    run(without, 2, slots=BatchedSlots(data, CPU, 2, without.retention.checkpoints))
    slots = BatchedSlots(data, CPU, 2, with_interrupt.retention.checkpoints)
    with pytest.raises(KeyboardInterrupt):
        run(with_interrupt, 2, InFold(1, 2, 1), slots=slots)
    again = opened(name="one")
    run(again, 2, slots=BatchedSlots(data, CPU, 2, again.retention.checkpoints))
    assert states(again.study) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert found(again.study) == found(without.study)
    assert [trial.user_attrs.get("resumed_epochs", 0) for trial in again.study.trials[2:]] == [EPOCHS + 1] * 2


# The race


def test_a_trial_that_is_clearly_worse_stops_after_its_first_fold(sqlite, tmp_path, data):
    cosines = {  # of each trial in each fold, of which the second is the hardest; the fourth trial learns nothing
        0: (0.80, 0.75, 0.82),
        1: (0.81, 0.77, 0.82),
        2: (0.80, 0.76, 0.83),
        3: (0.60, 0.50, 0.60),
        4: (0.80, 0.77, 0.82),
    }
    settings, watch = Settings("keypoint", EPOCHS, None, FOLDS), Watch()
    search = open_search(sqlite, "quick", file_of(tmp_path, STUDY), settings, Setup(data, CPU, "off"))

    def play(task, number):
        return cosines[task.number][task.fold - 1] - 0.1 * (EPOCHS - number), "finished" if number == EPOCHS else None

    search.run(5, watch, slots=Scripted(1, play))
    assert states(search.study) == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    bad = search.study.trials[3].user_attrs
    assert (bad["stop_reason"], bad["raced_out_after_fold"], bad["epochs_run"]) == ("pruned", 1, EPOCHS)
    assert [(fold["fold"], fold["stop_reason"]) for fold in bad["folds"]] == [(1, "finished")]
    assert [fold for number, fold, _ in watch.folds if number == 3] == [1]
    assert bad["val_cosine"] == 0.6


# What a study remembers


def test_a_study_of_several_folds_goes_on_with_as_many_only(begun, data):
    with pytest.raises(StudyError, match="made with folds = 3, now it is 1") as refused:
        begun(folds=1)
    assert refused.value.hint.startswith("means over folds and values of one split do not compare; ")
    with pytest.raises(StudyError, match="made with folds = 3, now it is 2"):
        begun(folds=2)
    attrs = begun().study.user_attrs
    cosines = [fold.no_model_cosine("validation") for fold in data.folds(3)]
    assert attrs["settings"]["folds"] == 3
    assert attrs["no_model_cosine"] == pytest.approx(sum(cosines) / 3, abs=1e-12)
    assert attrs["data_fingerprint"] == data.fingerprint()


def test_a_study_from_before_there_were_folds_has_one(opened):
    search = opened(folds=1)
    settings = search.study.user_attrs["settings"]
    search.study.set_user_attr("settings", {key: settings[key] for key in settings if key != "folds"})
    assert "folds" not in run_attrs(opened(folds=1))
    with pytest.raises(StudyError, match="made with folds = 1, now it is 3"):
        opened(folds=3)


def run_attrs(search):
    run(search, 1)
    return search.study.trials[0].user_attrs


# The commands


@pytest.fixture(scope="module")
def session(tmp_path_factory, data_folder):
    """A folder in which a search has run, and what it said."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "quick.toml").write_text(STUDY, encoding="utf-8")
    words = ("run", "--study", "quick.toml", "--data-dir", data_folder, "--device", "cpu", "--folds", 3)
    return folder, call(*words, cwd=folder)


def test_a_search_says_that_its_values_are_means_over_folds(session):
    folder, answer = session
    assert answer.code == 0, answer.err
    assert "; up to 2 epochs in each of 3 folds\n" in answer.err
    assert "goal     mean validation cosine over 3 folds of people; without a model it is 0.6920, ridge " in answer.err
    line = r"^#\d sampled +cosine 0\.\d{4}, rank-1 \d\.\d{3} \(mean over 3 folds, 6 epochs, finished, "
    assert len(re.findall(line, answer.err, re.M)) == 2
    assert answer.out.startswith("Validation on 10 people, none trained on in their fold; mean over 3 folds:\n")
    shown = call("status", cwd=folder).out
    assert re.search(
        r"best validation cosine 0\.\d{4}, trial \d \(sampled\), mean over 3 folds; without a model", shown
    )


def test_a_trial_of_several_folds_is_trained_on_the_ordinary_split_and_that_is_said(session):
    folder, _ = session
    trained = call("train", "--device", "cpu", "--out", "out", cwd=folder)
    assert trained.code == 0, trained.err
    assert re.search(
        r"note: the trial's value, 0\.\d{4}, is a mean over 3 folds; this training uses the ordinary split", trained.err
    )
    assert "the same" not in trained.out
    exported = json.loads(call("export", "--format", "json", cwd=folder).out)
    assert json.dumps(exported).count('"folds": 3') == 1


def test_an_earlier_run_cannot_be_taken_into_a_study_of_several_folds(session, data_folder):
    """The training above is one; its value is that of one split."""
    folder, _ = session
    words = ("--study", "quick.toml", "--data-dir", data_folder)
    assert call("train", "--device", "cpu", "--out", "again", cwd=folder).code == 0
    refused = call("import", "again/best_model.pth", *words, "--unconfirmed", cwd=folder)
    assert refused.code == 2
    assert "study 'quick' was made with folds = 3, now it is 1" in refused.err
    assert "hint: means over folds and values of one split do not compare" in refused.err
    assert call("status", "--json", cwd=folder).out.count('"imported": 0') == 1


@pytest.mark.parametrize(("folds", "said"), [(1, False), (3, False), (5, True)])
def test_a_script_is_compared_with_a_first_fold_of_other_people_only_with_that_said(folds, said):
    trial = create_trial(state=TrialState.COMPLETE, value=0.5, intermediate_values={1: 0.5})
    lines = difference(
        ScriptCheck(FirstEpoch(0.5, 0.5, "checkpoint"), None, 1.0, ()),
        StoredTrial("s", {"settings": {"folds": folds}}, trial, [trial]),
    )
    assert any("fold 1 of 5, which validates on other people than the script" in line for line in lines) == said


def test_report_and_note_say_what_the_value_is(session):
    folder, _ = session
    assert call("report", "-o", "report.md", cwd=folder).code == 0
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "each repeated on up to 3 folds, so that 10 people (60 pairs of views) are each judged by a model" in text
    assert "The value is the mean of 3 trainings, each judged on other people (0." in text
    assert "Curves, kept epochs and what is read from them are those of fold 1." in text
    content = json.loads(call("report", "--format", "json", "-o", "-", cwd=folder).out)
    assert (content["folds"], [fold["fold"] for fold in content["best"]["folds"]]) == (3, [1, 2, 3])
    assert len(content["best"]["history"]["cosine"]) == EPOCHS
    assert content["repeat"][content["repeat"].index("--folds") + 1] == "3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--folds", 11), "error: 11 folds need 11 people who do not test; here are 10\nhint: --folds 10 at most\n"),
        (("--folds", 3, "--split", "none"), "error: 3 folds need split = person; with split = none everyone trains"),
        (("--folds", 0), "Invalid value for '--folds': 0 is not in the range x>=1."),
    ],
)
def test_folds_that_cannot_be_are_refused_before_anything_is_stored(tmp_path, data_folder, words, said):
    (tmp_path / "quick.toml").write_text(STUDY, encoding="utf-8")
    answer = call("run", "--study", "quick.toml", "--data-dir", data_folder, *words, cwd=tmp_path)
    assert answer.code == 2
    assert said in answer.err
    assert not list(tmp_path.glob("*.db"))


def test_a_batch_larger_than_the_smallest_fold_is_refused_before_anything_is_stored(tmp_path, data_folder):
    """Of 2 folds one trains on 5 people with 6 views each; the ordinary split has 7 people."""
    (tmp_path / "quick.toml").write_text(STUDY.replace("batch_size = 18", "batch_size = 31"), encoding="utf-8")
    words = ("run", "--study", "quick.toml", "--data-dir", data_folder, "--epochs", 1, "--trials", 1)
    refused = call(*words, "--folds", 2, cwd=tmp_path)
    assert refused.code == 2
    assert "batch_size = 31 is more than the 30 training pairs" in refused.err
    assert not list(tmp_path.glob("*.db"))
    assert call(*words, cwd=tmp_path).code == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")
@pytest.mark.parametrize(
    ("moment", "skip", "reported", "saved"),
    [("in an epoch", 7, 3, 3), ("before a checkpoint", 3, 3, 3), ("between checkpoint and report", 2, 2, 3)],
)
def test_a_search_killed_in_a_second_fold_ends_as_if_nothing_had_been(
    tmp_path, data_folder, undisturbed, moment, skip, reported, saved
):
    """With so many epochs reported and saved: an epoch has two batches of 18 of the 42 training pairs."""
    (tmp_path / "quick.toml").write_text(STUDY, encoding="utf-8")
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    words = ("run", "--study", tmp_path / "quick.toml", "--data-dir", data_folder, "--storage", url, "--device", "cpu")
    words = (*words, "--trials", 2, "--folds", 3, "--artifacts", tmp_path / "artifacts", "--slots", 1)
    assert doomed.run(*words, moment=moment, trial=1, skip=skip) == -9
    rest = call(*words, cwd=tmp_path)
    assert rest.code == 0, rest.err
    with Storage.parse(url).opened() as storage:
        study = optuna.load_study(study_name="quick", storage=storage)
        assert states(study) == ["COMPLETE", "FAIL", "COMPLETE"]
        assert len(study.trials[1].intermediate_values) == reported
        assert study.trials[2].user_attrs["resumed_epochs"] == saved
        assert found(study) == undisturbed


def test_two_workers_share_a_study_of_folds_on_postgres(postgres_tables_url, data_folder, tmp_path):
    (tmp_path / "quick.toml").write_text(STUDY, encoding="utf-8")
    words = ["run", "--study", str(tmp_path / "quick.toml"), "--data-dir", str(data_folder), "--device", "cpu"]
    words += ["--trials", "3", "--folds", "3", "--storage", postgres_tables_url]
    workers = [start(*words, cwd=tmp_path) for _ in "ab"]
    printed = ["".join(worker.communicate(timeout=300)) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    with Storage.parse(postgres_tables_url).opened() as storage:
        trials = optuna.load_study(study_name="quick", storage=storage).trials
    assert len(trials) in (3, 4)
    ended = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    values = [[fold["value"] for fold in trial.user_attrs["folds"]] for trial in ended]
    assert [trial.value for trial in ended] == pytest.approx([sum(each) / 3 for each in values], abs=1e-12)
    assert {len(trial.user_attrs["folds"]) for trial in ended} == {3}
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
