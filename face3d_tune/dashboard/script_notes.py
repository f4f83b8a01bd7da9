"""The notes of a study of the user's own script, in Markdown."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from face3d_tune.analysis import script_confirmation
from face3d_tune.analysis.findings import Findings
from face3d_tune.analysis.of_script import further_numbers, kept_epoch
from face3d_tune.dashboard import excluded_notes
from face3d_tune.dashboard.markdown import block, plain, word
from face3d_tune.script import engine_comparison
from face3d_tune.script.export import quote
from face3d_tune.script.stored_command import stored_command
from face3d_tune.study import growth
from face3d_tune.study.attrs import StoredScript, StudyAttr, TrialAttr
from face3d_tune.study.causes import cause, count_causes, in_words
from face3d_tune.study.presets import OF_SCRIPT, PRESETS
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.trials import budget_of, effort_of

_HASH = 12  # characters of a sha256
_CAUSES = {"diverged": "diverged", "out_of_memory": "out of memory", "outside": "ended from outside"}
_CAUSES |= {"timeout": "timed out"}


def study_note(found: Findings, script: StoredScript) -> str:
    """Write goal, script, budget, the best trial beside the presets, and what to do with it."""
    settings, effort, budget = StudyAttr.settings.of(found.attrs), effort_of(found.attrs), budget_of(found.attrs)
    states = ", ".join(f"{count} {state}" for state, count in found.states.items() if count) or "no trials yet"
    done = f"{found.finished} of {plain(budget)} finished trials" if budget else f"{found.finished} finished trials"
    epochs = f" of at most {plain(settings['epochs'])} epochs" if settings["epochs"] else ""
    how = f"; {plain(effort['sampler'])} sampler, {plain(effort['pruner'])} pruner" if effort else ""
    files = ", ".join(f"{plain(path)} {plain(digest[:_HASH])}" for path, digest in script["sources"].items())
    lines = [
        f"## {plain(found.name)}",
        *_confirmed(found),
        f"**Goal** {plain(found.objective.goal)}. A trial has the numbers of {plain(kept_epoch(script))}.",
        f"**Script** {plain(script['path'])}" + (f" ({files})" if files else ""),
        f"**Budget** {done} ({states}){epochs}{how}; seed {plain(settings['seed'])}.",
    ]
    if engine := script.get("engine"):
        lines.append("**Built-in trainer** " + "; ".join(map(plain, engine_comparison.of(engine).lines())) + ".")
    if why := in_words(count_causes([*found.trials, *found.excluded])):
        lines.append(f"**Failed** {plain(why)}. The log of a trial says more.")
    if found.by_hand:
        lines.append(f"**Added by hand** {found.by_hand} more, which face3d-tune did not train and does not count.")
    lines += excluded_notes.of_study(found)
    lines += [f"**Space** {plain(line)}." for line in growth.lines(settings)]
    if before := WarmStart.of(found.attrs):
        lines.append(f"**Begun** with the best of the study {plain(str(before))}.")
    if found.best is None:
        return "\n\n".join([*lines, "No trial has completed yet."])
    return "\n\n".join(
        [
            *lines,
            _table(found, found.best, script),
            "The best of many is a little flattered by having been chosen. Its note holds the training command.",
            f"    face3d-tune export --study-name {word(found.name)}",
        ]
    )


def _confirmed(found: Findings) -> list[str]:
    """Write what the script reached when it trained again, or that it has not yet."""
    if found.best is None:
        return []
    ask = f"    face3d-tune confirm --study-name {word(found.name)}"
    held = found.script_confirmation
    if held is None:
        said = "the best value is flattered by having been chosen. To train it and the presets again:"
        return [f"**Not yet confirmed:** {said}", ask]
    first, *others = script_confirmation.sentences(held)
    heads = script_confirmation.headings(held)
    rows = [heads, ["---", *["--:"] * (len(heads) - 1)], *script_confirmation.rows(held)]
    table = "\n".join(f"| {' | '.join(row if row[0] == '---' else map(plain, row))} |" for row in rows)
    old = [] if found.confirmed_best else ["**Out of date:** another trial is the best now.", ask]
    return [*old, f"**{plain(first)}**", table, "\n".join(f"- {plain(line)}" for line in others)]


def _table(found: Findings, best: FrozenTrial, script: StoredScript) -> str:
    """Write the numbers of the presets and of the best trial, and the difference to the script's defaults."""
    others = further_numbers(TrialAttr.numbers.get(best.user_attrs, {}), script)
    heads = ["", "trial", plain(found.objective.name), "against the defaults", *map(plain, others)]
    rows = [_row(plain(row.name), row.trial, others, found) for row in found.presets if row.trial is not None]
    rows.append(_row("**best trial**", best, others, found))
    return "\n".join([f"| {' | '.join(heads)} |", f"|---|{'--:|' * (len(heads) - 1)}", *rows])


