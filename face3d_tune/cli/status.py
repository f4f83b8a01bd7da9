"""`face3d-tune status`: the studies of a storage and their workers."""

import json
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import chosen, say
from face3d_tune.cli.options import storage_option

if TYPE_CHECKING:
    from face3d_tune.storage.database import Storage


@click.command(cls=Command, epilog=example("face3d-tune status\nface3d-tune status --json"))
@storage_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def status(storage: str, as_json: bool) -> None:
    """Show every study, its progress and its workers."""
    import optuna

    from face3d_tune.storage.database import Storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (click.echo if as_json else say)(_shown(Storage.parse(storage), as_json))


def _shown(place: "Storage", as_json: bool) -> str:
    """Read the storage once. Raises StorageError."""
    import optuna

    from face3d_tune.storage.study_names import study_names
    from face3d_tune.storage.workers import read_workers
    from face3d_tune.study.status import summary

    with place.opened(curves=False) as opened:
        studies = []
        for name in study_names(opened):
            study = optuna.load_study(study_name=name, storage=opened)
            workers = [
                row.to_dict() for row in read_workers(opened.engine, opened.get_study_id_from_name(study.study_name))
            ]
            likely = _likely_best(study)
            studies.append({**summary(study), "workers": workers, "warning": _warning(study), "likely_best": likely})
    where = str(place.sqlite_file.resolve()) if place.sqlite_file else str(place)
    if as_json:
        return json.dumps({"storage": str(place), "where": where, "studies": studies}, indent=2, ensure_ascii=False)
    lines = [f"storage  {where}", *(line for study in studies for line in _lines(study))]
    return "\n".join(lines if studies else [*lines, "no study yet; make one with `face3d-tune run`"])


def _warning(study: Any) -> str | None:
    """Return the sentence on a best trial that recognises people no better than a baseline; None if there is none."""
    from face3d_tune.analysis.recognising import warning
    from face3d_tune.study.other_programs import is_own_study
    from face3d_tune.study.trials import best_trial

    return warning(best_trial(study), study.user_attrs) if is_own_study(study) else None


def _likely_best(study: Any) -> dict[str, Any] | None:
    """Return what the best trial would likely reach again; None if the study does not know its noise."""
    from dataclasses import asdict

    from face3d_tune.analysis.likely_best import likely_best
    from face3d_tune.study.other_programs import is_own_study

    found = likely_best(study) if is_own_study(study) else None
    return None if found is None else asdict(found)


def _recognised(study: dict[str, Any]) -> str:
    """Return rank-1 of the best trial and of the baselines among all enrolled; "" if the trial has none."""
    from face3d_tune.analysis.recognising import rank1

    held = study["best_recognition"]
    if held is None:
        return ""
    known = {"without a model": "no_model_recognition", "ridge": "ridge_recognition"}
    known["kernel ridge"] = "kernel_ridge_recognition"
    beside = "".join(f"; {name} {rank1(study[key]):.3f}" for name, key in known.items() if study[key] is not None)
    return f"rank-1 among {held['enrolled']} enrolled {rank1(held):.3f}{beside}"


def _lines(study: dict[str, Any]) -> list[str]:
    """Return the lines on a study for a person."""
    from face3d_tune.analysis import script_confirmation
    from face3d_tune.analysis.confirmation import headline
    from face3d_tune.analysis.likely_best import LikelyBest
    from face3d_tune.study.causes import in_words
    from face3d_tune.study.exclusions import said
    from face3d_tune.study.growth import lines as growth_lines
    from face3d_tune.study.objective import Objective
    from face3d_tune.study.stored_start import WarmStart

    states = ", ".join(f"{count} {state}" for state, count in study["states"].items() if count) or "no trials"
    if not study["own"]:
        goals = " and ".join(study["directions"])
        return [f"study    {study['study']}: {states}; made by another program ({goals})"]
    imported = f", {study['imported']} of them imported" if study["imported"] else ""
    by_hand = f"; {study['by_hand']} more added by hand, not counted" if study["by_hand"] else ""
    progress = f"; {study['finished']} of {study['budget']} trials finished" if study["budget"] else ""
    lines = [f"study    {study['study']}: {states}{imported}{progress}{by_hand}"]
    if why := in_words(study["causes"]):
        lines.append(f"         failed: {why}")
    if study["script"]:
        lines.append(f"         searches the script {study['script']['path']}")
    if before := WarmStart.of(study):
        lines.append(f"         from {before}")
    lines += [f"         {growth}" for growth in growth_lines(study)]
    if held := study["stop"]:
        lines.append(f"         stopped by {held['by']} at {held['at']}")
    lines += [f"         {said(each['trial'], each)}" for each in study["excluded"]]
    if study["best_value"] is None:
        lines.append("         no completed trial yet")
    else:
        objective = Objective.of_study(study) if study["script"] else Objective(study["objective"])
        reached = objective.of_baselines(study)
        beside = "".join(
            f"; {'without a model' if name == 'no model' else name} {value:.4f}" for name, value in reached.items()
        )
        best = f"{objective.number(study['best_value'])}, trial {study['best_trial']} ({study['best_origin']})"
        best += f", mean over {study['folds']} folds" if study["folds"] > 1 else ""
        if study["warning"]:
            lines.append(f"         {study['warning']}")
        if study["script"]:
            best = f"{objective} {objective.number(study['best_value'])}, trial {study['best_trial']}"
            if objective.direction == "maximize":
                lines.append(f"         best {best} ({study['best_origin']}); higher is better")
            else:
                lines.append(f"         best {best} ({study['best_origin']}); lower is better")
        elif study["objective"] == "cosine":
            lines.append(f"         best validation cosine {best}{beside}")
        else:
            lines.append(f"         best validation identity {best}{beside}; its cosine {study['best_cosine']:.4f}")
        if likely := study["likely_best"]:
            lines.append(f"         {LikelyBest(**likely).text(objective)}")
        if recognised := _recognised(study):
            lines.append(f"         {recognised}")
        if held := study["confirmation"]:
            lines.append(f"         confirmed: {headline(held)}")
        if held := study["rotation"]:
            lines.append(f"         cross-validated: {headline(held)}")
        if held := study["script_confirmation"]:
            lines.append(f"         trained again: {script_confirmation.headline(held, chosen())}")
    for worker in study["workers"]:
        trials = ", ".join(f"#{number}" for number in worker["trials"]) or "no trial"
        sign = f"last heartbeat {worker['silent']:.0f} s ago"
        verdict = "" if worker["alive"] else ", presumed dead"
        lines.append(f"worker   {worker['host']}:{worker['pid']}: {trials}; {sign}{verdict}")
    return lines
