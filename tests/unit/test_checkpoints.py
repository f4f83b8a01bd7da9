"""Going on where a training was: bit for bit what it would have been, and what is done where that cannot be."""

import copy
import hashlib
import json
import pickle
import random
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import BUCKET

from face3d_tune.config import TrialConfig
from face3d_tune.data.provenance import DataUse
from face3d_tune.errors import ArtifactError, TrainingError
from face3d_tune.executor import checkpoints as checkpoints_module
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.slots import BatchedSlots, PlainSlot
from face3d_tune.executor.tasks import Note, Resumed, Task
from face3d_tune.seeds import generator
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.training import checkpoint_file
from face3d_tune.training.batched.batch import Batch, Data, alone
from face3d_tune.training.model import Model
from face3d_tune.training.plain import Trainer

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
# Rate decays and early stopping both happen within these epochs; a test below holds that.
CONFIG = TrialConfig(
    d_model=16,
    dim_feedforward=16,
    nhead=2,
    num_layers=1,
    batch_size=8,
    epochs=9,
    lr=0.1,
    dropout=0.5,
    weight_decay=0.1,
    use_pose_attention=True,
    scheduler_patience=0,
    early_stopping_patience=3,
    early_stopping_min_delta=1e-3,
)
POSE = replace(CONFIG, layout="pose", pose_unit="radians")
MIXED = replace(CONFIG, use_mixed_precision=True)
KINDS = ("plain", "batched")


@pytest.fixture(scope="module")
def data(few_people):
    return few_people


def make(kind, data, config=CONFIG, seed=5, precision="off"):
    if kind == "plain":
        return Trainer(config, data, seed=seed, device=CPU, precision=precision)
    return alone(config, data, seed=seed, device=CPU, precision=precision)


def to_the_end(training):
    while training.stop_reason is None:
        training.train_epoch()
    return training


def state(training):
    """A copy of everything that it is, without the time that it took."""
    whole = copy.deepcopy(training.snapshot())
    for result in whole["history"]:
        del result["seconds"]
    return whole


