"""The picture of one training: losses and cosine by epoch."""

from collections.abc import Sequence

from face3d_tune.analysis.svg import Chart, Panel, by_epoch, limits, picture
from face3d_tune.study.history import History


def curve_picture(history: History, best_epoch: int, no_model_cosine: float) -> str:
    """Draw the cosine beside the no-model line, the best epoch, and training and validation loss if the history has
    them.

    Args:
        history: The epochs of the training, at least one.
        best_epoch: The epoch whose weights are kept, from 1 on.
        no_model_cosine: The no-model baseline.

    Returns:
        The content of an SVG file.
    """
    panels = []
    loss = loss_chart(history, best_epoch, title="Loss by epoch", x="epoch", y="loss (the trial's own weights)")
    if loss is not None:
        lines = [("training", "s1")] if history.train_loss else []
        panels.append(Panel("Loss", loss, [*lines, ("validation", "s0"), (f"kept: epoch {best_epoch}", "kept")]))
    value = history.cosine[best_epoch - 1]
    x = (1, max(2, len(history.cosine)), "epoch")
    y = (*limits([*history.cosine, no_model_cosine]), "mean cosine similarity")
    cosine = Chart("Validation cosine by epoch", x, y, whole_x=True)
    cosine.level(no_model_cosine, "level")
    cosine.mark(best_epoch, "kept")
    cosine.line(by_epoch(history.cosine), "s0")
    cosine.dots([(best_epoch, value)], "s0 big")
    legend = [
        ("validation", "s0"),
        (f"no model: {no_model_cosine:.3f}", "level"),
        (f"kept: epoch {best_epoch}, {value:.3f}", "kept"),
    ]
    return picture([*panels, Panel("Validation cosine", cosine, legend)])


def numbers_picture(history: History, best_epoch: int, names: Sequence[str]) -> str:
    """Draw numbers of a script by epoch, side by side, and the kept epoch.

    Args:
        history: The epochs of the training.
        best_epoch: The epoch whose numbers the trial has, from 1 on.
        names: Of the numbers, at least one with a finite value; others are omitted.

    Returns:
        The content of an SVG file.
    """
    panels = []
    for name in names:
        curve = by_epoch(history.numbers.get(name, ()))
        if not curve:
            continue
        y = (*limits([value for _, value in curve]), name)
        chart = Chart(f"{name} by epoch", (1, max(2, curve[-1][0]), "epoch"), y, whole_x=True)
        chart.mark(best_epoch, "kept")
        chart.line(curve, "s0")
        kept = [point for point in curve if point[0] == best_epoch]
        chart.dots(kept, "s0 big")
        value = "".join(f", {value:.4g}" for _, value in kept)
        panels.append(Panel(name, chart, [(name, "s0"), (f"kept: epoch {best_epoch}{value}", "kept")]))
    return picture(panels)


def loss_chart(history: History, best_epoch: int | None, *, title: str, x: str, y: str) -> Chart | None:
    """Draw training and validation loss of one training and its kept epoch, with these labels; None without losses."""
    train, validation = by_epoch(history.train_loss), by_epoch(history.val_loss)
    if not validation:
        return None
    values = [value for _, value in (*train, *validation)]
    chart = Chart(title, (1, max(2, len(history.val_loss)), x), (*limits(values, floor=0.0), y), whole_x=True)
    if best_epoch:
        chart.mark(best_epoch, "kept")
    chart.line(train, "s1")
    chart.line(validation, "s0")
    return chart
