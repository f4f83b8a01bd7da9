"""K models of one structure as one program: the forward pass of trainer contract §3, and its gradient by hand.

The steps are numbered as there and in `face3d_tune.training.model`, which is the specification. The program leaves out
what cannot change a result: query and key of attention over a single token, and the gradients of inputs. The value of
every cross-attention is an affine function of the pose. So its matrix is multiplied by that function's four columns
instead of by the batch. Axes as in `layers`; L = layers, h = heads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from face3d_tune.config import TrialConfig
from face3d_tune.training.batched.dropout_sites import Masks
from face3d_tune.training.batched.layers import (
    BatchedLinear,
    BatchNorm,
    LayerNorm,
    Score,
    added,
    dropped,
    dropped_heads,
    in_type,
    product,
    steadily,
    under_relu,
)

_BOTH = (-2, -1)  # pairs and numbers


@dataclass(frozen=True, slots=True)
class ViewBatch:
    """A batch of pairs: src [K, B, F], landmarks [K, B, 15], their x and y [K, B, 10], pose and a one [K, B, 4].

    Without K they are the same for every model.
    """

    src: Tensor
    landmarks: Tensor
    xy: Tensor
    pose: Tensor


class Network:
    """The program over weights, their gradients and running means, all as views by block name.

    Each view has a first axis of K models, or none for one model.
    """

    def __init__(
        self,
        config: TrialConfig,
        weights: dict[str, Tensor],
        gradients: dict[str, Tensor],
        running: dict[str, Tensor],
    ) -> None:
        self.input, self.output = (BatchedLinear(weights, gradients, name) for name in ("input", "output"))
        self.spatial = _Spatial(weights, gradients) if config.use_spatial_attention else None
        self.pose = _Pose(weights, gradients)
        self.keypoints = _Keypoints(weights, gradients, running) if config.layout == "keypoint" else None
        self.angle_scale = weights["angle_scale"].unsqueeze(-2)  # [K, 1, 1]
        self.angle_scale_gradient = gradients["angle_scale"]
        self.angle_norm = LayerNorm(weights, gradients, "angle_norm")
        self.crosses = _Crosses(config, weights, gradients)
        self.layers = [_Layer(layer, weights, gradients) for layer in range(config.num_layers)]

    def __call__(self, batch: ViewBatch, masks: Masks, *, training: bool) -> tuple[Tensor, Callable[[Tensor], None]]:
        """Predict [K, B, F]; also return the function from the predictions' gradient to that of every weight."""
        batch = self._for_every_model(batch)
        scale, shift, code, angle, value, pull_pose = self.pose(batch.pose[..., :3])
        x = self.input(batch.src)  # 1
        if self.spatial:
            x, pull_spatial = self.spatial(x, batch.xy)  # 2
        if value is not None:
            x = x + value  # 3: the softmax over the one pose is 1
        if self.keypoints:
            x, pull_fusion = self.keypoints(x, code, batch.landmarks, masks, training=training)  # 4
        else:
            x = 0.7 * x + 0.3 * code
        x = torch.addcmul(x, self.angle_scale, in_type(angle, x.dtype))  # 5
        normal, context = self.angle_norm(x)  # 6
        scale = 1 + steadily(torch.sigmoid, scale)
        x = dropped(torch.addcmul(in_type(shift, normal.dtype), normal, scale), masks.get("input"))
        crosses, pull_crosses = self.crosses(batch.pose, masks)  # 7
        pulls = []
        for layer, cross in zip(self.layers, crosses, strict=True):
            x, pull_layer = layer(x, cross, masks)
            pulls.append(pull_layer)
        prediction = batch.src + self.output(x)  # 8

        def pull(g: Tensor) -> None:
            g = self.output.pull(g, x)
            cross_gradients: list[Tensor] = []
            for pull_layer in reversed(pulls):
                g, cross_gradient = pull_layer(g)
                cross_gradients.insert(0, cross_gradient)
            pull_crosses(cross_gradients)
            shift_gradient = dropped(g, masks.get("input"))
            scale_gradient = shift_gradient * normal * (scale - 1) * (2 - scale)  # of the sigmoid: s (1 - s)
            g = self.angle_norm.pull(shift_gradient * scale, context)
            torch.sum(g * angle, _BOTH, out=self.angle_scale_gradient.squeeze(-1))
            angle_gradient = g * self.angle_scale
            g, code_gradient = pull_fusion(g) if self.keypoints else (0.7 * g, 0.3 * g)
            pull_pose(scale_gradient, shift_gradient, code_gradient, angle_gradient, g)
            if self.spatial:
                g = pull_spatial(g)
            self.input.pull_weights(g, batch.src)

        return prediction, pull

    def _for_every_model(self, batch: ViewBatch) -> ViewBatch:
        models = self.angle_scale.shape[:-2]
        every = (batch.src, batch.landmarks, batch.xy, batch.pose)
        if batch.src.dim() == self.angle_scale.dim():
            return batch
        return ViewBatch(*(each.expand(*models, *each.shape[-2:]) for each in every))


