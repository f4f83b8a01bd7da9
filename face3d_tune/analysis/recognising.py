"""What a study's trials and baselines recognise, and one sentence where a higher cosine recognises people no better."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.objective import BASELINES

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def only_raises_cosine(
    cosine: float | None, rank1: float | None, baselines: Mapping[str, tuple[float | None, float | None]]
) -> str | None:
    """Say that a model raises the cosine over no model, but recognises people no better than a baseline.

    Rank-1 is that of the `enrolled` gallery, as `training/recognition` defines it. An equal rank-1 is no better, except
    where the model names every person: then no more can be named.

    Args:
        cosine: Mean cosine of the model; None if it is not known, as with the next one.
        rank1: Its rank-1.
        baselines: Cosine and rank-1 on the same people by name: `no model`, and others such as `ridge`.

    Returns:
        `raises the cosine, but recognises people no better than no model or ridge`; None if that is not so.
    """
    names = _as_good(cosine, rank1, baselines)
    return _sentence(names) if names else None


def _as_good(
    cosine: float | None, rank1: float | None, baselines: Mapping[str, tuple[float | None, float | None]]
) -> list[str]:
    """Return the baselines that recognise people as well as a model that raises the cosine; else none."""
    without = baselines["no model"][0]
    if cosine is None or rank1 is None or rank1 == 1 or without is None or cosine <= without:
        return []
    return [name for name, (_, other) in baselines.items() if other is not None and rank1 <= other]


def of_baselines(attrs: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the stored recognition of a study's baselines by name; an earlier version has stored none."""
    return {name: attr.of(attrs) for name, (_, attr) in BASELINES.items() if attr.held_by(attrs)}


def of_trial(trial: "FrozenTrial") -> Mapping[str, Any] | None:
    """Return a trial's recognition at its kept epoch; None if it has none, as with an earlier version."""
    return TrialAttr.recognition.get(trial.user_attrs)


def rank1(recognition: Mapping[str, Any] | None) -> float | None:
    """Return rank-1 of all views in the `enrolled` gallery."""
    return None if recognition is None else recognition["all"]["rank1_enrolled"]


def galleries(attrs: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return how many people a study judges and how many are enrolled; None if it has stored no recognition."""
    recognition = StudyAttr.no_model_recognition.get(attrs)
    return None if recognition is None else (recognition["judged"], recognition["enrolled"])


def no_better_than(trial: "FrozenTrial | None", attrs: Mapping[str, Any]) -> list[str]:
    """Return the baselines of a study that recognise people as well as its best trial, if that raises the cosine."""
    if trial is None:
        return []
    baselines = {name: (cosine.get(attrs), rank1(attr.get(attrs))) for name, (cosine, attr) in BASELINES.items()}
    return _as_good(TrialAttr.val_cosine.get(trial.user_attrs), rank1(of_trial(trial)), baselines)


def warning(trial: "FrozenTrial | None", attrs: Mapping[str, Any]) -> str | None:
    """Say in a sentence that a study's best trial only raises the cosine; None if that is not so."""
    names = no_better_than(trial, attrs)
    return f"The best trial {_sentence(names)}." if names else None


def _sentence(names: list[str]) -> str:
    return f"raises the cosine, but recognises people no better than {listed(names)}"


def listed(names: list[str]) -> str:
    """Return names as `no model, ridge or kernel ridge`; at least one."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
