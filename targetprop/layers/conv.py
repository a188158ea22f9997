"""Convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.base import Context, Facts, LayerRule, Style, register, sizes
from targetprop.layers.maps import LinearMap, MapFeedback
from targetprop.utils.errors import UserError
from targetprop.utils.precision import wide

Convolutional = nn.Conv1d | nn.Conv2d | nn.Conv3d
TRANSPOSED: dict[int, type[Any]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
"""The layer that holds the feedback weights of a convolution, by the number of its spatial dimensions."""
FUNCTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Convolution(LinearMap):
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
        """The map of a layer.

        Raises:
            UserError: it pads with other things than zeros.
        """
        if layer.padding_mode != "zeros":
            raise UserError(
                f"{type(layer).__name__}: padding_mode={layer.padding_mode!r} has no feedback; use 'zeros'."
            )
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
        """Number of spatial dimensions."""
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

    def rows(self, y: Tensor) -> Tensor:
        return y.movedim(1, -1).flatten(0, -2).unflatten(1, (self.groups, -1)).transpose(0, 1)

    def matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(1, -1).flatten(1).unflatten(0, (self.groups, -1))

    def from_matrix(self, matrix: Tensor) -> Tensor:
        return matrix.flatten(0, 1).unflatten(1, (*self.kernel, -1)).movedim(-1, 1)

    def transpose(self, y: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, ...]) -> Tensor:
        """V y + c: (batch, *output) to (batch, channels, *size), whatever rows a stride left over."""
        reached = [
            (rows - 1) * self.stride[i] - 2 * self.padding[i] + self.dilation[i] * (self.kernel[i] - 1) + 1
            for i, rows in enumerate(y.shape[2:])
        ]
        # Positive: rows that the stride never reached. Negative: trailing padding, which is cut off.
        missing = [max(0, size[i] - reached[i]) for i in range(self.dims)]
        x = FUNCTIONS[self.dims](y, weight, bias, self.stride, self.padding, missing, self.groups, self.dilation)
        return x[(..., *(slice(each) for each in size))]

    def _padded(self, x: Tensor) -> Tensor:
        if not any(self.trailing):
            return x
        return F.pad(x, [each for more in reversed(self.trailing) for each in (0, more)])


class ConvolutionFeedback(MapFeedback):
    """Transposed convolution with a kernel of its own (out, in / groups, *kernel), shaped as the layer's.

    Initialised as torch's own transposed convolution. Stride, padding, dilation and groups are the layer's; the output
    has exactly the size of the layer's input, whatever rows a stride left over.
    """

    forward_map: Convolution

    def __init__(self, layer: Convolutional) -> None:
        super().__init__()
        self.forward_map = conv = Convolution.of(layer)
        self.map = TRANSPOSED[conv.dims](
            layer.out_channels,
            layer.in_channels,
            conv.kernel,
            conv.stride,
            padding=conv.padding,
            groups=conv.groups,
            dilation=conv.dilation,
        )

    def affine(self, y: Tensor, context: Context, bias: Tensor | None) -> Tensor:
        return self.forward_map.transpose(y, self.weight, bias, tuple(context[1:]))

    @property
    def transposed(self) -> Tensor:
        return self.weight

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.forward_map.correlate(x, y)


@register(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class ConvolutionRule(LayerRule[Convolutional]):
    """y = W * x + b; its feedback has weights of its own in every style."""

    any_memory_order = True

    def facts(self, layer: Convolutional) -> Facts:
        return Facts(dims=2 + len(layer.kernel_size))

    def linear_map(self, layer: Convolutional) -> LinearMap | None:
        return Convolution.of(layer) if layer.padding_mode == "zeros" else None

    def feedback(self, layer: Convolutional, style: Style) -> MapFeedback:
        return ConvolutionFeedback(layer)


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the narrower one of their types: under autocast one may be float32, the images or the output's error."""
    if x.dtype == y.dtype:
        return x, y
    dtype = min(x.dtype, y.dtype, key=lambda dtype: dtype.itemsize)
    return x.to(dtype), y.to(dtype)
