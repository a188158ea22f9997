"""PairedNetwork: a feed-forward network as ordered pairs of forward blocks and feedback twins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from targetprop.cut import cut, leaves, pool_first
from targetprop.encoding import Context
from targetprop.errors import UserError
from targetprop.pair import Pair
from targetprop.twins import twin_of


@dataclass(frozen=True)
class Trace:
    """One pair's part of a forward pass: its input x (detached), its output y, and the pass's context.

    Gradients flow from y to the block's own parameters and end there.
    """

    x: Tensor
    y: Tensor
    context: Context

    def detach(self) -> Trace:
        """The same without the graph to the block's parameters."""
        return Trace(self.x, self.y.detach(), self.context)


class PairedNetwork(nn.Module):
    """Pairs in forward order. The first one has no feedback: there is no target below it to reach."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        super().__init__()
        self.pairs: Sequence[Pair] = nn.ModuleList(pairs)  # type: ignore[assignment]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolution and pooling are fast so
        if not self.forward_parameters():
            raise UserError("A network needs at least one block with parameters.")

    @classmethod
    def of(cls, model: nn.Sequential) -> PairedNetwork:
        """Cut a Sequential into blocks (see `cut`) and pair each with a new feedback twin.

        Raises:
            UserError: a layer above the first block has no feedback twin, or a lazy layer has no weights yet.
        """
        if any(map(is_lazy, model.parameters())):
            raise UserError("The network has lazy layers without weights: call it on one batch first.")
        pairs = []
        for number, block in enumerate(cut(model), start=1):
            name = f"{number} ({', '.join(type(layer).__name__ for layer in leaves(block))})"
            block = pool_first(block)
            try:
                twin = twin_of(block).to(next(block.parameters())) if number > 1 else None  # its device and type
                pairs.append(Pair(block, twin, name))
            except UserError as error:
                raise UserError(f"Block {name}: {error}") from None
        return cls(pairs)

    @property
    def trained(self) -> list[Pair]:
        """The pairs with feedback, in forward order: all but the first."""
        return list(self.pairs)[1:]

    def forward(self, x: Tensor) -> Tensor:
        """Output of the network for x (batch, ...)."""
        x = _channels_last(x)
        for pair in self.pairs:
            x = pair.block(x)
        return x

    def trace(self, x: Tensor) -> list[Trace]:
        """One forward pass, every block's input detached from the block below."""
        traces = []
        x = _channels_last(x)
        for pair in self.pairs:
            x = x.detach()
            y, context = pair.encode(x)
            traces.append(Trace(x, y, context))
            x = y
        return traces

    def forward_parameters(self) -> list[nn.Parameter]:
        """Parameters of the forward blocks."""
        return [p for pair in self.pairs for p in pair.block.parameters()]

    def feedback_parameters(self) -> list[nn.Parameter]:
        """Parameters of the feedback twins."""
        return [p for pair in self.pairs for p in pair.feedback_parameters()]


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
