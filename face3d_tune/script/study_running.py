"""How slots run the script of a study, from what the study stores of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from face3d_tune.script.flags import Script
from face3d_tune.script.running.numbers import Source
from face3d_tune.script.running.tasks import Running
from face3d_tune.study.attrs import StoredScript


def running(stored: StoredScript, script: Script, *, study: str, ours: Sequence[Path] = ()) -> Running:
    """Return how slots run the script of a study.

    Args:
        stored: The table of the script, as the study stores it.
        script: Its flags.
        study: Tells the study from every other on this machine.
        ours: Folders and files that this program writes, perhaps beside the script.
    """
    start_in = stored.get("start_in")
    return Running(
        script=Path(stored["command"][-1]),
        study=study,
        ours=tuple(ours),
        metric=stored["metric"],
        source=cast("Source", stored["source"]),
        direction=stored["direction"],
        keep=stored["keep"],
        folder_flags=tuple(script.flags[name].typed for name in stored.get("folder_flags", ()) if name in script.flags),
        resume_flag=_typed(stored.get("resume_flag"), script),
        checkpoint=stored.get("checkpoint"),
        start_in=None if start_in is None else Path(start_in),
        environment=stored.get("environment", {}),
        time_limit=stored.get("time_limit"),
    )


def _typed(name: str | None, script: Script) -> str | None:
    return script.flags[name].typed if name is not None and name in script.flags else None
