"""Normalisation layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.base import (
    WITH_JACOBIANS,
    AdjointFeedback,
    Context,
    Facts,
    FeedbackLayer,
    IgnoredFeedback,
    LayerRule,
    Style,
    register,
)
from targetprop.utils.precision import wide

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
InstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d
aten = torch.ops.aten


class NormContext(NamedTuple):
    """What a batch norm did in one pass: y = gain (x - mean) + bias, per channel.

    Attributes:
        x: its input.
        mean, rstd, gain: the statistics it used, (channels,): mean, reciprocal standard deviation, rstd times weight.
        of_batch: whether they are those of the batch.
    """

    x: Tensor
    mean: Tensor
    rstd: Tensor
    gain: Tensor
    of_batch: bool


class NormRule(LayerRule[nn.Module]):
    """The feedback is the transposed Jacobian, or leaves normalisation out.

    It is left out in the style "published", too, whose code knows no norm but that of a batch.
    """

    any_memory_order = True
    has_gains_only = True

    def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
        return AdjointFeedback(layer, self) if style in WITH_JACOBIANS else IgnoredFeedback()


class BatchNormFeedback(FeedbackLayer):
    """The published feedback of a batch norm: a new one of the same size, whose gain and bias are feedback weights.

    It normalises whatever it is given by the statistics of just that, so it is not linear. The published code builds
    it and then stops at once, where it measures the angle between forward and feedback weights; so there is no
    published training with it, and none of its numbers were ever tuned. The running statistics that it would keep are
    read by no training step, and are left out.
    """

    @property
    def role(self) -> str:
        return "a norm of its own, which learns"

    def __init__(self, layer: BatchNorm) -> None:
        super().__init__()
        kind = next(each for each in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) if isinstance(layer, each))
        self.norm = kind(layer.num_features, layer.eps, affine=layer.affine, track_running_stats=False)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self.norm(y)


@register(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
class BatchNormRule(NormRule):
    """A noisy pass uses the clean batch's statistics, and leaves the running ones alone.

    The transposed Jacobian is that of the whole batch, whose samples meet through its statistics.
    """

    def facts(self, layer: nn.Module) -> Facts:
        dims = {nn.BatchNorm2d: 4, nn.BatchNorm3d: 5}
        return Facts(varies=True, dims=next((n for kind, n in dims.items() if isinstance(layer, kind)), None))

    def run(self, layer: BatchNorm, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:  # type: ignore[override]
        if clean is not None:
            shape = [-1, *[1] * (x.dim() - 2)]
            shift = -clean.mean * clean.gain if layer.bias is None else layer.bias.detach() - clean.mean * clean.gain
            return x * clean.gain.view(shape) + shift.view(shape), clean
        y = layer(x)
        running, variance = layer.running_mean, layer.running_var
        of_batch = layer.training or running is None or variance is None
        if not of_batch and running is not None and variance is not None:
            mean, rstd = running, torch.rsqrt(variance + layer.eps)
        else:  # by the layer's own kernel, which is several times faster than var_mean
            wider = x.detach().to(_statistics_type(layer, x))
            _, mean, rstd = torch.native_batch_norm(wider, None, None, None, None, True, 0.0, layer.eps)
        gain = rstd if layer.weight is None else rstd * layer.weight.detach()
        return y, NormContext(x.detach(), mean, rstd, gain, of_batch)

    def vjp(self, layer: BatchNorm, delta: Tensor, context: NormContext) -> Tensor:  # type: ignore[override]
        return self.gradients(layer, delta, context)[0]

    def feedback(self, layer: BatchNorm, style: Style) -> FeedbackLayer:  # type: ignore[override]
        return BatchNormFeedback(layer) if style == "published" else super().feedback(layer, style)

    def gradients(  # type: ignore[override]
        self, layer: BatchNorm, delta: Tensor, context: NormContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        variance = context.rstd.pow(-2) - layer.eps
        weight = None if layer.weight is None else layer.weight.detach()
        below, of_weight, of_bias = aten.native_batch_norm_backward(
            delta.to(context.x.dtype), context.x, weight, context.mean, variance, context.mean, context.rstd,
            context.of_batch, layer.eps, (True, True, True),
        )  # fmt: skip
        return below, {"weight": of_weight, "bias": of_bias}


def _statistics_type(layer: BatchNorm, x: Tensor) -> torch.dtype:
    """Of a batch norm that sees x: its weights' type, which under autocast is wider than that of x."""
    own = layer.running_mean if layer.weight is None else layer.weight
    return wide(x.dtype) if own is None else own.dtype


