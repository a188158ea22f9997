"""No feedback weights; the forward weights are kept near orthogonal ones, whose inverse is their transpose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from targetprop.feedback.base import FeedbackRule
from targetprop.feedback.fixed import FixedLearning
from targetprop.layers.sequence import leaves
from targetprop.utils.errors import is_number, require

if TYPE_CHECKING:
    from targetprop.layers.base import Style
    from targetprop.network.network import PairedNetwork
    from targetprop.network.passes import Pass, Scope


@dataclass(frozen=True)
class NearlyOrthogonal(FeedbackRule):
    """Adds the gradient of a penalty on square forward weights: penalty times sum over i != j of (W^T W)_ij^2.

    Ahmad et al., "GAIT-prop", 2020, https://arxiv.org/abs/2006.06438, whose code has W transposed.

    Args:
        penalty: what the sum is multiplied by.
    """

    penalty: float = 0.0
    style: Style = field(default="published", init=False)
    styles: ClassVar[frozenset[Style]] = frozenset({"published"})

    def __post_init__(self) -> None:
        require(is_number(self.penalty) and self.penalty >= 0, "penalty", "a number, 0 or more", self.penalty)

    @property
    def scope(self) -> Scope:
        return "block"

    def start(self, network: PairedNetwork) -> NearlyOrthogonalLearning:
        return NearlyOrthogonalLearning(network, self)


class NearlyOrthogonalLearning(FixedLearning):
    """Adds the penalty's gradient to that of the local losses."""

    def __init__(self, network: PairedNetwork, rule: NearlyOrthogonal) -> None:
        super().__init__(network)
        self.rule = rule

    def after_sweep(self, seen: Pass, local_losses: Tensor) -> None:
        if not self.rule.penalty:
            return
        square = {id(each): each for pair in self.network.pairs for each in leaves(pair.block) if _is_square(each)}
        for layer in square.values():
            weight = layer.weight
            assert isinstance(weight, Tensor)
            if weight.grad is not None:
                weight.grad.add_(penalty_gradient(weight.detach()), alpha=self.rule.penalty)


def penalty_gradient(weight: Tensor) -> Tensor:
    """Of the sum over i != j of (W^T W)_ij^2: 4 W (W^T W without its diagonal)."""
    gram = weight.T @ weight
    return 4 * weight @ (gram - gram.diagonal().diag())


def _is_square(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer.in_features == layer.out_features
