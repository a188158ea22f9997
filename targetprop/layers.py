"""Layers that torch lacks."""

from __future__ import annotations

from torch import Tensor, nn


class Reshape(nn.Module):
    """Reshape every sample to `shape`: (batch, ...) to (batch, *shape)."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.shape)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.shape))
