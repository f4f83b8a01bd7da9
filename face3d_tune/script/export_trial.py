"""A trial of a study that searches the user's own script: its command, as JSON, as a preset of the study file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from face3d_tune.errors import ExportError
from face3d_tune.script import sources
from face3d_tune.script.command import EPOCHS, command, interpreter, seed_for, typeable, typed
from face3d_tune.script.export import Export
from face3d_tune.script.flags import Script, read_script
from face3d_tune.study.attrs import StoredScript, StudyAttr, TrialAttr
from face3d_tune.study.lookup import StoredTrial
from face3d_tune.study.objective import Objective


def script_of(stored: StoredScript, other: Path | None = None) -> Script:
    """Read the flags of the study's script, or of the one at `other`. Raises ExportError if it cannot be read."""
    if other is not None:
        return read_script(other)
    path = Path(stored["command"][-1])
    if not path.is_file():
        raise ExportError(
            f"the study's script is no longer at {path}", "--script PATH names where it is, or another copy of it"
        )
    return read_script(path)


def moved(stored: StoredScript, other: Path | None, python: str | None = None) -> StoredScript:
    """Return the study's script as started from another place, or by another Python."""
    program, *between, path = stored["command"]
    return {**stored, "command": [python or program, *between, path if other is None else str(other.absolute())]}


def values_of(study_attrs: Mapping[str, Any], trial_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's values by flag, without the epochs that its config holds beside them."""
    settings = StudyAttr.settings.of(study_attrs)
    own = {*settings["fixed"], *settings["space"], *TrialAttr.overrides.get(trial_attrs, {})}
    config = TrialAttr.config.of(trial_attrs)
    return {name: value for name, value in config.items() if name != EPOCHS or name in own}


def epochs_of(study_attrs: Mapping[str, Any], trial_attrs: Mapping[str, Any]) -> int | None:
    """Return the epochs that a trial was told to train; None if the script takes none."""
    config = TrialAttr.config.get(trial_attrs, {})
    epochs: int | None = config.get(EPOCHS, StudyAttr.settings.of(study_attrs).get("epochs"))
    return epochs


def command_of(stored: StoredTrial, script: Script, *, other: bool = False) -> Export:
    """Return the command that trains a trial again, as a person types it, without folders.

    `other`: the script is not the study's, so its flags may lack what the trial has.
    """
    table, attrs = StudyAttr.script.of(stored.study_attrs), stored.trial.user_attrs
    config, epochs = values_of(stored.study_attrs, attrs), epochs_of(stored.study_attrs, attrs)
    seed = TrialAttr.seed.get(attrs)
    composed = command(table, script, config, seed=seed, epochs=epochs)
    start = [interpreter(table["command"][0]), typeable(script.path if other else table["path"])]
    words = [*start, *composed.words[len(table["command"]) :]]
    said = typed(table, script, config, seed=seed, epochs=epochs)
    return Export((words,), composed.missing, _notes(table, script, said, other=other))


def changed(stored: StoredScript) -> list[str]:
    """Return the files of the study's script that are no longer as they were when the study was made."""
    path = Path(stored["command"][-1])
    return sources.changed(stored["sources"], sources.hashes(path)) if path.is_file() else []


def to_json(stored: StoredTrial) -> str:
    """Return a trial as a JSON object: where it comes from, its value and numbers, and its config."""
    table, trial = StudyAttr.script.of(stored.study_attrs), stored.trial
    seed = TrialAttr.seed.get(trial.user_attrs)
    content = {
        "study": stored.study,
        "trial": trial.number,
        "value": Objective.of_study(stored.study_attrs).of_trial(trial.user_attrs),
        "metric": table["metric"],
        "direction": table["direction"],
        "script": table["path"],
        "seed": None if seed is None or table["seed_flag"] is None else seed_for(seed),
        "epochs": epochs_of(stored.study_attrs, trial.user_attrs),
        "best_epoch": TrialAttr.best_epoch.get(trial.user_attrs),
        "config": values_of(stored.study_attrs, trial.user_attrs),
        "numbers": dict(TrialAttr.numbers.get(trial.user_attrs, {})),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def to_toml(stored: StoredTrial) -> str:
    """Return a table `presets.NAME` for the study file: what the trial does not share with every other."""
    settings, attrs = StudyAttr.settings.of(stored.study_attrs), stored.trial.user_attrs
    own = {*settings["space"], *TrialAttr.overrides.get(attrs, {})}
    # TOML has no null: a value of None is what the script does without the flag.
    values = {name: value for name, value in TrialAttr.config.of(attrs).items() if name in own and value is not None}
    return tomli_w.dumps({"presets": {f"{stored.study}-trial-{stored.trial.number}": values}})


def _notes(table: StoredScript, script: Script, said: Mapping[str, Any], *, other: bool) -> tuple[str, ...]:
    notes = []
    folders = [script.flags[name].typed for name in table.get("folder_flags", ()) if name in script.flags]
    if folders:
        notes.append(f"add folders for what it writes: {', '.join(folders)}; the study gave each trial its own")
    if start_in := table.get("start_in"):
        notes.append(f"the study started the script in {start_in}")
    if names := [*table.get("environment", {})]:
        notes.append(f"the study set {', '.join(names)} in the script's environment")
    if table["seed_flag"] is None:
        notes.append("the study has no flag for a seed, so the script chose the trial's, and may choose another now")
    told = {script.flags[name].typed for name in said if name in script.flags} | {*folders}
    unsaid = {flag.typed: flag for flag in script.flags.values() if flag.typed not in told}
    extra = {word.partition("=")[0] for word in table.get("arguments", ())}
    if needed := sorted(name for name, flag in unsaid.items() if flag.required and name not in extra):
        notes.append(f"the script does not start without {', '.join(needed)}: add it")
    if other and (rest := sorted(unsaid.keys() - {*needed} - extra)):
        notes.append(f"this script also has {', '.join(rest)}: no trial sets it, so its default applies")
    return tuple(notes)
