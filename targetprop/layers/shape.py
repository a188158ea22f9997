"""Layers that move units about, add some around them, or some between them."""

from __future__ import annotations

from torch import Tensor, nn

from targetprop.layers.base import Context, Facts, LayerRule, LinearByAutograd, register


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


def _of_dims(name: str, *dims: int) -> dict[type[nn.Module], int]:
    """The layers of torch by this name and a number of spatial dimensions, and the dimensions of their batches."""
    return {getattr(nn, f"{name}{each}d"): each + 2 for each in dims}


CONSTANT = _of_dims("ConstantPad", 1, 2, 3)
PADS = {
    **CONSTANT,
    **_of_dims("ZeroPad", 1, 2, 3),
    **_of_dims("ReflectionPad", 1, 2, 3),
    **_of_dims("ReplicationPad", 1, 2, 3),
    **_of_dims("CircularPad", 1, 2, 3),
}
"""Dimensions of a batch for layers that pad."""


@register(*PADS)
class PaddingRule(LinearByAutograd):
    """What was copied from one unit adds up there on the way back; the constant around an image gets nothing."""

    def facts(self, layer: nn.Module) -> Facts:
        fits_several = isinstance(layer, tuple(CONSTANT))  # zeros and other constants go around anything
        dims = None if fits_several else next(n for kind, n in PADS.items() if isinstance(layer, kind))
        return Facts(linear=getattr(layer, "value", 0) == 0, dims=dims)


@register(nn.Upsample)
class UpsampleRule(LinearByAutograd):
    """Interpolation, by any mode, is linear."""

    def facts(self, layer: nn.Upsample) -> Facts:  # type: ignore[override]
        dims = {"linear": 3, "bilinear": 4, "bicubic": 4, "trilinear": 5}
        return Facts(linear=True, dims=dims.get(layer.mode))


@register(nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
class ShuffleRule(LinearByAutograd):
    """Channels to places within a channel, places to channels, or channels to other channels."""
