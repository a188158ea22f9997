"""A forward pass of a network, kept for what comes after it: what a step may look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from targetprop.layers.base import Context
from targetprop.noise import NoiseSource

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.pair import Chain, Pair


@dataclass(frozen=True)
class Trace:
    """One pair's part of a forward pass: its input x (detached), its output y, and the pass's context.

    Gradients flow from y to the block's own parameters and end there. There is a graph for that only where the block
    needs one (its pair has no `chain`), or where the network's input asks for a gradient: it ends at the first x then.

    Attributes:
        chain: of the pair, as it was in this pass.
    """

    x: Tensor
    y: Tensor
    context: Context
    chain: Chain | None = None

    def detach(self) -> Trace:
        """The same without the graph to the block's parameters."""
        return Trace(self.x.detach(), self.y.detach(), self.context, self.chain)


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


def trace_pair(pair: Pair, x: Tensor) -> Trace:
    """Run one block on x, with a graph to its parameters only where its gradients need one, or x asks for one."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and (pair.chain is None or x.requires_grad)):
        return Trace(x, *pair.encode(x), pair.chain)
