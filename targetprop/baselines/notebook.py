"""Difference target propagation as a course notebook prints it, whose hidden layers never learn.

The notebook takes each layer's gradient of ||h - t||^2 without holding the target t fixed. Its targets are
t^{n-1} = h^{n-1} - G(h^n) + G(t^n), down from t^{N-1} = h^{N-1} - step dL/dh^{N-1}, with linear G. Target and
activation then carry the same graph: h - t depends on no weight below, and the gradient of every hidden layer is
exactly zero. What is left is a softmax, trained on random tanh features. `LEE_DTP` is the algorithm that the notebook
describes; this is what it does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.algorithms import OptimizerSpec, Recipe
from targetprop.execution.parallel import Grid
from targetprop.feedback.rules import reconstruction
from targetprop.learner import Learner
from targetprop.network.network import Trace
from targetprop.noise import NoiseKey, NoiseSource
from targetprop.step import Step
from targetprop.utils.errors import UserError

RECIPE = Recipe(
    feedback_loss=reconstruction,
    beta=0.327736332653,
    feedback_training_iterations=1,
    noise=0.359829566008 / 2,  # the notebook writes c**1/2, which is c / 2
    b_optim=OptimizerSpec("rmsprop", lr=0.01),
    twin="map",
    output="loss",
)
"""The notebook's numbers. Its forward layers have an RMSprop each, with the same rate, too."""


def negative_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the mean probability of the true class: the negative log-likelihood, applied to what is no logarithm."""
    return F.nll_loss(logits.softmax(1), labels)


class AsPrinted(Learner):
    """The notebook's two passes, all by autograd, through targets that are not held fixed.

    Feedback steps before your forward optimiser does; all gradients are taken before any step.

    Args:
        network: of linear blocks, each but the last with its activation.
        seed, noise: as for `Learner`.
    """

    def __init__(self, network: nn.Sequential, *, seed: int = 0, noise: NoiseSource | None = None) -> None:
        super().__init__(network, RECIPE, seed=seed, noise=noise)
        for pair in self.network.trained:
            if not isinstance(_linear(pair.block), nn.Linear):
                raise UserError(f"network: the notebook's learner is for network=mlp; block {pair.name} is not linear.")
        self._passed: list[Trace] = []  # as Learner's, but in one graph from end to end

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

    def distribute(self, grid: Grid) -> None:
        """Refused: all layers share one graph here.

        Raises:
            UserError: always.
        """
        raise UserError("trainer: the notebook's learner has one graph from end to end; use trainer=default.")

    def compute(self, loss: Tensor, *, keep: bool = False) -> Step:
        """As `Learner.compute`; the Step's outputs and targets are those of the hidden blocks."""
        if not self._passed:
            raise UserError("backward: call the learner on a batch first, in training mode and with gradients on.")
        traces, self._passed = self._passed, []
        loss = loss.mean()
        hidden = [trace.y for trace in traces[:-1]]
        targets = self._targets(traces, loss)
        local_losses = [F.mse_loss(h, t) for h, t in zip(hidden, targets, strict=True)]
        feedback_losses = [self._feedback_loss(index, trace) for index, trace in enumerate(traces[1:-1])]

        for pair, local_loss in zip(self.network.pairs, [*local_losses, loss], strict=True):
            local_loss.backward(inputs=list(pair.block.parameters()), retain_graph=True)
        for number, feedback_loss in enumerate(feedback_losses, start=1):
            if optimizer := self.iterated.optimizers.get(number):
                feedback_loss.backward(inputs=self.network.pairs[number].feedback_parameters())
                optimizer.step()
                optimizer.zero_grad()
        return Step(
            torch.stack(feedback_losses).detach(),
            torch.stack([*local_losses, loss]).detach(),
            torch.stack([trace.y.mean() for trace in traces]).detach(),
            [h.detach() for h in hidden] if keep else [],
            [t.detach() for t in targets] if keep else [],
        )

    def _targets(self, traces: list[Trace], loss: Tensor) -> list[Tensor]:
        """Of the hidden blocks, in forward order, and each with its graph: this is what the notebook overlooks."""
        top = traces[-2].y
        (gradient,) = torch.autograd.grad(loss, top, retain_graph=True)
        targets = [top - self.recipe.beta * gradient]
        for pair, trace in zip(reversed(self.network.trained), reversed(traces[1:-1]), strict=True):
            h = trace.x
            targets.append(h - pair.decode(trace.y, trace.context) + pair.decode(targets[-1], trace.context))
        return targets[::-1]

    def _feedback_loss(self, index: int, trace: Trace) -> Tensor:
        """Mean over all elements of (G(W (h + noise) + b) - (h + noise))^2: the pre-activation, where 2015 has tanh."""
        pair = self.network.trained[index]
        key = NoiseKey(self.steps, index + 1, 0, "input")
        noisy = trace.x.detach() + self.iterated.sigmas[index + 1] * self.noise(key, trace.x)
        with torch.no_grad():
            pre_activation = _linear(pair.block)(noisy)
        return F.mse_loss(pair.decode(pre_activation, trace.context), noisy)


def _linear(block: nn.Module) -> nn.Module:
    assert isinstance(block, nn.Sequential)
    return block[0]
