"""A forward pass of a network, kept for what comes after it: what a step may look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.pair import Trace
    from targetprop.noise import NoiseSource

Scope = Literal["block", "network"]
"""How far a rule looks: at one block and its feedback, or further. What executes blocks apart needs "block"."""


class Pass(ABC):
    """One forward pass of a network on a batch, within one training step.

    Args:
        x: the batch, (batch, ...).
        noise: where the step draws its noise from.
        step: of the training, for the noise.

    Attributes:
        output: of the network, (batch, ...), detached.
        at_map: for blocks whose forward update found it on its way, J^T d at the output of the block's linear map,
            for the difference d of the block's target; rules that carry d down may take it from here.
    """

    output: Tensor

    def __init__(self, network: PairedNetwork, x: Tensor, noise: NoiseSource, step: int) -> None:
        self.network = network
        self.x = x
        self.noise = noise
        self.step = step
        self.at_map: dict[int, Tensor] = {}

    @abstractmethod
    def trace(self, block: int) -> Trace:
        """A block's part of the pass, the block counted from 0."""

    @abstractmethod
    def release(self, block: int) -> None:
        """Let go of a block's part: nothing of this step looks at it any more."""

    def output_for(self, x: Tensor, block: int) -> Tensor:
        """The network's output for another input x of a block: masks and statistics are those of this pass."""
        for number in range(block, len(self.network.pairs)):
            x, _ = self.network.pairs[number].encode(x, self.trace(number).context)
        return x

    @property
    def input_gradient(self) -> Tensor:
        """The gradient of the first block's local loss for x, if x asks for one; zero before that block's update."""
        gradient = self.trace(0).x.grad
        return torch.zeros_like(self.x) if gradient is None else gradient


class StoredPass(Pass):
    """Keeps the activations of all blocks until they are released."""

    def __init__(self, network: PairedNetwork, x: Tensor, noise: NoiseSource, step: int) -> None:
        super().__init__(network, x, noise, step)
        self._traces = dict(enumerate(network.trace(x)))
        self.output = self._traces[len(network.pairs) - 1].y.detach()

    def trace(self, block: int) -> Trace:
        return self._traces[block]

    def release(self, block: int) -> None:
        self._traces.pop(block, None)
        self.at_map.pop(block, None)
