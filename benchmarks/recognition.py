"""Recognition beside the epoch that it belongs to, on one thread; and its time and memory for many views and people."""

from dataclasses import replace

import numpy as np
import torch

from benchmarks.common import interleaved, machine, options, table
from benchmarks.kernel_ridge import memory, people_of
from benchmarks.steps import CPU, config_of
from face3d_tune.data.face_data import FaceData, load
from face3d_tune.training.batched.batch import Batch, Data
from face3d_tune.training.recognition import Gallery


def main() -> None:
    """Measure row by row."""
    asked = options(__doc__).parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}\none thread\n", flush=True)
    shapes = {"10 people, 6 views": people_of(10, 6, 16)} if asked.quick else {"sample": load(None)}
    if not asked.quick:
        shapes["36 people, 280 views, d=512"] = people_of(36, 280, 512)
    table(("data", "recognition, ms", "epoch, ms", "share"), [_share(name, data) for name, data in shapes.items()])
    many = people_of(20, 6, 16) if asked.quick else people_of(1_000, 20, 512)
    table(("views judged", "people", "s", "MiB beside the data"), [_large(many)])


def _share(name: str, data: FaceData) -> list[str]:
    """Measure the recognition of one validation, and an epoch of the batched engine with it."""
    gallery, predictions = Gallery(data, "validation"), data.no_model_predictions("validation")
    config = config_of(data)
    batch = Batch(config, Data(data, CPU), "off")
    batch.add(config, 0, "off")
    contenders = {
        "recognition": lambda: gallery.scores(predictions).summary(),
        "epoch": batch.train_epoch,
    }
    ms = {what: seconds * 1000 for what, seconds in interleaved(contenders, repeats=3).items()}
    return [name, f"{ms['recognition']:.1f}", f"{ms['epoch']:.0f}", f"{ms['recognition'] / ms['epoch']:.2%}"]


def _large(data: FaceData) -> list[str]:
    """Measure the recognition of everyone."""
    everyone = np.concatenate(list(data.parts.values()))
    data = replace(data, parts={**data.parts, "validation": everyone})
    predictions = data.no_model_predictions("validation")
    with memory() as peak:
        seconds = interleaved({"all": lambda: Gallery(data, "validation").scores(predictions).summary()}, repeats=1)
    return [f"{len(everyone)}", f"{len(data.front_names)}", f"{seconds['all']:.1f}", f"{peak[0] / 2**20:.0f}"]


if __name__ == "__main__":
    main()
