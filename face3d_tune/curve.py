"""A picture of one training: losses and cosine by epoch."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from face3d_tune.training import EpochResult


def save_curve(history: Sequence[EpochResult], no_model_cosine: float, path: Path) -> None:
    """Draw training and validation loss, the validation cosine beside the no-model line, and the kept epoch; a PNG."""
    epochs = [result.epoch for result in history]
    kept = [result for result in history if result.is_best][-1]
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, cosine = figure.subplots(1, 2)
    loss.plot(epochs, [result.train_loss for result in history], color="tab:blue", label="training")
    loss.plot(epochs, [result.val_loss for result in history], color="tab:orange", label="validation")
    loss.set(xlabel="epoch", ylabel="loss (the trial's own weights)", title="Loss")
    cosine.plot(epochs, [result.val_cosine for result in history], color="tab:orange", label="validation")
    cosine.axhline(no_model_cosine, color="0.5", linestyle="--", label=f"no model, {no_model_cosine:.3f}")
    cosine.plot(
        kept.epoch, kept.val_cosine, "o", color="black", label=f"kept: epoch {kept.epoch}, {kept.val_cosine:.3f}"
    )
    cosine.set(xlabel="epoch", ylabel="mean cosine similarity", title="Validation cosine")
    for axes in (loss, cosine):
        axes.axvline(kept.epoch, color="0.8", linewidth=1, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
