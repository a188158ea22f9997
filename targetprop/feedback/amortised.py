"""Amortised feedback: genuine difference target propagation at nearly the price of backprop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from targetprop.feedback.responses import ByDeltaRule

if TYPE_CHECKING:
    from targetprop.layers.base import Style


@dataclass(frozen=True)
class Amortised(ByDeltaRule):
    """Feedback of genuine difference target propagation, learned at a fraction of the price of a backprop step.

    L-DRL (Ernoult et al. 2022) drives the feedback of a block towards its transposed Jacobian. Where the activation's
    part in that is known, what is left to learn is W^T, and responses of the forward map to noise tell it. Every
    activation of the feedback is evaluated at the target, and so targets are no linear function of the output's error.

    Args:
        style: "matched", where an activation's feedback is the function whose slope at y is act'(u), and g = 1; or
            "gained", the same activation again with the gain that L-DRL would learn. An activation without a matched
            function is "gained" in either.
    """

    style: Style = "matched"
    styles: ClassVar[frozenset[Style]] = frozenset({"matched", "gained"})

    @property
    def words(self) -> str:
        return "amortised, by the delta rule"
