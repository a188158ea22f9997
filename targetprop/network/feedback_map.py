"""One linear map of a block and its feedback weights, and how the map responds to noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from targetprop.layers.base import Context
    from targetprop.layers.linear_map import LinearMap
    from targetprop.layers.maps import MapFeedback


class FeedbackMap(Protocol):
    """One linear map of a block and its feedback weights V: all that a rule for single maps needs to know."""

    @property
    def layer(self) -> nn.Module:
        """The forward layer."""

    @property
    def map(self) -> MapFeedback:
        """The feedback that holds V."""

    @property
    def known(self) -> bool:
        """Whether the forward layer is its linear map and nothing else runs with it."""

    def map_input(self, x: Tensor, context: Context) -> Tensor:
        """The input of the forward layer for an input x of the block, which had this context."""


def where_noise_enters(part: FeedbackMap) -> LinearMap:
    """The map whose inputs are noise: behind padding that copies units, where noise would not be white any more.

    A layer that is measured can only be given noise before all that it does.
    """
    return part.map.forward_map.core if part.known else part.map.forward_map


def entering(part: FeedbackMap, x: Tensor) -> Tensor:
    """The input of that map for an input x of the layer."""
    return part.map.forward_map.before_core(x) if part.known else x


def response_to(part: FeedbackMap, eps: Tensor, patches: Tensor) -> Tensor:
    """What the forward map makes of noise where it enters, (groups, rows * positions, units).

    Args:
        eps: the noise, (rows, *input), in the type of V.
        patches: what every unit sees of it.
    """
    found, layer = part.map.forward_map, part.layer
    if part.known:
        assert isinstance(layer.weight, Tensor)
        return patches @ found.matrix(layer.weight).mT
    y = layer(torch.cat((eps, torch.zeros_like(eps[:1]))))
    return found.rows(y[:-1] - y[-1:])