def same(one, other):
    """Bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(Artifacts.parse(str(tmp_path / "kept")), "a study")


def files(tmp_path):
    """Names and content of everything that is kept."""
    root = tmp_path / "kept"
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def running(tmp_path):
    return [path for name, path in files(tmp_path).items() if "/running/" in name]


# Bit for bit


@pytest.mark.parametrize("config", [CONFIG, POSE], ids=["keypoint", "pose"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_resumed_after_any_epoch_ends_as_if_it_had_never_been_interrupted(data, checkpoints, kind, config):
    whole = make(kind, data, config)
    task, interrupted = Task(0, config, 5, "off"), []
    while whole.stop_reason is None:
        whole.train_epoch()
        key = f"trial-{whole.epoch}"
        interrupted.append(key)
        assert checkpoints.save(key, whole) is None
    assert whole.stop_reason == "early_stopping"
    assert len({result.lr for result in whole.history}) > 2
    for epochs, key in enumerate(interrupted, start=1):
        again = make(kind, data, config)
        again.restore(checkpoints.load(key, task).snapshot)
        assert again.history == whole.history[:epochs]
        assert same(state(to_the_end(again)), state(whole))
        assert (again.best, again.stop_reason) == (
            replace(whole.best, seconds=again.best.seconds),
            whole.stop_reason,
        )


BEYOND = {
    "plateau after a warm-up": {"warmup_epochs": 2},
    "cosine after a warm-up": {"warmup_epochs": 2, "scheduler_type": "cosine"},
    "Adam": {"optimizer": "adam", "scheduler_type": "cosine"},
    "weights and augmentation": {
        **{"oversampling": 2.0, "view_mixing": 0.5, "feature_noise": 0.3, "pose_jitter": 5.0, "landmark_noise": 0.1},
        **{"focal_gamma": 1.0, "angle_weight": 1.0, "scheduler_type": "cosine", "identity_weight": 0.3},
    },
}


@pytest.mark.parametrize("what", BEYOND)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_of_schedules_adam_and_augmentation_either(data, checkpoints, kind, what):
    config = replace(CONFIG, **BEYOND[what], epochs=4, early_stopping_patience=0)
    whole = make(kind, data, config)
    while whole.stop_reason is None:
        whole.train_epoch()
        assert checkpoints.save(f"trial-{whole.epoch}", whole) is None
    assert len({result.lr for result in whole.history}) > 2
    for epochs in (1, 3):  # in the warm-up and after it
        again = make(kind, data, config)
        again.restore(checkpoints.load(f"trial-{epochs + 1}", Task(0, config, 5, "off")).snapshot)
        assert same(state(to_the_end(again)), state(whole))


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_that_has_forgotten_an_epoch_would_be_noticed(data, kind):
    config = replace(CONFIG, scheduler_type="cosine", early_stopping_patience=0, epochs=4)
    whole, again = make(kind, data, config), make(kind, data, config)
    whole.train_epoch()
    snapshot = copy.deepcopy(whole.snapshot())
    snapshot["scheduler"]["epochs"] -= 1
    again.restore(snapshot)
    assert not same(state(to_the_end(again)), state(to_the_end(whole)))


LATER = ("optimizer", "focal_gamma", "angle_weight", "scheduler_type", "warmup_epochs", "oversampling")
LATER += ("view_mixing", "feature_noise", "pose_jitter", "landmark_noise", "identity_weight", "identity_temperature")
LATER += ("inputs",)


def test_a_checkpoint_of_the_version_before_is_found_and_gone_on_with(data, checkpoints, tmp_path):
    whole = make("plain", data)
    whole.train_epoch()
    whole.train_epoch()
    assert checkpoints.save("trial-1", whole) is None
    (path,) = running(tmp_path)
    content = checkpoint_file.unseal(path.read_bytes())
    for name in LATER:
        del content["config"][name]
    content["snapshot"]["scheduler"] = content["snapshot"]["scheduler"]["plateau"]  # torch's own, and nothing beside
    for result in content["snapshot"]["history"]:
        del result["recognition"]
    digest = hashlib.sha256(json.dumps([content["config"], 5], sort_keys=True).encode()).hexdigest()[:12]
    assert digest in path.name
    path.write_bytes(checkpoint_file.seal(content))
    again = make("plain", data)
    again.restore(checkpoints.load("trial-1", Task(0, CONFIG, 5, "off")).snapshot)
    found, expected = state(to_the_end(again)), state(to_the_end(whole))
    for result in expected["history"][:2]:
        result["recognition"] = None
    assert same(found, expected)
    assert found["history"][2]["recognition"] is not None


def test_a_training_resumed_in_a_batch_is_as_alone_and_its_neighbours_do_not_notice(data):
    configs = [replace(CONFIG, lr=lr, early_stopping_patience=0) for lr in (1e-3, 3e-2, 3e-3)]
    expected = [state(to_the_end(make("batched", data, config, seed))) for seed, config in enumerate(configs)]
    for epoch in (1, 4, CONFIG.epochs - 1):
        stopped = make("batched", data, configs[1], 1)
        for _ in range(epoch):
            stopped.train_epoch()
        batch = Batch(CONFIG, Data(data, CPU), "off")
        for seed, config in enumerate(configs[:2]):  # the second is one whose place is taken over in mid-life
            batch.add(config, seed, "off")
        batch.train_epoch()
        again = batch.replace(batch.members[1], configs[1], 1, "off")
        again.restore(checkpoint_file.unseal(checkpoint_file.seal(stopped.snapshot())))
        batch.add(configs[2], 2, "off")
        members = list(batch.members)
        while batch.members:
            batch.train_epoch()
            ended = [member for member in batch.members if member.stop_reason]
            for member in ended:
                assert same(state(member), expected[members.index(member)])
            if ended:
                batch.remove(*ended)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_goes_on_with_its_scale(data, kind, precision):
    whole, again = make(kind, data, MIXED, precision=precision), make(kind, data, MIXED, precision=precision)
    for _ in range(2):
        whole.train_epoch()
    if precision == "fp16":  # neither the first scale nor the first count
        scale = {"scale": 1024.0, "since_overflow": 1995}  # it grows after 2000 steps, in the second epoch to come
        whole.load_numbers(whole.model_state(), whole.optimizer_state(), scale)
        assert whole.scale_state() == scale
    again.restore(checkpoint_file.unseal(checkpoint_file.seal(whole.snapshot())))
    for _ in range(2):
        whole.train_epoch()
        again.train_epoch()
    assert again.scale_state()["scale"] == (2048.0 if precision == "fp16" else whole.scale_state()["scale"])
    assert same(state(again), state(whole))


def spoil_moment(snapshot):
    snapshot["optimizer"]["state"][0]["exp_avg_sq"][0] *= 1.5


def spoil_steps(snapshot):
    for each in snapshot["optimizer"]["state"].values():
        each["step"] += 1


def spoil_weight(snapshot):
    snapshot["model"]["output_projection.weight"][0, 0] += 1e-6


def spoil_running_mean(snapshot):
    snapshot["model"]["keypoint_encoder.1.running_mean"][0] += 1e-3


def spoil_rate(snapshot):
    snapshot["optimizer"]["param_groups"][0]["lr"] *= 1.001


def spoil_scheduler(snapshot):
    snapshot["scheduler"]["plateau"]["best"] = -1.0


def spoil_early_stopping(snapshot):
    snapshot["early_stopping"]["epochs_without_progress"] += 1


def spoil_scale(snapshot):
    snapshot["scale"]["scale"] /= 1024


SPOILT = [
    spoil_moment,
    spoil_steps,
    spoil_weight,
    spoil_running_mean,
    spoil_rate,
    spoil_scheduler,
    spoil_early_stopping,
]


@pytest.fixture(scope="module")
def near_the_end(data):
    """What a training of either kind is two epochs before its end, and at its end."""
    known = {}

    def train(kind, end=False):
        if kind not in known:
            whole, snapshots = make(kind, data), []
            while whole.stop_reason is None:
                whole.train_epoch()
                snapshots.append(copy.deepcopy(whole.snapshot()))
            known[kind] = snapshots[-3], state(whole)
        return known[kind][end]

    return train


def test_what_is_restored_near_the_end_ends_as_if_nothing_had_been(data, near_the_end):
    """So that what follows would be noticed for what is spoiled alone."""
    for kind in KINDS:
        again = make(kind, data)
        again.restore(copy.deepcopy(near_the_end(kind)))
        assert same(state(to_the_end(again)), near_the_end(kind, end=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_whatever_is_not_restored_would_be_noticed(data, near_the_end, kind, spoil):
    snapshot, end = copy.deepcopy(near_the_end(kind)), near_the_end(kind, end=True)
    spoil(snapshot)
    again = make(kind, data)
    again.restore(snapshot)
    assert not same(state(to_the_end(again)), end)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_that_is_not_restored_would_be_noticed(data, kind):
    whole, again = (make(kind, data, MIXED, precision="fp16") for _ in range(2))
    whole.train_epoch()
    snapshot = copy.deepcopy(whole.snapshot())
    spoil_scale(snapshot)
    again.restore(snapshot)
    whole.train_epoch()
    again.train_epoch()
    assert not same(state(again), state(whole))


@pytest.mark.parametrize(("first", "then"), [KINDS, KINDS[::-1]])
def test_what_one_engine_has_begun_the_other_goes_on_with(data, first, then):
    config = replace(CONFIG, lr=3e-3)
    whole, again = make(first, data, config), make(then, data, config)
    for _ in range(3):
        whole.train_epoch()
    again.restore(checkpoint_file.unseal(checkpoint_file.seal(whole.snapshot())))
    assert same({**state(again), "engine": first}["model"], state(whole)["model"])
    for _ in range(3):
        expected, result = whole.train_epoch(), again.train_epoch()
        assert result.val_loss == pytest.approx(expected.val_loss, rel=1e-4)
        assert result.lr == expected.lr


def test_an_fp16_training_all_of_whose_steps_overflowed_is_taken_over_by_the_other_engine(data):
    gentle = replace(MIXED, lr=3e-3)  # else the roundings of the two grow beyond a hundredth
    whole, again = (make(kind, data, gentle, precision="fp16") for kind in KINDS)
    again.restore(copy.deepcopy(whole.snapshot()))  # no optimiser step yet
    assert again.train_epoch().val_loss == pytest.approx(whole.train_epoch().val_loss, rel=1e-2)


# Files


def saved(checkpoints, training, epochs, key="trial-1"):
    """Train and save so many epochs; what it would have gone on with after each."""
    given = []
    for _ in range(epochs):
        training.train_epoch()
        assert checkpoints.save(key, training) is None
        given.append(state(training))
    return given


@pytest.fixture(scope="module")
def three_epochs(data, tmp_path_factory):
    """A folder with what a training has saved in its first three epochs, and what it would have gone on with."""
    folder = tmp_path_factory.mktemp("three") / "kept"
    return folder, saved(Checkpoints(Artifacts.parse(str(folder)), "a study"), make("batched", data), 3)


@pytest.fixture
def begun(three_epochs, checkpoints, tmp_path):
    """The same of the test's own `checkpoints`."""
    shutil.copytree(three_epochs[0], tmp_path / "kept", dirs_exist_ok=True)
    return three_epochs[1]


