"""PairedNetwork: a feed-forward network as ordered pairs of forward blocks and their feedback."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.parameter import is_lazy

from targetprop.layers.base import FeedbackLayer, Opaque, Style, not_in_place, rule_of
from targetprop.layers.sequence import feedback_of, leaves
from targetprop.network.blocks import cut, pool_first
from targetprop.network.pair import Pair
from targetprop.network.passes import Trace, trace_pair
from targetprop.utils.errors import UserError

FeedbackBuilder = Callable[[Sequence[nn.Sequential], int, Style], FeedbackLayer | None]
"""(all blocks, number of one from 0, style) -> its feedback, None if it needs none."""


def layer_by_layer(blocks: Sequence[nn.Sequential], number: int, style: Style) -> FeedbackLayer | None:
    """The feedback of difference target propagation: every block but the first has one, to its input space."""
    return feedback_of(blocks[number], style) if number else None


class PairedNetwork(nn.Module):
    """Pairs in forward order.

    Args:
        style: of the feedback layers; "own" if they were not built by `of`.
        fed: numbers of the pairs that carry targets by their feedback, from 0; by default all but the first, below
            which there is no target to reach.

    Raises:
        UserError: no block has parameters.
    """

    def __init__(self, pairs: Iterable[Pair], style: Style | str = "own", *, fed: Sequence[int] | None = None) -> None:
        super().__init__()
        self.style = style
        self.pairs = cast(Sequence[Pair], nn.ModuleList(pairs))
        self.fed_numbers = list(range(1, len(self.pairs)) if fed is None else fed)
        self._containers: tuple[nn.Module, ...] = ()
        for pair in self.pairs:
            _to_channels_last(pair)
        if not self.forward_parameters():
            raise UserError("a network needs at least one block with parameters.", key="network")
        self._fingerprint = self._look()

    @classmethod
    def of(
        cls, model: nn.Sequential, style: Style = "published", feedback: FeedbackBuilder = layer_by_layer
    ) -> PairedNetwork:
        """Cut a Sequential into blocks (see `cut`) and pair each with a new feedback, in this style.

        Raises:
            UserError: a layer has no feedback where it needs one, or a lazy layer has no weights yet.
        """
        if any(map(is_lazy, model.parameters())):
            raise UserError("the network has lazy layers without weights: call it on one batch first.", key="network")
        blocks = cut(model)
        ordered = [pool_first(block) for block in blocks]
        pairs = []
        for number, block in enumerate(blocks):
            name = f"{number + 1} ({', '.join(type(layer).__name__ for layer in leaves(block))})"
            for layer in block.modules():
                not_in_place(layer)
            try:
                made = feedback(ordered, number, style)
            except UserError as error:
                raise UserError(f"block {name}: {error}", key="network") from None
            if made is not None:
                made.to(next(block.parameters()))  # its device and type
            pairs.append(Pair(ordered[number], made, name))
        if len(pairs) == 1:
            warnings.warn("The network is one block: it has no feedback, and trains as by backprop.", stacklevel=2)
        network = cls(pairs, style, fed=[number for number, pair in enumerate(pairs) if pair.feedback is not None])
        network._containers = tuple(each for each in model.modules() if isinstance(each, nn.Sequential))
        return network

    @property
    def fed(self) -> dict[int, Pair]:
        """The pairs that carry targets by their feedback, by number from 0, in forward order."""
        return {number: self.pairs[number] for number in self.fed_numbers}

    @property
    def trained(self) -> list[Pair]:
        """The same pairs as a list."""
        return list(self.fed.values())

    def forward(self, x: Tensor) -> Tensor:
        """Output of the network for x (batch, ...)."""
        self.refresh()
        x = _in_order(x)
        for pair in self.pairs:
            x = pair.rule.apply(pair.block, x)
        return x

    def trace(self, x: Tensor) -> list[Trace]:
        """One forward pass, every block's input detached from the block below."""
        self.refresh()
        traces: list[Trace] = []
        wanted = x.requires_grad and torch.is_grad_enabled()
        x = _in_order(x)
        for pair in self.pairs:
            traces.append(trace_pair(pair, x.detach().requires_grad_(wanted and not traces)))
            x = traces[-1].y
        return traces

    def trace_block(self, x: Tensor, number: int) -> Trace:
        """One block's part of a forward pass on x, its number counted from 0."""
        wanted = x.requires_grad and torch.is_grad_enabled() and number == 0
        x = _in_order(x)
        with torch.no_grad():
            for pair in self.pairs[:number]:
                x = pair.rule.apply(pair.block, x)
        return trace_pair(self.pairs[number], x.detach().requires_grad_(wanted))

    def refresh(self) -> None:
        """Analyse the pairs anew if hooks came or went, or a layer was exchanged, since the last time."""
        if (now := self._look()) == self._fingerprint:
            return
        for container in self._containers:
            if isinstance(rule_of(container), Opaque):
                raise UserError(
                    "a hook on a Sequential is not seen in training; hook its layers instead.", key="network"
                )
        for pair in self.pairs:
            pair.analyse()
        self._fingerprint = now

    def _look(self) -> Hashable:
        """What an analysis depends on and may change: the layers, and their hooks.

        Read from torch's own dictionaries in one go, since every step looks.
        """
        seen: list[int | bool] = [torch_module._has_any_global_hook()]
        for root in (*(pair.block for pair in self.pairs), *self._containers):
            for module in root.modules():
                own = vars(module)
                seen += (
                    id(module),
                    bool(own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"]),
                    bool(own["_backward_pre_hooks"] or "forward" in own),
                )
                for parameter in own["_parameters"].values():
                    if parameter is not None:
                        hooked = parameter._backward_hooks or parameter._post_accumulate_grad_hooks
                        seen.append(bool(hooked))
        return tuple(seen)

    @property
    def dims(self) -> int | None:
        """Number of dimensions that the first block's input must have, that of the batch included; None if several."""
        first = self.pairs[0]
        return first.rule.facts(first.block).dims

    @torch.no_grad()
    def make_symmetric(self) -> None:
        """Copy every forward weight, transposed, to its feedback weight."""
        for pair in self.trained:
            for forward, feedback in pair.weights():
                feedback.copy_(forward)

    def forward_parameters(self) -> list[nn.Parameter]:
        """Parameters of the forward blocks, each once."""
        return list({id(p): p for pair in self.pairs for p in pair.block.parameters()}.values())

    def feedback_parameters(self) -> list[nn.Parameter]:
        """Parameters of the feedback, each once."""
        return list({id(p): p for pair in self.pairs for p in pair.feedback_parameters()}.values())


def _in_order(x: Tensor) -> Tensor:
    """x in the memory order in which convolution and pooling are fastest."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _to_channels_last(pair: Pair) -> None:
    """Put the kernels of known layers and of the feedback into that order; a layer that we do not know may use `view`."""
    known = [
        each for each in pair.block.modules() if not list(each.children()) and not isinstance(rule_of(each), Opaque)
    ]
    for module in (*known, *([] if pair.feedback is None else [pair.feedback])):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
