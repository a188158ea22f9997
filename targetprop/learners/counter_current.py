"""Counter-current learning: activations that go up meet those that go down from the classes, layer by layer.

Kao and Hariharan, "Counter-Current Learning: A Biologically Plausible Dual Network Approach for Deep Learning", 2024,
https://arxiv.org/abs/2409.19841. The equations are those of its published code for classification by fully connected
layers; its convolutional networks were not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.feedback.base import OptimizerSpec
from targetprop.feedback.following import fits
from targetprop.learners.base import LearnerRule, add, mean_outputs
from targetprop.learners.dense import DenseLearner, feedback_weight
from targetprop.local import local_loss
from targetprop.properties import Needs, Source
from targetprop.step import Step
from targetprop.utils.errors import UserError, is_number, require

if TYPE_CHECKING:
    from targetprop.learners.dense import Activity

WIDTH = 256
"""The width whose layers the published code gives the weight `scale`; others get `scale` WIDTH / width."""


@dataclass(frozen=True)
class CounterCurrent(LearnerRule):
    """Counter-current learning (Kao and Hariharan 2024), for classification by fully connected layers.

    Forward a_l = f_l(W_l sg[a_{l-1}]), a_0 the input; counter-current c_{l-1} = f_{l-1}(V_l sg[c_l]), from the one-hot
    vectors of all classes at the top, (classes, units), and c_0 linear. sg holds what is in it fixed: the loss at l
    reaches W_l and V_{l+1} alone. With S_l = a_l c_l^T, (batch, classes), it is

        scale 256 / n_l Mean (S_l - onehot)^2,   l = 0, ..., L - 1;

    the output follows the loss itself. The gradients of all W together have the norm `clip` at most, and so have those
    of all V. V has no bias, and W has one where your network has: the published one has none, and ELU throughout.

    Args:
        scale: of the losses between both.
        clip: the largest norm of a gradient.
        b_optim: the optimiser of V, with one rate.
    """

    scale: float = 0.5
    clip: float = 1.0
    b_optim: OptimizerSpec = OptimizerSpec("sgd", lr=1.0)  # noqa: RUF009 - it is frozen
    source: ClassVar[Source] = Source(
        "Kao and Hariharan",
        "Counter-Current Learning: A Biologically Plausible Dual Network Approach for Deep Learning",
        2024,
        "https://arxiv.org/abs/2409.19841",
    )
    needs: ClassVar[Needs] = Needs(frozenset({"labels"}))

    def __post_init__(self) -> None:
        for key in ("scale", "clip"):
            value = getattr(self, key)
            require(is_number(value) and value > 0, key, "a number above 0", value)
        require(isinstance(self.b_optim, OptimizerSpec), "b_optim", "an OptimizerSpec", self.b_optim)
        require(is_number(self.b_optim.lr), "b_optim.lr", "one number, for all blocks", self.b_optim.lr)

    def start(self, network: nn.Sequential, *, seed: int = 0) -> CounterCurrentLearner:
        return CounterCurrentLearner(network, self)


class CounterCurrentLearner(DenseLearner):
    """Trains a network by `CounterCurrent`. The forward optimiser is yours, that of V is its own."""

    needs = CounterCurrent.needs

    def __init__(self, network: nn.Sequential, rule: CounterCurrent) -> None:
        super().__init__(network, first_fed=0)
        self.rule = rule
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of V; it follows its parameters to another device, or to others in their place."""
        parameters, made = self.network.feedback_parameters(), self._optimizer
        if made is None or not fits(made, parameters):
            self._optimizer = self.rule.b_optim.build(parameters)
            if made is not None:
                self._optimizer.load_state_dict(deepcopy(made.state_dict()))
        assert self._optimizer is not None
        return self._optimizer

    def own_optimizers(self) -> tuple[torch.optim.Optimizer]:
        return (self.optimizer,)

    def use_own_numbers(self) -> None:
        self.rule.b_optim.set_numbers(self.optimizer)

    @torch.enable_grad()
    def learn(self, seen: Sequence[Activity], error: Tensor, labels: Tensor | None, keep: bool) -> Step:
        classes = seen[-1].h.shape[1]
        fits_one = labels is not None and labels.shape == (len(error),) and not labels.is_floating_point()
        if labels is None or not fits_one:
            raise UserError("counter-current learning needs the labels of the batch, (batch,).", key="labels")
        wanted = F.one_hot(labels, classes).to(error.dtype)
        below = [seen[0].x, *(each.h for each in seen[:-1])]
        losses = [self._loss(a, c, wanted) for a, c in zip(below, self._counter_current(wanted), strict=True)]
        at_output = (seen[-1].h * error).sum() / len(error)  # which has the gradient of the loss

        forward, feedback = self.network.forward_parameters(), self.network.feedback_parameters()
        trained = [p for p in (*forward, *feedback) if p.requires_grad]
        found = torch.autograd.grad(sum(losses) + at_output, trained, materialize_grads=True)
        gradients = {id(p): gradient for p, gradient in zip(trained, found, strict=True)}
        for parameters in (forward, feedback):
            self._add_clipped([(p, gradients[id(p)]) for p in parameters if p.requires_grad])
        self.optimizer.step()
        self.optimizer.zero_grad()

        met = torch.stack(losses).detach()
        return Step(
            met,
            torch.cat([met[1:], local_loss(error).reshape(1)]),
            mean_outputs(seen),
            [each.h.detach() for each in seen] if keep else [],
            [],
        )

    def _counter_current(self, top: Tensor) -> list[Tensor]:
        """c_0, ..., c_{L-1}, (classes, units) each; a graph leads from each one to its own V alone."""
        blocks, found = self.blocks, list[Tensor]()
        c = torch.eye(top.shape[1], dtype=top.dtype, device=top.device)
        for number in range(len(blocks) - 1, -1, -1):
            c = F.linear(c.detach(), feedback_weight(self.network.pairs[number]))
            c = blocks[number - 1].act(c) if number else c
            found.insert(0, c)
        return found

    def _loss(self, a: Tensor, c: Tensor, wanted: Tensor) -> Tensor:
        similarity = (a @ c.T).to(wanted.dtype)
        return self.rule.scale * WIDTH / a.shape[1] * (similarity - wanted).square().mean()

    def _add_clipped(self, found: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
        """Add gradients, all of them together of the norm `clip` at most."""
        if not found:
            return
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for _, each in found]))
        factor = (self.rule.clip / (norm + 1e-6)).clamp(max=1)
        for parameter, gradient in found:
            add(parameter, factor * gradient)

    def get_extra_state(self) -> dict[str, Any]:
        """State of the optimiser of V, beside the weights in `state_dict`."""
        return {"rule": "counter-current learning", "feedback": self.optimizer.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state.get("rule") != "counter-current learning":
            raise UserError(f"the state is of {state.get('rule')}; this learner is of counter-current learning.")
        self.optimizer.load_state_dict(deepcopy(state["feedback"]))
