"""Feedback in two halves: a map with an activation behind it, then the correction with an activation of its own.

Shibuya et al., "Fixed-Weight Difference Target Propagation", 2023, https://arxiv.org/abs/2212.10352.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from targetprop.layers.base import Context, FeedbackLayer, Style
from targetprop.layers.lookup import has_matrix
from targetprop.layers.maps import MapFeedback
from targetprop.layers.sequence import FeedbackChain, feedback_of, leaves
from targetprop.layers.standardize import Standardize
from targetprop.utils.errors import unknown

STYLES: tuple[Style, ...] = ("lee", "map")
"""Those of the first half: with the activation behind the map, or without."""


class Standardized(FeedbackLayer):
    """Standardises what comes down as the layer does what goes up."""

    def __init__(self, layer: Standardize) -> None:
        super().__init__()
        self._layer = (layer,)  # no submodule: it is the block's

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self._layer[0].forward(y)


class HalvesFeedback(FeedbackLayer):
    """The first half is g(y) = act(V y), the second c(v) = act_c(v + x - g(F(x))).

    `decode` is the first half; V has no bias. What stands behind V are activation and standardisation of the block
    below, whose output is to be hit; act_c is its standardisation where that comes last, or nothing.

    Args:
        map: V, and around it the feedback of all other layers of the block, in the style "map".
        behind: what stands behind it, in forward order.
    """

    def __init__(self, map: FeedbackChain, behind: Sequence[FeedbackLayer]) -> None:
        super().__init__()
        self.map = map
        self.behind = tuple(behind)  # without weights, and so no submodules

    @property
    def is_linear(self) -> bool:
        return not self.behind and self.map.is_linear

    @property
    def is_affine(self) -> bool:
        return not self.behind and self.map.is_affine

    @property
    def standardizes(self) -> bool:
        """Whether the correction has an activation of its own."""
        return bool(self.behind) and isinstance(self.behind[-1], Standardized)

    def weights(self, layer: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        return self.map.weights(layer)

    def maps(self) -> list[MapFeedback]:
        """All that hold a V."""
        return [each for each in self.map.modules() if isinstance(each, MapFeedback)]

    def reordered(self, order: Sequence[int]) -> HalvesFeedback:
        """The same feedback for the layers of its block in this order."""
        return HalvesFeedback(self.map.reordered(order), self.behind)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        y = self.map.decode(y, context)
        for each in self.behind:
            y = each.decode(y, None)
        return y

    def correct(self, v: Tensor, x: Tensor, clean: Tensor) -> Tensor:
        """c(v), (batch, *input of the block).

        Args:
            v: from the first half.
            x: input of the block on the clean pass.
            clean: g(F(x)).
        """
        moved = v + (x - clean)
        return self.behind[-1].decode(moved, None) if self.standardizes else moved


def halves_of(blocks: Sequence[nn.Sequential], block: int, style: Style) -> HalvesFeedback:
    """The feedback of block number `block`, from 1: the activation behind its map is that of the block below.

    Args:
        style: "lee" with the activation behind the map, "map" without.

    Raises:
        UserError: another style, or a layer of which no feedback is known.
    """
    if style not in STYLES:
        raise unknown("style", style, STYLES)
    chain = feedback_of(blocks[block], "map")
    assert isinstance(chain, FeedbackChain)
    made = HalvesFeedback(chain, _behind(blocks[block - 1], style))
    for each in made.maps():
        each.map.register_parameter("bias", None)
    return made


def _behind(below: nn.Sequential, style: Style) -> list[FeedbackLayer]:
    """Activation and standardisation of a block, those after its last layer with a matrix."""
    found: list[FeedbackLayer] = []
    for layer in leaves(below):
        if has_matrix(layer):
            found.clear()
        elif isinstance(layer, Standardize):
            found.append(Standardized(layer))
        elif style == "lee" and (part := feedback_of(layer, "lee")).is_activation:
            found.append(part)
    return found
