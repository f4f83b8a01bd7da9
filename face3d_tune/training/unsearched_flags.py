"""The flags of the users' script that no study searches, and those that follow from a config."""

from face3d_tune.config import TrialConfig

# Their defaults do a trial no harm; the last two matter only to the rates for which `schedule_args` gives them.
UNSEARCHED_FLAGS = (
    "num_workers",
    "device",
    "save_dir",
    "log_dir",
    "resume",
    "deterministic",
    "warmup_lr",
    "cosine_eta_min",
)


def schedule_args(config: TrialConfig) -> dict[str, float]:
    """Return the flags that newer copies need beside scheduler_type and warmup_epochs, for the rates of `schedules`.

    A line from warmup_lr to lr over W epochs is lr · e / (W + 1) if it begins at lr / (W + 1).
    """
    if config.scheduler_type == "plateau":
        return {}
    warm = {"warmup_lr": config.lr / (config.warmup_epochs + 1)} if config.warmup_epochs else {}
    return {**warm, "cosine_eta_min": config.scheduler_min_lr}
