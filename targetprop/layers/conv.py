"""Convolutions and transposed convolutions, as linear maps of one kind of weight each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.base import Context, Facts, LayerRule, Style, register, sizes, transpose
from targetprop.layers.linear_map import LinearMap
from targetprop.layers.maps import MapFeedback, has_bias
from targetprop.utils.precision import wide

Convolutional = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
CONVOLUTIONS: dict[int, type[Any]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""Convolutions by the number of their spatial dimensions; their kernels are (out, in / groups, *kernel)."""
TRANSPOSED: dict[int, type[Any]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
"""Transposed convolutions likewise; their kernels are (in, out / groups, *kernel)."""
FORWARD: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
FUNCTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class SpatialMap(LinearMap):
    """A linear map of images (batch, channels, *size), the same at every position."""

    groups: int

    @property
    @abstractmethod
    def dims(self) -> int:
        """Number of spatial dimensions."""

    @property
    def channel_dims(self) -> int:
        return 2 + self.dims

    @abstractmethod
    def transpose(self, y: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, ...]) -> Tensor:
        """V y + c: (batch, *output) to (batch, channels, *size), whatever rows a stride left over."""

    def rows(self, y: Tensor) -> Tensor:
        return y.movedim(1, -1).flatten(0, -2).unflatten(1, (self.groups, -1)).transpose(0, 1)


