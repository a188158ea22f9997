"""Backprop: the baseline, which stands wherever a `Learner` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from targetprop.network.network import PairedNetwork
from targetprop.properties import Needs
from targetprop.utils.errors import UserError


class Backprop(nn.Module):
    """Trains a network by backprop, cut into the same blocks as for a `Learner`, but without feedback.

    Args:
        network: any module that a `Learner` would take.
        blocks: as of a `Learner`.
    """

    update_scale = None
    needs = Needs(frozenset({"weights"}))

    def __init__(self, network: nn.Module, *, blocks: Sequence[str] | None = None) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise UserError(f"expected an nn.Module, got {type(network).__name__}.", key="network")
        self.network = PairedNetwork.of(network, feedback=lambda blocks, number, style: None, blocks=blocks)

    def optimizer_parameters(self) -> list[nn.Parameter]:
        """What your optimiser trains."""
        return self.network.forward_parameters()

    def own_optimizers(self) -> Iterable[Optimizer]:
        """There are none."""
        return ()

    def use_own_numbers(self) -> None:
        """There are none."""

    def forward(self, x: Tensor) -> Tensor:
        """Network output for x (batch, ...)."""
        return self.network(x)

    def backward(
        self,
        loss: Tensor,
        *,
        labels: Tensor | None = None,
        loss_of: Callable[[Tensor], Tensor] | None = None,
        keep: bool = False,
    ) -> None:
        """Add the gradients of the mean loss to the parameters' `.grad`."""
        loss.mean().backward()
