"""A training that is kept: its three files, whichever way it ends."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from reference_model import ReferenceModel

from face3d_tune.analysis.curve import curve_picture
from face3d_tune.config import TrialConfig
from face3d_tune.errors import NonFiniteError
from face3d_tune.refit.full_training import FILES, train_fully
from face3d_tune.study.history import History
from face3d_tune.training.plain import EpochResult, Trainer

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CONFIG = TrialConfig(
    d_model=24,
    dim_feedforward=32,
    nhead=2,
    num_layers=1,
    batch_size=8,
    epochs=5,
    lr=2e-3,
    mse_weight=0.3,
    pose_unit="radians",
    use_pose_attention=True,
    use_spatial_attention=True,
)
MIXED = replace(CONFIG, use_mixed_precision=True)


def train(data, out, config=CONFIG, *, precision="off", engine="plain", after_epoch=lambda result: None, notices=None):
    return train_fully(
        config,
        data,
        out,
        seed=4,
        device=CPU,
        precision=precision,
        engine=engine,
        after_epoch=after_epoch,
        notice=(notices if notices is not None else []).append,
    )


def cosines(data, part, state):
    """The cosine of each pair of a part and its yaw, by the reference model with the weights in `state`."""
    names = ("d_model", "nhead", "num_layers", "dim_feedforward", "dropout", "layout")
    flags = ("use_spatial_attention", "use_pose_attention")
    model = ReferenceModel(
        feature_size=data.feature_size, **{name: getattr(CONFIG, name) for name in (*names, *flags)}
    ).eval()
    model.load_state_dict(state, strict=True)
    front, video = data.parts[part].T
    poses = torch.from_numpy(data.poses[video] * np.pi / 180).float()
    with torch.no_grad():
        out = model(torch.from_numpy(data.video_features[video]), torch.from_numpy(data.landmarks[video]), poses)
    target = torch.from_numpy(data.front_features[front])
    return ((out * target).sum(1) / out.norm(dim=1) / target.norm(dim=1)).numpy(), np.abs(data.poses[video, 0])


def history(folder):
    return json.loads((folder / "history.json").read_text(encoding="utf-8"))


def stored(epochs):
    """Epochs as history.json has them."""
    return [{**asdict(result), "recognition": asdict(result.recognition.all)} for result in epochs]


def timeless(epochs):
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in epochs]


@pytest.fixture(scope="module", params=["plain", "batched"])
def done(request, data, tmp_path_factory):
    """A finished training: its folder, result, and the epochs that were told."""
    folder, told = tmp_path_factory.mktemp("trained") / "not" / "there yet", []
    result = train(data, folder, engine=request.param, after_epoch=told.append)
    return folder, result, told


def test_a_training_leaves_its_three_files_and_nothing_else(done):
    folder, _, _ = done
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    assert set(FILES) == {"best_model.pth", "history.json", "curve.svg"}


def test_every_epoch_is_told_and_the_best_is_kept(done):
    _, trained, told = done
    assert [result.epoch for result in told] == [1, 2, 3, 4, 5]
    assert trained.epochs_run == 5
    assert trained.best == min(told, key=lambda result: result.val_loss)


def test_the_kept_checkpoint_is_the_users_and_reaches_what_was_returned(data, done):
    folder, trained, told = done
    checkpoint = torch.load(folder / "best_model.pth", weights_only=True)
    values, yaw = cosines(data, "validation", checkpoint["model_state_dict"])
    assert trained.validation.cosine == pytest.approx(values.mean(), abs=1e-6)
    assert trained.validation.cosine == pytest.approx(trained.best.val_cosine, abs=1e-6)  # judged by the plain model
    assert trained.validation.cosine_by_yaw["45-90"] == pytest.approx(values[yaw >= 45].mean(), abs=1e-6)
    assert checkpoint["epoch"] == trained.best.epoch - 1  # from 0
    assert checkpoint["best_val_loss"] == trained.best.val_loss
    assert checkpoint["val_loss_history"] == [result.val_loss for result in told[: trained.best.epoch]]


def test_a_training_changes_with_no_number_of_the_test_people(data, done, tmp_path):
    rows = data.parts["test"][:, 1]
    spoilt = data.video_features.copy()
    spoilt[rows] = np.random.default_rng(0).normal(size=(len(rows), data.feature_size))
    folder, trained, _ = done
    again = train(replace(data, video_features=spoilt), tmp_path, engine=history(folder)["engine"])
    assert again.validation == trained.validation
    assert "test" not in history(tmp_path)


def test_the_history_holds_all_that_is_needed_to_repeat_and_to_judge_a_training(data, done):
    folder, trained, told = done
    content = history(folder)
    assert TrialConfig(**content["config"]) == CONFIG
    assert content.pop("engine") in ("plain", "batched")
    del content["config"]
    assert content == {
        "seed": 4,
        "device": "cpu",
        "amp": "off",
        "data": {"source": data.source, "fingerprint": data.fingerprint()},
        "best_epoch": trained.best.epoch,
        "stop_reason": "finished",
        "validation": asdict(trained.validation),
        "epochs": stored(told),
    }
    assert content["validation"]["recognition"]["enrolled"] == 12


def test_the_checkpoint_says_every_flag_it_was_trained_with(data, done):
    folder, _, _ = done
    args = torch.load(folder / "best_model.pth", weights_only=True)["args"]
    assert {name: args[name] for name in CONFIG.to_dict()} == CONFIG.to_dict()
    assert (args["data_dir"], args["save_dir"], args["device"]) == (data.source, str(folder), "cpu")
    assert (args["scheduler_type"], args["min_yaw_angle"], args["max_yaw_angle"]) == ("plateau", 0.0, None)
    assert (args["landmark_scale"], args["data_fingerprint"]) == (0.25, data.fingerprint())


def test_the_curve_is_that_of_the_stored_epochs(data, done):
    folder, trained, told = done
    drawn = (folder / "curve.svg").read_text(encoding="utf-8")
    assert drawn == curve_picture(History.of_epochs(told), trained.best.epoch, data.no_model_cosine("validation"))


@pytest.mark.parametrize("earlier", [False, True], ids=["new folder", "over an earlier training"])
def test_an_interrupt_keeps_what_was_done_so_far(data, done, tmp_path, earlier):
    if earlier:
        for name in FILES:
            (tmp_path / name).write_bytes(b"of an earlier training")

    def interrupt(result):
        if result.epoch == 3:
            raise KeyboardInterrupt

    folder, _, told = done
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path, engine=history(folder)["engine"], after_epoch=interrupt)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best_model.pth", "history.json"]
    content = history(tmp_path)
    assert timeless(content["epochs"]) == timeless(stored(told[:3]))
    assert "validation" not in content
    best = min(told[:3], key=lambda result: result.val_loss)
    checkpoint = torch.load(tmp_path / "best_model.pth", weights_only=True)
    assert checkpoint["epoch"] == best.epoch - 1
    assert cosines(data, "validation", checkpoint["model_state_dict"])[0].mean() == pytest.approx(
        best.val_cosine, abs=1e-6
    )


def test_the_best_epoch_is_kept_and_judged_even_if_training_goes_on_to_worse_ones(data, tmp_path):
    trainers, told = [], []
    original = Trainer.train_epoch

    def wreck(self):
        if len(self.history) == 2:
            self.optimizer.param_groups[0]["lr"] = 10.0
        trainers.append(self)
        return original(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "train_epoch", wreck)
        trained = train(data, tmp_path, after_epoch=told.append)
    assert trained.best.epoch <= 2 < trained.epochs_run
    values, _ = cosines(
        data, "validation", torch.load(tmp_path / "best_model.pth", weights_only=True)["model_state_dict"]
    )
    assert trained.validation.cosine == trained.best.val_cosine == pytest.approx(values.mean(), abs=1e-6)
    assert trained.validation.cosine != pytest.approx(told[-1].val_cosine, abs=1e-3)


def test_early_stopping_is_named_in_the_history(data, tmp_path):
    config = replace(CONFIG, early_stopping_patience=1, early_stopping_min_delta=1e6)
    assert train(data, tmp_path, config).epochs_run == 2
    assert history(tmp_path)["stop_reason"] == "early_stopping"


def fail_in(monkeypatch, epoch, *, if_precision):
    train_epoch = Trainer.train_epoch

    def failing(self):
        if len(self.history) + 1 == epoch and self.precision in if_precision:
            raise NonFiniteError(f"training loss is nan in epoch {epoch}")
        return train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", failing)


def test_mixed_precision_that_leads_to_nan_is_given_up_with_a_notice(data, tmp_path, monkeypatch):
    plain = train(data, tmp_path / "plain", MIXED)
    assert train(data, tmp_path / "mixed", MIXED, precision="bf16").validation != plain.validation
    assert history(tmp_path / "mixed")["amp"] == "bf16"
    fail_in(monkeypatch, 3, if_precision=("bf16",))
    notices = []
    trained = train(data, tmp_path / "again", MIXED, precision="bf16", notices=notices)
    assert notices == ["training loss is nan in epoch 3: starting again without mixed precision"]
    assert trained.validation == plain.validation
    content = history(tmp_path / "again")
    assert content["amp"] == "off"
    assert [epoch["epoch"] for epoch in content["epochs"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("config", [CONFIG, MIXED], ids=["asked for float32", "asked for mixed precision"])
def test_nan_without_mixed_precision_is_an_error_and_keeps_what_was_done_so_far(data, tmp_path, monkeypatch, config):
    fail_in(monkeypatch, 3, if_precision=("off",))
    notices = []
    with pytest.raises(NonFiniteError, match="training loss is nan in epoch 3"):
        train(data, tmp_path, config, notices=notices)
    assert notices == []
    assert len(history(tmp_path)["epochs"]) == 2
    assert torch.load(tmp_path / "best_model.pth", weights_only=True)["epoch"] in (0, 1)


def test_the_same_config_and_seed_give_the_same_files(data, done, tmp_path):
    folder, trained, _ = done
    again = train(data, tmp_path, engine=history(folder)["engine"])
    assert again.validation == trained.validation
    assert isinstance(again.best, EpochResult)
    assert timeless(history(tmp_path)["epochs"]) == timeless(history(folder)["epochs"])
    states = [
        torch.load(place / "best_model.pth", weights_only=True)["model_state_dict"] for place in (folder, tmp_path)
    ]
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []
