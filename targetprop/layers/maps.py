"""Linear maps as functions of their weights: what a forward layer and its feedback twin have in common.

A map takes x (batch, *input) to y (batch, *output) with a weight W of the forward layer's shape. Its transpose carries
y back with feedback weights V of that same shape (for `Dense`, the transposed one). As matrices, W is (groups, units,
inputs that a unit sees), and a map is one matrix product of the *patches* of x, (groups, batch * positions, inputs).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.shape import is_hooked, pair_of
from targetprop.utils.errors import UserError
from targetprop.utils.precision import wide


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
        shape = y.shape[1], x.shape[1] // self.groups, *self.kernel
        gradient = torch.ops.aten.convolution_backward(
            y, self._padded(x), y.new_empty(shape), None, self.stride, self.padding, self.dilation, False, (0, 0),
            self.groups, (False, True, False),
        )[1]  # fmt: skip
        return gradient.to(wide(gradient.dtype))

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

    def transpose(self, y: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, int]) -> Tensor:
        """V y + c: (batch, *output) to (batch, channels, *size), whatever rows a stride left over."""
        reached = [
            (rows - 1) * self.stride[i] - 2 * self.padding[i] + self.dilation[i] * (self.kernel[i] - 1) + 1
            for i, rows in enumerate(y.shape[-2:])
        ]
        # Positive: rows that the stride never reached. Negative: trailing padding, which is cut off.
        missing = [max(0, size[i] - reached[i]) for i in range(2)]
        x = F.conv_transpose2d(y, weight, bias, self.stride, self.padding, missing, self.groups, self.dilation)
        return x[..., : size[0], : size[1]]

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


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the narrower one of their types: under autocast one may be float32, the images or the output's error."""
    if x.dtype == y.dtype:
        return x, y
    dtype = min(x.dtype, y.dtype, key=lambda dtype: dtype.itemsize)
    return x.to(dtype), y.to(dtype)
