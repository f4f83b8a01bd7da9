"""A picture of one training: losses and cosine by epoch."""

from pathlib import Path
from typing import BinaryIO

from matplotlib.figure import Figure

from face3d_tune.history import History


def save_curve(history: History, kept: int, no_model_cosine: float, target: Path | BinaryIO) -> None:
    """Draw training and validation loss, if known, the cosine beside the no-model line, and the kept epoch; a PNG."""
    epochs = range(1, len(history.cosine) + 1)
    figure = Figure(figsize=(10, 4), layout="constrained")
    *losses, cosine = figure.subplots(1, 2) if history.val_loss else [figure.subplots()]
    for loss in losses:
        if history.train_loss:
            loss.plot(epochs, history.train_loss, color="tab:blue", label="training")
        loss.plot(epochs, history.val_loss, color="tab:orange", label="validation")
        loss.set(xlabel="epoch", ylabel="loss (the trial's own weights)", title="Loss")
    cosine.plot(epochs, history.cosine, color="tab:orange", label="validation")
    cosine.axhline(no_model_cosine, color="0.5", linestyle="--", label=f"no model, {no_model_cosine:.3f}")
    value = history.cosine[kept - 1]
    cosine.plot(kept, value, "o", color="black", label=f"kept: epoch {kept}, {value:.3f}")
    cosine.set(xlabel="epoch", ylabel="mean cosine similarity", title="Validation cosine")
    for axes in (*losses, cosine):
        axes.axvline(kept, color="0.8", linewidth=1, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(target, dpi=120, format="png")
