"""The identity term: what trainings with and without it reach on the validation people, and which epoch they keep.

    python -m benchmarks.identity_term                                 # one seed of each row
    python -m benchmarks.identity_term --seeds 3 --small 0,0.1 0.3,0.1 # WEIGHT,TEMPERATURE of each row
    python -m benchmarks.identity_term --inputs kernel                 # the model gets kernel ridge's output

The settings are those of the best trial in the README, as far as its table shows them; the others are below. `--small`
has two layers and no attention, for half the time. Validation loss, scheduler and early stopping are without the term.
The second line of a row asks what keeping the epoch by a loss with the term would give, in the same training: the
cross-entropy of validation people among everyone enrolled, whose mean is −identity / 0.1 (`training/recognition`).
"""

from argparse import ArgumentTypeError
from collections.abc import Iterator
from statistics import fmean
from typing import get_args

import torch

from benchmarks.common import machine, options, table
from face3d_tune.config import InputsName, TrialConfig, resolve
from face3d_tune.data.face_data import load
from face3d_tune.training import losses
from face3d_tune.training.base import EpochResult
from face3d_tune.training.batched.batch import alone
from face3d_tune.training.recognition import TEMPERATURE

CPU = torch.device("cpu")
ROWS = ("0,0.1", "0.1,0.2", "0.1,0.1", "0.3,0.1")
SETTINGS = {
    **{"lr": 3.3e-4, "cosine_weight": 0.85, "scheduler_factor": 0.49, "scheduler_patience": 7, "pose_unit": "radians"},
    **{"scheduler_min_lr": 1e-6, "early_stopping_patience": 15, "dropout": 0.35, "weight_decay": 0.1},
}
ATTENTION = {"use_spatial_attention": True, "use_pose_attention": True}


def row_of(text: str) -> str:
    """Check WEIGHT,TEMPERATURE, as typed. Raises ArgumentTypeError."""
    try:
        weight, temperature = map(float, text.split(","))
    except ValueError:
        weight = temperature = -1.0
    if not (0 <= weight <= 1 and temperature > 0):
        raise ArgumentTypeError(f"{text!r} is no weight from 0 to 1 and temperature above 0; expected such as 0.1,0.2")
    return text


def config_of(row: str, feature_size: int, epochs: int, *, inputs: str, small: bool) -> TrialConfig:
    """Make the config of a row, WEIGHT,TEMPERATURE."""
    weight, temperature = map(float, row.split(","))
    more = {"num_layers": 2} if small else ATTENTION
    term = {"identity_weight": weight, "identity_temperature": temperature}
    values = {**SETTINGS, **more, **term, "inputs": inputs}
    return resolve(values, feature_size=feature_size, epochs=epochs, layout="keypoint")


def with_term(config: TrialConfig, epoch: EpochResult) -> float:
    """Return the validation loss of an epoch with the identity term among everyone enrolled."""
    identity = epoch.recognition.all.identity if epoch.recognition is not None else None
    if identity is None:
        raise ValueError("an epoch has no recognition")
    return losses.with_identity(config, epoch.val_loss, -identity / TEMPERATURE)


def kept(config: TrialConfig, history: list[EpochResult]) -> Iterator[tuple[str, EpochResult]]:
    """Return the epoch that a training keeps, and the one that it would keep with the term."""
    yield "without", min(history, key=lambda epoch: epoch.val_loss)
    if config.identity_weight > 0:
        yield "with", min(history, key=lambda epoch: with_term(config, epoch))


def cells(epochs: list[EpochResult]) -> list[str]:
    """Format the means over seeds: epoch, cosine, rank-1 and identity."""
    rates = [epoch.recognition.all for epoch in epochs if epoch.recognition is not None]
    means = [fmean(epoch.val_cosine for epoch in epochs)]
    for name in ("rank1_judged", "rank1_enrolled", "tar_enrolled", "identity"):
        means.append(fmean(getattr(each, name) for each in rates))
    return [f"{fmean(epoch.epoch for epoch in epochs):.0f}", *(f"{mean:.4f}" for mean in means)]


def main() -> None:
    """Train row by row."""
    parser = options(__doc__)
    parser.add_argument("rows", nargs="*", type=row_of, default=ROWS, metavar="WEIGHT,TEMPERATURE")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="two layers, no attention")
    parser.add_argument("--inputs", default="view", choices=get_args(InputsName), help="what the model gets")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data, epochs = load(None), 2 if given.quick else 100
    print(f"{machine()}\n", flush=True)
    header = ("weight,temperature", "kept by a loss", "epoch", "cosine", "rank-1", "rank-1 enrolled", "TAR", "identity")
    for row in given.rows:
        config = config_of(row, data.feature_size, epochs, inputs=given.inputs, small=given.small)
        found: dict[str, list[EpochResult]] = {}
        for seed in range(given.seeds):
            training = alone(config, data, seed=seed, device=CPU, precision="off")
            while training.stop_reason is None:
                training.train_epoch()
            for how, epoch in kept(config, training.history):
                found.setdefault(how, []).append(epoch)
        table(header, [[row, f"{how} the term", *cells(each)] for how, each in found.items()])


if __name__ == "__main__":
    main()
