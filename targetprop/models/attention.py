"""What Transformers are made of: self-attention and its block (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.models.activations import activation_layer
from targetprop.utils.errors import is_number, require, require_whole


class SelfAttention(nn.Module):
    """Scaled dot-product attention of several heads.

    Args:
        width: of every place.
        heads: how many; each sees width / heads numbers.
        causal: whether a place sees only itself and those before it.
    """

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width)."""
        query, key, value = (
            each(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Attention and two fully connected layers, each behind a norm and beside a skip (pre-norm)."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool, activation: str, dropout: float) -> None:
        super().__init__()
        dropped = [nn.Dropout(dropout)] if dropout else []
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.Sequential(SelfAttention(width, heads, causal), *dropped)
        self.norm2 = nn.LayerNorm(width)
        layers = (nn.Linear(width, hidden), activation_layer(activation), nn.Linear(hidden, width))
        self.mlp = nn.Sequential(*layers, *dropped)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width)."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def require_transformer(depth: int, width: int, heads: int, hidden: int, dropout: float) -> None:
    """Raise `UserError` unless these are sizes of a Transformer."""
    for key, value in (("depth", depth), ("width", width), ("heads", heads), ("hidden", hidden)):
        require_whole(key, value, least=1)
    require(width % heads == 0, "heads", f"a number that divides the width, {width}", heads)
    require(is_number(dropout) and 0 <= dropout < 1, "dropout", "a number in [0, 1)", dropout)


def small_weights(network: nn.Module, std: float = 0.02) -> None:
    """Draw linear and embedding weights as GPT-2 and ViT do, with zero biases."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
