"""The findings of a study as notes (Markdown) of the study and of its notable trials."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from face3d_tune.analysis import recognising
from face3d_tune.analysis.confirmation import headline, no_better_recognised, simple_methods, told, value_in_study
from face3d_tune.analysis.findings import Findings
from face3d_tune.dashboard import excluded_notes, script_notes
from face3d_tune.dashboard.markdown import block, plain, word
from face3d_tune.data.provenance import DataUse
from face3d_tune.data.yaw_bands import YAW_BANDS, label
from face3d_tune.script.export import commands, quote
from face3d_tune.study import growth
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.causes import count_causes, in_words
from face3d_tune.study.described_data import describe_data
from face3d_tune.study.objective import COSINE
from face3d_tune.study.presets import PRESETS
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.trials import budget_of, config_of, effort_of, folds_of, kept_cosine, repeatable_config

FOREIGN = (
    "**Added by hand.** face3d-tune did not train this trial, so it counts nowhere: not as the best, not towards the "
    "budget, not for the sampler. The pictures that Optuna itself draws show it."
)
_GOALS = {
    "cosine": "the highest mean cosine between the model's output and the frontal embedding",
    "identity": "the highest mean identity: how far the own person stands above all enrolled, in units of cosine",
}


def study_note(found: Findings) -> str:
    """Write goal, data or script, budget, the best trial beside presets and no model, and what to do with it."""
    if found.script is not None:
        return script_notes.study_note(found, found.script)
    settings, effort = StudyAttr.settings.of(found.attrs), effort_of(found.attrs)
    states = ", ".join(f"{count} {state}" for state, count in found.states.items() if count) or "no trials yet"
    budget = budget_of(found.attrs)
    done = f"{found.finished} of {plain(budget)} finished trials" if budget else f"{found.finished} finished trials"
    how = f"; {plain(effort['sampler'])} sampler, {plain(effort['pruner'])} pruner" if effort else ""
    folds = folds_of(found.attrs)
    whom = "validation people" + (f", others in each of {plain(folds)} folds: the mean over them" if folds > 1 else "")
    lines = [
        f"## {plain(found.name)}",
        *([f"**{said}**"] if (said := recognising.warning(found.best, found.attrs)) else []),
        *_confirmed(found),
        *_rotated(found),
        f"**Goal** {_GOALS[found.objective.name]}, on {whom}{_simple(found)}.",
        f"**Data** {plain(describe_data(found.attrs))}",
        f"**Budget** {done} ({states}) of at most {plain(settings['epochs'])} epochs{how}; "
        f"seed {plain(settings['seed'])}.",
    ]
    if why := in_words(count_causes([*found.trials, *found.excluded])):
        lines.append(f"**Failed** {plain(why)}.")
    if found.by_hand:
        lines.append(f"**Added by hand** {found.by_hand} more, which face3d-tune did not train and does not count.")
    lines += excluded_notes.of_study(found)
    lines += [f"**Space** {plain(line)}." for line in growth.lines(settings)]
    if before := WarmStart.of(found.attrs):
        lines.append(f"**Begun** with the best of the study {plain(str(before))}.")
    if StudyAttr.data.of(found.attrs)["split"] == "none":
        lines.append("**Measured on the training pairs**: this says nothing about people never seen.")
    if found.best is None:
        lines.append("No trial has completed yet.")
        return "\n\n".join(lines)
    name = word(found.name)
    lines += [
        _table(found, found.best),
        *_is_it_the_model(found),
        *_recognised(found),
        "The best of many is a little flattered by having been chosen. Its note holds the training command.",
        "Of the two pictures of importance, Optuna's asks which parameters lead into the best tenth of trials, ours "
        "which ones the differences between all completed trials go with, and what chance would give.",
        f"    face3d-tune export --study-name {name}\n    face3d-tune train --study-name {name}",
    ]
    return "\n\n".join(lines)


def _confirmed(found: Findings) -> list[str]:
    """Write the result on the test people, or that there is no confirmation yet."""
    if found.best is None or StudyAttr.data.of(found.attrs)["split"] == "none":
        return []
    ask = f"    face3d-tune confirm --study-name {word(found.name)}"
    confirmation = found.confirmation
    if confirmation is None:
        return [
            "**Not yet confirmed:** the best value is flattered by having been chosen. To evaluate on the test people:",
            ask,
        ]
    first = filter(None, (no_better_recognised(confirmation), headline(confirmation)))
    lines = [f"**{plain(line)}**" for line in first]
    if not found.confirmed_best:
        lines.insert(0, "**Out of date:** another trial is the best now. To evaluate that one:\n\n" + ask)
    return [*lines, *_judged(confirmation, "test people")]


def _rotated(found: Findings) -> list[str]:
    """Write the result on all people, each judged in one of several rotations; empty without one."""
    if found.rotation is None:
        return []
    lines = [f"**Cross-validated:** {plain(headline(found.rotation))}", *_judged(found.rotation, "all people, judged")]
    if not found.rotated_best:
        lines.insert(0, "**Out of date:** another trial is the best now, which the rotations do not judge.")
    return lines


def _judged(confirmation: Mapping[str, Any], judged: str) -> list[str]:
    """Write the numbers of a confirmation, and its other sentences; `judged` names the people."""
    rows = [
        (row["name"], value_in_study(row, "–"), f"{row['validation']:.4f}", f"{row['test']:.4f}")
        for row in confirmation["candidates"]
        if not row["error"]
    ]
    simple = {name: confirmation[key] for name, key in simple_methods(confirmation).items()}
    rows += [(name, "–", f"{row['validation']:.4f}", f"{row['test']:.4f}") for name, row in simple.items()]
    table = f"| | in the study | validation, again | {judged} |\n|---|--:|--:|--:|\n"
    cells = [(plain(name), *values) for name, *values in rows]
    details = "\n".join(f"- {plain(line.strip())}" for line in told(confirmation)[1:])
    return [table + "\n".join(f"| {' | '.join(row)} |" for row in cells), details]


def _simple(found: Findings) -> str:
    words = {
        "no model": "; without a model it is",
        "ridge": ", with ridge regression",
        "kernel ridge": ", with kernel ridge",
    }
    return "".join(f"{words[name]} {value:.4f}" for name, value in found.lines.items())


def _is_it_the_model(found: Findings) -> list[str]:
    """Say whether a simpler method is better than the best trial, by the validation people."""
    value, simple = found.best.value if found.best else None, found.lines
    name = max(simple, key=lambda each: simple[each])
    if value is None or value > simple[name]:
        return []
    called = "ridge regression" if name == "ridge" else name
    return [f"**The simpler method wins:** {called} reaches {simple[name]:.4f}, the best trial {value:.4f}."]


def _recognised(found: Findings) -> list[str]:
    """Write whom the best trial and the baselines recognise, in a table; nothing for an older study."""
    sizes, rows = recognising.galleries(found.attrs), recognising.of_baselines(found.attrs)
    held = found.best and recognising.of_trial(found.best)
    if sizes is None or not held:
        return []
    judged, enrolled = map(plain, sizes)
    heads = [f"{rate} of {size}" for rate in ("rank-1", "TAR 1 %") for size in (judged, enrolled)]
    lines = [f"| recognition | {' | '.join(heads)} | pooled rank-1 of {enrolled} |", "|---|--:|--:|--:|--:|--:|"]
    for name, recognition in {**rows, "**best trial**": held}.items():
        rates = [recognition["all"][rate] for rate in ("rank1_judged", "rank1_enrolled", "tar_judged", "tar_enrolled")]
        cells = ["–" if rate is None else f"{rate:.3f}" for rate in (*rates, recognition["pooled"]["rank1_enrolled"])]
        lines.append(f"| {' | '.join([name, *cells])} |")
    meaning = (
        f"Rank-1 is the share of views whose own person comes first: among the {judged} people judged, or all "
        f"{enrolled} enrolled. TAR 1 % is the share accepted at a threshold that one in a hundred strangers passes."
    )
    return ["\n".join(lines), meaning]


def trial_note(found: Findings, trial: FrozenTrial) -> str:
    """Write why the trial is notable, how it did, and its training command."""
    if found.script is not None:
        return script_notes.trial_note(found, found.script, trial)
    lines = [f"**{_reason(found, trial)}**"]
    cosine, attrs = kept_cosine(trial), trial.user_attrs
    if cosine is not None:
        kept, run = plain(TrialAttr.best_epoch.of(attrs)), plain(TrialAttr.epochs_run.of(attrs))
        epochs = f"the checkpoint of epoch {kept} of {run}"
        if folds := TrialAttr.folds.get(attrs):
            values = ", ".join(f"{fold['value']:.4f}" for fold in folds)
            first = plain(TrialAttr.epochs_run.of(folds[0]))
            epochs = f"by fold {values}; kept is epoch {kept} of {first} of fold 1"
        against = f"cosine {cosine:.4f}, {cosine - found.no_model:+.4f} against no model"
        value, without = found.objective.of_trial(attrs), found.lines.get("no model")
        if found.objective != COSINE and value is not None and without is not None:
            said = f"{found.objective.said(value)}, {value - without:+.4f} against no model"
            lines.append(f"Validation {said}; {epochs}. Its {against}.")
        else:
            lines.append(f"Validation {against}; {epochs}.")
    if text := command(found, trial):
        lines.append(block(text))
    return "\n\n".join(lines)


def command(found: Findings, trial: FrozenTrial) -> str | None:
    """Return the training command of a trial for bash, with omissions as comments; None if it was not sampled yet."""
    if not TrialAttr.config.held_by(trial.user_attrs):
        return None
    if found.script is not None:
        return script_notes.command(found.script, trial)
    exported = commands(repeatable_config(trial), DataUse.of_study(StudyAttr.data.of(found.attrs)))
    missing = [f"# not expressed: {line}" for line in exported.missing]
    missing += ["# `face3d-tune train` trains all of it"] if missing else []
    return "\n".join([*missing, *(quote(words, "bash") for words in exported.commands)]) + "\n"


def _reason(found: Findings, trial: FrozenTrial) -> str:
    names = [row.name for row in found.presets if row.trial is not None and row.trial.number == trial.number]
    preset = f"preset {' = '.join(map(plain, names))}" if names else ""
    if found.best is not None and trial.number == found.best.number:
        return f"The best trial{f', {preset}' if preset else ''}"
    if preset:
        return f"The guide's {preset}" if names[0] in PRESETS else f"The {preset}"
    place = [other.number for other in found.runners_up].index(trial.number) + 1
    config = config_of(trial)
    other = "" if config.inputs == "view" else f"{plain(config.inputs)} input, "
    return f"Runner-up {place}: {other}{plain(config.pose_unit)}, lr {config.lr:.1e}"


def _table(found: Findings, best: FrozenTrial) -> str:
    """Write what the methods without training, the presets and the best trial reach: value, gain, cosine by |yaw|."""
    heads = ["", "trial", found.objective.name, "gain", *_beside(found, "cosine"), *map(label, YAW_BANDS)]
    baselines = {
        "no model": ("no model", found.no_model, StudyAttr.no_model_by_yaw),
        "ridge regression": ("ridge", found.ridge, StudyAttr.ridge_by_yaw),
        "kernel ridge": ("kernel ridge", found.kernel_ridge, StudyAttr.kernel_ridge_by_yaw),
    }
    rows = [
        _row(name, None, found.lines.get(key), cosine, by_yaw.of(found.attrs), found)
        for name, (key, cosine, by_yaw) in baselines.items()
        if cosine is not None
    ]
    rows += [_trial_row(plain(row.name), row.trial, found) for row in found.presets if row.trial is not None]
    rows.append(_trial_row("**best trial**", best, found))
    return "\n".join([f"| {' | '.join(heads)} |", f"|---|{'--:|' * (len(heads) - 1)}", *rows])


def _trial_row(name: str, trial: FrozenTrial, found: Findings) -> str:
    cosine, attrs = kept_cosine(trial), trial.user_attrs
    if cosine is None or not trial.state.is_finished():
        return f"| {name} | {trial.number} | {trial.state.name.lower()} | | | | |"
    pruned = " (pruned)" if trial.state == TrialState.PRUNED else ""
    value, by_yaw = found.objective.of_trial(attrs), TrialAttr.cosine_by_yaw.of(attrs)
    return _row(name + pruned, trial.number, value, cosine, by_yaw, found)


def _row(
    name: str,
    number: int | None,
    value: float | None,
    cosine: float,
    by_yaw: Mapping[str, float | None],
    found: Findings,
) -> str:
    """Write a row; `number` is None without training. The gain is that of the objective over no model."""
    without = found.lines.get("no model")
    gain = "" if number is None or value is None or without is None else f"{value - without:+.4f}"
    bands = ["–" if each is None else f"{each:.3f}" for each in by_yaw.values()]
    reached = ["–" if value is None else f"{value:.4f}", gain, *_beside(found, f"{cosine:.4f}")]
    return f"| {' | '.join([name, '' if number is None else str(number), *reached, *bands])} |"


def _beside(found: Findings, cell: str) -> list[str]:
    """Return a cell with the cosine, which stands beside the value of another objective only."""
    return [] if found.objective == COSINE else [cell]
