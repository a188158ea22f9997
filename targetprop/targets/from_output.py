"""What target rules have in common that form every block's target from the output's alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from targetprop.properties import Needs
from targetprop.targets.base import TargetRule
from targetprop.utils.errors import is_number, require

if TYPE_CHECKING:
    from targetprop.network.passes import Scope


@dataclass(frozen=True)
class FromOutput(TargetRule):
    """Targets of all blocks from the target of the output, t^N = s^N - beta dL/ds^N.

    Args:
        beta: step size of the output target. The published one stands before the gradient of a mean over the batch, and
            is this one times the size of the batch.
        divide_by_beta: whether local losses are ||F(s) - t||^2 / (2 beta), so that another beta is not another rate.
    """

    beta: float = 1.0
    divide_by_beta: bool = False

    def __post_init__(self) -> None:
        require(is_number(self.beta) and self.beta > 0, "beta", "a number above 0", self.beta)
        require(isinstance(self.divide_by_beta, bool), "divide_by_beta", "true or false", self.divide_by_beta)

    @property
    def scope(self) -> Scope:
        return "network"

    @property
    def needs(self) -> Needs:
        return Needs(global_error=True)

    @property
    def update_scale(self) -> float:
        return 1.0 if self.divide_by_beta else self.beta  # just so at the output

    def weight(self, block: int, blocks: int) -> float:
        return 1 / self.beta if self.divide_by_beta else 1.0
