"""What `run` prints before its first trial: the inputs and the plan of the search."""

from face3d_tune.cli.console import Console
from face3d_tune.device import device_names
from face3d_tune.search.run_search import OpenSearch
from face3d_tune.search.script_search import ScriptSearch
from face3d_tune.search.search import Search
from face3d_tune.search.trainer_search import TrainerSearch
from face3d_tune.study import growth
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.described_data import describe_data, describe_kernel_ridge
from face3d_tune.study.other_programs import count_foreign
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.trials import count_imported
from face3d_tune.study.warm_start import moved


def introduce(console: Console, opened: OpenSearch) -> None:
    """Print one line for each input, and an empty line."""
    search = opened.search
    if isinstance(search, TrainerSearch):
        _introduce_trainer(console, opened, search)
    elif isinstance(search, ScriptSearch):
        _introduce_script(console, opened, search)
    console.print()


def _introduce_trainer(console: Console, opened: OpenSearch, search: TrainerSearch) -> None:
    setup, file, study, folds = search.setup, search.trained_file, search.study, search.settings.folds
    objective = search.objective
    console.print(f"data     {describe_data(study.user_attrs)}; poses in {setup.data.file_pose_unit}")
    _print_study(console, opened)
    in_folds = f"in each of {folds} folds" if folds > 1 else "each"
    _print_trials(console, search, f"up to {search.settings.epochs} epochs {in_folds}")
    if stage := WarmStart.of(study.user_attrs):
        console.print(f"from     {stage}")
        if stage.objective != objective.name:
            console.print("         a value of another objective does not compare; its config is a good beginning")
        for name, (was, now) in moved(file, stage).items():
            console.print(f"         its {name} is outside this space: {_short(was)}; begins at {_short(now)}")
    _print_presets(console, opened)
    console.print(f"device   {device_names(setup.devices)}, mixed precision {setup.precision}; seed {search.seed}")
    console.print(f"engine   {opened.plan}")
    reached = objective.of_baselines(study.user_attrs)
    over = f" over {folds} folds of people" if folds > 1 else ""
    ridge, kernel = reached["ridge"], reached["kernel ridge"]
    lines = f"without a model it is {reached['no model']:.4f}, ridge {ridge:.4f}, kernel ridge {kernel:.4f}"
    console.print(f"goal     {objective.goal}{over}; {lines}{_ends(search)}")
    if few := describe_kernel_ridge(study.user_attrs):
        console.print(f"         {few}")


def _introduce_script(console: Console, opened: OpenSearch, search: ScriptSearch) -> None:
    console.print(f"script   {search.described}")
    _print_study(console, opened)
    epochs = search.script_file.epochs
    _print_trials(console, search, f"up to {epochs} epochs each" if epochs else "as many epochs as the script trains")
    _print_presets(console, opened)
    console.print(f"device   {opened.plan}; seed {search.seed}")
    console.print(f"goal     {search.objective.goal}{_ends(search)}")
    for line in search.remarks:
        console.print(f"         {line}")


def _print_study(console: Console, opened: OpenSearch) -> None:
    search, study = opened.search, opened.search.study
    imported = f", {count} more imported" if (count := count_imported(study)) else ""
    imported += f", {count} added by hand" if (count := count_foreign(study)) else ""
    done = f"{search.finished()} of {search.queue.budget} trials done{imported}"
    console.print(f"study    {study.study_name} ({search.file.path.name}) in {opened.storage}; {done}")


def _print_trials(console: Console, search: Search, epochs: str) -> None:
    file = search.file
    console.print(f"trials   {file.sampler.name} over {', '.join(file.space)}; {file.pruner.name} pruner; {epochs}")
    for line in growth.lines(StudyAttr.settings.of(search.study.user_attrs)):
        console.print(f"         {line}")


def _print_presets(console: Console, opened: OpenSearch) -> None:
    file, winners = opened.search.file, opened.winners
    names = [name for name in file.presets if name not in file.near]
    near = f"; {len(file.near)} near the best" if file.near else ""
    console.print(f"presets  {', '.join(names) or 'none'}{near}")
    if winners is not None:
        if winners.trials:
            console.print(f"like     {winners}; after the presets")
        else:
            console.print(f"like     the best of {winners.study} are presets of this study")
        for line in winners.changed:
            console.print(f"         {line}")


def _ends(search: Search) -> str:
    return "" if search.target is None else f"; ends at {target_of(search)}"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def target_of(search: Search) -> str:
    """Format the target: `0.85`, or `0.85 in 5 epochs in a row`."""
    target, epochs = search.target, search.target_epochs
    return f"{target}{f' in {epochs} epochs in a row' if epochs > 1 else ''}"