@pytest.fixture(scope="module")
def after_an_epoch(data):
    training = make("batched", data)
    training.train_epoch()
    return training


def found(checkpoints, data, task, key="trial-1", kind="batched"):
    loaded = checkpoints.load(key, task)
    if loaded is None or loaded.snapshot is None:
        return loaded, None
    training = make(kind, data, task.config, task.seed, loaded.precision)
    training.restore(loaded.snapshot)
    return loaded, state(training)


TASK = Task(1, CONFIG, 5, "off", "trial-1")


def test_the_last_two_epochs_are_kept(data, checkpoints, tmp_path):
    expected = saved(checkpoints, make("batched", data), 4)
    assert [path.name.rpartition(".")[2] for path in running(tmp_path)] == ["000003", "000004"]
    loaded, held = found(checkpoints, data, TASK)
    assert same(held, expected[3])
    assert (loaded.note, loaded.precision) == (None, "off")


@pytest.mark.parametrize("seed", range(12))
def test_a_torn_file_is_noticed_and_the_one_before_it_used(data, checkpoints, begun, tmp_path, seed):
    chance, newest = random.Random(seed), running(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    if seed % 2:
        content = content[: chance.randrange(len(content))]
    else:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    newest.write_bytes(content)
    loaded, held = found(checkpoints, data, TASK)
    assert same(held, begun[1])
    assert loaded.note.startswith("the checkpoint of epoch 3 cannot be used, ")


def test_two_torn_files_let_the_training_begin_again_and_say_so(data, checkpoints, begun, tmp_path):
    for path in running(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    slots = BatchedSlots(data, CPU, 1, checkpoints)
    slots.start(TASK)
    (event,) = slots.wait()
    assert event.content.results == ()
    assert event.content.note.startswith("restarts at epoch 1: the checkpoint of epoch 3 cannot be used, ")
    assert [event.content.epoch for event in slots.wait()] == [1]
    assert [path.name.rpartition(".")[2] for path in running(tmp_path)] == ["000001"]


@pytest.mark.parametrize("other", [replace(TASK, seed=6), replace(TASK, config=POSE)], ids=["seed", "config"])
def test_a_checkpoint_of_another_training_is_none(checkpoints, begun, other):
    assert checkpoints.load("trial-1", TASK).snapshot is not None
    assert checkpoints.load("trial-1", other) is None
    assert checkpoints.load("trial-11", TASK) is None
    assert replace(checkpoints, study="A study").load("trial-1", TASK) is None


def test_the_second_attempt_without_mixed_precision_is_what_is_gone_on_with(data, checkpoints):
    first, second = make("batched", data, MIXED, precision="bf16"), make("batched", data, MIXED)
    lower, full = (Task(1, MIXED, 5, precision, "trial-1") for precision in ("bf16", "off"))
    expected = saved(checkpoints, first, 4)
    loaded, held = found(checkpoints, data, lower)
    assert loaded.precision == "bf16"
    assert same(held, expected[3])
    assert checkpoints.load("trial-1", full) is None  # that of the first attempt is stale
    again = saved(checkpoints, second, 2)
    for task in (lower, full):
        loaded, held = found(checkpoints, data, task)
        assert loaded.precision == "off"
        assert same(held, again[1])


def test_whoever_comes_back_late_leaves_the_later_checkpoints_of_his_successor(data, checkpoints):
    late = make("batched", data)
    saved(checkpoints, late, 2)
    expected = saved(checkpoints, make("batched", data), 5)
    saved(checkpoints, late, 1)
    assert same(found(checkpoints, data, TASK)[1], expected[4])


@pytest.mark.parametrize("study", ["CON", "../../etc/passwd", "a/b\\c:d", "名前", "x" * 300, "ends.", ""])
def test_any_name_of_a_study_is_a_folder_of_its_own_on_every_system(checkpoints, after_an_epoch, tmp_path, study):
    one, other = replace(checkpoints, study=study), replace(checkpoints, study=study + " ")
    assert one.save("trial-1", after_an_epoch) is None
    assert other.load("trial-1", TASK) is None
    assert one.load("trial-1", TASK).snapshot is not None
    (name,) = files(tmp_path)
    assert len(name.split("/")) == 3
    assert len(name) < 120
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-./")


def test_checkpoints_can_be_sent_to_another_process(checkpoints, after_an_epoch):
    sent = pickle.loads(pickle.dumps(checkpoints))
    assert sent.save("trial-1", after_an_epoch) is None
    assert checkpoints.load("trial-1", TASK).snapshot is not None


def test_a_sealed_checkpoint_holds_tensors_and_plain_values_only(data):
    training = make("plain", data)
    training.train_epoch()
    assert same(checkpoint_file.unseal(checkpoint_file.seal(training.snapshot())), copy.deepcopy(training.snapshot()))
    with pytest.raises(TrainingError, match="torn"):
        checkpoint_file.unseal(b"")


def test_a_bucket_of_s3_does_as_well_as_a_folder(data, s3, checkpoints):
    checkpoints = replace(checkpoints, artifacts=Artifacts.parse(f"s3://{BUCKET}/face3d"))
    expected = saved(checkpoints, make("batched", data), 3)
    epochs = [name.rpartition(".")[2] for name in checkpoints.artifacts.names("")]
    assert epochs == ["000002", "000003"]
    newest = checkpoints.artifacts.names("")[-1]
    checkpoints.artifacts.write(newest, checkpoints.artifacts.read(newest)[:-1])
    loaded, held = found(pickle.loads(pickle.dumps(checkpoints)), data, TASK)
    assert same(held, expected[1])
    assert "epoch 3" in loaded.note
    assert checkpoints.finish("trial-1", "trial-1") is None
    assert checkpoints.artifacts.names("") == [checkpoints.best_name("trial-1")]
    assert checkpoints.keep_best(["trial-1"], 0) is None
    assert checkpoints.artifacts.names("") == []


def test_a_file_that_says_it_is_whole_and_is_none_of_ours_is_not_used(data, checkpoints, tmp_path):
    expected = saved(checkpoints, make("batched", data), 2)
    body = b"not a torch file"
    head = checkpoint_file._MAGIC + hashlib.sha256(body).digest()
    running(tmp_path)[-1].write_bytes(head + body)
    loaded, held = found(checkpoints, data, TASK)
    assert same(held, expected[0])
    assert "epoch 2" in loaded.note


# The best weights


USE = DataUse(data_dir="somewhere", feature_size=16, file_pose_unit="degrees")


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_trial_keeps_only_its_best_weights_in_the_users_format(data, checkpoints, tmp_path, kind):
    checkpoints, weights = replace(checkpoints, use=USE), {}
    slots = PlainSlot(data, CPU, checkpoints) if kind == "plain" else BatchedSlots(data, CPU, 1, checkpoints)
    slots.start(TASK)
    history = []
    while not history or history[-1].stop_reason is None:
        history += [event.content for event in slots.wait()]
    assert checkpoints.finish("trial-1", "trial-1") is None
    assert list(files(tmp_path)) == [checkpoints.best_name("trial-1")]
    kept = torch.load(files(tmp_path)[checkpoints.best_name("trial-1")], weights_only=True)
    whole = make(kind, data)
    best = min(history, key=lambda result: result.val_loss)
    assert best.epoch < len(history)  # so its weights have been carried along
    for _ in range(best.epoch):
        whole.train_epoch()
    weights = whole.model_state()
    assert same(dict(kept["model_state_dict"]), dict(weights))
    Model(CONFIG, 16, generator(0)).load_state_dict(kept["model_state_dict"])  # strictly
    expected = whole.checkpoint(kept["args"])
    for name in ("epoch", "best_val_loss", "train_loss_history", "val_loss_history", "val_cosine_sim_history"):
        assert kept[name] == expected[name]
    assert (kept["args"]["data_dir"], kept["args"]["lr"]) == ("somewhere", CONFIG.lr)
    assert kept.keys() == expected.keys()
    optimizer = torch.optim.AdamW(Model(CONFIG, 16, generator(0)).parameters())
    optimizer.load_state_dict(kept["optimizer_state_dict"])
    assert optimizer.param_groups[0]["lr"] == best.next_lr


def test_what_a_trial_left_whose_number_was_given_again_is_neither_removed_nor_taken(data, checkpoints, tmp_path):
    """As after a failover: the later trial has another seed, and is pruned after two epochs."""
    gone = saved(checkpoints, make("batched", data), 3)
    before = set(running(tmp_path))
    weights = saved(checkpoints, make("batched", data, seed=6), 2)[1]
    assert before < set(running(tmp_path))
    assert checkpoints.finish("trial-1", "trial-1", (CONFIG, 6)) is None
    assert set(running(tmp_path)) == before
    kept = torch.load(files(tmp_path)[checkpoints.best_name("trial-1")], weights_only=True)
    assert len(kept["train_loss_history"]) <= 2
    assert not same(weights, gone[1])


def test_the_best_weights_survive_a_death_between_them_and_the_end(data, checkpoints, tmp_path):
    task = replace(TASK, config=replace(CONFIG, early_stopping_patience=0))
    alone_to_the_end = to_the_end(make("batched", data, task.config))
    best = alone_to_the_end.best.epoch
    assert best < 8
    for epochs in (best + 1, 1, 99):  # the process dies after so many of its own
        slots = BatchedSlots(data, CPU, 1, checkpoints)
        slots.start(task)
        given = []
        while slots.busy and len(given) < epochs:
            given += [event.content for event in slots.wait() if not isinstance(event.content, Resumed)]
    assert [result.epoch for result in given] == list(range(best + 3, 10))
    checkpoints.finish("trial-1", "trial-4")
    kept = torch.load(files(tmp_path)[checkpoints.best_name("trial-4")], weights_only=True)
    whole = make("batched", data, task.config)
    for _ in range(best):
        whole.train_epoch()
    assert same(dict(kept["model_state_dict"]), dict(whole.model_state()))


def test_only_the_best_of_the_best_weights_are_kept(checkpoints, tmp_path):
    names = [f"trial-{number}" for number in range(12)]
    for name in names[:9]:
        checkpoints.artifacts.write(checkpoints.best_name(name), b"")
    replace(checkpoints, study="other").artifacts.write("other/best/trial-5.pth", b"")
    ranked = [names[number] for number in (10, 5, 2, 7, 1, 0)]
    assert checkpoints.keep_best(ranked, 3) is None
    left = {name for name in files(tmp_path) if not name.startswith("other")}
    assert left == {checkpoints.best_name(names[number]) for number in (2, 3, 4, 5, 6, 8)}  # of others nobody spoke


def test_what_a_crash_between_the_end_of_a_trial_and_its_best_weights_has_left_is_done_later(
    data, checkpoints, tmp_path
):
    for key in ("trial-1", "trial-2", "trial-3", "trial-12"):
        saved(checkpoints, make("batched", data), 2, key)
    checkpoints.finish("trial-2", "trial-5")
    saved(checkpoints, make("batched", data), 1, "trial-2")  # an epoch that ended after all
    assert checkpoints.tidy({"trial-1": "trial-1", "trial-2": "trial-5", "trial-3": None, "trial-4": "trial-4"}) is None
    assert {name.rpartition("/")[2].partition(".")[0] for name in files(tmp_path) if "/running/" in name} == {
        "trial-12"
    }
    best = [name for name in files(tmp_path) if "/best/" in name]
    assert best == [checkpoints.best_name("trial-1"), checkpoints.best_name("trial-5")]
    assert checkpoints.finish("trial-99", "trial-99") is None  # nothing was ever saved of it


def test_best_weights_that_cannot_be_kept_are_said_and_end_nothing(data, checkpoints, tmp_path):
    saved(checkpoints, make("batched", data), 2)
    for path in running(tmp_path):
        path.write_bytes(b"torn")
    assert "the checkpoint of epoch 2 cannot be used" in checkpoints.finish("trial-1", "trial-1")
    assert len(running(tmp_path)) == 2  # it may have been the disk that could not be read
    assert checkpoints.discard("trial-1") is None
    assert not files(tmp_path)


def test_a_checkpoint_that_another_worker_has_just_removed_is_not_said_to_be_torn(checkpoints, begun, monkeypatch):
    newest, read = checkpoints._names("trial-1")[-1], type(checkpoints.artifacts).read
    monkeypatch.setattr(
        type(checkpoints.artifacts), "read", lambda self, name: None if name == newest else read(self, name)
    )
    loaded = checkpoints.load("trial-1", TASK)
    assert (len(loaded.snapshot["history"]), loaded.note) == (2, None)


def test_best_weights_for_which_there_was_no_memory_end_nothing_and_are_said(data, checkpoints, monkeypatch, tmp_path):
    """The best epoch is then an earlier one than that of the checkpoint, which lacks its weights."""

    whole = Trainer.model_state

    def full(self):
        if self.stop_reason is None:
            raise MemoryError("no room")
        return whole(self)

    slots, texts = PlainSlot(data, CPU, replace(checkpoints, every=1e9)), []
    slots.start(TASK)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "model_state", full)
        while slots.busy:
            texts += [event.content.text for event in slots.wait() if isinstance(event.content, Note)]
    assert texts == ["could not keep the weights of the best epoch in memory: no room"]
    said = "could not keep the best weights of trial-1: its checkpoint does not have them"
    assert checkpoints.finish("trial-1", "trial-1") == said
    assert running(tmp_path)


# In slots


def test_a_process_that_comes_after_another_goes_on_with_all_of_its_trainings(data, checkpoints):
    tasks = [
        replace(TASK, number=n, key=f"trial-{n}", config=replace(CONFIG, lr=lr)) for n, lr in enumerate((1e-3, 3e-2))
    ]
    expected = [to_the_end(make("batched", data, task.config)).history for task in tasks]
    first = BatchedSlots(data, CPU, 2, checkpoints)
    for task in tasks:
        first.start(task)
    for _ in range(3):
        first.wait()
    second = BatchedSlots(data, CPU, 2, checkpoints)
    for task in tasks:
        second.start(replace(task, number=task.number + 10, retry=True))
    events = second.wait()
    assert [(event.number, len(event.content.results), event.content.note) for event in events] == [
        (10, 3, None),
        (11, 3, None),
    ]
    while second.busy:
        events += second.wait()
    for number, whole in zip((10, 11), expected, strict=True):
        resumed, *after = [event.content for event in events if event.number == number]
        given = [replace(result, seconds=0) for result in (*resumed.results, *after)]
        assert given == [replace(result, seconds=0) for result in whole]


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_had_ended_but_was_not_told_ends_at_once(data, checkpoints, kind):
    config = replace(CONFIG, epochs=2)
    for number in range(2):
        slots = PlainSlot(data, CPU, checkpoints) if kind == "plain" else BatchedSlots(data, CPU, 1, checkpoints)
        slots.start(replace(TASK, number=number, config=config))
        given = [slots.wait()[0].content for _ in range(2 if number == 0 else 1)]
    assert [result.stop_reason for result in given[0].results] == [None, "finished"]
    if kind == "batched":
        assert not slots.busy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "none"])
