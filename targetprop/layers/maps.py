"""Feedback with weights: the transpose of a linear map, with a matrix or kernel of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from torch import Tensor, nn

from targetprop.layers.base import Altered, Context, FeedbackLayer, Style
from targetprop.layers.linear_map import LinearMap


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
    def role(self) -> str:
        return f"feedback weights {'x'.join(map(str, self.weight.shape))}"

    @property
    def is_linear(self) -> bool:
        return self.bias is None

    @property
    def is_affine(self) -> bool:
        return True

    def carry(self, difference: Tensor, context: Context) -> Tensor:
        return self.apply_map(difference, context)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self.affine(y, _unaltered(context), self.bias)

    def apply_map(self, y: Tensor, context: Context) -> Tensor:
        """V y, without the bias."""
        return self.affine(y, _unaltered(context), None)

    def weights(self, layer: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        yield weight.detach(), self.transposed.detach()

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


def has_bias(layer: nn.Module, style: Style) -> bool:
    """Whether the feedback weights of a layer have a bias: as published, where the layer has one; else always."""
    return style != "published" or layer.bias is not None


def _unaltered(context: Context) -> Context:
    if isinstance(context, Altered):
        raise context.refuse()
    return context
