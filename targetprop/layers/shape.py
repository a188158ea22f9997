"""Layers that move units about without changing them."""

from __future__ import annotations

from torch import Tensor, nn

from targetprop.layers.base import Context, Facts, LayerRule, register


class Reshape(nn.Module):
    """Reshape every sample to `shape`: (batch, ...) to (batch, *shape)."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.shape)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.shape))


@register(nn.Flatten, nn.Unflatten, Reshape)
class ReshapingRule(LayerRule[nn.Module]):
    """The way back is a reshape to the input's shape."""

    any_memory_order = True

    def facts(self, layer: nn.Module) -> Facts:
        return Facts(linear=True, reshapes=True)

    def vjp(self, layer: nn.Module, delta: Tensor, context: Context) -> Tensor:
        return delta.reshape(len(delta), *context)


@register(nn.Identity)
class IdentityRule(LayerRule[nn.Identity]):
    """Nothing to do, either way."""

    any_memory_order = True

    def facts(self, layer: nn.Identity) -> Facts:
        return Facts(linear=True)

    def vjp(self, layer: nn.Identity, delta: Tensor, context: Context) -> Tensor:
        return delta
