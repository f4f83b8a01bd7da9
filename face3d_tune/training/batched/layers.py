"""The parts of K models at once: each computes its output, and pulls the output's gradient back to its input.

Axes: an optional K (models) first, then B = batch, then the numbers of a pair. Without K the same lines run on plain
matrices. A part has views of its weights and of the gradients that its `pull` fills. So it allocates, zeroes and adds
up nothing without need. In mixed precision weights have the lower type, and inputs follow them.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-5  # of every normalisation, torch's default
_SMALL = 400  # multiplications in a product; torch's own limit
_VECTORS = 64  # elements; a multiple of what one turn of a vectorised loop takes, for any type on any CPU


class BatchedLinear:
    """y = x Wᵀ + b; weight [K, out, in], bias [K, out]."""

    def __init__(self, weights: dict[str, Tensor], gradients: dict[str, Tensor], name: str) -> None:
        self.weight, self.bias = weights[f"{name}.weight"], weights[f"{name}.bias"].unsqueeze(-2)
        self.transposed, self.dtype = self.weight.mT, self.weight.dtype
        self.weight_gradient, self.bias_gradient = gradients[f"{name}.weight"], gradients[f"{name}.bias"]

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer: [K, B, in] to [K, B, out]."""
        return product(in_type(x, self.dtype), self.transposed, onto=self.bias)

    def pull(self, gradient: Tensor, x: Tensor, *, onto: Tensor | None = None) -> Tensor:
        """Return the gradient of x, [K, B, in], added to `onto`; fill the gradients of weight and bias."""
        gradient = self.pull_weights(gradient, x)
        if onto is None:
            return product(gradient, self.weight)
        if onto.dtype == gradient.dtype:
            return product(gradient, self.weight, onto=onto)
        return onto + product(gradient, self.weight)

    def pull_weights(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Fill only the gradients of weight and bias: for an input that needs none."""
        gradient = in_type(gradient, self.dtype)
        product(gradient.mT, in_type(x, self.dtype), out=self.weight_gradient)
        torch.sum(gradient, -2, out=self.bias_gradient)
        return gradient


class Score(BatchedLinear):
    """A layer with one output, computed by sums: a product with a single row rounds differently with and without
    models.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer: [K, B, in] to [K, B, 1]."""
        return (in_type(x, self.dtype) * self.weight).sum(-1, keepdim=True) + self.bias

    def pull(self, gradient: Tensor, x: Tensor, *, onto: Tensor | None = None) -> Tensor:
        """Return the gradient of x, [K, B, in], added to `onto`; fill the gradients of weight and bias."""
        gradient = in_type(gradient, self.dtype)
        torch.sum(gradient * in_type(x, self.dtype), -2, keepdim=True, out=self.weight_gradient)
        torch.sum(gradient, -2, out=self.bias_gradient)
        return gradient * self.weight if onto is None else onto + gradient * self.weight


class LayerNorm:
    """Layer normalisation over the last axis, weight and bias [K, d] (Ba et al., 2016)."""

    def __init__(self, weights: dict[str, Tensor], gradients: dict[str, Tensor], name: str) -> None:
        self.weight, self.bias = (weights[f"{name}.{kind}"].unsqueeze(-2) for kind in ("weight", "bias"))
        self.weight_gradient, self.bias_gradient = (gradients[f"{name}.{kind}"] for kind in ("weight", "bias"))
        self.shape = [self.weight.shape[-1]]

    def __call__(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalise [K, B, d]; return the same shape, and what `pull` needs."""
        normal, mean, deviation = torch.native_layer_norm(x, self.shape, None, None, _EPSILON)
        return torch.addcmul(self.bias, normal, self.weight), (x, normal, mean, deviation)

    def pull(self, gradient: Tensor, context: tuple[Tensor, ...]) -> Tensor:
        """Return the gradient of x; fill the gradients of weight and bias."""
        x, normal, mean, deviation = context
        torch.sum(gradient, -2, out=self.bias_gradient)
        torch.sum(gradient * normal, -2, out=self.weight_gradient)
        out: Tensor = torch.ops.aten.native_layer_norm_backward(
            gradient * self.weight, x, self.shape, mean, deviation, None, None, [True, False, False]
        )[0]
        return out


class BatchNorm:
    """Batch normalisation over B, with running means for evaluation (Ioffe & Szegedy, 2015); momentum 0.1."""

    def __init__(
        self, weights: dict[str, Tensor], gradients: dict[str, Tensor], name: str, running: dict[str, Tensor]
    ) -> None:
        self.weight, self.bias = (weights[f"{name}.{kind}"].unsqueeze(-2) for kind in ("weight", "bias"))
        self.weight_gradient, self.bias_gradient = (gradients[f"{name}.{kind}"] for kind in ("weight", "bias"))
        self.mean, self.variance = (running[kind].unsqueeze(-2) for kind in ("mean", "variance"))

    def __call__(self, x: Tensor, *, training: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalise [K, B, n]; return the same shape, and what `pull` needs."""
        x, pairs = x.to(self.mean.dtype), x.shape[-2]
        if training:
            mean = x.mean(-2, keepdim=True)
            variance = (x - mean).square().mean(-2, keepdim=True)  # torch.var_mean takes ten times as long
            self.mean.lerp_(mean, 0.1)
            self.variance.lerp_(variance * (pairs / (pairs - 1)), 0.1)
        else:
            variance, mean = self.variance, self.mean
        scale = (variance + _EPSILON).rsqrt()
        normal = (x - mean) * scale
        return torch.addcmul(self.bias, normal, self.weight), (normal, scale)

    def pull(self, gradient: Tensor, context: tuple[Tensor, ...]) -> Tensor:
        """Return the gradient of x in training; fill the gradients of weight and bias."""
        normal, scale = context
        torch.sum(gradient, -2, out=self.bias_gradient)
        torch.sum(gradient * normal, -2, out=self.weight_gradient)
        pairs = gradient.shape[-2]
        mean = (self.bias_gradient / pairs).unsqueeze(-2)
        slope = (self.weight_gradient / pairs).unsqueeze(-2)
        return (gradient - mean - normal * slope) * (self.weight * scale)


def product(a: Tensor, b: Tensor, *, onto: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Multiply matrices, of every model or of one; the product is added to `onto`, or written to `out`.

    Small products are made model by model: torch multiplies several of them in another loop, which rounds differently.
    """
    if a.dim() == 2:
        return torch.mm(a, b, out=out) if onto is None else torch.addmm(onto, a, b)
    if a.shape[-2] * a.shape[-1] * b.shape[-1] < _SMALL:
        rows = zip(a, b, [None] * len(a) if onto is None else onto, strict=True)
        each = torch.stack([product(x, y, onto=z) for x, y, z in rows])
        return each if out is None else out.copy_(each)
    return torch.bmm(a, b, out=out) if onto is None else torch.baddbmm(onto, a, b)


def in_type(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert x to a type; the check is cheaper than a conversion that changes nothing."""
    return x if x.dtype == dtype else x.to(dtype)


def dropped(x: Tensor, mask: Tensor | None) -> Tensor:
    """Multiply x by its dropout mask; None drops nothing."""
    return x if mask is None else x * mask


def added(x: Tensor, branch: Tensor, mask: Tensor | None) -> Tensor:
    """Add x and a branch under dropout."""
    return x + branch if mask is None else torch.addcmul(x, in_type(branch, x.dtype), mask)


def dropped_heads(x: Tensor, mask: Tensor | None) -> Tensor:
    """Multiply [K, B, d] by one number a head, [K, B, h, 1]: dropout of attention over one key."""
    if mask is None:
        return x
    return (x.reshape(*mask.shape[:-1], -1) * mask).view(x.shape)


def steadily(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply an elementwise function so that the result does not depend on where an element lies.

    On a CPU another routine computes the last few elements of a tensor, and may round differently. So each model's
    elements are padded to a whole number of vectors.
    """
    width = tensors[0].shape[-1]
    if tensors[0].shape[-2] * width % _VECTORS == 0:
        return function(*tensors)
    return function(*(functional.pad(x, (0, -width % _VECTORS)) for x in tensors))[..., :width]


def under_relu(gradient: Tensor, active: Tensor) -> Tensor:
    """Return the gradient below a ReLU whose output was `active`."""
    out: Tensor = torch.ops.aten.threshold_backward(gradient, active, 0)
    return out
