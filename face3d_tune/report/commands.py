"""The commands that a report shows: to train the best trial, and to search again."""

from collections.abc import Mapping, Sequence
from typing import Any

from face3d_tune.analysis.findings import Findings
from face3d_tune.data.face_data import SAMPLE_NAME, recorded_selection
from face3d_tune.data.provenance import SAMPLE_FOLDER, DataUse
from face3d_tune.script.export import commands
from face3d_tune.script.stored_command import stored_command
from face3d_tune.study.attrs import StoredSettings, StudyAttr
from face3d_tune.study.builtin import STUDIES
from face3d_tune.study.lookup import name_again
from face3d_tune.study.objective import COSINE
from face3d_tune.study.trials import budget_of, effort_of, repeatable_config


def data_of(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the pairs came from and how they were chosen; empty for a script, which reads its own data."""
    if not StudyAttr.data.held_by(attrs):
        return {}
    data = StudyAttr.data.of(attrs)
    return {**data, **recorded_selection(data), "fingerprint": StudyAttr.data_fingerprint.of(attrs)}


def to_train(found: Findings) -> tuple[list[list[str]], Sequence[str]]:
    """Return the commands that train the best trial, and what they cannot express."""
    if found.best is None:
        return [], []
    if found.script is not None:
        words, unsaid = stored_command(found.script, found.best.user_attrs)
        return [words], unsaid
    data = StudyAttr.data.of(found.attrs)
    exported = commands(repeatable_config(found.best), DataUse.of_study(data))
    return [*_sample(data), *exported.commands], exported.missing


def _sample(data: Mapping[str, Any]) -> list[list[str]]:
    """Return the commands that write the bundled sample as files."""
    return [["face3d-tune", "data", "sample", SAMPLE_FOLDER]] if data["source"] == SAMPLE_NAME else []


def to_search_again(found: Findings) -> list[str]:
    """Return the command that repeats the search as another study, on the same data with the same settings."""
    settings, data = StudyAttr.settings.of(found.attrs), data_of(found.attrs)
    effort = effort_of(found.attrs)
    own = not (STUDIES / f"{settings['study_file']}.toml").exists()
    words = ["face3d-tune", "run", "--study", settings["study_file"] + (".toml" if own else "")]
    words += ["--study-name", name_again(found.name)]
    words += ["--from", StudyAttr.follows.of(found.attrs)["study"]] if StudyAttr.follows.held_by(found.attrs) else []
    words += ["--data-dir", data["source"]] if data and data["source"] != SAMPLE_NAME else []
    words += ["--trials", str(budget_of(found.attrs) or max(1, found.finished))]
    words += ["--epochs", str(settings["epochs"])] if settings["epochs"] else []
    words += ["--seed", str(settings["seed"])]
    words += _chosen(settings, data) if data else []
    words += [] if (target := effort.get("target")) is None else ["--target", f"{target:.15g}"]
    words += ["--target-epochs", str(effort["target_epochs"])] if "target_epochs" in effort else []
    return [*words, "--slots", "1"]


def _chosen(settings: StoredSettings, data: Mapping[str, Any]) -> list[str]:
    """Return the options that choose layout, objective, folds and pairs; those with their defaults are omitted."""
    words, objective = ["--layout", settings["layout"]], settings.get("objective", COSINE.name)
    words += [] if objective == COSINE.name else ["--objective", objective]
    words += ["--folds", str(folds)] if (folds := settings.get("folds", 1)) > 1 else []
    words += [] if data["split"] == "person" else ["--split", data["split"]]
    words += ["--min-yaw", f"{data['min_yaw']:.15g}"] if data["min_yaw"] else []
    words += [] if data["max_yaw"] is None else ["--max-yaw", f"{data['max_yaw']:.15g}"]
    return words + ([] if data["turn_angle"] == "first" else ["--turn-angle", data["turn_angle"]])
