"""Sizes that a network is told to have, and shapes that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from targetprop.utils.errors import UserError, require, require_whole

IMAGE = 3
"""Dimensions of an image."""


def require_sizes(key: str, sizes: object) -> None:
    """Raise `UserError` unless `sizes` is a list of whole numbers, 1 or more."""
    require(isinstance(sizes, Sequence) and not isinstance(sizes, str), key, "a list of whole numbers", sizes)
    assert isinstance(sizes, Sequence)
    for size in sizes:
        require_whole(key, size, least=1)


def output_shape(block: nn.Module, shape: Sequence[int], name: str) -> torch.Size:
    """Per-sample output shape of a block for a per-sample input shape. The block's statistics stay as they are.

    Raises:
        UserError: the block cannot take such an input; names the block, the layer and the shape.
    """
    x = torch.zeros(2, *shape)
    training = block.training
    block.eval()
    for layer in block if isinstance(block, nn.Sequential) else [block]:
        given = tuple(x.shape[1:])
        try:
            with torch.no_grad():
                x = layer(x)
        except RuntimeError as error:
            size = " x ".join(map(str, given))
            refused = f"Block {name}: {type(layer).__name__} cannot take an input of {size}"
            if len(shape) != IMAGE:
                raise UserError(
                    f"{refused}: it takes images (channels, height, width). An MLP takes inputs of any shape."
                ) from None
            raise UserError(f"{refused}: {error}. The image may be too small for this many pooling layers.") from None
    block.train(training)
    return x.shape[1:]
