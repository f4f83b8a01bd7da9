"""The place of each parameter of K models: one row of numbers a model, so that an optimiser step is one kernel.

Every attention of this model has a single key. Its softmax is 1, so neither query nor key can change the output
(trainer contract §3). Their parameters get a zero gradient: AdamW only shrinks them by its weight decay. They have a
row of their own, shrink once an epoch, and are part of every state dict.

Adam's weight decay is part of the gradient and moves them like all others. So under Adam they are at the end of the
live row.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from face3d_tune.config import TrialConfig

_ALL = slice(None)
_ALIGNED = 1024  # numbers; every block starts on a cache line, and a row can be summed up in equal pieces


@dataclass(frozen=True, slots=True)
class TensorPart:
    """Some first-axis rows of one tensor of a state dict."""

    key: str
    rows: slice


@dataclass(frozen=True, slots=True)
class Block:
    """One matrix or vector of the program: parts of the state dict, one below the other."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[TensorPart, ...]
    heights: list[int]  # rows of each part
    offset: int  # in its row

    @property
    def place(self) -> slice:
        """Return the slice of the row that has the block's numbers."""
        return slice(self.offset, self.offset + math.prod(self.shape))


class FlatRow:
    """The layout of one row: blocks by name, and its length."""

    def __init__(self) -> None:
        self.blocks: dict[str, Block] = {}
        self.length = 0

    def add(self, name: str, shapes: Mapping[str, torch.Size], *parts: TensorPart) -> None:
        """Append a block of these parts; the row stays a multiple of a cache line."""
        heights = [len(range(*part.rows.indices(shapes[part.key][0]))) for part in parts]
        shape = (sum(heights), *shapes[parts[0].key][1:])
        self.blocks[name] = Block(name, shape, parts, heights, self.length)
        self.length += math.ceil(math.prod(shape) / 16) * 16

    def pad(self) -> None:
        """Pad the row to a multiple of the piece that is summed up at once."""
        self.length = math.ceil(self.length / _ALIGNED) * _ALIGNED

    def views(self, numbers: Tensor, below: int | None = None) -> dict[str, Tensor]:
        """Return each block as a view of [..., length], or only the blocks that start below an offset."""
        blocks = (block for block in self.blocks.values() if below is None or block.offset < below)
        return {block.name: numbers[..., block.place].view(*numbers.shape[:-1], *block.shape) for block in blocks}

    def write(self, numbers: Tensor, state: Mapping[str, Tensor]) -> None:
        """Copy the parts of a state dict into one row [length]."""
        for part, view in self._parts(numbers):
            view.copy_(state[part.key][part.rows])

    def read(self, numbers: Tensor, state: Mapping[str, Tensor]) -> None:
        """Copy one row [length] into the tensors of a state dict."""
        for part, view in self._parts(numbers):
            state[part.key][part.rows].copy_(view)

    def _parts(self, numbers: Tensor) -> Iterator[tuple[TensorPart, Tensor]]:
        for name, view in self.views(numbers).items():
            block = self.blocks[name]
            yield from zip(block.parts, torch.split_with_sizes(view, block.heights), strict=True)


def arrange(config: TrialConfig, shapes: Mapping[str, torch.Size]) -> tuple[FlatRow, FlatRow, int]:
    """Lay out the live row and the dead row.

    The third value counts the live numbers that take part in matrix products; they come first. `shapes` are those of
    the plain model's state dict.
    """
    d, layers = config.d_model, range(config.num_layers)
    live, dead = FlatRow(), FlatRow()

    def linear(name: str, *keys: str, rows: slice = _ALL, suffix: str = ".") -> None:
        for kind in ("weight", "bias"):
            live.add(f"{name}.{kind}", shapes, *(TensorPart(f"{key}{suffix}{kind}", rows) for key in keys))

    linear("input", "input_projection")
    if config.use_spatial_attention:
        for index, key in enumerate(("keypoint_encoder.0", "keypoint_encoder.2")):
            linear(f"spatial_code{index}", f"spatial_fusion.{key}")
        for index, key in enumerate(("attention_generator.0", "attention_generator.2")):
            linear(f"spatial_gate{index}", f"spatial_fusion.{key}")
    if config.layout == "keypoint":
        linear("keypoints0", "keypoint_encoder.0")
        linear("keypoints1", "keypoint_encoder.4")
    norm = "angle_conditioned_norm"
    pose_inputs = [f"{norm}.angle_to_scale.0", f"{norm}.angle_to_shift.0", "pose_encoder.0"]  # under a ReLU
    pose_inputs += ["angle_pe.angle_projection"]
    pose_inputs += ["pose_attention.pose_to_value"] if config.use_pose_attention else []
    linear("pose", *pose_inputs)
    linear("pose_code", "pose_encoder.2")
    linear("scale", f"{norm}.angle_to_scale.2")
    linear("shift", f"{norm}.angle_to_shift.2")
    linear("memory", "angle_memory_projection")
    stack = [f"transformer_decoder.layers.{layer}" for layer in layers]
    values = slice(2 * d, 3 * d)
    linear("cross_value", *(f"{key}.multihead_attn" for key in stack), rows=values, suffix=".in_proj_")
    for layer, key in enumerate(stack):
        linear(f"{layer}.self_value", f"{key}.self_attn", rows=values, suffix=".in_proj_")
        linear(f"{layer}.self_out", f"{key}.self_attn.out_proj")
        linear(f"{layer}.cross_out", f"{key}.multihead_attn.out_proj")
        linear(f"{layer}.linear1", f"{key}.linear1")
        linear(f"{layer}.linear2", f"{key}.linear2")
    linear("output", "output_projection")
    products = live.length
    if config.layout == "keypoint":
        linear("batch_norm", "keypoint_encoder.1")
        live.add("fusion_weights", shapes, TensorPart("fusion_weights", _ALL))
    live.add("angle_scale", shapes, TensorPart("angle_pe.scale", _ALL))
    linear("angle_norm", f"{norm}.layer_norm")
    for layer, key in enumerate(stack):
        for index in (1, 2, 3):
            linear(f"{layer}.norm{index}", f"{key}.norm{index}")

    without_gradient = dead if config.optimizer == "adamw" else live
    for key in stack:
        for attention in ("self_attn", "multihead_attn"):
            for kind in ("weight", "bias"):
                part = TensorPart(f"{key}.{attention}.in_proj_{kind}", slice(0, 2 * d))
                without_gradient.add(part.key, shapes, part)
    if config.use_pose_attention:
        for name in ("pose_to_key", "feature_to_query"):
            for kind in ("weight", "bias"):
                without_gradient.add(f"{name}.{kind}", shapes, TensorPart(f"pose_attention.{name}.{kind}", _ALL))
    live.pad()
    return live, dead, products
