"""Target propagation through time by regularised inverses (TPRI): nothing learns but the network.

Roulet and Harchaoui, "Target Propagation via Regularized Inversion for Recurrent Neural Networks", Transactions on
Machine Learning Research, 2023, https://arxiv.org/abs/2112.01453.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from targetprop.learners.base import LearnerRule
from targetprop.learners.through_time import ThroughTimeLearner, Unrolled
from targetprop.properties import Needs, Source
from targetprop.utils.errors import is_number, require

SOURCE = Source(
    "Roulet and Harchaoui",
    "Target Propagation via Regularized Inversion for Recurrent Neural Networks",
    2023,
    "https://arxiv.org/abs/2112.01453",
    "equations read in the authors' code; losses at several steps are an extension",
)


@dataclass(frozen=True)
class TPRI(LearnerRule):
    """Difference target propagation by regularised inverses (Roulet and Harchaoui 2023), for tanh units.

    The inverse of h_t = tanh(W x_t + U h_{t-1} + b), by ridge regression of what is before the activation, is

        R(h) = (U^T U + r)^-1 U^T (artanh(h) - W x_t - b),

    with h clipped to [-1 + margin, 1 - margin], and target of h_{t-1} = h_{t-1} + R(target of h_t) - R(h_t). So the
    activation's inverse is evaluated at the target. With r = 0, an invertible U and targets within the margin, a target
    is hit exactly by the target below it.

    Args:
        step: of the last target, against each sample's gradient of the loss.
        regularization: r.
        margin: by which activations stay away from -1 and 1.
    """

    step: float = 1.0
    regularization: float = 0.1
    margin: float = 1e-3
    source: ClassVar[Source] = SOURCE
    needs: ClassVar[Needs] = Needs(frozenset({"weights"}))

    def __post_init__(self) -> None:
        require(is_number(self.step) and self.step > 0, "step", "a number above 0", self.step)
        met = is_number(self.regularization) and self.regularization >= 0
        require(met, "regularization", "a number, 0 or more", self.regularization)
        require(is_number(self.margin) and 0 < self.margin < 1, "margin", "a number in (0, 1)", self.margin)

    def start(self, network: nn.Sequential, *, seed: int = 0) -> TPRILearner:
        return TPRILearner(network, self)


@dataclass(frozen=True)
class TPRILinearized(TPRI):
    """The same with the inverse's Jacobian in place of its difference, as the paper's experiments have it.

    What comes down is linear in the error, J d with J = (U^T U + r)^-1 U^T / (1 - h_t^2), so no activation is evaluated
    at a target: a rule in the line of Gauss-Newton, and no difference target propagation.
    """

    def start(self, network: nn.Sequential, *, seed: int = 0) -> TPRILearner:
        return LinearizedLearner(network, self)


class TPRILearner(ThroughTimeLearner):
    """Trains a network by `TPRI`."""

    needs = TPRI.needs

    def __init__(self, network: nn.Sequential, rule: TPRI) -> None:
        super().__init__(network, rule.step)
        self.rule = rule
        self._inverse: Tensor | None = None  # (U^T U + r)^-1 U^T, while targets come down

    def prepare(self, seen: Unrolled) -> None:
        """Invert U for this step."""
        weight = self.layer.recurrent.weight
        normal = weight.T @ weight
        normal.diagonal().add_(self.rule.regularization)
        self._inverse = torch.linalg.solve(normal, weight.T)

    def carried(self, seen: Unrolled, t: int, difference: Tensor) -> Tensor:
        """R(target) - R(state), in which what the input drives cancels."""
        assert self._inverse is not None
        return self.undone(seen.states[:, t + 1], difference) @ self._inverse.T

    def undone(self, state: Tensor, difference: Tensor) -> Tensor:
        """What a difference behind the activation is before it."""
        target, own = (torch.atanh(self.clipped(each)) for each in (state + difference, state))
        return target - own

    def clipped(self, state: Tensor) -> Tensor:
        """Where artanh is finite, and not steep."""
        most = 1 - self.rule.margin
        return state.clamp(-most, most)


class LinearizedLearner(TPRILearner):
    """Trains a network by `TPRILinearized`."""

    def undone(self, state: Tensor, difference: Tensor) -> Tensor:
        """By the slope at the state."""
        return difference / (1 - self.clipped(state).square())
