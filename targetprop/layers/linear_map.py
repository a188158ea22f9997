"""Linear maps as functions of their weights: what a forward layer and its feedback have in common.

A map takes x (batch, *input) to y (batch, *output) with a weight W of the forward layer's shape. Its transpose carries
y back with feedback weights V of that same shape (for `Dense`, the transposed one). As matrices, W is (groups, units,
inputs that a unit sees), and a map is one matrix product of the *patches* of x, (groups, batch * positions, inputs).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


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
