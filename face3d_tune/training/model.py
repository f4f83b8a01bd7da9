"""The Transformer of one trial, written to be read: trainer contract §3, step by step, names and arithmetic.

State-dict names and shapes are those of the users' checkpoints, so each side loads the other's checkpoints strictly.
The caller passes the generators and streams of all random numbers. Axes: B = batch, F = feature_size, d = d_model, h =
nhead, ff = dim_feedforward.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from face3d_tune.config import TrialConfig
from face3d_tune.training.dropout import MaskStream


class Dropout(nn.Module):
    """Inverted dropout whose masks come from `masks`, never from torch's global generator."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.masks: MaskStream | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Zero each element with probability p and scale the others by 1 / (1 - p), while training."""
        if not self.training or self.p == 0:
            return x
        if self.masks is None:
            raise RuntimeError("training with dropout needs masks: call Model.draw_from first")
        return x * self.masks.draw(x.shape, self.p, like=x)


class EmptyLinear(nn.Linear):
    """`nn.Linear` that draws no numbers when it is built: `Model._initialise` draws them, and only once."""

    def reset_parameters(self) -> None:
        """Leave the parameters as they are."""


class Attention(nn.Module):
    """Multi-head attention with the parameter names and dropout of `nn.MultiheadAttention`.

    nn.MultiheadAttention itself draws its dropout from torch's global generator, so it cannot be used here.
    """

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * d, d))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * d))
        self.out_proj = EmptyLinear(d, d)
        self.dropout = Dropout(dropout)

    def forward(self, target: Tensor, memory: Tensor) -> Tensor:
        """Attend from `target` [B, T, d] to `memory` [B, S, d]; returns [B, T, d]."""
        weights = self.in_proj_weight.chunk(3)  # three times [d, d]: query, key, value
        biases = self.in_proj_bias.chunk(3)
        inputs = (target, memory, memory)
        query, key, value = (
            self._split_heads(functional.linear(x, weight, bias))  # [B, h, T or S, d/h]
            for x, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # [B, h, T, S]
        mixed = self.dropout(scores.softmax(-1)) @ value  # [B, h, T, d/h]
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(-2))  # [B, T, d]
        return out

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


