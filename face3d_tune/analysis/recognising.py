"""Whether a higher cosine also recognises people better: one sentence, for every place that announces a best."""

from collections.abc import Mapping


def only_raises_cosine(
    cosine: float | None, rank1: float | None, baselines: Mapping[str, tuple[float | None, float | None]]
) -> str | None:
    """Say that a model raises the cosine over no model, but recognises people no better than a baseline.

    Rank-1 is that of the `enrolled` gallery, as `training/recognition` defines it. An equal rank-1 is no better.

    Args:
        cosine: Mean cosine of the model; None if it is not known, as with the next one.
        rank1: Its rank-1.
        baselines: Cosine and rank-1 on the same people by name: `no model`, and others such as `ridge`.

    Returns:
        `raises the cosine, but recognises people no better than no model or ridge`; None if that is not so.
    """
    without = baselines["no model"][0]
    if cosine is None or rank1 is None or without is None or cosine <= without:
        return None
    as_good = [name for name, (_, other) in baselines.items() if other is not None and rank1 <= other]
    return f"raises the cosine, but recognises people no better than {' or '.join(as_good)}" if as_good else None
