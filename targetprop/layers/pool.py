"""Pooling. Un-pooling by the transposed Jacobian: each value goes to where it came from, and what meets adds up.

The published feedback is another one. Un-pooling overwrites: where windows share their maximum, the last of them (in
the order of their rows and columns) is heard alone. And average pooling is undone by adaptive average pooling to the
size of the input, which copies a mean to every position of its window, undivided.

In one dimension torch pools maxima as in two, of which the first has the size 1, and so does the way back.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.base import (
    Context,
    Facts,
    FeedbackLayer,
    LayerRule,
    LinearByAutograd,
    Style,
    UnweightedFeedback,
    register,
    sizes,
)
from targetprop.utils.errors import UserError

aten = torch.ops.aten
MaxPool = nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d
AdaptiveMaxPool = nn.AdaptiveMaxPool1d | nn.AdaptiveMaxPool2d | nn.AdaptiveMaxPool3d
SPATIAL: dict[type[nn.Module], int] = {
    getattr(nn, f"{kind}{dims}d"): dims
    for kind in ("MaxPool", "AdaptiveMaxPool", "AvgPool", "AdaptiveAvgPool")
    for dims in (1, 2, 3)
}
"""Number of spatial dimensions of the layers of this file."""
P = TypeVar("P", bound=nn.Module)


def spatial_dims(pool: nn.Module) -> int:
    """Number of dimensions that a layer of this file pools over."""
    return next(dims for kind, dims in SPATIAL.items() if isinstance(pool, kind))


class Maxima(tuple[Tensor, torch.Size]):
    """The context of pooling: indices of the maxima in each channel, and the per-sample shape of the input."""

    @cached_property
    def winners(self) -> Tensor:
        """Which windows are the last, in the order of rows and columns, to have their maximum where it is.

        Torch's own un-pooling leaves it to the order of its threads whose value stays; here it is a maximum of numbers.
        """
        indices, shape = self
        places = indices.flatten(2)
        windows = torch.arange(places.shape[2], device=places.device).expand_as(places)
        nobody = places.new_full((*places.shape[:2], shape[1:].numel()), -1)
        last = nobody.scatter_reduce(2, places, windows, "amax")
        in_order = torch.empty_like(indices, dtype=torch.bool)  # of memory
        return in_order.copy_((last.gather(2, places) == windows).view(indices.shape))


class OfMaxima(LayerRule[P], Generic[P]):
    """Pooling of maxima; the context is `Maxima`."""

    any_memory_order = True

    def bound(self, layer: P) -> LayerRule[P]:
        if layer.return_indices:
            raise UserError(f"{type(layer).__name__}: return_indices=True gives two outputs, not one: leave it out.")
        return self

    def facts(self, layer: P) -> Facts:
        return Facts(keeps_sums=True, dims=2 + spatial_dims(layer))

    def run(self, layer: P, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        y, indices = self.with_indices(layer, x)
        return y, Maxima((indices, x.shape[1:]))

    @abstractmethod
    def with_indices(self, layer: P, x: Tensor) -> tuple[Tensor, Tensor]:
        """The maxima in x (batch, channels, ...), and where each was in its sample's channel."""

    def vjp(self, layer: P, delta: Tensor, context: Context) -> Tensor:
        indices, shape = context
        if spatial_dims(layer) > 1:
            return self.scatter(layer, delta, indices, shape)
        below = self.scatter(layer, delta.unsqueeze(-2), indices.unsqueeze(-2), torch.Size((*shape[:-1], 1, shape[-1])))
        return below.squeeze(-2)

    def may_overlap(self, layer: P) -> bool:
        """Whether two windows can share their maximum."""
        return True

    def feedback(self, layer: P, style: Style) -> FeedbackLayer:
        if style == "published" and self.may_overlap(layer):
            return UnweightedFeedback(partial(self.overwrite, layer))
        return super().feedback(layer, style)

    def overwrite(self, layer: P, y: Tensor, context: Maxima) -> Tensor:
        """Un-pooling as published: of values y (batch, channels, ...) that meet, that of the last window stays."""
        return self.vjp(layer, torch.where(context.winners, y, 0), context)

    @abstractmethod
    def scatter(self, layer: P, delta: Tensor, indices: Tensor, shape: torch.Size) -> Tensor:
        """Values delta to where the maxima were, (batch, *shape), in two or three dimensions."""


