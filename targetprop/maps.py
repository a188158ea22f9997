"""Linear maps as functions of their weights: what a forward layer and its feedback twin have in common.

A map takes x (batch, *input) to y (batch, *output) with a weight W of the forward layer's shape. Its transpose carries
y back with feedback weights V of that same shape (for `Dense`, the transposed one). As matrices, W is (groups, units,
inputs that a unit sees), and a map is one matrix product of the *patches* of x, (groups, batch * positions, inputs).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.errors import UserError
from targetprop.layers import is_hooked, pair_of
from targetprop.precision import wide
from targetprop.threads import side_by_side

SMALL, TINY = 16, 4
"""Positions of an image up to which a CPU is faster by products without its border: to correlate, or for all else."""
WIDE = 64
"""Inputs from which it does."""


class LinearMap(ABC):
    """A linear map, without its weights."""

    @abstractmethod
    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of <y, W x> for W, summed over the batch, in the forward weight's shape."""

    @abstractmethod
    def patches(self, x: Tensor) -> Tensor:
        """What every unit sees: (batch, *input) to (groups, batch * positions, inputs)."""

    @abstractmethod
    def rows(self, y: Tensor) -> Tensor:
        """Outputs (batch, *output) as the products of patches with a matrix: (groups, batch * positions, units)."""

    @abstractmethod
    def matrix(self, weight: Tensor) -> Tensor:
        """A forward weight as a matrix, (groups, units, inputs); a view where the memory order allows it."""

    @abstractmethod
    def from_matrix(self, matrix: Tensor) -> Tensor:
        """The inverse of `matrix`."""


@dataclass(frozen=True)
class Dense(LinearMap):
    """x W^T, with W (out, in), on the last dimension of x."""

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        return y.flatten(0, -2).t() @ x.flatten(0, -2)

    def patches(self, x: Tensor) -> Tensor:
        return x.flatten(0, -2)[None]

    def rows(self, y: Tensor) -> Tensor:
        return y.flatten(0, -2)[None]

    def matrix(self, weight: Tensor) -> Tensor:
        return weight[None]

    def from_matrix(self, matrix: Tensor) -> Tensor:
        return matrix[0]


