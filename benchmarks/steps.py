"""Training steps on one core: the engine against the plain trainer, and against the model's own matrix products.

    python -m benchmarks.steps

The floor of a step is the time of its live matrix products (forward, gradient of the input, gradient of the weight;
live is everything but query and key, trainer contract §3) on weights as scattered as in a real step, and of one fused
AdamW over all live parameters. Nothing of normalisation, dropout, activation, loss or gathering is in it. (The engine
multiplies the value of the cross-attention by four columns instead of the batch; the floor has the whole product.)
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.common import NAMES, SHAPES, data_of, interleaved, machine, options, table
from face3d_tune import seeds
from face3d_tune.config import TrialConfig, resolve
from face3d_tune.data.face_data import FaceData
from face3d_tune.device import Precision
from face3d_tune.training.batched.batch import Batch, Data
from face3d_tune.training.model import Model
from face3d_tune.training.plain import Trainer

CPU = torch.device("cpu")
TARGETS = {"d512": "2.3", "sample": "3"}
FLAGS = {"use_spatial_attention": True, "use_pose_attention": True}
DEAD = ("pose_to_key", "feature_to_query")
DATA_IN = ("input_projection", "keypoint_encoder.0", "pose_encoder.0", "angle_projection", "pose_to_value")
DATA_IN += ("angle_to_scale.0", "angle_to_shift.0", "angle_memory_projection")  # their inputs need no gradient


class Floor:
    """One step's live products and its optimiser, on views of flat buffers as the engine has them."""

    def __init__(self, config: TrialConfig, feature_size: int) -> None:
        named = Model(config, feature_size, seeds.generator(0, "weights")).named_parameters()
        live = {name: self._live(name, tensor) for name, tensor in named if not any(dead in name for dead in DEAD)}
        size, used = sum(tensor.numel() for tensor in live.values()), 0
        self.weights, self.gradients, self.first, self.second = (torch.zeros(size) for _ in range(4))
        self.weights.normal_(std=0.05)
        self.count, self.rate = torch.ones(()), torch.tensor(1e-4, dtype=torch.float64)
        self.products: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]] = []
        for name, tensor in live.items():
            place = slice(used, used := used + tensor.numel())
            if tensor.dim() == 2:
                weight, gradient = (row[place].view(tensor.shape) for row in (self.weights, self.gradients))
                y, x = (torch.randn(config.batch_size, width) for width in tensor.shape)
                to_input = None if any(part in name for part in DATA_IN) else torch.empty_like(x)
                self.products.append((weight, gradient, x, y, to_input))

    @staticmethod
    def _live(name: str, tensor: Tensor) -> Tensor:
        return tensor.chunk(3)[2] if "in_proj" in name else tensor  # of query, key and value

    def step(self) -> None:
        """Run the forward products, then the backward ones from the last to the first, then AdamW."""
        for weight, _, x, y, _ in self.products:
            torch.mm(x, weight.T, out=y)
        for weight, gradient, x, y, to_input in reversed(self.products):
            torch.mm(y.T, x, out=gradient)
            if to_input is not None:
                torch.mm(y, weight, out=to_input)
        rows = ([self.weights], [self.gradients], [self.first], [self.second], [], [self.count])
        numbers = {"lr": self.rate, "beta1": 0.9, "beta2": 0.999, "weight_decay": 1e-5, "eps": 1e-8}
        torch._fused_adamw_(*rows, **numbers, amsgrad=False, maximize=False)

    @torch.inference_mode()
    def steps(self, count: int) -> None:
        """As many as an epoch has."""
        for _ in range(count):
            self.step()


def config_of(data: FaceData, **values: bool) -> TrialConfig:
    """Make the default model for these data, with dropout 0.1."""
    return resolve(values, feature_size=data.feature_size, epochs=100, layout="keypoint")


def engine(config: TrialConfig, data: Data, *, models: int = 1, precision: Precision = "off") -> Batch:
    """Make a batch of so many trainings."""
    batch = Batch(config, data, precision)
    for seed in range(models):
        batch.add(config, seed, precision)
    return batch


def steps_of(batch: Batch) -> Callable[[], object]:
    """Run the training steps of one epoch, without validation."""
    return torch.inference_mode()(lambda: batch._train(lambda: False))


