"""A decoder-only Transformer: a language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from targetprop.models.attention import Block, require_transformer, small_weights
from targetprop.utils.errors import UserError, require


class Decoder(nn.Module):
    """Embeddings of tokens and of places, blocks of causal attention, a norm, and logits at every place."""

    def __init__(self, vocabulary: int, time: int, num_classes: int, blocks: Sequence[Block], width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.zeros(time, width))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, time, classes) of tokens (batch, time)."""
        return self.head(self.norm(self.blocks(self.token(tokens) + self.position)))


def decoder(
    image_shape: Sequence[int],
    num_classes: int,
    depth: int = 4,
    width: int = 128,
    heads: int = 4,
    hidden: int = 512,
    activation: str = "gelu",
    dropout: float = 0.0,
    tied: bool = False,
    vocabulary: int | None = None,
) -> Decoder:
    """A decoder-only Transformer as GPT-2.

    Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.

    Args:
        image_shape: (time,) of the sequences of tokens.
        num_classes: of every place.
        depth: number of blocks.
        width: of every place.
        heads: of attention.
        hidden: units of the hidden layer of each block.
        activation: of that layer.
        dropout: share of what a block adds that is dropped.
        tied: whether the last layer has the embeddings as its weights.
        vocabulary: how many different tokens there are; None: as many as classes.

    Raises:
        UserError: no such sizes or activation, or no sequences of tokens.
    """
    require(len(image_shape) == 1, "image_shape", "sequences of tokens (time,)", tuple(image_shape))
    require_transformer(depth, width, heads, hidden, dropout)
    vocabulary = vocabulary or num_classes
    blocks = [Block(width, heads, hidden, True, activation, dropout) for _ in range(depth)]
    net = Decoder(vocabulary, image_shape[0], num_classes, blocks, width)
    small_weights(net)
    nn.init.normal_(net.position, std=0.02)
    if tied:
        if vocabulary != num_classes:
            raise UserError(f"expected false, since {vocabulary} tokens are not {num_classes} classes", key="tied")
        net.head.weight = net.token.weight
    return net
