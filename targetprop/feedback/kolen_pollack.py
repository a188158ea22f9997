"""Kolen-Pollack feedback learning: feedback weights take the updates of the forward weights.

With the same update and the same weight decay on both, V - W^T decays to zero (Kolen and Pollack, "Backpropagation
without weight transport", 1994; for deep networks Akrout et al., "Deep Learning without Weight Transport", 2019,
https://arxiv.org/abs/1904.05391). The update is a product of two activities that both weights see, so nothing is
transported; but it is another rule than L-DRL, and needs weight decay: after t steps at rate lr, (1 - lr decay)^t of
the initial difference is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from targetprop.feedback.base import FeedbackLearning, FeedbackRule
from targetprop.layers.base import STYLES, Style
from targetprop.properties import Needs
from targetprop.utils.errors import UserError, require

if TYPE_CHECKING:
    from targetprop.network.feedback_map import FeedbackMap
    from targetprop.network.network import PairedNetwork
    from targetprop.network.passes import Pass, Scope


@dataclass(frozen=True)
class KolenPollack(FeedbackRule):
    """Your optimiser trains the feedback weights, too, with the gradients of the forward weights.

    Args:
        init_symmetric_weights: whether feedback weights start as the transposed forward weights.
        style: of the feedback layers.
    """

    init_symmetric_weights: bool = False
    style: Style = "linear"
    styles: ClassVar[frozenset[Style]] = frozenset(STYLES)

    def __post_init__(self) -> None:
        symmetric = self.init_symmetric_weights
        require(isinstance(symmetric, bool), "init_symmetric_weights", "true or false", symmetric)
        self.check_style()

    @property
    def scope(self) -> Scope:
        return "block"

    @property
    def needs(self) -> Needs:
        return Needs(frozenset({"weight updates"}))

    def start(self, network: PairedNetwork) -> KolenPollackLearning:
        for pair in network.trained:
            own = pair.maps and all(isinstance(each.layer.weight, nn.Parameter) for each in pair.maps)
            if pair.feedback_parameters() and not own:
                raise UserError(
                    f"block {pair.name}: Kolen-Pollack learning needs a weight matrix for each one of the feedback; "
                    "use another rule, such as 'dtp'.",
                    key="network",
                )
        if self.init_symmetric_weights:
            network.make_symmetric()
        return KolenPollackLearning(network)


class KolenPollackLearning(FeedbackLearning):
    """Gives V the gradient of W, for the optimiser that W has."""

    @property
    def learns_alone(self) -> bool:
        return False  # V takes the gradients of W

    def learn(self, seen: Pass, block: int) -> Tensor:
        return self.no_loss(seen, block)

    def after_sweep(self, seen: Pass, local_losses: Tensor) -> None:
        for pair in self.network.trained:  # now that weights that blocks share have all of their gradient
            for each in pair.maps:
                if each.map.weight.requires_grad:
                    _mirror_gradient(each)

    def parameters_for_the_user(self) -> list[nn.Parameter]:
        return [each.map.weight for pair in self.network.trained for each in pair.maps]

    def explain(self, block: int) -> str:
        maps = self.network.pairs[block].maps
        if not any(each.map.weight.requires_grad for each in maps):
            return "feedback stays as it is, its weights are frozen"
        return "Kolen-Pollack" if len(maps) == 1 else f"Kolen-Pollack, each of its {len(maps)} linear maps by itself"


@torch.no_grad()
def _mirror_gradient(part: FeedbackMap) -> None:
    gradient, weight = part.layer.weight.grad, part.map.weight
    assert gradient is None or isinstance(gradient, Tensor)
    if gradient is None:
        weight.grad = None
        return
    if weight.grad is None:
        weight.grad = torch.empty_like(weight)
    weight.grad.copy_(gradient if gradient.dim() > 2 else gradient.t())
