"""Backprop: the baseline, with the interface of `Learner`."""

from __future__ import annotations

from torch import Tensor, nn

from targetprop.network.blocks import cut, pool_first
from targetprop.network.network import PairedNetwork
from targetprop.network.pair import Pair


class Backprop(nn.Module):
    """Trains a network by backprop; it stands wherever a `Learner` does, so that both train in the same way.

    Args:
        network: a Sequential, cut into the same blocks as for a `Learner`, but without feedback twins.
    """

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.network = PairedNetwork(Pair(pool_first(block), None) for block in cut(network))

    def optimizer_parameters(self) -> list[nn.Parameter]:
        """What your optimiser trains."""
        return self.network.forward_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Network output for x (batch, ...)."""
        return self.network(x)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the mean loss to the parameters' `.grad`."""
        loss.mean().backward()
