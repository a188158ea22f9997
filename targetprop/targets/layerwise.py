"""Targets that come down block by block, each from the one above."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from targetprop.properties import Needs
from targetprop.targets.base import OutputSignal, TargetRule, adjoint_difference, output_difference
from targetprop.utils.errors import is_number, require

if TYPE_CHECKING:
    from targetprop.network.pair import Pair, Trace
    from targetprop.network.passes import Pass, Scope


@dataclass(frozen=True)
class LayerwiseTargets(TargetRule):
    """Targets that come down block by block, each from the one above.

    Args:
        beta: step size of the output target.
        output_follows_loss: whether the output block follows the loss itself; the first target is then one below,
            t^{N-1} = s^{N-1} - beta dL/ds^{N-1}, as in Lee et al. 2015.
        divide_by_beta: whether local losses are ||F(s) - t||^2 / (2 beta), whose gradients are as large as backprop's:
            the same optimiser then fits both, and another beta is not another learning rate and weight decay.
    """

    beta: float = 0.7
    output_follows_loss: bool = False
    divide_by_beta: bool = False

    def __post_init__(self) -> None:
        require(is_number(self.beta) and self.beta > 0, "beta", "a number above 0", self.beta)
        for key in ("output_follows_loss", "divide_by_beta"):
            require(isinstance(getattr(self, key), bool), key, "true or false", getattr(self, key))

    @property
    def scope(self) -> Scope:
        return "block"

    @property
    def needs(self) -> Needs:
        return Needs(frozenset({"weights"})) if self.output_follows_loss else Needs()  # those of the output block

    @property
    def update_scale(self) -> float:
        return 1.0 if self.divide_by_beta else self.beta

    def weight(self, block: int, blocks: int) -> float:
        by_targets = not (self.output_follows_loss and block == blocks - 1)
        return 1 / self.beta if self.divide_by_beta and by_targets else 1.0

    def needs_feedback(self, block: int, blocks: int) -> bool:
        return 0 < block < blocks - self.output_follows_loss

    def sweep(self, seen: Pass, output: OutputSignal) -> Iterator[tuple[int, Tensor]]:
        last = len(seen.network.pairs) - 1
        difference = output_difference(output.gradient, 1.0 if self.output_follows_loss else self.beta)
        for block in range(last, 0, -1):
            yield block, difference
            difference = self._below(seen, block, difference, follows_loss=self.output_follows_loss and block == last)
        yield 0, difference

    def _below(self, seen: Pass, block: int, difference: Tensor, *, follows_loss: bool) -> Tensor:
        pair, clean = seen.network.pairs[block], seen.trace(block).detach()
        if follows_loss:
            return self.beta * adjoint_difference(pair, clean, difference)
        return self.carry(pair, clean, difference, seen.at_map.get(block))

    @abstractmethod
    def carry(self, pair: Pair, trace: Trace, difference: Tensor, at_map: Tensor | None = None) -> Tensor:
        """d^n to d^{n-1}.

        Args:
            trace: the pair's part of the clean pass.
            at_map: J^T d^n at the output of the pair's linear map, where the forward update found it on its way.
        """


@dataclass(frozen=True)
class DifferenceTargets(LayerwiseTargets):
    """Difference target propagation: t^{n-1} = s^{n-1} + G^n(t^n) - G^n(s^n).

    Lee et al., "Difference Target Propagation", 2015, equation 15, https://arxiv.org/abs/1412.7525.
    """

    def carry(self, pair: Pair, trace: Trace, difference: Tensor, at_map: Tensor | None = None) -> Tensor:
        if at_map is not None and pair.linear is not None and pair.linear.adjoint_above:
            return pair.linear.feed_back(at_map, trace.context)
        return pair.decode_difference(trace.y, difference, trace.context)


@dataclass(frozen=True)
class PlainTargets(LayerwiseTargets):
    """Target propagation without the difference: t^{n-1} = G^n(t^n).

    Bengio, "How Auto-Encoders Could Provide Credit Assignment in Deep Networks via Target Propagation", 2014,
    https://arxiv.org/abs/1407.7906.
    """

    def carry(self, pair: Pair, trace: Trace, difference: Tensor, at_map: Tensor | None = None) -> Tensor:
        return pair.decode(trace.y + difference, trace.context) - trace.x
