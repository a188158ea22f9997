"""Layers that torch lacks, and settings of layers that it has."""

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


def pair_of(value: int | tuple[int, ...] | str) -> tuple[int, int]:
    """A setting of a two-dimensional layer, (height, width), that may have been given as one number."""
    assert not isinstance(value, str)  # padding by name is for its caller to work out
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def is_hooked(layer: nn.Module) -> bool:
    """Whether code that its type does not tell of runs with it: hooks, also those by which torch prunes weights."""
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return True
    own = layer._parameters.values()
    return any(p is not None and (p._backward_hooks or p._post_accumulate_grad_hooks) for p in own)


def not_in_place(layer: nn.Module) -> None:
    """Have a layer write to memory of its own: in place it would write over activations that the rules still read."""
    if getattr(layer, "inplace", False):
        setattr(layer, "inplace", False)  # noqa: B010
