"""Local representation alignment with error feedback (LRA-E).

Ororbia and Mali, "Biologically Motivated Algorithms for Propagating Local Target Representations", 2018,
https://arxiv.org/abs/1805.11703. The equations are those of its published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from targetprop.learners.base import LearnerRule, add, mean_outputs
from targetprop.learners.dense import DenseLearner, feedback_weight
from targetprop.local import local_loss
from targetprop.properties import Needs, Source
from targetprop.step import Step
from targetprop.utils.errors import UserError, is_number, require

if TYPE_CHECKING:
    from targetprop.learners.dense import Activity


@dataclass(frozen=True)
class LRAE(LearnerRule):
    """Local representation alignment with error feedback (Ororbia and Mali 2018), for fully connected layers.

    At the output e_L = dL/dz_L, of each sample. Downwards, by error weights E,

        d_l = E_{l+1} e_{l+1},   y_l = f_l(z_l - beta d_l),   e_l = h_l - y_l,

    so that the activation is evaluated at the target. Both W and E follow the errors: the gradient of W_l is the mean
    over the batch of e_l h_{l-1}^T, without another f', that of b_l the mean of e_l, and that of E_l gamma times the
    transposed gradient of W_l. Your optimiser trains them all.

    It is no `Algorithm`, because a block does not descend its local loss: that would have f' in it once more.

    Args:
        beta: step size of the targets.
        gamma: of the updates of E, as a multiple of those of W.
        error_std: standard deviation of E at the start.
    """

    beta: float = 0.1
    gamma: float = 1.0
    error_std: float = 0.1
    source: ClassVar[Source] = Source(
        "Ororbia and Mali",
        "Biologically Motivated Algorithms for Propagating Local Target Representations",
        2018,
        "https://arxiv.org/abs/1805.11703",
    )
    needs: ClassVar[Needs] = Needs(frozenset({"weight updates"}))

    def __post_init__(self) -> None:
        for key in ("beta", "error_std"):
            value = getattr(self, key)
            require(is_number(value) and value > 0, key, "a number above 0", value)
        require(is_number(self.gamma) and self.gamma >= 0, "gamma", "a number, 0 or more", self.gamma)

    def start(self, network: nn.Sequential, *, seed: int = 0) -> LRAELearner:
        return LRAELearner(network, self)


class LRAELearner(DenseLearner):
    """Trains a network by `LRAE`; its optimiser is yours."""

    needs = LRAE.needs
    takes_narrow_types = False

    def __init__(self, network: nn.Sequential, rule: LRAE) -> None:
        super().__init__(network, first_fed=1)
        if self.blocks[-1].activation is not None:
            raise UserError(
                "LRA-E starts at a linear output: leave out the activation of the last block.", key="network"
            )
        self.rule = rule
        for parameter in self.network.feedback_parameters():
            nn.init.normal_(parameter, std=rule.error_std)

    def optimizer_parameters(self) -> list[nn.Parameter]:
        """The forward parameters and the error weights."""
        return [*self.network.forward_parameters(), *self.network.feedback_parameters()]

    @torch.no_grad()
    def learn(self, seen: Sequence[Activity], error: Tensor, labels: Tensor | None, keep: bool) -> Step:
        blocks, errors = self.blocks, [error]
        for number in range(len(blocks) - 1, -1, -1):
            below = seen[number - 1] if number else None
            e, pair = errors[0], self.network.pairs[number]
            gradient = e.T @ seen[number].x.to(e.dtype) / len(e)
            add(blocks[number].linear.weight, gradient)
            add(blocks[number].linear.bias, e.mean(0))
            if below is not None:
                weight = feedback_weight(pair)
                target = blocks[number - 1].act(below.z - self.rule.beta * (e @ weight.T))
                errors.insert(0, below.h - target)
                add(weight, self.rule.gamma * gradient.T)
        return Step(
            error.new_zeros(len(blocks) - 1),
            torch.stack([local_loss(each) for each in errors]),
            mean_outputs(seen),
            [each.h.detach() for each in seen] if keep else [],
            [each.h.detach() - e for each, e in zip(seen, errors, strict=True)] if keep else [],
        )
