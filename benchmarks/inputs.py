"""What a model gets in place of the raw view: trainings on each input, on the validation people of the sample.

    python -m benchmarks.inputs                    # view, ridge and kernel, three seeds
    python -m benchmarks.inputs --out-of-fold 5    # ridge and kernel with training rows fitted on other people, as well
    python -m benchmarks.inputs --no-training      # the cosine of the inputs themselves alone: a minute

A baseline's outputs for the people it was fitted to are better than for others, so training rows differ from those of
validation people. Out-of-fold rows do not: a training person's outputs are of a fit to the people of the other folds.
The settings are those of `benchmarks.identity_term` with stronger weight decay. Every line is printed when it is there.
"""

from dataclasses import replace

import numpy as np
import torch

from benchmarks.common import machine, options, table
from benchmarks.identity_term import cells, config_of
from face3d_tune.config import InputsName
from face3d_tune.data.face_data import FaceData, load
from face3d_tune.data.pairs import PARTS, persons
from face3d_tune.training import kernel_ridge, ridge
from face3d_tune.training.base import EpochResult, best_epoch
from face3d_tune.training.baseline_file import Baseline
from face3d_tune.training.batched.batch import alone
from face3d_tune.training.inputs import baseline_of, seen

CPU = torch.device("cpu")


def out_of_fold(data: FaceData, inputs: InputsName, folds: int) -> FaceData:
    """Return the data with these inputs; a training person's are of a fit to the training people of other folds."""
    given, pairs = seen(data, inputs), data.parts["train"]
    whole = baseline_of(given)
    assert whole is not None
    features, fold = given.video_features.copy(), persons(pairs) % folds
    for each in range(folds):
        others = replace(data, parts={**data.parts, "train": pairs[fold != each]})
        if isinstance(whole.fitted, ridge.Ridge):
            part = Baseline(ridge.fit(others, whole.fitted.penalty))
        else:
            part = Baseline(kernel_ridge.fit(others, whole.fitted.choice))
        rows = np.unique(pairs[fold == each, 1])
        features[rows] = part.predict(data.video_features[rows], data.landmarks[rows], data.poses[rows])
    return replace(given, video_features=features)


def main() -> None:
    """Describe the inputs, then train seed by seed."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out-of-fold", type=int, default=0, metavar="FOLDS")
    parser.add_argument("--no-training", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load(None)
    kinds: tuple[InputsName, ...] = ("view", "ridge", "kernel")
    rows = {kind: seen(data, kind) for kind in kinds}
    if given.out_of_fold:
        rows |= {f"{kind}, out of fold": out_of_fold(data, kind, given.out_of_fold) for kind in kinds[1:]}
    print(f"{machine()}\n", flush=True)
    parts = PARTS[:2]
    cosines = [[name, *(f"{each.no_model_cosine(part):.4f}" for part in parts)] for name, each in rows.items()]
    table(("cosine of the input", *parts), cosines)
    if given.no_training:
        return
    settings = config_of("0,0.1", data.feature_size, 1 if given.quick else 100, small=False)
    found: dict[str, list[EpochResult]] = {name: [] for name in rows}
    for seed in range(1, 1 + given.seeds):
        for name, each in rows.items():
            inputs: InputsName = "view" if name == "view" else "ridge" if name.startswith("ridge") else "kernel"
            config = replace(settings, inputs=inputs, weight_decay=0.9)
            training = alone(config, each, seed=seed, device=CPU, precision="off")
            while training.stop_reason is None:
                training.train_epoch()
            kept = best_epoch(training.history)
            assert kept is not None
            found[name].append(kept)
            print(f"seed {seed}, {name}: {', '.join(cells([kept]))}", flush=True)
    header = ("inputs", "epoch", "cosine", "rank-1", "rank-1 enrolled", "TAR", "identity", "± cosine")
    deviations = {
        name: np.std([each.val_cosine for each in kept], ddof=min(1, len(kept) - 1)) for name, kept in found.items()
    }
    table(header, [[name, *cells(kept), f"{deviations[name]:.4f}"] for name, kept in found.items()])


if __name__ == "__main__":
    main()
