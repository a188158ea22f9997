"""A vision Transformer, small enough for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from targetprop.models.attention import Block, require_transformer, small_weights
from targetprop.models.patches import require_patches


class VisionTransformer(nn.Module):
    """Linear maps of patches, learned places, blocks of attention, a norm, the mean over all places, logits."""

    def __init__(self, channels: int, patch: int, places: int, num_classes: int, blocks: Sequence[Block], width: int):
        super().__init__()
        self.patch = nn.Conv2d(channels, width, patch, patch)
        self.position = nn.Parameter(torch.zeros(places, width))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        x = self.patch(images).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


def vit(
    image_shape: Sequence[int],
    num_classes: int,
    patch: int = 4,
    depth: int = 6,
    width: int = 128,
    heads: int = 4,
    hidden: int = 256,
    activation: str = "gelu",
    dropout: float = 0.0,
) -> VisionTransformer:
    """A vision Transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929), small, without a class token.

    The mean over all places stands for it, as by Beyer et al. 2022 (https://arxiv.org/abs/2205.01580).

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: size of the output.
        patch: sides of a patch, in pixels.
        depth: number of blocks.
        width: of every place.
        heads: of attention.
        hidden: units of the hidden layer of each block.
        activation: of that layer.
        dropout: share of what a block adds that is dropped.

    Raises:
        UserError: no such sizes or activation, or patches that do not fit into the images.
    """
    places = require_patches(image_shape, patch)
    require_transformer(depth, width, heads, hidden, dropout)
    blocks = [Block(width, heads, hidden, False, activation, dropout) for _ in range(depth)]
    net = VisionTransformer(image_shape[0], patch, places, num_classes, blocks, width)
    small_weights(net)
    nn.init.normal_(net.position, std=0.02)
    return net
