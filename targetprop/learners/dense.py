"""Networks of fully connected blocks, for rules that are known for these alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

from torch import Tensor, nn

from targetprop.layers.activation import Elementwise
from targetprop.layers.base import AdjointFeedback, IgnoredFeedback
from targetprop.layers.linear import DenseFeedback
from targetprop.layers.lookup import Opaque, rule_of
from targetprop.layers.sequence import FeedbackChain, leaves
from targetprop.learners.base import LocalLearner
from targetprop.network.network import PairedNetwork
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from targetprop.layers.base import FeedbackLayer, Style
    from targetprop.network.network import FeedbackBuilder
    from targetprop.network.pair import Pair


@dataclass(frozen=True)
class DenseBlock:
    """A block of layers that reshape, a linear one, and perhaps an activation.

    Attributes:
        before: the layers that reshape.
        activation: None of a linear block.
    """

    before: tuple[nn.Module, ...]
    linear: nn.Linear
    activation: nn.Module | None

    @classmethod
    def of(cls, layers: Sequence[nn.Module]) -> DenseBlock | None:
        """The block of these layers; None if they are others, or have parameters beside those of the linear one."""
        before = [layer for layer in layers if rule_of(layer).facts(layer).reshapes]
        others = list(layers[len(before) :])
        if before != list(layers[: len(before)]) or not others or not _is_linear(others[0]):
            return None
        linear, above = cast(nn.Linear, others[0]), others[1:]
        known = len(above) <= 1 and all(map(_is_activation, above))
        return cls(tuple(before), linear, above[0] if above else None) if known else None

    def act(self, z: Tensor) -> Tensor:
        """f(z)."""
        return z if self.activation is None else self.activation(z)


class Activity(NamedTuple):
    """What a block did with a batch: its input (batch, inputs), and its units before and behind the activation."""

    x: Tensor
    z: Tensor
    h: Tensor


def bare_feedback(first: int) -> FeedbackBuilder:
    """Feedback weights without a bias for the blocks from number `first` on: y V^T, for y behind an activation, too.

    What else a rule does with it is the rule's.
    """

    def feedback(blocks: Sequence[nn.Sequential], number: int, style: Style) -> FeedbackLayer | None:
        return _feedback(leaves(blocks[number])) if number >= first else None

    return feedback


def dense_blocks(pairs: Sequence[Pair]) -> list[DenseBlock]:
    """The blocks of a network that is fully connected.

    Raises:
        UserError: one of them is another one.
    """
    found = []
    for pair in pairs:
        block = DenseBlock.of(leaves(pair.block))
        if block is None:
            raise UserError(
                f"expected blocks of one linear layer and perhaps one activation, for which alone this rule's "
                f"equations are known, got block {pair.name}: use network=mlp, or another rule.",
                key="network",
            )
        found.append(block)
    return found


def run(blocks: Sequence[DenseBlock], x: Tensor) -> list[Activity]:
    """What every block does with a batch x (batch, ...); no graph leads from block to block."""
    seen = []
    for block in blocks:
        for layer in block.before:
            x = layer(x)
        z = block.linear(x)
        seen.append(Activity(x, z, block.act(z)))
        x = seen[-1].h.detach()
    return seen


def feedback_weight(pair: Pair) -> nn.Parameter:
    """V of a block, (inputs, units)."""
    assert pair.linear is not None
    return pair.linear.map.weight


class DenseLearner(LocalLearner):
    """A learner of fully connected blocks: its forward pass has no graph from block to block.

    Args:
        network: a Sequential, cut into blocks as `PairedNetwork.of` says.
        first_fed: number of the first block, from 0, that has feedback weights.

    Raises:
        UserError: a block is not fully connected.

    Attributes:
        network: with feedback weights of each block that the rule needs some of.
    """

    def __init__(self, network: nn.Sequential, first_fed: int) -> None:
        if not isinstance(network, nn.Sequential):
            raise UserError(f"expected an nn.Sequential, got {type(network).__name__}.", key="network")
        super().__init__(PairedNetwork.of(network, "map", bare_feedback(first_fed)))
        dense_blocks(self.network.pairs)

    def see(self, x: Tensor) -> tuple[list[Activity], Tensor]:
        """What every block did; there is a graph within each."""
        seen = run(self.blocks, x)
        return seen, seen[-1].h

    @property
    def blocks(self) -> list[DenseBlock]:
        """The blocks in forward order."""
        self.network.refresh()
        return dense_blocks(self.network.pairs)


def _feedback(layers: Sequence[nn.Module]) -> FeedbackChain | None:
    """V for the linear layer, and nothing for the activation; None of layers that are others."""
    if DenseBlock.of(layers) is None:
        return None
    parts: list[FeedbackLayer] = []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            parts.append(DenseFeedback(layer, bias=False))
        elif _is_activation(layer):
            parts.append(IgnoredFeedback())
        else:
            parts.append(AdjointFeedback(layer, rule_of(layer)))
    return FeedbackChain(parts, "map")


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and isinstance(layer.weight, nn.Parameter)  # not one that is computed


def _is_activation(layer: nn.Module) -> bool:
    rule = rule_of(layer)
    return isinstance(rule.known if isinstance(rule, Opaque) else rule, Elementwise)
