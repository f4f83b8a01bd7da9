"""The stand-in of the documented trainer trains as the built-in one does, so that their searches can be compared."""

import re
from dataclasses import asdict

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from users_repo import DOCUMENTED_SCRIPT, train, write_repo

from face3d_tune.config import TrialConfig
from face3d_tune.script.flags import DOCUMENTED, read_script
from face3d_tune.training.plain import Trainer

SIZES = {"d_model": 16, "dim_feedforward": 32, "nhead": 2, "num_layers": 1, "dropout": 0.0}
RATES = {"epochs": 6, "lr": 0.02, "scheduler_patience": 0, "scheduler_factor": 0.3, "early_stopping_patience": 2}
VALUELESS = ("use_mixed_precision", "use_spatial_attention", "use_pose_attention")


@pytest.fixture
def script(tmp_path):
    return write_repo(tmp_path / "repo", source=DOCUMENTED_SCRIPT)


def flags(values):
    """A config's values as words of the script's command line."""
    words = []
    for name in (*SIZES, *RATES, "batch_size", "mse_weight", "cosine_weight", "loss_type", *VALUELESS):
        value = values[name]
        words += ([f"--{name}"] if value else []) if name in VALUELESS else [f"--{name}", value]
    return [*words, "--early_stopping_min_delta", values["early_stopping_min_delta"]]


def numbers(printed):
    """Training loss, validation loss and cosine of every epoch printed."""
    found = re.findall(
        r"^Epoch \d+/\d+: Train/Loss: (\S+), Val/Loss: (\S+), Val/CosineSimilarity: (\S+)$", printed, re.M
    )
    return [tuple(map(float, row)) for row in found]


@pytest.mark.parametrize(
    "values",
    [
        {"mse_weight": 0.3, "cosine_weight": 0.7, "use_spatial_attention": True, "use_pose_attention": True},
        {"loss_type": "cosine", "early_stopping_min_delta": 0.01},
    ],
)
def test_it_reaches_the_built_in_trainers_numbers_from_the_same_weights(script, data, data_folder, tmp_path, values):
    """One batch holds all pairs and there is no dropout, so weights are the only random numbers."""
    config = TrialConfig(**SIZES, **RATES, batch_size=len(data.parts["train"]), **values)
    trainer = Trainer(config, data, seed=5, device=torch.device("cpu"))
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    scheduler = ReduceLROnPlateau(optimizer, factor=config.scheduler_factor, patience=config.scheduler_patience)
    fresh = {
        "epoch": -1,
        "model_state_dict": trainer.model_state(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": scheduler.state_dict(),
        "rng_state": torch.get_rng_state(),
        **{"best_val_loss": float("inf"), "progress": float("inf"), "waited": 0},
        **{"train_loss_history": [], "val_loss_history": [], "val_cosine_sim_history": []},
    }
    torch.save(fresh, tmp_path / "fresh.pth")
    words = (*flags(asdict(config)), "--data_dir", data_folder, "--save_dir", tmp_path / "save", "--log_dir", tmp_path)
    theirs = numbers(train(script, *words, "--resume", tmp_path / "fresh.pth"))
    ours = []
    while trainer.stop_reason is None:
        result = trainer.train_epoch()
        ours.append((result.train_loss, result.val_loss, result.val_cosine))
    assert len(theirs) == len(ours)
    assert theirs == [pytest.approx(row, abs=2e-5) for row in ours]


def test_it_has_every_documented_flag_and_a_seed(script):
    assert set(read_script(script).flags) == {*DOCUMENTED.flags, "seed"}


def test_a_seed_gives_the_same_numbers_again_and_a_resumed_training_ends_with_them(script, data_folder, tmp_path):
    config = TrialConfig(**{**SIZES, **RATES, "dropout": 0.1, "epochs": 4}, batch_size=8)
    folders = ("--data_dir", data_folder, "--save_dir", tmp_path, "--log_dir", tmp_path, "--seed", 3)
    words = (*flags(asdict(config)), *folders)
    whole = numbers(train(script, *words))
    assert numbers(train(script, *words, "--epochs", 2)) == whole[:2]
    assert numbers(train(script, *words, "--resume", tmp_path / "last_model.pth")) == whole[2:]
    assert numbers(train(script, *words, "--seed", 4)) != whole
