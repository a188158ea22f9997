"""Dropout: its mask is part of the pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from targetprop.layers.base import Context, Facts, LayerRule, register

Masking = nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d
BATCHED: dict[type[nn.Module], int] = {nn.Dropout1d: 3, nn.Dropout2d: 4, nn.Dropout3d: 5}
"""Dimensions of a batch for dropout of whole channels."""


@register(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
class DropoutRule(LayerRule[Masking]):
    """A linear map once its mask is drawn, of units or of whole channels; noisy passes keep the clean pass's mask.

    The context is the mask. Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015,
    https://arxiv.org/abs/1411.4280, for whole channels.
    """

    any_memory_order = True

    def facts(self, layer: Masking) -> Facts:
        of_images = isinstance(layer, nn.Dropout2d)  # takes (batch, channels, length), too
        return Facts(linear=True, varies=True, dims=None if of_images else _batched_dims(layer))

    def run(self, layer: Masking, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        mask = layer.forward(_ones(layer, x)) if clean is None else clean
        return x * mask, mask

    def vjp(self, layer: Masking, delta: Tensor, context: Context) -> Tensor:
        return delta * context


def _ones(layer: Masking, x: Tensor) -> Tensor:
    """What a mask is drawn for: all units, or one of each channel where the layer masks whole channels."""
    if x.dim() == _batched_dims(layer):
        return x.new_ones(*x.shape[:2], *[1] * (x.dim() - 2))
    return torch.ones_like(x)


def _batched_dims(layer: Masking) -> int | None:
    return next((dims for kind, dims in BATCHED.items() if isinstance(layer, kind)), None)