class DecoderLayer(nn.Module):
    """One post-norm GELU layer, as `nn.TransformerDecoderLayer` defines it (Vaswani et al., 2017, section 3.1)."""

    def __init__(self, d: int, heads: int, ff: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(d, heads, dropout)
        self.multihead_attn = Attention(d, heads, dropout)
        self.linear1, self.linear2 = EmptyLinear(d, ff), EmptyLinear(ff, d)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Apply the layer: `x` [B, 1, d] and `memory` [B, 1, d] to [B, 1, d]."""
        x = self.norm1(x + self.dropout(self.self_attn(x, x)))
        x = self.norm2(x + self.dropout(self.multihead_attn(x, memory)))
        hidden = self.dropout(functional.gelu(self.linear1(x)))  # [B, 1, ff]
        out: Tensor = self.norm3(x + self.dropout(self.linear2(hidden)))
        return out


class Decoder(nn.Module):
    """A stack of decoder layers under the name that checkpoints use, `layers`."""

    def __init__(self, layers: list[DecoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Apply the layers: `x` [B, 1, d] and `memory` [B, 1, d] to [B, 1, d]."""
        for layer in self.layers:
            x = layer(x, memory)
        return x


class SpatialFusion(nn.Module):
    """Step 2: mix the code of the landmarks' (x, y) into x, by a learned gate."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.keypoint_encoder = nn.Sequential(EmptyLinear(10, 128), nn.ReLU(), EmptyLinear(128, d))
        self.attention_generator = nn.Sequential(EmptyLinear(2 * d, d), nn.ReLU(), EmptyLinear(d, 1), nn.Sigmoid())

    def forward(self, x: Tensor, landmarks: Tensor) -> Tensor:
        """Mix `x` [B, d] and `landmarks` [B, 5, 3] to [B, d]."""
        code = self.keypoint_encoder(landmarks[..., :2].flatten(1))  # [B, d]
        gate = self.attention_generator(torch.cat((x, code), dim=-1))  # [B, 1]
        out: Tensor = (1 - gate) * x + gate * code
        return out


class PoseAttention(nn.Module):
    """Step 3: single-head attention of x over one pose token, with a residual."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.pose_to_key, self.pose_to_value = EmptyLinear(3, d), EmptyLinear(3, d)
        self.feature_to_query = EmptyLinear(d, d)

    def forward(self, x: Tensor, pose: Tensor) -> Tensor:
        """Attend from `x` [B, d] to `pose` [B, 3]; returns [B, d]."""
        score = (self.feature_to_query(x) * self.pose_to_key(pose)).sum(-1, keepdim=True) * x.shape[
            -1
        ] ** -0.5  # [B, 1]
        out: Tensor = x + score.softmax(-1) * self.pose_to_value(pose)
        return out


class AnglePositionalEncoding(nn.Module):
    """Step 5: add a linear code of the pose, with a learned scale."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.angle_projection = EmptyLinear(3, d)
        self.scale = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor, pose: Tensor) -> Tensor:
        """Encode `pose` [B, 3] into `x` [B, d]; returns [B, d]."""
        out: Tensor = x + self.scale * self.angle_projection(pose)
        return out


class AngleConditionedNorm(nn.Module):
    """Step 6: layer normalisation whose scale and shift follow the pose."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.angle_to_scale = nn.Sequential(EmptyLinear(3, d), nn.ReLU(), EmptyLinear(d, d), nn.Sigmoid())
        self.angle_to_shift = nn.Sequential(EmptyLinear(3, d), nn.ReLU(), EmptyLinear(d, d))
        self.layer_norm = nn.LayerNorm(d)

    def forward(self, x: Tensor, pose: Tensor) -> Tensor:
        """Normalise `x` [B, d] under `pose` [B, 3]; returns [B, d]."""
        out: Tensor = self.layer_norm(x) * (1 + self.angle_to_scale(pose)) + self.angle_to_shift(pose)
        return out


class Model(nn.Module):
    """The whole network: (side embedding, landmarks, pose) to the frontal embedding, not normalised.

    Args:
        config: The sizes, layout, flags and dropout.
        feature_size: F, numbers per embedding. If F ≠ d_model, the first and last projection change size.
        generator: Draws the initial parameters; a CPU generator, so that every device starts from the same numbers.
            None makes a model of names and shapes only, without memory for its numbers.
    """

    def __init__(self, config: TrialConfig, feature_size: int, generator: torch.Generator | None) -> None:
        super().__init__()
        d = config.d_model
        with torch.device("meta" if generator is None else "cpu"):  # no random numbers: `_initialise` draws them
            self.input_projection = EmptyLinear(feature_size, d)
            if config.use_spatial_attention:
                self.spatial_fusion = SpatialFusion(d)
            if config.use_pose_attention:
                self.pose_attention = PoseAttention(d)
            if config.layout == "keypoint":
                self.keypoint_encoder = nn.Sequential(
                    EmptyLinear(15, 256), nn.BatchNorm1d(256), nn.ReLU(), Dropout(config.dropout), EmptyLinear(256, d)
                )
                self.fusion_weights = nn.Parameter(torch.empty(3))
            self.pose_encoder = nn.Sequential(EmptyLinear(3, 128), nn.ReLU(), EmptyLinear(128, d))
            self.angle_pe = AnglePositionalEncoding(d)
            self.angle_conditioned_norm = AngleConditionedNorm(d)
            self.dropout = Dropout(config.dropout)
            self.angle_memory_projection = EmptyLinear(3, d)
            self.transformer_decoder = Decoder(
                [
                    DecoderLayer(d, config.nhead, config.dim_feedforward, config.dropout)
                    for _ in range(config.num_layers)
                ]
            )
            self.output_projection = EmptyLinear(d, feature_size)
        self.config = config
        if generator is not None:
            self._initialise(generator)

    def forward(self, src: Tensor, landmarks: Tensor, pose: Tensor) -> Tensor:
        """Predict the frontal embedding, [B, F].

        Args:
            src: Side-view embeddings, [B, F].
            landmarks: Five 3D points, centred and scaled, [B, 5, 3].
            pose: Yaw, pitch, roll in the config's pose_unit, [B, 3].
        """
        x = self.input_projection(src)  # 1: [B, d]
        if self.config.use_spatial_attention:
            x = self.spatial_fusion(x, landmarks)  # 2
        if self.config.use_pose_attention:
            x = self.pose_attention(x, pose)  # 3
        pose_code = self.pose_encoder(pose)  # 4: [B, d]
        if self.config.layout == "keypoint":
            share = self.fusion_weights.softmax(0)  # [3]
            x = share[0] * x + share[1] * self.keypoint_encoder(landmarks.flatten(1)) + share[2] * pose_code
        else:
            x = 0.7 * x + 0.3 * pose_code
        x = self.angle_pe(x, pose)  # 5
        x = self.dropout(self.angle_conditioned_norm(x, pose))  # 6
        memory = self.angle_memory_projection(pose)  # 7: [B, d]
        x = self.transformer_decoder(x.unsqueeze(1), memory.unsqueeze(1)).squeeze(1)
        out: Tensor = src + self.output_projection(x)  # 8: [B, F]
        return out

    def draw_from(self, masks: MaskStream) -> None:
        """Draw all dropout masks from a stream on the model's device."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.masks = masks

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """Initialise every parameter of more than one dimension Xavier-uniformly (Glorot & Bengio, 2010).

        The others keep torch's own defaults. Packed attention weights count as one matrix.
        """
        for module in self.modules():
            match module:
                case nn.Linear():
                    nn.init.xavier_uniform_(module.weight, generator=generator)
                    bound = module.in_features**-0.5
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)
                case nn.LayerNorm() | nn.BatchNorm1d():
                    module.reset_parameters()
                case Attention():
                    nn.init.xavier_uniform_(module.in_proj_weight, generator=generator)
                    nn.init.zeros_(module.in_proj_bias)
                case AnglePositionalEncoding():
                    nn.init.ones_(module.scale)
        for module in self.modules():
            if isinstance(module, Attention):  # after the loop above gave its Linear a random bias
                nn.init.zeros_(module.out_proj.bias)
        if self.config.layout == "keypoint":
            self.fusion_weights.copy_(torch.tensor([0.6, 0.2, 0.2]))
