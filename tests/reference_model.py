"""Two independent statements of the model's arithmetic (trainer contract §3), to hold the package's engine against.

`ReferenceModel` is plain torch and does all the work that the engine may skip: every attention is computed, also over
one key. `reference_forward` says evaluation mode once more in numpy float64, without any torch layer. Neither imports
the package.
"""

import math
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

# Every layout with every combination of flags that it has.
STRUCTURES = [
    {"layout": layout, "use_spatial_attention": spatial, "use_pose_attention": pose}
    for layout, spatial, pose in product(("keypoint", "pose"), (False, True), (False, True))
    if not (layout == "pose" and spatial)
]


class SpatialFusion(nn.Module):
    """Step 2: a gate between the embedding and a code of the landmarks' (x, y)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.keypoint_encoder = nn.Sequential(nn.Linear(10, 128), nn.ReLU(), nn.Linear(128, d))
        self.attention_generator = nn.Sequential(nn.Linear(2 * d, d), nn.ReLU(), nn.Linear(d, 1), nn.Sigmoid())

    def forward(self, x: Tensor, landmarks: Tensor) -> Tensor:
        """x [B, d], landmarks [B, 5, 3] -> [B, d]."""
        code = self.keypoint_encoder(landmarks[:, :, :2].flatten(1))
        gate = self.attention_generator(torch.cat([x, code], dim=1))
        return (1 - gate) * x + gate * code


class PoseAttention(nn.Module):
    """Step 3: single-head attention of the embedding over one pose token, with a residual."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.pose_to_key = nn.Linear(3, d)
        self.pose_to_value = nn.Linear(3, d)
        self.feature_to_query = nn.Linear(d, d)

    def forward(self, x: Tensor, pose: Tensor) -> Tensor:
        """x [B, d], pose [B, 3] -> [B, d]."""
        query = self.feature_to_query(x)[:, None]
        key, value = self.pose_to_key(pose)[:, None], self.pose_to_value(pose)[:, None]
        weights = torch.softmax(query @ key.transpose(1, 2) * x.shape[1] ** -0.5, dim=-1)
        return x + (weights @ value)[:, 0]


class AnglePE(nn.Module):
    """Step 5: a scaled linear code of the pose."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.angle_projection = nn.Linear(3, d)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, pose: Tensor) -> Tensor:
        """x [B, d], pose [B, 3] -> [B, d]."""
        return x + self.scale * self.angle_projection(pose)


class AngleConditionedNorm(nn.Module):
    """Step 6: layer normalisation, scaled and shifted by the pose."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.angle_to_scale = nn.Sequential(nn.Linear(3, d), nn.ReLU(), nn.Linear(d, d), nn.Sigmoid())
        self.angle_to_shift = nn.Sequential(nn.Linear(3, d), nn.ReLU(), nn.Linear(d, d))
        self.layer_norm = nn.LayerNorm(d)

    def forward(self, x: Tensor, pose: Tensor) -> Tensor:
        """x [B, d], pose [B, 3] -> [B, d]."""
        return self.layer_norm(x) * (1 + self.angle_to_scale(pose)) + self.angle_to_shift(pose)


class ReferenceModel(nn.Module):
    """The users' model as their checkpoints name it. A part whose flag is off is not built."""

    def __init__(
        self,
        *,
        feature_size: int,
        d_model: int,
        nhead: int,
        num_layers: int,
        dim_feedforward: int,
        dropout: float,
        layout: str,
        use_spatial_attention: bool,
        use_pose_attention: bool,
    ) -> None:
        super().__init__()
        d = d_model
        self.layout = layout
        self.input_projection = nn.Linear(feature_size, d)
        self.spatial_fusion = SpatialFusion(d) if use_spatial_attention and layout == "keypoint" else None
        self.pose_attention = PoseAttention(d) if use_pose_attention else None
        if layout == "keypoint":
            self.keypoint_encoder = nn.Sequential(
                nn.Linear(15, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, d)
            )
            self.fusion_weights = nn.Parameter(torch.tensor([0.6, 0.2, 0.2]))
        self.pose_encoder = nn.Sequential(nn.Linear(3, 128), nn.ReLU(), nn.Linear(128, d))
        self.angle_pe = AnglePE(d)
        self.angle_conditioned_norm = AngleConditionedNorm(d)
        self.dropout = nn.Dropout(dropout)
        self.angle_memory_projection = nn.Linear(3, d)
        layer = nn.TransformerDecoderLayer(d, nhead, dim_feedforward, dropout, activation="gelu", batch_first=True)
        self.transformer_decoder = nn.TransformerDecoder(layer, num_layers)
        self.output_projection = nn.Linear(d, feature_size)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, src: Tensor, landmarks: Tensor, pose: Tensor) -> Tensor:
        """src [B, F], landmarks [B, 5, 3], pose [B, 3] in any unit -> [B, F], not normalised."""
        x = self.input_projection(src)
        if self.spatial_fusion is not None:
            x = self.spatial_fusion(x, landmarks)
        if self.pose_attention is not None:
            x = self.pose_attention(x, pose)
        if self.layout == "keypoint":
            weights = torch.softmax(self.fusion_weights, dim=0)
            parts = (x, self.keypoint_encoder(landmarks.flatten(1)), self.pose_encoder(pose))
            x = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        else:
            x = 0.7 * x + 0.3 * self.pose_encoder(pose)
        x = self.angle_pe(x, pose)
        x = self.dropout(self.angle_conditioned_norm(x, pose))
        memory = self.angle_memory_projection(pose)
        x = self.transformer_decoder(x[:, None], memory[:, None])[:, 0]
        return src + self.output_projection(x)


