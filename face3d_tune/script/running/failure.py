"""Why a script in training failed."""

from collections.abc import Sequence

from face3d_tune.executor.tasks import Failure
from face3d_tune.script import diagnosis
from face3d_tune.system import signals


def explain(code: int, output: str, flags: Sequence[str], *, starved: bool) -> Failure:
    """Explain a failed script by its exit code, its output and its flags.

    `starved`: whether the kernel has killed processes for lack of memory meanwhile. Without that a kill proves
    nothing: a person may have sent it.
    """
    cause = diagnosis.find(code, output, flags)
    if code < 0 and not cause.out_of_memory:
        name = signals.name_of(-code)
        starved = starved and name == "SIGKILL"
        why = ", for lack of memory" if starved else ""
        return Failure(f"its process was killed ({name})" + why, out_of_memory=starved, died=True)
    ended = f"it ended with exit code {code}"
    message = cause.reason if cause.reason.startswith(ended) else f"{ended}: {cause.reason}"
    if cause.remedy or cause.flags:
        message += f"; {cause}"
    return Failure(message, out_of_memory=cause.out_of_memory, died=code < 0)
