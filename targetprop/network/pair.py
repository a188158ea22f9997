"""Pair: a forward block and its feedback twin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from targetprop.layers.encoding import Context, encode
from targetprop.layers.residual import Residual, ResidualTwin, branch_maps
from targetprop.layers.twins import ChainTwin, LinearMapTwin, Twin
from targetprop.network.forward_part import ForwardPart, forward_part
from targetprop.network.linear_feedback import FeedbackMap, LinearPart, linear_part
from targetprop.utils.errors import UserError
from targetprop.utils.precision import wide


class Pair(nn.Module):
    """A forward block F^n and its feedback twin G^n.

    Args:
        block: the forward block; a layer or layers in sequence.
        twin: its feedback twin; None for the first block, below which no target is needed.
        name: how messages call it, e.g. "2 (Conv2d, ELU, MaxPool2d)".

    Attributes:
        linear: the linear part of the twin, or in words why it has none.
        maps: its linear maps, if each can learn by itself: that of the linear part, or those of a residual block.
    """

    def __init__(self, block: nn.Module, twin: Twin | None, name: str = "block") -> None:
        super().__init__()
        self.block = block
        self.twin = twin
        self.name = name
        self.linear: LinearPart | str = linear_part(block, twin)
        self.maps: tuple[FeedbackMap, ...] = (
            (self.linear,) if isinstance(self.linear, LinearPart) else branch_maps(block, twin)
        )

    @property
    def forward_part(self) -> ForwardPart | None:
        """The block as a chain whose gradients need no autograd, or None; found anew: it may be pruned, or hooked."""
        as_it_is = type(self).encode is Pair.encode  # else the context may be another
        return forward_part(self.block) if as_it_is else None

    def encode(self, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        """F(x) and the context of this pass; `clean` is the context of the clean pass if this one is noisy."""
        return encode(self.block, x, clean)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        """G(y): from the block's output space (batch, ...) to its input space, decoded with `context`."""
        if self.twin is None:
            raise UserError(f"Block {self.name} has no feedback twin.")
        return self.twin.decode(y, context)

    def decode_difference(self, y: Tensor, difference: Tensor, context: Context) -> Tensor:
        """G(y + difference) - G(y), in one pass through the twin's linear part where it has one."""
        if self.twin is not None and self.twin.is_linear:
            return self.decode(difference, context)
        part = self.linear
        if not isinstance(part, LinearPart):
            return self.decode(y + difference, context) - self.decode(y, context)
        if part.adjoint_above:
            return part.feed_back(part.features(difference, context), context)
        clean = y.to(wide(y.dtype))  # bfloat16 would not hold the difference of features that nearly agree
        return part.feed_back(part.features_difference(clean, difference, context).to(y.dtype), context)

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Forward weight W and transposed feedback weight V^T of every linear layer, in one shape; detached views."""
        return [] if self.twin is None else list(_weights(self.block, self.twin))

    @property
    def carries_differences(self) -> bool:
        """Whether `decode_difference` forms no difference of nearly equal numbers in a narrow type."""
        return isinstance(self.linear, LinearPart) or (self.twin is not None and self.twin.is_linear)

    def feedback_parameters(self) -> list[nn.Parameter]:
        """The weights of the twin, none without one."""
        return [] if self.twin is None else list(self.twin.parameters())


def _weights(layer: nn.Module, twin: Twin) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(layer, nn.Sequential) and isinstance(twin, ChainTwin):
        for child, part in zip(layer, twin.twins, strict=True):
            yield from _weights(child, cast(Twin, part))
    elif isinstance(layer, Residual) and isinstance(twin, ResidualTwin):
        for branch, chain in zip(layer.branches, twin.branches, strict=True):
            yield from _weights(branch, chain)
    elif isinstance(twin, LinearMapTwin):
        yield cast(Tensor, layer.weight).detach(), twin.transposed.detach()
