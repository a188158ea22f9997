"""Normalisation layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from targetprop.layers.base import (
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
    """The published feedback leaves normalisation out; in other styles it is the transposed Jacobian."""

    any_memory_order = True

    def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
        return AdjointFeedback(layer, self) if style in ("linear", "matched") else IgnoredFeedback()


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

    def vjp(self, layer: nn.Module, delta: Tensor, context: NormContext) -> Tensor:
        return self.gradients(layer, delta, context)[0]

    def gradients(  # type: ignore[override]
        self, layer: BatchNorm, delta: Tensor, context: NormContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        variance = context.rstd.pow(-2) - layer.eps
        weight = None if layer.weight is None else layer.weight.detach()
        below, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            delta.to(context.x.dtype), context.x, weight, context.mean, variance, context.mean, context.rstd,
            context.of_batch, layer.eps, (True, True, True),
        )  # fmt: skip
        return below, {"weight": of_weight, "bias": of_bias}


def _statistics_type(layer: BatchNorm, x: Tensor) -> torch.dtype:
    """Of a batch norm that sees x: its weights' type, which under autocast is wider than that of x."""
    own = layer.running_mean if layer.weight is None else layer.weight
    return wide(x.dtype) if own is None else own.dtype
