"""Pooling. Un-pooling by the transposed Jacobian: each value goes to where it came from, and what meets adds up."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.base import Context, Facts, LayerRule, register, sizes


@register(nn.MaxPool2d)
class MaxPoolRule(LayerRule[nn.MaxPool2d]):
    """The context is (indices of the maxima, per-sample shape of the input)."""

    any_memory_order = True

    def facts(self, layer: nn.MaxPool2d) -> Facts:
        return Facts(keeps_sums=True, dims=4)

    def run(self, layer: nn.MaxPool2d, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        y, indices = F.max_pool2d(
            x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
        )
        return y, (indices, x.shape[1:])

    def vjp(self, layer: nn.MaxPool2d, delta: Tensor, context: Context) -> Tensor:
        indices, shape = context
        if not overlaps(layer):
            return torch.ops.aten.max_unpool2d(delta, indices, shape[-2:])
        return torch.ops.aten.max_pool2d_with_indices_backward(
            delta, _like_input(delta, shape), sizes(layer.kernel_size, 2), sizes(layer.stride, 2),
            sizes(layer.padding, 2), sizes(layer.dilation, 2), layer.ceil_mode, indices,
        )  # fmt: skip


@register(nn.AdaptiveMaxPool2d)
class AdaptiveMaxPoolRule(LayerRule[nn.AdaptiveMaxPool2d]):
    """The context is (indices of the maxima, per-sample shape of the input)."""

    any_memory_order = True

    def facts(self, layer: nn.AdaptiveMaxPool2d) -> Facts:
        return Facts(keeps_sums=True, dims=4)

    def run(self, layer: nn.AdaptiveMaxPool2d, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        size: Any = layer.output_size  # torch's types disagree about None
        y, indices = F.adaptive_max_pool2d(x, size, return_indices=True)
        return y, (indices, x.shape[1:])

    def vjp(self, layer: nn.AdaptiveMaxPool2d, delta: Tensor, context: Context) -> Tensor:
        indices, shape = context
        return torch.ops.aten.adaptive_max_pool2d_backward(delta, _like_input(delta, shape), indices)


class LinearByAutogradRule(LayerRule[nn.Module]):
    """The rule of a layer that is a linear map without weights: its transpose is the same at any point."""

    any_memory_order = True

    def vjp(self, layer: nn.Module, delta: Tensor, context: Context) -> Tensor:
        anywhere = delta.new_zeros(len(delta), *context)
        pullback = torch.func.vjp(layer, anywhere)[1]
        return pullback(delta)[0]


@register(nn.AvgPool2d, nn.AdaptiveAvgPool2d)
class AveragePoolRule(LinearByAutogradRule):
    """Average pooling."""

    def facts(self, layer: nn.Module) -> Facts:
        return Facts(linear=True, dims=4)


def overlaps(pool: nn.MaxPool2d) -> bool:
    """Whether two windows of the pooling can share a unit."""
    settings = zip(sizes(pool.kernel_size, 2), sizes(pool.stride, 2), sizes(pool.dilation, 2), strict=True)
    return any(stride < dilation * (kernel - 1) + 1 for kernel, stride, dilation in settings)


def _like_input(delta: Tensor, shape: torch.Size) -> Tensor:
    """A tensor of the input's shape, in the memory order of the output's error; its values are of no account."""
    channels_last = delta.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(len(delta), *shape, dtype=delta.dtype, device=delta.device, memory_format=order)