def reference_forward(
    state: dict[str, np.ndarray],
    src: np.ndarray,
    landmarks: np.ndarray,
    pose: np.ndarray,
    *,
    nhead: int,
    layout: str,
    use_spatial_attention: bool,
    use_pose_attention: bool,
) -> np.ndarray:
    """The prediction [B, F] in evaluation mode, float64, from a state dict's arrays.

    src [B, F], landmarks [B, 5, 3], pose [B, 3].
    """
    s = {name: np.asarray(array, dtype=np.float64) for name, array in state.items()}
    src, landmarks, pose = (np.asarray(array, dtype=np.float64) for array in (src, landmarks, pose))
    batch = len(src)

    def mlp(name: str, x: np.ndarray) -> np.ndarray:
        return _linear(s, f"{name}.2", np.maximum(_linear(s, f"{name}.0", x), 0))

    x = _linear(s, "input_projection", src)
    if use_spatial_attention and layout == "keypoint":
        code = mlp("spatial_fusion.keypoint_encoder", landmarks[:, :, :2].reshape(batch, 10))
        gate = _sigmoid(mlp("spatial_fusion.attention_generator", np.concatenate([x, code], axis=1)))
        x = (1 - gate) * x + gate * code
    if use_pose_attention:
        query = _linear(s, "pose_attention.feature_to_query", x)
        key, value = (_linear(s, f"pose_attention.pose_to_{part}", pose) for part in ("key", "value"))
        score = (query * key).sum(axis=1, keepdims=True) / math.sqrt(x.shape[1])
        x = x + _softmax(score) * value
    pose_code = mlp("pose_encoder", pose)
    if layout == "keypoint":
        hidden = _linear(s, "keypoint_encoder.0", landmarks.reshape(batch, 15))
        keypoint_code = _linear(s, "keypoint_encoder.4", np.maximum(_batch_norm(s, "keypoint_encoder.1", hidden), 0))
        w = _softmax(s["fusion_weights"])
        x = w[0] * x + w[1] * keypoint_code + w[2] * pose_code
    else:
        x = 0.7 * x + 0.3 * pose_code
    x = x + s["angle_pe.scale"] * _linear(s, "angle_pe.angle_projection", pose)
    scale = _sigmoid(mlp("angle_conditioned_norm.angle_to_scale", pose))
    shift = mlp("angle_conditioned_norm.angle_to_shift", pose)
    x = _layer_norm(s, "angle_conditioned_norm.layer_norm", x) * (1 + scale) + shift
    x = _decoder(s, x, _linear(s, "angle_memory_projection", pose), nhead)
    return src + _linear(s, "output_projection", x)


def _decoder(s: dict[str, np.ndarray], x: np.ndarray, memory: np.ndarray, nhead: int) -> np.ndarray:
    """The post-norm decoder layers; x and memory [B, d] are sequences of length 1."""
    x, memory = x[:, None], memory[:, None]
    i = 0
    while (layer := f"transformer_decoder.layers.{i}") + ".linear1.weight" in s:
        x = _layer_norm(s, f"{layer}.norm1", x + _attention(s, f"{layer}.self_attn", x, x, nhead))
        x = _layer_norm(s, f"{layer}.norm2", x + _attention(s, f"{layer}.multihead_attn", x, memory, nhead))
        hidden = _gelu(_linear(s, f"{layer}.linear1", x))
        x = _layer_norm(s, f"{layer}.norm3", x + _linear(s, f"{layer}.linear2", hidden))
        i += 1
    return x[:, 0]


def _attention(s: dict[str, np.ndarray], name: str, target: np.ndarray, source: np.ndarray, nhead: int) -> np.ndarray:
    """Multi-head attention of target [B, T, d] over source [B, S, d] -> [B, T, d]."""
    d = target.shape[-1]
    size = d // nhead
    weight, bias = s[f"{name}.in_proj_weight"], s[f"{name}.in_proj_bias"]
    query, key, value = (
        part @ weight[i * d : (i + 1) * d].T + bias[i * d : (i + 1) * d]
        for i, part in enumerate((target, source, source))
    )
    out = np.empty_like(target)
    for head in range(nhead):
        cut = slice(head * size, (head + 1) * size)
        scores = query[..., cut] @ key[..., cut].swapaxes(1, 2) / math.sqrt(size)
        out[..., cut] = _softmax(scores) @ value[..., cut]
    return _linear(s, f"{name}.out_proj", out)


def _linear(s: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def _layer_norm(s: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * s[f"{name}.weight"] + s[f"{name}.bias"]


def _batch_norm(s: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    normal = (x - s[f"{name}.running_mean"]) / np.sqrt(s[f"{name}.running_var"] + 1e-5)
    return normal * s[f"{name}.weight"] + s[f"{name}.bias"]


def _softmax(x: np.ndarray) -> np.ndarray:
    power = np.exp(x - x.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
