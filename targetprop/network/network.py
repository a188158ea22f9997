"""PairedNetwork: a feed-forward network as ordered pairs of forward blocks and their feedback."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from targetprop.layers.base import FeedbackLayer, Style
from targetprop.layers.conv import ConvolutionFeedback
from targetprop.layers.graph import title_of
from targetprop.layers.halves import HalvesFeedback
from targetprop.layers.lookup import Opaque, is_hooked, layers_in, not_in_place, rule_of
from targetprop.layers.operation import Batch
from targetprop.layers.sequence import BranchedRule, FeedbackChain, feedback_to_below, leaves
from targetprop.network.blocks import cut, grouped, is_sequence, opened, pool_first
from targetprop.network.conversion import convert
from targetprop.network.pair import Pair, Trace
from targetprop.network.shapes import Blocks
from targetprop.network.watch import Watch
from targetprop.utils.compiled import refuse_compiled
from targetprop.utils.errors import UserError

FeedbackBuilder = Callable[[Blocks, int, Style], FeedbackLayer | None]
"""(all blocks, number of one from 0, style) -> its feedback, None if it needs none."""


def layer_by_layer(blocks: Sequence[nn.Sequential], number: int, style: Style) -> FeedbackLayer | None:
    """The feedback of difference target propagation: every block but the first has one, to its input space."""
    return feedback_to_below(blocks, number, style) if number else None


def with_convolution_biases(blocks: Sequence[nn.Sequential], number: int, style: Style) -> FeedbackLayer | None:
    """As `layer_by_layer`, and the feedback of every convolution has a bias, whether or not the convolution has one.

    That is how https://github.com/amoudgl/distributed-dtp does it; https://github.com/ernoult/scalingDTP, and so the
    style "published", has a bias in the feedback where there is one in the forward layer.

    >>> network = PairedNetwork.of(model, "published", with_convolution_biases)
    """
    feedback = layer_by_layer(blocks, number, style)
    for each in [] if feedback is None else feedback.modules():
        if isinstance(each, ConvolutionFeedback):
            each.add_bias()
    return feedback


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
        self._layers: list[list[nn.Module]] = []  # in the containers, as they were given
        self._given: tuple[nn.Sequential, ...] = ()  # blocks in the user's order, where pools were put first
        self._batch: Batch | None = None  # that layers look at
        self.owners: tuple[nn.Module, ...] = ()
        self._to_channels_last()
        self._watch = self._new_watch()
        if not self.forward_parameters():
            raise UserError("a network needs at least one block with parameters.", key="network")

    @classmethod
    def of(
        cls,
        model: nn.Module,
        style: Style = "published",
        feedback: FeedbackBuilder = layer_by_layer,
        *,
        input_shape: Sequence[int] | None = None,
        blocks: Sequence[str] | None = None,
    ) -> PairedNetwork:
        """Cut a module into blocks and pair each with a new feedback, in this style.

        A Sequential is cut as `cut` says; of another module what its forward does is put into a sequence of layers
        first (see `convert`). Its parameters are trained where they are.

        Args:
            feedback: makes that of each block.
            input_shape: of one sample, for feedback whose size depends on it (see `Blocks`).
            blocks: names of modules within it, behind the output of each of which a block ends; by default there is
                a block for each layer with weights, as far as the network can be cut.

        Raises:
            UserError: it cannot be traced or cut, a layer has no feedback where it needs one, or a lazy layer has no
                weights yet.
        """
        refuse_compiled(model)
        if any(map(is_lazy, model.parameters())):
            raise UserError("the network has lazy layers without weights: call it on one batch first.", key="network")
        if blocks is None and is_sequence(model):
            return cls._of_blocks(model, cut(cast(nn.Sequential, model)), style, feedback, input_shape)
        made = convert(model, blocks)
        network = cls._of_blocks(model, grouped(made.layers, made.ends), style, feedback, input_shape, made.containers)
        network._batch = made.batch
        return network

    @classmethod
    def _of_blocks(
        cls,
        model: nn.Module,
        blocks: Sequence[nn.Sequential],
        style: Style,
        feedback: FeedbackBuilder,
        input_shape: Sequence[int] | None,
        containers: Sequence[nn.Module] | None = None,
    ) -> PairedNetwork:
        ordered = Blocks([pool_first(block) for block in blocks], input_shape)
        pairs = []
        for number, block in enumerate(blocks):
            name = f"{number + 1} ({', '.join(map(title_of, leaves(block)))})"
            for layer in block.modules():
                not_in_place(layer)
            try:
                made = feedback(ordered, number, style)
            except UserError as error:
                raise error if error.key else UserError(f"block {name}: {error}", key="network") from None
            if made is not None:
                made.to(next(block.parameters()))  # its device and type
            pairs.append(Pair(ordered[number], made, name))
        if len(pairs) == 1:
            warnings.warn("The network is one block: it has no feedback, and trains as by backprop.", stacklevel=2)
        network = cls(pairs, style, fed=[number for number, pair in enumerate(pairs) if pair.feedback is not None])
        branched = [each for each in model.modules() if isinstance(rule_of(each), BranchedRule)]
        branches = [each for layer in branched for each in layer.children()]
        own = opened(cast(nn.Sequential, model)) if containers is None else containers
        network._containers, network.owners = (*own, *branched, *branches), (model,)
        network._layers = _children(network._containers)
        network._given = tuple(blocks)
        network._watch = network._new_watch()
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
        x = self.look_at(_in_order(x))
        for pair in self.pairs:
            x = pair.rule.apply(pair.block, x)
        return x

    def trace(self, x: Tensor) -> list[Trace]:
        """One forward pass, every block's input detached from the block below."""
        self.refresh()
        traces: list[Trace] = []
        wanted = x.requires_grad and torch.is_grad_enabled()
        x = self._look_without_gradient(_in_order(x))
        for pair in self.pairs:
            traces.append(pair.trace(x.detach().requires_grad_(wanted and not traces)))
            x = traces[-1].y
        return traces

    def trace_block(self, x: Tensor, number: int) -> Trace:
        """One block's part of a forward pass on x, its number counted from 0."""
        wanted = x.requires_grad and torch.is_grad_enabled() and number == 0
        x = self._look_without_gradient(_in_order(x))
        with torch.no_grad():
            for pair in self.pairs[:number]:
                x = pair.rule.apply(pair.block, x)
        return self.pairs[number].trace(x.detach().requires_grad_(wanted))

    def look_at(self, x: Tensor) -> Tensor:
        """Have blocks look at this batch, where they look at what they are not run on; returns it."""
        if self._batch is not None:
            self._batch.x = x
        return x

    def _look_without_gradient(self, x: Tensor) -> Tensor:
        """The same in training, where no gradient leads from block to block."""
        if self._batch is None:
            return x
        if x.requires_grad and torch.is_grad_enabled():
            raise UserError(
                "it asks for a gradient, and several blocks look at it, of which only the first would give one: give "
                "x.detach().",
                key="input",
            )
        return self.look_at(x)

    def refresh(self) -> None:
        """Analyse the pairs anew if hooks came or went, or a layer was exchanged, since the last time."""
        if not self._watch.has_noticed():
            return
        if _children(self._containers) != self._layers:
            raise UserError(
                "layers were put in, taken out or exchanged since it was cut into blocks and given its feedback: make "
                "a new Learner of it.",
                key="network",
            )
        for container in self._containers:
            if is_hooked(container, itself_alone=True):
                kind = type(container).__name__
                raise UserError(f"a hook on a {kind} is not seen in training; hook its layers instead.", key="network")
        for pair, given in zip(self.pairs, self._given, strict=False):
            if any(isinstance(rule_of(layer), Opaque) for layer in given):
                restore(pair, given)  # a hook is called with what its layer has where the user put it
        for pair in self.pairs:
            pair.analyse()
        self._watch = self._new_watch()

    def _new_watch(self) -> Watch:
        return Watch([pair.block for pair in self.pairs], self._containers)

    def _to_channels_last(self) -> None:
        """Put kernels into that memory order, too, where all layers take it.

        Beside a layer that may not forward kernels stay as they are: they set the memory order of what the
        network gives when its owner calls it, and that layer may use `view`. So do frozen ones: see `GroupNormRule`.
        """
        foreign = any(not rule_of(each).any_memory_order for pair in self.pairs for each in layers_in(pair.block))
        for pair in self.pairs:
            for module in (None if foreign else pair.block, pair.feedback):
                for parameter in () if module is None else module.parameters():
                    if parameter.dim() == 4 and (parameter.requires_grad or module is pair.feedback):
                        parameter.data = parameter.data.to(memory_format=torch.channels_last)

    @property
    def dims(self) -> int | None:
        """Number of dimensions that the first block's input must have, that of the batch included; None if several."""
        first = self.pairs[0]
        return first.rule.facts(first.block).dims

    @torch.no_grad()
    def make_symmetric(self) -> None:
        """Copy every forward weight, transposed, to its feedback weight.

        Raises:
            UserError: a feedback has weights of its own that mirror none of its block's.
        """
        pairs = [pair for pair in self.trained if pair.feedback_parameters()]
        for pair in pairs:
            if not pair.weights():
                message = f"the feedback of block {pair.name} has no weights like those of the block, set it to false."
                raise UserError(message, key="init_symmetric_weights")
        for pair in pairs:
            for forward, feedback in pair.weights():
                feedback.copy_(forward)

    def train(self, mode: bool = True) -> PairedNetwork:
        """Set the mode of all layers, and of the user's module whose forward they stand for."""
        for each in self.owners:
            each.train(mode)
        return super().train(mode)

    def all_modules(self) -> Iterator[nn.Module]:
        """Its own, and all of the user's module."""
        return chain(self.modules(), *(each.modules() for each in self.owners))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PairedNetwork:
        """Buffers that the user's modules hold themselves go where all parameters go."""
        for each in self._containers:
            each._buffers.update({key: None if b is None else fn(b) for key, b in each._buffers.items()})
        return super()._apply(fn, recurse)

    def forward_parameters(self) -> list[nn.Parameter]:
        """Parameters of the forward blocks, each once."""
        self.refresh()
        return self._watch.parameters()

    def parameters_as_analysed(self) -> list[nn.Parameter]:
        """The same, of the layers as they were when last analysed."""
        return self._watch.parameters()

    def feedback_parameters(self) -> list[nn.Parameter]:
        """Parameters of the feedback, each once."""
        return list({id(p): p for pair in self.pairs for p in pair.feedback_parameters()}.values())


def restore(pair: Pair, given: nn.Sequential) -> None:
    """Put the layers of a pair, and their feedback, into this order of the same layers."""
    assert isinstance(pair.block, nn.Sequential)
    layers, feedback = list(pair.block), pair.feedback
    if list(given) == layers or set(given) != set(layers):
        return
    order = [layers.index(layer) for layer in given]
    pair.block = nn.Sequential(*given)
    if isinstance(feedback, FeedbackChain | HalvesFeedback):
        pair.feedback = feedback.reordered(order)


def _children(containers: Iterable[nn.Module]) -> list[list[nn.Module]]:
    return [list(each.children()) for each in containers]


def _in_order(x: Tensor) -> Tensor:
    """x in the memory order in which convolution and pooling are fastest."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
