"""Shapes of what a block of a network puts out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from targetprop.utils.errors import UserError


def output_shape(block: nn.Sequential, shape: Sequence[int], name: str) -> torch.Size:
    """Per-sample output shape of a block for a per-sample input shape.

    Raises:
        UserError: the block cannot take such an input; names the block, the layer and the shape.
    """
    x = torch.zeros(2, *shape)
    training = block.training
    block.eval()
    for layer in block:
        given = tuple(x.shape[1:])
        try:
            with torch.no_grad():
                x = layer(x)
        except RuntimeError as error:
            size = " x ".join(map(str, given))
            raise UserError(
                f"block {name}: {type(layer).__name__} cannot take an input of {size}: {error}. "
                "The image may be too small for this many pooling layers.",
                key="channels",
            ) from None
    block.train(training)
    return x.shape[1:]
