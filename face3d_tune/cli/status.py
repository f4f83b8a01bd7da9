"""`face3d-tune status`: what a storage holds."""

import json

import click

from face3d_tune.cli.base import Command, example, storage_option


@click.command(cls=Command, epilog=example("face3d-tune status\nface3d-tune status --json"))
@storage_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def status(storage: str, as_json: bool) -> None:
    """Show the studies of a storage and how far they are."""
    import optuna

    from face3d_tune.results import summary
    from face3d_tune.storage import Storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = Storage.parse(storage)
    with place.opened() as opened:
        names = sorted(study.study_name for study in optuna.get_all_study_summaries(opened, include_best_trial=False))
        studies = [summary(optuna.load_study(study_name=name, storage=opened)) for name in names]
    where = str(place.sqlite_file.resolve()) if place.sqlite_file else str(place)
    if as_json:
        click.echo(
            json.dumps({"storage": str(place), "where": where, "studies": studies}, indent=2, ensure_ascii=False)
        )
        return
    click.echo(f"storage  {where}")
    for study in studies:
        states = ", ".join(f"{count} {state}" for state, count in study["states"].items() if count) or "no trials"
        click.echo(f"study    {study['study']}: {states}")
        if study["best_value"] is None:
            click.echo("         no completed trial yet")
        else:
            origin = study["best_preset"] or "sampled"
            no_model = study["no_model_cosine"]
            beside = "" if no_model is None else f"; without a model {no_model:.4f}"
            best = f"{study['best_value']:.4f}, trial {study['best_trial']} ({origin})"
            click.echo(f"         best validation cosine {best}{beside}")
    if not studies:
        click.echo("no study yet; make one with `face3d-tune run`")