class OfEachSample(NormRule):
    """A norm whose statistics are each sample's own, and so a noisy pass's own; the context is its input.

    They are computed again where an error comes down, which is cheaper than to keep what a noisy pass never needs.
    """

    def run(self, layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        return layer(x), x.detach() if clean is None else clean

    def vjp(self, layer: nn.Module, delta: Tensor, context: Context) -> Tensor:
        return self.gradients(layer, delta, context)[0]


@register(nn.LayerNorm)
class LayerNormRule(OfEachSample):
    """Ba et al., "Layer Normalization", 2016, https://arxiv.org/abs/1607.06450."""

    def gradients(  # type: ignore[override]
        self, layer: nn.LayerNorm, delta: Tensor, context: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        x, weight, bias = _wider(context, layer.weight, layer.bias)
        shape = list(layer.normalized_shape)
        _, mean, rstd = torch.native_layer_norm(x, shape, None, None, layer.eps)
        below, of_weight, of_bias = aten.native_layer_norm_backward(
            delta.to(x.dtype), x, shape, mean, rstd, weight, bias, (True, weight is not None, bias is not None)
        )
        return below.to(context.dtype), {"weight": of_weight, "bias": of_bias}


@register(nn.RMSNorm)
class RMSNormRule(OfEachSample):
    """Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, https://arxiv.org/abs/1910.07467."""

    def gradients(  # type: ignore[override]
        self, layer: nn.RMSNorm, delta: Tensor, context: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        x, weight, _ = _wider(context, layer.weight, None)
        dims = list(range(-len(layer.normalized_shape), 0))
        eps = torch.finfo(x.dtype).eps if layer.eps is None else layer.eps
        scale = (x.square().mean(dims, keepdim=True) + eps).rsqrt()
        unit = x * scale
        scaled = delta if weight is None else delta * weight
        below = scale * (scaled - unit * (scaled * unit).mean(dims, keepdim=True))
        leading = list(range(x.dim() - len(dims)))
        return below.to(context.dtype), {} if weight is None else {"weight": (delta * unit).sum(leading)}


@register(nn.GroupNorm)
class GroupNormRule(OfEachSample):
    """Wu and He, "Group Normalization", 2018, https://arxiv.org/abs/1803.08494."""

    # It is given contiguous tensors: torch's own backward of it crashes on channels last, where the input asks for no
    # gradient (torch 2.13, CPU). What comes before and after it keeps its order.
    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x.contiguous())

    def run(self, layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        return super().run(layer, x.contiguous(), clean)

    def gradients(  # type: ignore[override]
        self, layer: nn.GroupNorm, delta: Tensor, context: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return _group_norm_gradients(delta, context, layer.weight, layer.bias, layer.num_groups, layer.eps)


@register(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
class InstanceNormRule(OfEachSample):
    """A group norm with one channel a group, or in evaluation with running statistics, a line for each channel.

    The context is its input, and whether the statistics are each sample's own.

    Ulyanov et al., "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016,
    https://arxiv.org/abs/1607.08022.
    """

    def facts(self, layer: InstanceNorm) -> Facts:  # type: ignore[override]
        return Facts(varies=layer.track_running_stats, dims=_batched_dims(layer))

    def run(self, layer: InstanceNorm, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:  # type: ignore[override]
        of_sample = layer.training or not layer.track_running_stats
        if clean is None or layer.running_mean is None or not layer.training:
            return layer(x), (x.detach(), of_sample) if clean is None else clean
        batch = x if x.dim() == _batched_dims(layer) else x.unsqueeze(0)
        y = F.instance_norm(batch, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)  # which keeps no trace
        return y.view_as(x), clean

    def gradients(  # type: ignore[override]
        self, layer: InstanceNorm, delta: Tensor, context: tuple[Tensor, bool]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        given, of_sample = context
        x, delta = (each if each.dim() == _batched_dims(layer) else each.unsqueeze(0) for each in (given, delta))
        if of_sample:
            below, own = _group_norm_gradients(delta, x, layer.weight, layer.bias, x.shape[1], layer.eps)
        else:
            below, own = _running_gradients(layer, delta, x)
        return below.view_as(given), own


def _batched_dims(layer: InstanceNorm) -> int:
    """Dimensions of a batch; torch takes a tensor with one less for a single sample."""
    return 3 if isinstance(layer, nn.InstanceNorm1d) else 4 if isinstance(layer, nn.InstanceNorm2d) else 5


def _wider(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """x and a layer's parameters in one type, which under autocast is that of the parameters."""
    dtype = wide(x.dtype) if weight is None else torch.promote_types(x.dtype, weight.dtype)
    return x.to(dtype), None if weight is None else weight.detach(), None if bias is None else bias.detach()


def _group_norm_gradients(
    delta: Tensor, context: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Of a group norm that saw `context` (batch, channels, ...): J^T delta, and the gradients of weight and bias."""
    x, weight, bias = _wider(context.contiguous(), weight, bias)
    batch, channels, positions = x.shape[0], x.shape[1], x[0, 0].numel()
    _, mean, rstd = torch.native_group_norm(x, None, None, batch, channels, positions, groups, eps)
    below, of_weight, of_bias = aten.native_group_norm_backward(
        delta.to(x.dtype).contiguous(), x, mean, rstd, weight, batch, channels, positions, groups,
        (True, weight is not None, bias is not None),
    )  # fmt: skip
    return below.to(context.dtype), {"weight": of_weight, "bias": of_bias}


def _running_gradients(layer: InstanceNorm, delta: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Of a norm that uses its running statistics, for x (batch, channels, ...), by batch norm's own kernel."""
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None
    assert variance is not None
    wider, weight, _ = _wider(x, layer.weight, layer.bias)
    below, of_weight, of_bias = aten.native_batch_norm_backward(
        delta.to(wider.dtype), wider, weight, mean, variance, None, None, False, layer.eps, (True, True, True)
    )
    return below.to(x.dtype), {"weight": of_weight, "bias": of_bias}