def test_a_retry_without_checkpoint_begins_again_and_says_so(data, checkpoints, kind, kept):
    held = checkpoints if kept else None
    slots = PlainSlot(data, CPU, held) if kind == "plain" else BatchedSlots(data, CPU, 1, held)
    slots.start(replace(TASK, retry=True))
    (event,) = slots.wait()
    why = f"{checkpoints.artifacts} has no checkpoint of it" if kept else "no checkpoints are kept"
    assert event.content == Resumed((), "off", f"restarts at epoch 1: {why}")
    assert [event.content.epoch for event in slots.wait()] == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_does_not_fit_lets_the_training_begin_again(data, checkpoints, monkeypatch, kind):
    saved(checkpoints, make(kind, data), 2)
    load = Checkpoints.load

    def without_scheduler(self, key, task):
        loaded = load(self, key, task)
        del loaded.snapshot["scheduler"]
        return loaded

    monkeypatch.setattr(Checkpoints, "load", without_scheduler)
    slots = PlainSlot(data, CPU, checkpoints) if kind == "plain" else BatchedSlots(data, CPU, 1, checkpoints)
    slots.start(TASK)
    (event,) = slots.wait()
    assert event.content == Resumed((), "off", "restarts at epoch 1: its checkpoint does not fit, 'scheduler'")
    expected = make(kind, data).train_epoch()
    assert [replace(event.content, seconds=0) for event in slots.wait()] == [replace(expected, seconds=0)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_without_key_leaves_nothing(data, checkpoints, tmp_path, kind):
    slots = PlainSlot(data, CPU, checkpoints) if kind == "plain" else BatchedSlots(data, CPU, 1, checkpoints)
    slots.start(replace(TASK, key=None))
    slots.wait()
    assert not files(tmp_path)


def test_between_two_checkpoints_there_is_the_time_asked_for_except_at_the_end_and_before_a_stop(
    data, checkpoints, monkeypatch
):
    now = [100.0]
    monkeypatch.setattr(checkpoints_module.time, "monotonic", lambda: now[0])
    written, save = [], Checkpoints.save

    def watched(self, key, training, **others):
        written.append(len(training.history))
        return save(self, key, training, **others)

    monkeypatch.setattr(Checkpoints, "save", watched)
    slots = BatchedSlots(data, CPU, 1, replace(checkpoints, every=25.0))
    slots.start(replace(TASK, config=replace(CONFIG, early_stopping_patience=0)))
    for epoch in range(1, 10):
        now[0] += 10
        if epoch == 7:
            slots.save_next()
        slots.wait()
    assert written == [4, 7, 8, 9]  # the clock starts with the first epoch
    slots = PlainSlot(data, CPU, replace(checkpoints, every=25.0))
    slots.start(replace(TASK, key="other", config=replace(CONFIG, epochs=2)))
    slots.wait()
    slots.wait()
    assert written[4:] == [2]  # its end


@pytest.mark.parametrize(
    "error", [ArtifactError("no space left"), MemoryError("no room"), RuntimeError("can't allocate")]
)
def test_a_checkpoint_that_cannot_be_saved_is_said_once_and_ends_nothing(data, checkpoints, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(type(checkpoints.artifacts), "write", full)
    slots = BatchedSlots(data, CPU, 2, checkpoints)
    for number in range(2):
        slots.start(replace(TASK, number=number, key=f"trial-{number}"))
    events = []
    while slots.busy:
        events += slots.wait()
    notes = [event for event in events if isinstance(event.content, Note)]
    assert [note.content.text for note in notes] == [f"could not save a checkpoint: {error}"]
    expected = to_the_end(make("batched", data)).history
    for number in range(2):
        given = [event.content for event in events if event.number == number and event not in notes]
        assert [result.val_loss for result in given] == [result.val_loss for result in expected]


def test_after_a_failure_no_checkpoint_is_tried_for_a_while(data, checkpoints, monkeypatch):
    now, tried = [0.0], []
    monkeypatch.setattr(checkpoints_module.time, "monotonic", lambda: now[0])

    def away(self, name, content):
        tried.append(now[0])
        raise ArtifactError("away")

    monkeypatch.setattr(type(checkpoints.artifacts), "write", away)
    slots = BatchedSlots(data, CPU, 1, checkpoints)
    slots.start(replace(TASK, config=replace(CONFIG, early_stopping_patience=0)))
    while slots.busy:
        now[0] += 10
        slots.wait()
    assert tried == [10.0, 40.0, 70.0, 90.0]  # the last is its end


def test_a_place_that_cannot_be_read_lets_a_retried_training_begin_again(data, checkpoints, monkeypatch):
    def away(self, prefix):
        raise ArtifactError("it is away")

    monkeypatch.setattr(type(checkpoints.artifacts), "names", away)
    assert checkpoints.load("trial-1", replace(TASK, retry=True)).note == "restarts at epoch 1: it is away"
    assert checkpoints.load("trial-1", TASK) is None  # it has begun nowhere, so nothing of it is lost
    assert checkpoints.tidy({"trial-1": None}) == "could not tidy up checkpoints: it is away"
    assert checkpoints.keep_best([], 1) == "could not remove checkpoints: it is away"
    assert checkpoints.discard("trial-1") == "could not remove checkpoints: it is away"
    assert checkpoints.finish("trial-1", "t") == "could not keep the best weights of t: it is away"


def test_when_memory_runs_out_in_training_nobody_loses_an_epoch(data, checkpoints, monkeypatch):
    train_epoch = Batch.train_epoch

    def too_much_for_two(self, *arguments):
        if len(self.members) == 2 and self.members[0].epoch == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_epoch(self, *arguments)

    monkeypatch.setattr(Batch, "train_epoch", too_much_for_two)
    slots, given = BatchedSlots(data, CPU, 2, checkpoints), {0: [], 1: []}
    for number in range(2):
        slots.start(replace(TASK, number=number, key=f"trial-{number}"))
    while slots.busy:
        for event in slots.wait():
            if not isinstance(event.content, Resumed):
                given[event.number].append(event.content.epoch)
    epochs = len(to_the_end(make("batched", data)).history)
    assert given == {number: list(range(1, epochs + 1)) for number in range(2)}