@dataclass(frozen=True)
class Convolution(LinearMap):
    """2-d convolution with a kernel W (out, in / groups, height, width).

    Attributes:
        kernel, stride, dilation: rows and columns.
        padding: rows and columns of zeros on each side.
        trailing: more of them at the end (padding="same" of an even kernel puts an odd one there).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    trailing: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, layer: nn.Conv2d) -> Convolution:
        """The map of a layer.

        Raises:
            UserError: it pads with other things than zeros.
        """
        if layer.padding_mode != "zeros":
            raise UserError(f"Conv2d: padding_mode={layer.padding_mode!r} has no feedback twin; use 'zeros'.")
        kernel, dilation = pair_of(layer.kernel_size), pair_of(layer.dilation)
        padding, trailing = (0, 0), (0, 0)
        if layer.padding == "same":
            height, width = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
            padding, trailing = (height // 2, width // 2), (height % 2, width % 2)
        elif layer.padding != "valid":
            padding = pair_of(layer.padding)
        return cls(kernel, pair_of(layer.stride), padding, trailing, dilation, layer.groups)

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = _alike(x, y)
        if x.is_cuda:
            return self._correlate_by_library(x, y)
        if self._has_products(y, SMALL) and x.shape[1] >= WIDE:
            return self._correlate_by_products(x, y)
        parts = zip(x.chunk(torch.get_num_threads()), y.chunk(torch.get_num_threads()), strict=True)
        first, *others = side_by_side(lambda part: self._correlate_by_library(*part), parts)
        return sum(others, first.to(wide(first.dtype)))

    def _correlate_by_library(self, x: Tensor, y: Tensor) -> Tensor:
        shape = y.shape[1], x.shape[1] // self.groups, *self.kernel
        return torch.ops.aten.convolution_backward(
            y, self._padded(x), y.new_empty(shape), None, self.stride, self.padding, self.dilation, False, (0, 0),
            self.groups, (False, True, False),
        )[1]  # fmt: skip

    def _correlate_by_products(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = _rows_first(x), _rows_first(y)
        total = y.new_zeros(y.shape[3], *self.kernel, x.shape[3])

        def add(units: slice) -> None:
            for seen, some_y, row, taps in self._meetings(x, y):
                total[units, row, taps].flatten(1).addmm_(some_y[:, units].t(), seen)

        each = -(-y.shape[3] // torch.get_num_threads())
        side_by_side(add, [slice(start, start + each) for start in range(0, y.shape[3], each)])
        return total.permute(0, 3, 1, 2)

    def _apply_by_products(self, x: Tensor, weight: Tensor) -> Tensor:
        weight = weight.permute(0, 2, 3, 1).contiguous()
        size = [x.shape[2 + i] + 2 * self.padding[i] + self.trailing[i] - self.kernel[i] + 1 for i in range(2)]

        def apply(some: Tensor) -> Tensor:
            x = _rows_first(some)
            y = x.new_zeros(size[0], len(some), size[1], len(weight))
            for seen, some_y, row, taps in self._meetings(x, y):
                some_y.addmm_(seen, weight[:, row, taps].flatten(1).t())
            return _batch_first(y)

        return torch.cat(side_by_side(apply, x.chunk(torch.get_num_threads())))

    def _transpose_by_products(self, y: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
        weight = weight.permute(0, 2, 3, 1).contiguous()

        def transpose(some: Tensor) -> Tensor:
            y = _rows_first(some)
            x = y.new_zeros(size[0], len(some), size[1], weight.shape[3])
            for seen, some_y, row, taps in self._meetings(x, y):
                seen.addmm_(some_y, weight[:, row, taps].flatten(1))
            return _batch_first(x)

        return torch.cat(side_by_side(transpose, y.chunk(torch.get_num_threads())))

    def _meetings(self, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor, int, slice]]:
        """The map without its border, as products of matrices: views of x and of y, of stride and dilation 1.

        Args:
            x, y: as `_rows_first` gives them. The rows of an image and samples that a row of the kernel sees are then
                one dimension, and so are the columns and channels that it sees from a column of y.

        Yields:
            For a row of the kernel and a column of y: what is seen of x (rows * samples, taps * inputs), from where in
            y (rows * samples, units), the row, and the taps in it.
        """
        (height, width), (top, left) = self.kernel, self.padding
        for row in range(height):
            first, end = max(0, top - row), min(len(y), len(x) + top - row)
            some_x, some_y = x[first + row - top : end + row - top], y[first:end]
            for column in range(y.shape[2]):
                taps = slice(max(0, left - column), min(width, x.shape[2] + left - column))
                if first < end and taps.start < taps.stop:
                    seen = some_x[:, :, column + taps.start - left : column + taps.stop - left]
                    yield seen.flatten(0, 1).flatten(1), some_y[:, :, column].flatten(0, 1), row, taps

    def patches(self, x: Tensor) -> Tensor:
        (top, left), (bottom, right) = self.padding, self.trailing
        memory = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left + right, top, top + bottom)).contiguous()
        batch, height, width, channels = memory.shape
        (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
        rows, columns = (height - dh * (kh - 1) - 1) // sh + 1, (width - dw * (kw - 1) - 1) // sw + 1
        sample, row, column, _ = memory.stride()
        each = channels // self.groups
        seen = memory.as_strided(
            (self.groups, batch, rows, columns, kh, kw, each),
            (each, sample, sh * row, sw * column, dh * row, dw * column, 1),
        )
        return seen.reshape(self.groups, batch * rows * columns, kh * kw * each)

    def rows(self, y: Tensor) -> Tensor:
        return y.permute(0, 2, 3, 1).flatten(0, 2).unflatten(1, (self.groups, -1)).transpose(0, 1)

    def matrix(self, weight: Tensor) -> Tensor:
        return weight.permute(0, 2, 3, 1).flatten(1).unflatten(0, (self.groups, -1))

    def from_matrix(self, matrix: Tensor) -> Tensor:
        return matrix.flatten(0, 1).unflatten(1, (*self.kernel, -1)).permute(0, 3, 1, 2)

    def apply(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """W x + b: what the layer of this map does."""
        if self._has_products(x, TINY) and not _is_watched(x) and x.shape[1] >= WIDE:
            return _add_bias(self._apply_by_products(x, layer.weight), layer.bias)
        return layer(x)

    def transpose(self, y: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, int]) -> Tensor:
        """V y + c: (batch, *output) to (batch, channels, *size), whatever rows a stride left over."""
        if self._has_products(y, TINY) and not _is_watched(y) and weight.shape[1] >= WIDE:
            return _add_bias(self._transpose_by_products(y, weight, size), bias)
        reached = [
            (rows - 1) * self.stride[i] - 2 * self.padding[i] + self.dilation[i] * (self.kernel[i] - 1) + 1
            for i, rows in enumerate(y.shape[-2:])
        ]
        # Positive: rows that the stride never reached. Negative: trailing padding, which is cut off.
        missing = [max(0, size[i] - reached[i]) for i in range(2)]
        x = F.conv_transpose2d(y, weight, bias, self.stride, self.padding, missing, self.groups, self.dilation)
        return x[..., : size[0], : size[1]]

    def _has_products(self, image: Tensor, largest: int) -> bool:
        """Whether `_meetings` are views, of an image not too large, of a type precise enough to add up in."""
        plain = self.stride == self.dilation == (1, 1) and self.groups == 1 and not image.is_cuda
        return plain and image.shape[2] * image.shape[3] <= largest and image.dtype == wide(image.dtype)

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.trailing[1], 0, self.trailing[0])) if any(self.trailing) else x


def linear_map(layer: nn.Module) -> LinearMap | None:
    """The map of a layer that is exactly a Linear or a Conv2d with zeros around, without hooks; None of any other."""
    if is_hooked(layer):
        return None
    # Types exactly: a subclass may have a forward of its own.
    if type(layer) is nn.Linear:
        return Dense()
    if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
        return Convolution.of(layer)
    return None


def _rows_first(x: Tensor) -> Tensor:
    """(batch, channels, rows, columns) in memory as (rows, batch, columns, channels)."""
    return x.permute(2, 0, 3, 1).contiguous()


def _batch_first(x: Tensor) -> Tensor:
    """The inverse of `_rows_first`, with channels last."""
    return x.permute(1, 3, 0, 2).contiguous(memory_format=torch.channels_last)


def _add_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x.add_(bias.view(-1, 1, 1))


def _is_watched(x: Tensor) -> bool:
    """Whether autograd or autocast expects torch's own operations."""
    return torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type)


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the narrower one of their types: under autocast one may be float32, the images or the output's error."""
    if x.dtype == y.dtype:
        return x, y
    dtype = min(x.dtype, y.dtype, key=lambda dtype: dtype.itemsize)
    return x.to(dtype), y.to(dtype)
