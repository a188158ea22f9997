"""Difference target propagation as a course notebook prints it, whose hidden layers never learn.

The notebook takes each layer's gradient of ||h - t||^2 without holding the target t fixed. Its targets are
t^{n-1} = h^{n-1} - G(h^n) + G(t^n), down from t^{N-1} = h^{N-1} - step dL/dh^{N-1}, with linear G. Target and
activation then carry the same graph: h - t depends on no weight below, and the gradient of every hidden layer is
exactly zero. What is left is a softmax, trained on random tanh features. `LEE_DTP` is the algorithm that the notebook
describes; this is what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.feedback.base import OptimizerSpec
from targetprop.feedback.by_loss import ByLoss
from targetprop.feedback.losses import reconstruction
from targetprop.network.network import PairedNetwork
from targetprop.network.pair import Trace
from targetprop.noise import GaussianNoise, NoiseKey, NoiseSource
from targetprop.step import Step
from targetprop.targets.layerwise import DifferenceTargets
from targetprop.utils.errors import UserError

TARGETS = DifferenceTargets(beta=0.327736332653, output_follows_loss=True)
FEEDBACK = ByLoss(
    reconstruction,
    feedback_training_iterations=1,
    noise=0.359829566008 / 2,  # the notebook writes c**1/2, which is c / 2
    b_optim=OptimizerSpec("rmsprop", lr=0.01),
    style="map",
)
"""The notebook's numbers. Its forward layers have an RMSprop each, with the same rate, too."""


def negative_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the mean probability of the true class: the negative log-likelihood, applied to what is no logarithm."""
    return F.nll_loss(logits.softmax(1), labels)


class AsPrinted(nn.Module):
    """The notebook's two passes, all by autograd, through targets that are not held fixed.

    Feedback steps before your forward optimiser does; all gradients are taken before any step.

    Args:
        network: of linear blocks, each but the last with its activation.
        seed: of the noise.
        noise: another source of standard-normal noise.

    Raises:
        UserError: a block is not linear.
    """

    update_scale = None
    needs = TARGETS.needs | FEEDBACK.needs

    def __init__(self, network: nn.Sequential, *, seed: int = 0, noise: NoiseSource | None = None) -> None:
        super().__init__()
        self.network = PairedNetwork.of(network, FEEDBACK.style, TARGETS.feedback_layer)
        for pair in self.network.trained:
            if not isinstance(_linear(pair.block), nn.Linear):
                raise UserError(
                    f"the notebook's network is an MLP; block {pair.name} is not linear: use network=mlp.",
                    key="network",
                )
        self.learning = FEEDBACK.start(self.network)
        self.noise = noise or GaussianNoise(seed)
        self.steps = 0
        self._passed: list[Trace] = []

    def optimizer_parameters(self) -> list[nn.Parameter]:
        """What your optimiser trains."""
        return self.network.forward_parameters()

    def own_optimizers(self) -> Iterable[torch.optim.Optimizer]:
        """Those of the feedback."""
        return self.learning.optimizers.values()

    def use_own_numbers(self) -> None:
        """They are the notebook's in any case."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes); in training mode also what `backward` needs."""
        if not (self.training and torch.is_grad_enabled()):
            return self.network(x)
        self._passed = []
        for pair in self.network.pairs:
            y, context = pair.encode(x)
            self._passed.append(Trace(x, y, context))
            x = y
        return x

    def backward(
        self,
        loss: Tensor,
        *,
        labels: Tensor | None = None,
        loss_of: Callable[[Tensor], Tensor] | None = None,
        keep: bool = False,
    ) -> Step:
        """As `Learner.backward`; the Step's outputs and targets are those of the hidden blocks."""
        if not self._passed:
            raise UserError(
                "call the learner on a batch first, in training mode and with gradients on.", key="backward"
            )
        traces, self._passed = self._passed, []
        loss = loss.mean()
        hidden = [trace.y for trace in traces[:-1]]
        targets = self._targets(traces, loss)
        local_losses = [F.mse_loss(h, t) for h, t in zip(hidden, targets, strict=True)]
        feedback_losses = {number: self._feedback_loss(number, traces[number]) for number in self.network.fed}

        for pair, local_loss in zip(self.network.pairs, [*local_losses, loss], strict=True):
            local_loss.backward(inputs=list(pair.block.parameters()), retain_graph=True)
        for number, optimizer in self.learning.optimizers.items():
            feedback_losses[number].backward(inputs=self.network.pairs[number].feedback_parameters())
            optimizer.step()
            optimizer.zero_grad()
        self.steps += 1
        return Step(
            torch.stack(list(feedback_losses.values())).detach(),
            torch.stack([*local_losses, loss]).detach(),
            torch.stack([trace.y.mean() for trace in traces]).detach(),
            [h.detach() for h in hidden] if keep else [],
            [t.detach() for t in targets] if keep else [],
        )

    def _targets(self, traces: list[Trace], loss: Tensor) -> list[Tensor]:
        """Of the hidden blocks, in forward order, and each with its graph: this is what the notebook overlooks."""
        top = traces[-2].y
        (gradient,) = torch.autograd.grad(loss, top, retain_graph=True)
        targets = [top - TARGETS.beta * gradient]
        for pair, trace in zip(reversed(self.network.trained), reversed(traces[1:-1]), strict=True):
            h = trace.x
            targets.append(h - pair.decode(trace.y, trace.context) + pair.decode(targets[-1], trace.context))
        return targets[::-1]

    def _feedback_loss(self, number: int, trace: Trace) -> Tensor:
        """Mean over all elements of (G(W (h + noise) + b) - (h + noise))^2: the pre-activation, where 2015 has tanh."""
        pair = self.network.pairs[number]
        key = NoiseKey(self.steps, number, 0, "input")
        noisy = trace.x.detach() + self.learning.numbers[number].sigma * self.noise(key, trace.x)
        with torch.no_grad():
            pre_activation = _linear(pair.block)(noisy)
        return F.mse_loss(pair.decode(pre_activation, trace.context), noisy)

    def get_extra_state(self) -> dict[str, Any]:
        """Step count and feedback optimisers, beside the weights in `state_dict`."""
        return {"steps": self.steps, "feedback": self.learning.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.learning.load_state_dict(state["feedback"])


def _linear(block: nn.Module) -> nn.Module:
    assert isinstance(block, nn.Sequential)
    return block[0]