@dataclass(frozen=True)
class Convolution(SpatialMap):
    """A convolution with a kernel W (out, in / groups, *kernel), in one, two or three spatial dimensions.

    Attributes:
        kernel, stride, dilation: a number for each spatial dimension.
        padding: zeros on each side.
        trailing: more of them at the end (padding="same" of an even kernel puts an odd one there).
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    trailing: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, layer: Convolutional) -> Convolution:
        """The map of a layer that pads with zeros."""
        assert layer.padding_mode == "zeros"
        dims = len(layer.kernel_size)
        kernel, dilation = layer.kernel_size, layer.dilation
        padding, trailing = (0,) * dims, (0,) * dims
        if layer.padding == "same":
            whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            padding, trailing = tuple(each // 2 for each in whole), tuple(each % 2 for each in whole)
        elif layer.padding != "valid":
            assert not isinstance(layer.padding, str)
            padding = sizes(layer.padding, dims)
        return cls(kernel, layer.stride, padding, trailing, dilation, layer.groups)

    @property
    def dims(self) -> int:
        return len(self.kernel)

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = _alike(x, y)
        shape = y.shape[1], x.shape[1] // self.groups, *self.kernel
        gradient = torch.ops.aten.convolution_backward(
            y, self._padded(x), y.new_empty(shape), None, self.stride, self.padding, self.dilation, False,
            (0,) * self.dims, self.groups, (False, True, False),
        )[1]  # fmt: skip
        return gradient.to(wide(gradient.dtype))

    def patches(self, x: Tensor) -> Tensor:
        around = [(before, before + more) for before, more in zip(self.padding, self.trailing, strict=True)]
        backwards = [each for pair in reversed(around) for each in pair]  # F.pad begins with the last dimension
        memory = F.pad(x.movedim(1, -1), (0, 0, *backwards)).contiguous()
        batch, *spatial, channels = memory.shape
        positions = [
            (size - d * (k - 1) - 1) // s + 1
            for size, k, s, d in zip(spatial, self.kernel, self.stride, self.dilation, strict=True)
        ]
        sample, *steps, _ = memory.stride()
        each = channels // self.groups
        seen = memory.as_strided(
            (self.groups, batch, *positions, *self.kernel, each),
            (
                each,
                sample,
                *(s * step for s, step in zip(self.stride, steps, strict=True)),
                *(d * step for d, step in zip(self.dilation, steps, strict=True)),
                1,
            ),
        )
        return seen.reshape(self.groups, batch * prod(positions), prod(self.kernel) * each)

    def matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(1, -1).flatten(1).unflatten(0, (self.groups, -1))

    def from_matrix(self, matrix: Tensor) -> Tensor:
        return matrix.flatten(0, 1).unflatten(1, (*self.kernel, -1)).movedim(-1, 1)

    def transpose(self, y: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, ...]) -> Tensor:
        reached = [
            (rows - 1) * self.stride[i] - 2 * self.padding[i] + self.dilation[i] * (self.kernel[i] - 1) + 1
            for i, rows in enumerate(y.shape[2:])
        ]
        # Positive: rows that the stride never reached. Negative: trailing padding, which is cut off.
        missing = [max(0, size[i] - reached[i]) for i in range(self.dims)]
        x = FUNCTIONS[self.dims](y, weight, bias, self.stride, self.padding, missing, self.groups, self.dilation)
        return _cut(x, size)

    def _padded(self, x: Tensor) -> Tensor:
        if not any(self.trailing):
            return x
        return F.pad(x, [each for more in reversed(self.trailing) for each in (0, more)])


@dataclass(frozen=True)
class PaddedConvolution(SpatialMap):
    """A convolution of what is padded with other things than zeros: two linear maps, of which one has weights.

    Attributes:
        mode: of the padding, a name for `torch.nn.functional.pad`.
        amounts: units to add, as that function takes them, the last dimension first.
        inner: the convolution, without padding of its own.
    """

    mode: str
    amounts: tuple[int, ...]
    inner: Convolution
    groups: int

    @classmethod
    def of(cls, layer: Convolutional) -> PaddedConvolution:
        """The map of a layer with another `padding_mode` than zeros."""
        none = (0,) * len(layer.kernel_size)
        inner = Convolution(layer.kernel_size, layer.stride, none, none, layer.dilation, layer.groups)
        return cls(layer.padding_mode, tuple(layer._reversed_padding_repeated_twice), inner, layer.groups)

    @property
    def dims(self) -> int:
        return self.inner.dims

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.inner.correlate(self.before_core(x), y)

    def patches(self, x: Tensor) -> Tensor:
        return self.inner.patches(self.before_core(x))

    def matrix(self, weight: Tensor) -> Tensor:
        return self.inner.matrix(weight)

    def from_matrix(self, matrix: Tensor) -> Tensor:
        return self.inner.from_matrix(matrix)

    def transpose(self, y: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, ...]) -> Tensor:
        around = self.amounts[::-1]
        padded = tuple(each + around[2 * i] + around[2 * i + 1] for i, each in enumerate(size))
        below = self.inner.transpose(y, weight, None, padded)
        x = transpose(self.before_core, below, torch.Size((below.shape[1], *size)))
        return x if bias is None else x + bias.view(-1, *[1] * self.dims)

    @property
    def core(self) -> Convolution:
        return self.inner

    def before_core(self, x: Tensor) -> Tensor:
        return F.pad(x, self.amounts, mode=self.mode)


@dataclass(frozen=True)
class TransposedConvolution(SpatialMap):
    """A transposed convolution with a kernel W (in, out / groups, *kernel): from small images to larger ones.

    It is a convolution of x with stride - 1 zeros between its units, with the kernel flipped.

    Attributes:
        kernel, stride, padding, output_padding, dilation: a number for each spatial dimension.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, layer: Transposed) -> TransposedConvolution:
        """The map of a layer."""
        assert not isinstance(layer.padding, str)
        return cls(layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.dilation, layer.groups)

    @property
    def dims(self) -> int:
        return len(self.kernel)

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = _alike(x, y)
        shape = x.shape[1], y.shape[1] // self.groups, *self.kernel
        gradient = torch.ops.aten.convolution_backward(
            y, x, y.new_empty(shape), None, self.stride, self.padding, self.dilation, True, self.output_padding,
            self.groups, (False, True, False),
        )[1]  # fmt: skip
        return gradient.to(wide(gradient.dtype))

    def patches(self, x: Tensor) -> Tensor:
        none, once = (0,) * self.dims, (1,) * self.dims
        return Convolution(self.kernel, once, none, none, self.dilation, self.groups).patches(self._spread(x))

    def matrix(self, weight: Tensor) -> Tensor:
        flipped = weight.flip(self._kernel_dims).unflatten(0, (self.groups, -1))
        return flipped.movedim(1, -1).flatten(2)

    def from_matrix(self, matrix: Tensor) -> Tensor:
        flipped = matrix.unflatten(2, (*self.kernel, -1)).movedim(-1, 1).flatten(0, 1)
        return flipped.flip(self._kernel_dims)

    def transpose(self, y: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, ...]) -> Tensor:
        x = FORWARD[self.dims](y, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return _cut(x, size)  # output padding above the stride makes more

    @property
    def _kernel_dims(self) -> tuple[int, ...]:
        return tuple(range(2, 2 + self.dims))

    def _spread(self, x: Tensor) -> Tensor:
        """x with zeros between its units, and around them as many as a convolution needs to reach every output."""
        apart = [(size - 1) * s + 1 for size, s in zip(x.shape[2:], self.stride, strict=True)]
        spread = x.new_zeros(*x.shape[:2], *apart)
        spread[(slice(None), slice(None), *(slice(None, None, s) for s in self.stride))] = x
        around: list[int] = []
        for i in reversed(range(self.dims)):  # F.pad begins with the last dimension, and cuts off what is negative
            before = self.dilation[i] * (self.kernel[i] - 1) - self.padding[i]
            around += before, before + self.output_padding[i]
        return F.pad(spread, around)


class SpatialFeedback(MapFeedback):
    """Feedback of a convolution of any kind: a kernel of its own, shaped as the layer's.

    Its output has exactly the size of the layer's input, whatever rows a stride left over.
    """

    forward_map: SpatialMap

    def affine(self, y: Tensor, context: Context, bias: Tensor | None) -> Tensor:
        return self.forward_map.transpose(y, self.weight, bias, tuple(context[1:]))

    @property
    def transposed(self) -> Tensor:
        return self.weight

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.forward_map.correlate(x, y)


class ConvolutionFeedback(SpatialFeedback):
    """Transposed convolution with a kernel of its own (out, in / groups, *kernel), initialised as torch's own.

    Stride, padding, dilation and groups are the layer's.
    """

    def __init__(self, layer: Convolutional, *, bias: bool = True) -> None:
        super().__init__()
        self.forward_map = spatial_map(layer)
        conv = self.forward_map.inner if isinstance(self.forward_map, PaddedConvolution) else self.forward_map
        assert isinstance(conv, Convolution)
        self.map = TRANSPOSED[conv.dims](
            layer.out_channels,
            layer.in_channels,
            conv.kernel,
            conv.stride,
            padding=conv.padding,
            groups=conv.groups,
            dilation=conv.dilation,
            bias=bias,
        )

    def add_bias(self) -> None:
        """Give it a bias if it has none, initialised as torch's own."""
        if self.bias is None:
            channels, bound = self.weight.shape[1] * self.forward_map.groups, self.weight[0].numel() ** -0.5
            self.map.bias = nn.Parameter(self.weight.new_empty(channels).uniform_(-bound, bound))


class TransposedConvolutionFeedback(SpatialFeedback):
    """Convolution with a kernel of its own (in, out / groups, *kernel), initialised as torch's own."""

    def __init__(self, layer: Transposed, *, bias: bool = True) -> None:
        super().__init__()
        self.forward_map = conv = TransposedConvolution.of(layer)
        self.map = CONVOLUTIONS[conv.dims](
            layer.out_channels,
            layer.in_channels,
            conv.kernel,
            conv.stride,
            padding=conv.padding,
            groups=conv.groups,
            dilation=conv.dilation,
            bias=bias,
        )


@register(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class ConvolutionRule(LayerRule[Convolutional]):
    """y = W * x + b; its feedback has weights of its own in every style."""

    any_memory_order = True

    def facts(self, layer: Convolutional) -> Facts:
        return Facts(dims=2 + len(layer.kernel_size))

    def linear_map(self, layer: Convolutional) -> LinearMap:
        return spatial_map(layer)

    def feedback(self, layer: Convolutional, style: Style) -> MapFeedback:
        return ConvolutionFeedback(layer, bias=has_bias(layer, style))


@register(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
class TransposedConvolutionRule(LayerRule[Transposed]):
    """y = W^T * x + b; its feedback is a convolution with weights of its own in every style."""

    any_memory_order = True

    def facts(self, layer: Transposed) -> Facts:
        return Facts(dims=2 + len(layer.kernel_size))

    def linear_map(self, layer: Transposed) -> LinearMap:
        return TransposedConvolution.of(layer)

    def feedback(self, layer: Transposed, style: Style) -> MapFeedback:
        return TransposedConvolutionFeedback(layer, bias=has_bias(layer, style))


def spatial_map(layer: Convolutional) -> SpatialMap:
    """The map of a convolution, however it pads."""
    return Convolution.of(layer) if layer.padding_mode == "zeros" else PaddedConvolution.of(layer)


def _cut(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """The first rows of x in each spatial dimension."""
    return x[(slice(None), slice(None), *(slice(each) for each in size))]


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the narrower one of their types: under autocast one may be float32, the images or the output's error."""
    if x.dtype == y.dtype:
        return x, y
    dtype = min(x.dtype, y.dtype, key=lambda dtype: dtype.itemsize)
    return x.to(dtype), y.to(dtype)
