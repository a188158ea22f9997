"""Targets through time: a recurrent layer learns to hit a target at every step; it comes down from the step behind."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from targetprop.learners.base import LocalLearner, add
from targetprop.local import local_loss
from targetprop.models.rnn import Elman
from targetprop.network.network import PairedNetwork
from targetprop.step import Step
from targetprop.utils.errors import UserError
from targetprop.utils.precision import wide


class Unrolled(NamedTuple):
    """What a recurrent layer and what stands on it did with a batch.

    Attributes:
        driven: W x_t + b of every step, (batch, time, width), with the graph of `Elman.input` and what it reads.
        states: h_0 = 0 and h_1 to h_T, (batch, time + 1, width), without a graph.
        top: h_1 to h_T as a leaf, from which the output was computed.
        output: of the network, with the graph of what stands on the layer.
    """

    driven: Tensor
    states: Tensor
    top: Tensor
    output: Tensor


class ThroughTimeLearner(LocalLearner):
    """Trains a recurrent layer by targets of its states, and what stands on it by the loss itself.

    With d_t = target of h_t - h_t, and a loss L of each sample's own,

        d_T = -step dL/dh_T,    d_{t-1} = carried(d_t) - step dL/dh_{t-1},

    where dL/dh is that by way of the output at the same step: where only the last step has one, as in the papers,
    others are 0. Then W, U and b of h_t = tanh(W x_t + U h_{t-1} + b) get the gradients of sum_t 1/2 ||d_t||^2, with
    targets and the states before held fixed.

    Args:
        network: a Sequential whose first layer is an `Elman`, such as `models.rnn` makes; what stands on it is any.
        step: of the targets.

    Raises:
        UserError: another network.
    """

    takes_narrow_types = False

    def __init__(self, network: nn.Sequential, step: float) -> None:
        layers = list(network) if isinstance(network, nn.Sequential) else []
        if len(layers) < 2 or type(layers[0]) is not Elman:
            got = " and ".join(type(layer).__name__ for layer in layers) or type(network).__name__
            raise UserError(
                "expected a recurrent layer of tanh units, and an output layer on it, for which alone this rule's "
                f"equations are known, got {got}: use datamodule=adding, or network=rnn with cell=elman on other "
                "sequences, or another rule.",
                key="network",
            )
        (first, _), *_ = network.named_children()
        super().__init__(PairedNetwork.of(network, feedback=lambda blocks, number, style: None, blocks=[first]))
        self.step = step
        self._layers = tuple(
            layers
        )  # in a tuple, as their parameters are those of `network`, and have their names there

    @property
    def layer(self) -> Elman:
        """The recurrent layer."""
        layer = self._layers[0]
        assert isinstance(layer, Elman)
        return layer

    def see(self, x: Tensor) -> tuple[Unrolled, Tensor]:
        """All states, and the output."""
        layer = self.layer
        driven = layer.input(layer.read(x))
        with torch.no_grad():
            states = [torch.zeros_like(driven[:, 0])]
            for t in range(layer.time):
                states.append(layer.step(driven[:, t], states[-1]))
        kept = torch.stack(states, 1)
        top = kept[:, 1:].clone().requires_grad_()
        output = top if layer.every else top[:, -1]
        for above in self._layers[1:]:
            output = above(output)
        return Unrolled(driven, kept, top, output), output

    def learn(self, seen: Unrolled, error: Tensor, labels: Tensor | None, keep: bool) -> Step:
        """See the class."""
        batch = len(error)
        torch.autograd.backward(seen.output, error / batch)
        assert seen.top.grad is not None
        with torch.no_grad():
            self.prepare(seen)
            differences = self._differences(seen, -self.step * batch * seen.top.grad)
            local = -differences * (1 - seen.states[:, 1:].square()) / batch
            flat = local.flatten(0, 1)
            add(self.layer.recurrent.weight, flat.T @ seen.states[:, :-1].flatten(0, 1))
        torch.autograd.backward(seen.driven, local)
        with torch.no_grad():
            return self._step(seen, differences, error, keep)

    def _differences(self, seen: Unrolled, own: Tensor) -> Tensor:
        """d_1 to d_T, (batch, time, width), from what the loss at every step adds."""
        found = [own[:, -1]]
        for t in range(self.layer.time - 1, 0, -1):
            found.append(self.carried(seen, t, found[-1]) + own[:, t - 1])
        return torch.stack(found[::-1], 1)

    def prepare(self, seen: Unrolled) -> None:
        """What happens before targets come down, such as that an inverse learns."""

    @abstractmethod
    def carried(self, seen: Unrolled, t: int, difference: Tensor) -> Tensor:
        """The difference at h_t, (batch, width), that comes down from the one at h_{t+1}, for t from 1 to T - 1."""

    def _step(self, seen: Unrolled, differences: Tensor, error: Tensor, keep: bool) -> Step:
        outputs = [seen.states[:, 1:], seen.output.detach()]
        down = [differences, -self.step * error]
        return Step(
            error.new_zeros(0),
            torch.stack([local_loss(each) for each in down]),
            torch.stack([each.mean(dtype=wide(each.dtype)) for each in outputs]),
            outputs if keep else [],
            [each + d for each, d in zip(outputs, down, strict=True)] if keep else [],
        )