def single(shape: str, data: FaceData, repeats: int, **flags: bool) -> list[str]:
    """One row of the first table."""
    config = config_of(data, **flags)
    count = len(data.parts["train"]) // config.batch_size
    plain, floor = Trainer(config, data, seed=0, device=CPU), Floor(config, data.feature_size)
    contenders: dict[str, Callable[[], object]] = {
        "plain": lambda: plain._train_all_batches(1),
        "engine": steps_of(engine(config, Data(data, CPU))),
        "floor": lambda: floor.steps(count),
    }
    ms = {name: seconds / count * 1000 for name, seconds in interleaved(contenders, repeats).items()}
    name = f"{NAMES[shape]}{', both flags' if flags else ''}"
    ratio, share = ms["plain"] / ms["engine"], ms["floor"] / ms["engine"]
    return [name, *(f"{each:.2f}" for each in ms.values()), f"{ratio:.2f}", TARGETS[shape], f"{share:.2f}", "0.65"]


def batched(data: FaceData, repeats: int) -> list[str]:
    """Eight trainings as one program against eight programs."""
    config, shared = config_of(data), Data(data, CPU)
    together, apart = engine(config, shared, models=8), [engine(config, shared) for _ in range(8)]
    seconds = interleaved(
        {"together": together.train_epoch, "apart": lambda: [batch.train_epoch() for batch in apart]}, repeats
    )
    rates = {name: 8 * 60 / each for name, each in seconds.items()}
    ratio = rates["together"] / rates["apart"]
    return [NAMES["sample"], f"{rates['together']:.1f}", f"{rates['apart']:.1f}", f"{ratio:.2f}"]


def halves(shape: str, data: FaceData, repeats: int) -> list[str]:
    """Products in bfloat16 against float32."""
    shared, config = Data(data, CPU), replace(config_of(data), use_mixed_precision=True)
    count = len(data.parts["train"]) // config.batch_size
    kinds: dict[str, Precision] = {"float32": "off", "bf16": "bf16"}
    batches = {name: steps_of(engine(config, shared, precision=kind)) for name, kind in kinds.items()}
    ms = {name: seconds / count * 1000 for name, seconds in interleaved(batches, repeats).items()}
    return [NAMES[shape], f"{ms['float32']:.2f}", f"{ms['bf16']:.2f}", f"{ms['float32'] / ms['bf16']:.2f}"]


def with_identity(shape: str, data: FaceData, repeats: int) -> list[str]:
    """Return the steps of both trainers without and with the identity term."""
    without = config_of(data)
    configs = {"without": without, "with": replace(without, identity_weight=0.1)}
    count = len(data.parts["train"]) // without.batch_size
    contenders: dict[str, Callable[[], object]] = {}
    for name, config in configs.items():
        plain = Trainer(config, data, seed=0, device=CPU)
        contenders[f"plain {name}"] = lambda plain=plain: plain._train_all_batches(1)
        contenders[f"engine {name}"] = steps_of(engine(config, Data(data, CPU)))
    ms = {name: seconds / count * 1000 for name, seconds in interleaved(contenders, repeats).items()}
    row = [NAMES[shape]]
    for trainer in ("plain", "engine"):
        pair = [ms[f"{trainer} {name}"] for name in configs]
        row += [*(f"{each:.2f}" for each in pair), f"{pair[1] / pair[0]:.3f}"]
    return row


def main() -> None:
    """Print the tables."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="epochs of each contender, in turn; medians count")
    given = parser.parse_args()
    repeats = 1 if given.quick else given.repeats
    torch.set_num_threads(1)
    print(f"{machine()}\none thread; medians of {repeats} epochs, in turn\n")
    data = {shape: data_of(shape, steps=2 if given.quick else 20) for shape in SHAPES}
    rows = [single(shape, data[shape], repeats, **flags) for flags in ({}, FLAGS) for shape in SHAPES]
    print("ms per training step")
    table(["shape", "plain", "engine", "floor", "plain/engine", "target", "floor/engine", "target"], rows)
    print("ms per training step, without and with the identity term")
    header = ["shape", "plain", "with", "ratio", "engine", "with", "ratio"]
    table(header, [with_identity(shape, data[shape], repeats) for shape in SHAPES])
    print("epochs per minute, validation included")
    table(["shape", "8 in one batch", "8 batches of one", "ratio"], [batched(data["sample"], repeats)])
    print("ms per training step of the engine")
    header = ["shape", "float32", "bf16", "float32/bf16"]
    slow = SHAPES[1:] if given.quick else SHAPES  # without bfloat16 in the processor a step takes over a second
    table(header, [halves(shape, data[shape], min(3, repeats)) for shape in slow])


if __name__ == "__main__":
    main()
