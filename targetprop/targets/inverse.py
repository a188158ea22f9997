"""Targets by exact inverses of the blocks, in steps so small that they are errors: GAIT-prop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from targetprop.layers.fixed import FirstUnits
from targetprop.layers.lookup import rule_of
from targetprop.layers.sequence import leaves
from targetprop.properties import Needs
from targetprop.targets.base import OutputSignal, TargetRule, output_difference
from targetprop.utils.errors import UserError, is_number, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from targetprop.layers.base import FeedbackLayer, Style
    from targetprop.network.pair import Trace
    from targetprop.network.passes import Pass, Scope


@dataclass(frozen=True)
class InverseTargets(TargetRule):
    """Gradient-adjusted incremental targets, for invertible blocks F(h) = f(W h + b), f a leaky ReLU, W square.

        t^{n-1} = F^-1((1 - gamma f'^2) s^n + gamma f'^2 t^n)

    and the local loss of a block k below the output is 1 / gamma^k times 1/2 ||F(s) - t||^2. Where W is orthogonal its
    gradient is backprop's, as gamma goes to zero; for any gamma that moves no unit across the kink of f it is exactly
    that. Units that a `FirstUnits` drops keep their value as target.

    Ahmad, van Gerven and Ambrogioni, "GAIT-prop: A biologically plausible learning rule derived from backpropagation of
    error", 2020, https://arxiv.org/abs/2006.06438; equations as in its published code. There the output's target is the
    one-hot vector, which is what beta = 1 gives with the loss 1/2 ||s - onehot||^2.

    What is carried down is the difference of target and activation itself, so float32 is enough: t and s, which gamma =
    1e-3 brings ever closer, are never subtracted.

    Args:
        gamma: the share of an error that targets move by.
        beta: step size of the output target.
    """

    gamma: float = 1e-3
    beta: float = 1.0

    def __post_init__(self) -> None:
        require(is_number(self.gamma) and 0 < self.gamma <= 1, "gamma", "a number above 0, at most 1", self.gamma)
        require(is_number(self.beta) and self.beta > 0, "beta", "a number above 0", self.beta)

    @property
    def scope(self) -> Scope:
        return "block"

    @property
    def needs(self) -> Needs:
        return Needs(frozenset({"weights"}))  # whose inverse it is

    @property
    def update_scale(self) -> float:
        return self.beta

    def weight(self, block: int, blocks: int) -> float:
        return float(self.gamma ** (block + 1 - blocks))

    def needs_feedback(self, block: int, blocks: int) -> bool:
        return False

    def feedback_layer(self, blocks: Sequence[nn.Sequential], block: int, style: Style) -> FeedbackLayer | None:
        for layer in leaves(blocks[block]) if block else ():
            refuse_not_invertible(layer)
        return None

    def sweep(self, seen: Pass, output: OutputSignal) -> Iterator[tuple[int, Tensor]]:
        difference = output_difference(output.gradient, self.beta)
        for block in range(len(seen.network.pairs) - 1, -1, -1):
            yield block, difference
            if block:
                difference = self._below(seen.network.pairs[block].block, seen.trace(block), difference)

    def _below(self, block: nn.Module, trace: Trace, difference: Tensor) -> Tensor:
        """t^{n-1} - s^{n-1}, by the inverse of every layer."""
        layers, inputs = leaves(block), [trace.x.detach()]
        for layer in layers[:-1]:
            inputs.append(rule_of(layer).run(layer, inputs[-1])[0].detach())
        for layer, x in zip(reversed(layers), reversed(inputs), strict=True):
            if isinstance(layer, nn.Linear):
                weight = layer.weight.detach()
                difference = torch.linalg.solve(weight, difference.to(weight.dtype).T).T
            elif isinstance(layer, nn.LeakyReLU):
                difference = _through_leaky_relu(layer.negative_slope, x, difference, self.gamma)
            else:
                difference = rule_of(layer).vjp(layer, difference, x.shape[1:])
        return difference


def refuse_not_invertible(layer: nn.Module) -> None:
    """Raise `UserError` for a layer of which no exact inverse is known here."""
    square = isinstance(layer, nn.Linear) and layer.in_features == layer.out_features
    leaky = isinstance(layer, nn.LeakyReLU) and layer.negative_slope > 0
    if square or leaky or isinstance(layer, FirstUnits) or rule_of(layer).facts(layer).reshapes:
        return
    raise UserError(
        f"{layer} has no inverse that is known; expected square linear layers and leaky ReLUs with a slope above 0, as "
        "in network=invertible_mlp."
    )


def _through_leaky_relu(slope: float, x: Tensor, difference: Tensor, gamma: float) -> Tensor:
    """f^-1(f(x) + gamma f'(x)^2 difference) - x."""
    slopes = _slopes(x, slope)
    moved = gamma * slopes.square() * difference
    y = slopes * x + moved
    crosses = (y > 0) != (x > 0)
    return torch.where(crosses, y / _slopes(y, slope) - x, moved / slopes)


def _slopes(x: Tensor, slope: float) -> Tensor:
    """1 where x is above 0, else the slope."""
    return torch.full_like(x, slope).masked_fill_(x > 0, 1.0)