class _Pose:
    """The part that depends on the pose alone, its first products as one: steps 3 to 6."""

    def __init__(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        self.first = BatchedLinear(weights, gradients, "pose")
        self.second = [BatchedLinear(weights, gradients, name) for name in ("scale", "shift", "pose_code")]
        self.widths = [linear.weight.shape[-1] for linear in self.second]
        rest, d = self.first.weight.shape[-2] - sum(self.widths), self.widths[0]
        self.has_value = rest == 2 * d
        self.hidden = sum(self.widths)

    def __call__(self, pose: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Callable[..., None]]:
        """Encode pose [K, B, 3] as scale (before its sigmoid), shift, code, angle, value or None, each [K, B, d]."""
        products = self.first(pose)
        hidden = torch.relu(products[..., : self.hidden])
        inputs = torch.split_with_sizes(hidden, self.widths, -1)
        scale, shift, code = (linear(x) for linear, x in zip(self.second, inputs, strict=True))
        angle, *value = products[..., self.hidden :].chunk(2 if self.has_value else 1, -1)

        def pull(scale: Tensor, shift: Tensor, code: Tensor, angle: Tensor, value: Tensor) -> None:
            outputs = (scale, shift, code)
            gradients = [linear.pull(g, x) for linear, g, x in zip(self.second, outputs, inputs, strict=True)]
            first = under_relu(torch.cat(gradients, -1), hidden)
            rest = (angle, value) if self.has_value else (angle,)
            self.first.pull_weights(torch.cat((first, *rest), -1), pose)

        return scale, shift, code, angle, value[0] if value else None, pull


class _Spatial:
    """Step 2: mix the code of the landmarks' (x, y) into x, by a gate."""

    def __init__(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        names = ("spatial_code0", "spatial_code1", "spatial_gate0")
        self.code0, self.code1, self.gate0 = (BatchedLinear(weights, gradients, name) for name in names)
        self.gate1 = Score(weights, gradients, "spatial_gate1")

    def __call__(self, x: Tensor, xy: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Mix xy [K, B, 10] into x [K, B, d]; returns [K, B, d]."""
        hidden = torch.relu(self.code0(xy))
        code = self.code1(hidden)
        both = torch.cat((x, code), -1)
        gate_hidden = torch.relu(self.gate0(both))
        gate = steadily(torch.sigmoid, self.gate1(gate_hidden))  # [K, B, 1]
        difference = code - x

        def pull(g: Tensor) -> Tensor:
            gate_gradient = (g * difference).sum(-1, keepdim=True) * gate * (1 - gate)
            hidden_gradient = self.gate1.pull(gate_gradient, gate_hidden)
            both_gradient = self.gate0.pull(under_relu(hidden_gradient, gate_hidden), both)
            to_x, to_code = both_gradient.chunk(2, -1)
            through = gate * g
            hidden_gradient = self.code1.pull(through + to_code, hidden)
            self.code0.pull_weights(under_relu(hidden_gradient, hidden), xy)
            return g - through + to_x

        return torch.addcmul(x, gate, difference), pull


class _Keypoints:
    """Step 4 in the keypoint layout: the code of the landmarks, and the learned mix of three codes."""

    def __init__(self, weights: dict[str, Tensor], gradients: dict[str, Tensor], running: dict[str, Tensor]) -> None:
        self.first, self.second = (BatchedLinear(weights, gradients, name) for name in ("keypoints0", "keypoints1"))
        self.norm = BatchNorm(weights, gradients, "batch_norm", running)
        self.shares, self.share_gradients = weights["fusion_weights"], gradients["fusion_weights"]

    def __call__(
        self, x: Tensor, pose_code: Tensor, landmarks: Tensor, masks: Masks, *, training: bool
    ) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        """Mix x and pose code [K, B, d] with landmarks [K, B, 15] to [K, B, d]; pulls to x and pose code."""
        normal, context = self.norm(self.first(landmarks), training=training)
        active = torch.relu(normal)
        hidden = dropped(active, masks.get("keypoints"))
        parts = (x, self.second(hidden), pose_code)
        shares = self.shares.softmax(-1)
        share = [part.unsqueeze(-1) for part in shares.chunk(3, -1)]  # three times [K, 1, 1]

        def pull(g: Tensor) -> tuple[Tensor, Tensor]:
            wanted = torch.stack([(g * part).sum(_BOTH) for part in parts], -1)
            self.share_gradients.copy_(shares * (wanted - (shares * wanted).sum(-1, keepdim=True)))
            gradient = dropped(self.second.pull(g * share[1], hidden), masks.get("keypoints"))
            self.first.pull_weights(self.norm.pull(under_relu(gradient, active), context), landmarks)
            return g * share[0], g * share[2]

        return parts[0] * share[0] + parts[1] * share[1] + parts[2] * share[2], pull


class _Crosses:
    """The cross-attention of every layer, which depends on the pose alone: step 7.

    Its value is Wv (Wm pose + bm) + bv, so Wv is multiplied by the four columns [Wm | bm] and not by the batch.
    """

    def __init__(self, config: TrialConfig, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        self.names = [f"{layer}.cross_heads" for layer in range(config.num_layers)]
        self.out = [BatchedLinear(weights, gradients, f"{layer}.cross_out") for layer in range(config.num_layers)]
        self.memory_weight, self.memory_bias = weights["memory.weight"].mT, weights["memory.bias"].unsqueeze(-2)
        self.value_weight, self.value_bias = weights["cross_value.weight"], weights["cross_value.bias"]  # L·d rows
        self.gradients = gradients

    def __call__(self, pose: Tensor, masks: Masks) -> tuple[list[Tensor], Callable[[list[Tensor]], None]]:
        """Attend to pose and a one [K, B, 4]; returns the attention's output of each layer, [K, B, d]."""
        pose = in_type(pose, self.value_weight.dtype)
        memory = torch.cat((self.memory_weight, self.memory_bias), -2)  # [K, 4, d]
        affine = product(memory, self.value_weight.mT)  # [K, 4, L·d]
        affine[..., 3, :] += self.value_bias
        values = product(pose, affine).chunk(len(self.out), -1)
        heads = [dropped_heads(value, masks.get(name)) for value, name in zip(values, self.names, strict=True)]

        def pull(gradients: list[Tensor]) -> None:
            through = [
                dropped_heads(linear.pull(g, x), masks.get(name))
                for linear, g, x, name in zip(self.out, gradients, heads, self.names, strict=True)
            ]
            affine_gradient = product(pose.mT, in_type(torch.cat(through, -1), pose.dtype))  # [K, 4, L·d]
            self.gradients["cross_value.bias"].copy_(affine_gradient[..., 3, :])
            product(affine_gradient.mT, memory, out=self.gradients["cross_value.weight"])
            memory_gradient = product(affine_gradient, self.value_weight)  # [K, 4, d]
            self.gradients["memory.weight"].copy_(memory_gradient[..., :3, :].mT)
            self.gradients["memory.bias"].copy_(memory_gradient[..., 3, :])

        return [linear(x) for linear, x in zip(self.out, heads, strict=True)], pull


class _Layer:
    """One post-norm GELU layer; its self-attention over one token is a linear map, its cross-attention is given."""

    def __init__(self, layer: int, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        self.name = layer
        names = ("self_value", "self_out", "linear1", "linear2")
        self.value, self.out, self.linear1, self.linear2 = (
            BatchedLinear(weights, gradients, f"{layer}.{name}") for name in names
        )
        self.norm1, self.norm2, self.norm3 = (LayerNorm(weights, gradients, f"{layer}.norm{i}") for i in (1, 2, 3))

    def __call__(
        self, x: Tensor, cross: Tensor, masks: Masks
    ) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        """Apply the layer to x and the cross-attention's output, [K, B, d] to [K, B, d]; pulls to both."""
        of_heads, of_self, of_cross, of_hidden, of_out = (
            masks.get(f"{self.name}.{site}") for site in ("self_heads", "self", "cross", "hidden", "out")
        )
        heads = dropped_heads(self.value(x), of_heads)
        x1, context1 = self.norm1(added(x, self.out(heads), of_self))
        x2, context2 = self.norm2(added(x1, cross, of_cross))
        before = self.linear1(x2)
        hidden = dropped(steadily(functional.gelu, before), of_hidden)
        x3, context3 = self.norm3(added(x2, self.linear2(hidden), of_out))

        def pull(g: Tensor) -> tuple[Tensor, Tensor]:
            g = self.norm3.pull(g, context3)
            hidden_gradient = dropped(self.linear2.pull(dropped(g, of_out), hidden), of_hidden)
            active = steadily(torch.ops.aten.gelu_backward, in_type(hidden_gradient, before.dtype), before)
            g = self.norm2.pull(self.linear1.pull(active, x2, onto=g), context2)
            cross_gradient = dropped(g, of_cross)
            g = self.norm1.pull(g, context1)
            value_gradient = dropped_heads(self.out.pull(dropped(g, of_self), heads), of_heads)
            return self.value.pull(value_gradient, x, onto=g), cross_gradient

        return x3, pull
