"""Feedback that takes its step once a batch's targets are formed: they come down by the feedback as it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from targetprop.feedback.by_loss import ByLoss, ByLossLearning, Gradient
from targetprop.feedback.losses import drl
from targetprop.layers.base import Style
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.passes import Pass, Scope


@dataclass(frozen=True)
class AfterTargets(ByLoss):
    """One gradient step a batch: all gradients are taken with all weights as they were, the steps after the targets.

    Meulemans et al., "A Theoretical Framework for Target Propagation", 2020, https://arxiv.org/abs/2006.14331, train
    so. `ByLoss` has a block's feedback learn before its target goes on, as Ernoult et al. do.
    """

    feedback_training_iterations: int = field(default=1, init=False)
    gradient: Gradient = field(default="autograd", init=False)
    style: Style = "range"

    @property
    def scope(self) -> Scope:
        return "network"  # whatever the loss looks at: steps wait for the targets of all blocks

    def start(self, network: PairedNetwork) -> AfterTargetsLearning:
        if self.loss is drl and network.fed_numbers != list(range(1, len(network.pairs))):
            message = "the difference reconstruction loss comes down from the output itself: set it to false."
            raise UserError(message, key="output_follows_loss")
        if self.init_symmetric_weights:
            network.make_symmetric()
        return AfterTargetsLearning(network, self)


@dataclass(frozen=True)
class DirectAfterTargets(AfterTargets):
    """The same for feedback straight from the output, which is of no style and like no forward weight."""

    init_symmetric_weights: bool = field(default=False, init=False)
    style: Style = field(default="published", init=False)
    styles: ClassVar[frozenset[Style]] = frozenset({"published"})


class AfterTargetsLearning(ByLossLearning):
    """The feedback of a network by one `AfterTargets`."""

    @torch.enable_grad()
    def learn(self, seen: Pass, block: int) -> Tensor:
        if self.optimizer(block) is None or not self._learns(block):
            return self.no_loss(seen, block)
        parameters = self.network.pairs[block].feedback_parameters()
        return self._set_gradients(self._update(seen, block), parameters, seen, block, 0)

    def after_targets(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()

    def explain(self, block: int) -> str:
        how = super().explain(block)
        return f"{how}; one step a batch, after the targets" if self._learns(block) else how