def _row(name: str, trial: FrozenTrial, others: Sequence[str], found: Findings) -> str:
    value, numbers = found.objective.of_trial(trial.user_attrs), TrialAttr.numbers.get(trial.user_attrs, {})
    if value is None or not trial.state.is_finished():
        return f"| {name} | {trial.number} | {trial.state.name.lower()} |{' |' * (1 + len(others))}"
    pruned = " (pruned)" if trial.state == TrialState.PRUNED else ""
    form = found.objective.number
    beside = [form(numbers[each]) if each in numbers else "–" for each in others]
    cells = [form(value), _against(found, trial, value), *beside]
    return f"| {' | '.join([name + pruned, str(trial.number), *cells])} |"


def _against(found: Findings, trial: FrozenTrial, value: float) -> str:
    """Return the difference to the script's defaults, and whether that is better; "" for these, or without them."""
    defaults = found.defaults.trial if found.defaults else None
    if defaults is None or defaults.value is None or defaults.state != TrialState.COMPLETE:
        return ""
    if defaults.number == trial.number or value == defaults.value:
        return ""
    word = "better" if found.objective.better(value, defaults.value) else "worse"
    return f"{found.objective.number(value - defaults.value, '+')}, {word}"


def trial_note(found: Findings, script: StoredScript, trial: FrozenTrial) -> str:
    """Write why a trial is notable, its numbers or its failure, and its training command."""
    attrs, value = trial.user_attrs, found.objective.of_trial(trial.user_attrs)
    lines = [f"**{_reason(found, trial)}**"]
    if value is not None:
        epochs = f"epoch {plain(TrialAttr.best_epoch.of(attrs))} of {plain(TrialAttr.epochs_run.of(attrs))}"
        against = _against(found, trial, value)
        beside = f" ({against} than the script's defaults)" if against else ""
        numbers = TrialAttr.numbers.of(attrs)
        others = further_numbers(numbers, script)
        also = "".join(f"; {plain(name)} {found.objective.number(numbers[name])}" for name in others)
        lines.append(f"{plain(found.objective.said(value))}{beside}, {epochs}{also}.")
    if TrialAttr.error.held_by(attrs):
        lines.append(plain(TrialAttr.error.of(attrs)))
    if text := command(script, trial):
        lines.append(block(text))
    return "\n\n".join(lines)


def command(script: StoredScript, trial: FrozenTrial) -> str | None:
    """Return the training command of a trial for bash, with omissions as comments; None if it was not sampled yet."""
    if not TrialAttr.config.held_by(trial.user_attrs):
        return None
    words, unsaid = stored_command(script, trial.user_attrs)
    missing = [f"# not said: {line}" for line in unsaid]
    return "\n".join([*missing, quote(words, "bash")]) + "\n"


def _reason(found: Findings, trial: FrozenTrial) -> str:
    names = [row.name for row in found.presets if row.trial is not None and row.trial.number == trial.number]
    own = OF_SCRIPT in names
    preset = "the script's defaults" if own else f"preset {' = '.join(map(plain, names))}" if names else ""
    if found.best is not None and trial.number == found.best.number:
        return f"The best trial{f', {preset}' if preset else ''}"
    if preset:
        return f"T{preset[1:]}" if own else f"The guide's {preset}" if names[0] in PRESETS else f"The {preset}"
    if why := cause(trial):
        return f"Failed: {_CAUSES.get(why, 'an error')}"
    runners = [other.number for other in found.runners_up]
    return f"Runner-up {runners.index(trial.number) + 1}" if trial.number in runners else f"Trial {trial.number}"
