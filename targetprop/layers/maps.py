"""Linear maps as functions of their weights: what a forward layer and its feedback have in common.

A map takes x (batch, *input) to y (batch, *output) with a weight W of the forward layer's shape. Its transpose carries
y back with feedback weights V of that same shape (for `Dense`, the transposed one). As matrices, W is (groups, units,
inputs that a unit sees), and a map is one matrix product of the *patches* of x, (groups, batch * positions, inputs).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from targetprop.layers.base import Altered, Context, FeedbackLayer


class LinearMap(ABC):
    """A linear map, without its weights."""

    @property
    def channel_dims(self) -> int | None:
        """Dimensions of y, if its units are channels in dimension 1, at all positions one; else None."""
        return None

    @property
    def core(self) -> LinearMap:
        """The map behind what stands before its weights, such as padding that copies units."""
        return self

    def before_core(self, x: Tensor) -> Tensor:
        """The input of `core` for an input x."""
        return x

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


class MapFeedback(FeedbackLayer):
    """Feedback with weights: one linear map V and a bias c, G(y) = V y + c.

    Attributes:
        forward_map: the layer's map, which the feedback transposes.
        map: holds V and c.
    """

    forward_map: LinearMap
    map: nn.Module

    @property
    def weight(self) -> nn.Parameter:
        """V, in the shape in which `map` holds it."""
        weight = self.map.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def bias(self) -> nn.Parameter | None:
        """c, if there is one."""
        bias = self.map.bias
        assert bias is None or isinstance(bias, nn.Parameter)
        return bias

    @property
    def is_linear(self) -> bool:
        return self.bias is None

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self.affine(y, _unaltered(context), self.bias)

    def apply_map(self, y: Tensor, context: Context) -> Tensor:
        """V y, without the bias."""
        return self.affine(y, _unaltered(context), None)

    @abstractmethod
    def affine(self, y: Tensor, context: Context, bias: Tensor | None) -> Tensor:
        """V y + bias, (batch, *input of the layer)."""

    @property
    @abstractmethod
    def transposed(self) -> Tensor:
        """V^T: its weight in the shape of the layer's; a view."""

    @abstractmethod
    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of <x, V y> for V, in its weight's shape; x (batch, *input), y (batch, *layer output)."""


def _unaltered(context: Context) -> Context:
    if isinstance(context, Altered):
        raise context.refuse()
    return context