@register(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
class MaxPoolRule(OfMaxima[MaxPool]):
    """Maxima of windows."""

    def with_indices(self, layer: MaxPool, x: Tensor) -> tuple[Tensor, Tensor]:
        pool: Any = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[spatial_dims(layer)]
        return pool(
            x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
        )

    def may_overlap(self, layer: MaxPool) -> bool:
        return overlaps(layer)

    def scatter(self, layer: MaxPool, delta: Tensor, indices: Tensor, shape: torch.Size) -> Tensor:
        dims = spatial_dims(layer)
        # Un-pooling is faster, and gives the same bits where no two values meet; torch does not call it deterministic.
        if dims < 3 and not overlaps(layer) and not torch.are_deterministic_algorithms_enabled():
            return aten.max_unpool2d(delta, indices, shape[-2:])
        scatter = aten.max_pool3d_with_indices_backward if dims == 3 else aten.max_pool2d_with_indices_backward
        kernel, stride, dilation = (
            _in_two(each, dims, 1) for each in (layer.kernel_size, layer.stride, layer.dilation)
        )
        return scatter(
            delta, _like_input(delta, shape), kernel, stride, _in_two(layer.padding, dims, 0), dilation,
            layer.ceil_mode, indices,
        )  # fmt: skip


@register(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
class AdaptiveMaxPoolRule(OfMaxima[AdaptiveMaxPool]):
    """Maxima of as many windows as the output has units."""

    def with_indices(self, layer: AdaptiveMaxPool, x: Tensor) -> tuple[Tensor, Tensor]:
        dims = spatial_dims(layer)
        pool: Any = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[dims]
        return pool(x, layer.output_size, return_indices=True)

    def scatter(self, layer: AdaptiveMaxPool, delta: Tensor, indices: Tensor, shape: torch.Size) -> Tensor:
        if spatial_dims(layer) == 3:
            return aten.adaptive_max_pool3d_backward(delta, _like_input(delta, shape), indices)
        if torch.are_deterministic_algorithms_enabled():  # where torch refuses its own on a GPU
            nothing = delta.new_zeros((*delta.shape[:2], shape[1:].numel()))
            below = nothing.scatter_add_(2, indices.flatten(2), delta.flatten(2))
            return _like_input(delta, shape).copy_(below.view(len(delta), *shape))
        return aten.adaptive_max_pool2d_backward(delta, _like_input(delta, shape), indices)


@register(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
class AveragePoolRule(LinearByAutograd):
    """Average pooling."""

    def facts(self, layer: nn.Module) -> Facts:
        return Facts(linear=True, dims=2 + spatial_dims(layer))

    def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
        return UnweightedFeedback(copy_up) if style == "published" else super().feedback(layer, style)


def copy_up(y: Tensor, shape: torch.Size) -> Tensor:
    """The published feedback of average pooling: y (batch, channels, ...) pooled to the input's per-sample shape."""
    pool: Any = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(shape) - 1]
    return pool(y, shape[1:])


def overlaps(pool: MaxPool) -> bool:
    """Whether two windows of the pooling can share a unit."""
    dims = spatial_dims(pool)
    settings = zip(sizes(pool.kernel_size, dims), sizes(pool.stride, dims), sizes(pool.dilation, dims), strict=True)
    return any(stride < dilation * (kernel - 1) + 1 for kernel, stride, dilation in settings)


def _in_two(value: int | tuple[int, ...], dims: int, first: int) -> tuple[int, ...]:
    """A setting for each dimension, and for a first one of size 1 where there is only one dimension."""
    return (first, *sizes(value, 1)) if dims == 1 else sizes(value, dims)


def _like_input(delta: Tensor, shape: torch.Size) -> Tensor:
    """A tensor of the input's shape, in the memory order of the output's error; its values are of no account."""
    channels_last = delta.dim() == 4 and delta.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(len(delta), *shape, dtype=delta.dtype, device=delta.device, memory_format=order)
