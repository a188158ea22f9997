"""Embeddings: rows of a matrix, by whole numbers."""

from __future__ import annotations

from torch import Tensor, nn

from targetprop.layers.base import FeedbackLayer, LayerRule, Style, register
from targetprop.utils.errors import UserError


@register(nn.Embedding)
class EmbeddingRule(LayerRule[nn.Embedding]):
    """Where a network begins: no difference goes down to whole numbers, so there is no feedback."""

    any_memory_order = True
    keeps_dims = False

    def apply(self, layer: nn.Embedding, x: Tensor) -> Tensor:
        y: Tensor = layer(x)
        return y

    def feedback(self, layer: nn.Embedding, style: Style) -> FeedbackLayer:
        raise UserError(
            "an Embedding takes whole numbers, to which no target comes down: it belongs into the first block."
        )
