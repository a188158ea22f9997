"""What a trainer trains: a `Learner`, and whatever stands in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.properties import Needs
    from targetprop.step import Step


class Trainable(Protocol):
    """What a trainer trains: a `Learner`, and whatever stands in its place."""

    network: PairedNetwork

    @property
    def update_scale(self) -> float | None:
        """What its gradients are times those of backprop, about; None where there is nothing to compare."""

    @property
    def needs(self) -> Needs:
        """What it needs beside each block's own activity."""

    def __call__(self, x: Tensor) -> Tensor:
        """Output of the network for x (batch, ...); in training mode also what `backward` needs."""

    def backward(
        self,
        loss: Tensor,
        *,
        labels: Tensor | None = None,
        loss_of: Callable[[Tensor], Tensor] | None = None,
        keep: bool = False,
    ) -> Step | None:
        """Add gradients to the `.grad` of the parameters; what it saw, if it saw more than the loss."""

    def optimizer_parameters(self) -> list[nn.Parameter]:
        """What the forward optimiser trains."""

    def own_optimizers(self) -> Iterable[Optimizer]:
        """Those that are not the user's, as of its feedback."""

    def use_own_numbers(self) -> None:
        """Have its rates and other numbers take effect where a state brought those of another one."""
