"""PairedNetwork: a feed-forward network as ordered pairs of forward blocks and feedback twins."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from targetprop.layers.encoding import Context
from targetprop.layers.shape import not_in_place
from targetprop.layers.twins import twin_of
from targetprop.network.blocks import cut, leaves, pool_first
from targetprop.network.pair import Pair
from targetprop.utils.errors import UserError


@dataclass(frozen=True)
class Trace:
    """One pair's part of a forward pass: its input x (detached), its output y, and the pass's context.

    Gradients flow from y to the block's own parameters and end there. There is a graph for that only where the block
    needs one (its pair has no `forward_part`).
    """

    x: Tensor
    y: Tensor
    context: Context

    def detach(self) -> Trace:
        """The same without the graph to the block's parameters."""
        return Trace(self.x, self.y.detach(), self.context)


class PairedNetwork(nn.Module):
    """Pairs in forward order. The first one has no feedback: there is no target below it to reach.

    Args:
        style: of the twins, one of `STYLES` if they were built by `of`.
        top: whether the output block has feedback; it needs none where it follows the loss itself.
    """

    def __init__(self, pairs: Iterable[Pair], style: str = "own", *, top: bool = True) -> None:
        super().__init__()
        self.style = style
        self.top = top
        self.pairs: Sequence[Pair] = nn.ModuleList(pairs)  # type: ignore[assignment]
        # Convolution and pooling are fastest with channels last, but a layer that we do not know may use `view`.
        self.channels_last = all(map(_is_known, self.modules()))
        if self.channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if not self.forward_parameters():
            raise UserError("A network needs at least one block with parameters.")

    @classmethod
    def of(cls, model: nn.Sequential, style: str = "published", *, top: bool = True) -> PairedNetwork:
        """Cut a Sequential into blocks (see `cut`) and pair each with a new feedback twin, in one of the `STYLES`.

        Raises:
            UserError: a layer above the first block has no feedback twin, or a lazy layer has no weights yet.
        """
        if any(map(is_lazy, model.parameters())):
            raise UserError("The network has lazy layers without weights: call it on one batch first.")
        pairs, blocks = [], cut(model)
        with_feedback = range(2, len(blocks) + top)
        for number, block in enumerate(blocks, start=1):
            name = f"{number} ({', '.join(type(layer).__name__ for layer in leaves(block))})"
            block = pool_first(block)
            for layer in block.modules():
                not_in_place(layer)
            try:
                twin = twin_of(block, style) if number in with_feedback else None
                if twin is not None:
                    twin.to(next(block.parameters()))  # its device and type
                pairs.append(Pair(block, twin, name))
            except UserError as error:
                raise UserError(f"Block {name}: {error}") from None
        if len(pairs) == 1:
            warnings.warn("The network is one block: it has no feedback, and trains as by backprop.", stacklevel=2)
        return cls(pairs, style, top=top)

    @property
    def trained(self) -> list[Pair]:
        """The pairs with feedback, in forward order: all but the first, and but the output block without `top`."""
        return list(self.pairs)[1 : len(self.pairs) if self.top else -1]

    def forward(self, x: Tensor) -> Tensor:
        """Output of the network for x (batch, ...)."""
        x = self._in_order(x)
        for pair in self.pairs:
            x = pair.block(x)
        return x

    def trace(self, x: Tensor) -> list[Trace]:
        """One forward pass, every block's input detached from the block below."""
        traces = []
        x = self._in_order(x)
        for pair in self.pairs:
            traces.append(_trace(pair, x.detach()))
            x = traces[-1].y
        return traces

    def trace_block(self, x: Tensor, number: int) -> Trace:
        """One block's part of a forward pass on x, its number counted from 0."""
        x = self._in_order(x)
        with torch.no_grad():
            for pair in self.pairs[:number]:
                x = pair.block(x)
        return _trace(self.pairs[number], x.detach())

    def _in_order(self, x: Tensor) -> Tensor:
        """x in the memory order that the network works in."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.dim() == 4 else x

    @torch.no_grad()
    def make_symmetric(self) -> None:
        """Copy every forward weight, transposed, to its feedback weight."""
        for pair in self.trained:
            for forward, feedback in pair.weights():
                feedback.copy_(forward)

    def forward_parameters(self) -> list[nn.Parameter]:
        """Parameters of the forward blocks."""
        return [p for pair in self.pairs for p in pair.block.parameters()]

    def feedback_parameters(self) -> list[nn.Parameter]:
        """Parameters of the feedback twins."""
        return [p for pair in self.pairs for p in pair.feedback_parameters()]


def _trace(pair: Pair, x: Tensor) -> Trace:
    with torch.set_grad_enabled(torch.is_grad_enabled() and pair.forward_part is None):
        return Trace(x, *pair.encode(x))


def _is_known(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("torch.nn.", "targetprop."))
