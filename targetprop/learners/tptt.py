"""Target propagation through time (TPTT): targets come down by an inverse that learns.

Manchev and Spratling, "Target Propagation in Recurrent Neural Networks", Journal of Machine Learning Research 21, 2020,
https://jmlr.org/papers/v21/18-141.html.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from targetprop.feedback.base import OptimizerSpec
from targetprop.learners.base import LearnerRule
from targetprop.learners.through_time import ThroughTimeLearner, Unrolled
from targetprop.noise import GaussianNoise, NoiseKey
from targetprop.properties import Needs, Source
from targetprop.utils.errors import UserError, is_number, require


@dataclass(frozen=True)
class TPTT(LearnerRule):
    """Target propagation through time (Manchev and Spratling 2020), for a recurrent layer of tanh units.

    h_t = F(x_t, h_{t-1}) = tanh(W x_t + U h_{t-1} + b) has an inverse of its own, with the same W,

        G(x_t, h) = tanh(W x_t + V h + c),

    by which targets come down, and which learns, at states with noise, to undo F:

        target of h_{t-1} = h_{t-1} + G(x_t, target of h_t) - G(x_t, h_t),
        loss of V and c = sum_t ||G(x_t, F(x_t, s)) - s||^2,  s = h_{t-1} + noise.

    Both activations are evaluated at the target. The published code takes means over the units where sums stand here,
    and the gradient of the batch's mean loss where each sample's own stands: factors of rates and of `step`.

    Args:
        step: of the last target, against the gradient of the loss.
        noise: standard deviation, of states at which the inverse learns.
        b_optim: optimiser of V and c.
    """

    step: float = 1.0
    noise: float = 0.01
    b_optim: OptimizerSpec = field(default_factory=lambda: OptimizerSpec(type="adam", lr=1e-3))
    source: ClassVar[Source] = Source(
        "Manchev and Spratling",
        "Target Propagation in Recurrent Neural Networks",
        2020,
        "https://jmlr.org/papers/v21/18-141.html",
        "equations read in the authors' code; losses at several steps are an extension",
    )
    needs: ClassVar[Needs] = Needs(frozenset({"weights"}), noisy_phase=True)

    def __post_init__(self) -> None:
        require(is_number(self.step) and self.step > 0, "step", "a number above 0", self.step)
        require(is_number(self.noise) and self.noise >= 0, "noise", "a number, 0 or more", self.noise)
        if not isinstance(self.b_optim.lr, int | float):
            raise UserError("expected one number, as there is one inverse", key="b_optim.lr")

    def start(self, network: nn.Sequential, *, seed: int = 0) -> TPTTLearner:
        return TPTTLearner(network, self, seed)


class TPTTLearner(ThroughTimeLearner):
    """Trains a network by `TPTT`.

    Attributes:
        inverse: V and c; V starts as a random orthogonal matrix, c at 0.
        inverse_loss: of the last step, mean over the batch; None before the first.
    """

    needs = TPTT.needs

    def __init__(self, network: nn.Sequential, rule: TPTT, seed: int) -> None:
        super().__init__(network, rule.step)
        self.rule, self.noise, self.steps = rule, GaussianNoise(seed), 0
        weight = self.layer.recurrent.weight
        width = len(weight)
        self.inverse = nn.Linear(width, width, device=weight.device, dtype=weight.dtype)
        nn.init.orthogonal_(self.inverse.weight)
        nn.init.zeros_(self.inverse.bias)
        self.optimizer = rule.b_optim.build(self.inverse.parameters())
        self.inverse_loss: Tensor | None = None

    def own_optimizers(self) -> Iterable[torch.optim.Optimizer]:
        """That of the inverse."""
        return (self.optimizer,)

    def use_own_numbers(self) -> None:
        """Have the rule's rates take effect where a state brought others."""
        self.rule.b_optim.set_numbers(self.optimizer)

    def prepare(self, seen: Unrolled) -> None:
        """A step of the inverse on the losses of all steps but the first, whose state before it is always 0."""
        layer, before = self.layer, seen.states[:, 1:-1]
        if not before.shape[1]:
            return
        driven = seen.driven.detach()[:, 1:]
        noise = self.noise(NoiseKey(self.steps, 0, 0, "input"), before).mul_(self.rule.noise)
        noisy = before + noise
        after = layer.step(driven, noisy)
        with torch.enable_grad():
            misses = torch.tanh(self._input(driven) + self.inverse(after)) - noisy
            self.inverse_loss = misses.square().sum() / len(misses)
            self.optimizer.zero_grad()
            self.inverse_loss.backward()
        self.inverse_loss = self.inverse_loss.detach()
        self.optimizer.step()
        self.steps += 1

    def _input(self, driven: Tensor) -> Tensor:
        """W x_t, without the forward layer's bias."""
        return driven - self.layer.input.bias.detach()

    def carried(self, seen: Unrolled, t: int, difference: Tensor) -> Tensor:
        """G(x_{t+1}, target) - G(x_{t+1}, state), of step t + 1."""
        given, state = self._input(seen.driven.detach()[:, t]), seen.states[:, t + 1]
        target, own = (torch.tanh(given + self.inverse(each)) for each in (state + difference, state))
        return target - own

    def get_extra_state(self) -> dict[str, Any]:
        """The inverse's optimiser and the step count, beside the weights in `state_dict`."""
        return {"steps": self.steps, "optimizer": self.optimizer.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps = state["steps"]
        self.optimizer.load_state_dict(state["optimizer"])
