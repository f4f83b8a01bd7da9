"""`face3d-tune train --seeds`: an ensemble, the same config with several seeds."""

from typing import TYPE_CHECKING, Any

from face3d_tune.cli.language import say, word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from face3d_tune.cli.console import Console
    from face3d_tune.device import Precision
    from face3d_tune.executor.plan import Plan
    from face3d_tune.refit.ensemble_folder import Members
    from face3d_tune.refit.full_training import Trained
    from face3d_tune.refit.retrain import Job
    from face3d_tune.training.base import EpochResult


def train_ensemble(
    console: "Console",
    members: "Members",
    plan: "Plan",
    precision: "Precision",
    name: str,
    attrs: "Mapping[str, Any]",
    *,
    force: bool,
) -> None:
    """Train the members that are missing, with a line for each that ends; then print what the ensemble reaches.

    `name` says what is trained; `attrs` are those of its study. `force` removes the members that are there.
    """
    from face3d_tune.cli.result_tables import judged
    from face3d_tune.device import set_threads
    from face3d_tune.refit.ensemble_folder import ABOUT

    count = len(members.seeds)
    if force:
        members.remove()
    missing = members.missing()
    console.print(f"training {count} members of {name} into {members.folder} on {members.data.source}")
    if len(missing) < count:
        console.print(f"{count - len(missing)} of {count} members are there already")
    if missing:
        console.print(f"engine   {plan}")
        set_threads(1 if plan.engine == "batched" else None)  # others train
        _train_missing(console, members, plan, precision)
    set_threads(None)
    console.print("fitting ridge and kernel ridge")
    result = members.judge(plan, attrs).to_dict()
    judged(result, ("all",))
    say("no test people were used; the weights of the blends were chosen on the people shown, which flatters them")
    say(f"\nwrote {members.folder}: member-1 to member-{count}, ridge.npz, kernel.npz and {ABOUT}")


def _train_missing(console: "Console", members: "Members", plan: "Plan", precision: "Precision") -> None:
    from face3d_tune.cli.console import progress_bar
    from face3d_tune.cli.progress import Interrupt

    interrupt, missing, epochs = Interrupt(console), members.missing(), members.config.epochs
    with interrupt.caught(), progress_bar(console) as bars:
        bar, seen = bars.add_task(word("epochs"), total=len(missing) * epochs), dict.fromkeys(missing, 0)

        def shown(number: int, epoch: int) -> None:
            seen[number] = epoch
            bars.update(bar, completed=sum(seen.values()))

        def ended(number: int, trained: "Trained") -> None:
            reached = f"cosine {trained.validation.cosine:.4f} (epoch {trained.best.epoch} of {trained.epochs_run})"
            console.print(f"member {number} (seed {members.seeds[number - 1]}): {reached}")
            shown(number, epochs)

        def epoch(job: "Job", result: "EpochResult") -> None:
            shown(job.number, result.epoch)
            interrupt.check()

        try:
            members.train(plan, precision, ended, epoch)
        except KeyboardInterrupt:
            console.print(
                f"{len(members.seeds) - len(members.missing())} of {len(members.seeds)} members are there already"
            )
            console.print("hint: run the same command to resume")
            raise
