"""Dropout: its mask is part of the pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.base import Context, Facts, LayerRule, register


@register(nn.Dropout)
class DropoutRule(LayerRule[nn.Dropout]):
    """A linear map once its mask is drawn; noisy passes keep the clean pass's mask."""

    any_memory_order = True

    def facts(self, layer: nn.Dropout) -> Facts:
        return Facts(linear=True, varies=True)

    def run(self, layer: nn.Dropout, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        mask = F.dropout(torch.ones_like(x), layer.p, layer.training) if clean is None else clean
        return x * mask, mask

    def vjp(self, layer: nn.Dropout, delta: Tensor, context: Context) -> Tensor:
        return delta * context
