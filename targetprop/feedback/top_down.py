"""Feedback that learns by a loss from the top down: each block at once, so that those below see what it has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from targetprop.feedback.base import OptimizerSpec
from targetprop.feedback.by_loss import ByLoss, ByLossLearning, Gradient
from targetprop.feedback.losses import FeedbackLoss, reconstruction
from targetprop.feedback.starting import Start, set_all
from targetprop.layers.base import Style

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.passes import Pass


@dataclass(frozen=True)
class TopDown(ByLoss):
    """Feedback in two halves learns by a loss: in every iteration each block has one update, from the top down.

    Where the loss looks at one block alone the order is no matter, and blocks learn as they do by `ByLoss`.

    Shibuya et al., "Fixed-Weight Difference Target Propagation", 2023, https://arxiv.org/abs/2212.10352.

    Args:
        loss: what the feedback is trained on.
        feedback_training_iterations, noise, noise_samples, b_optim: as those of `ByLoss`.
        init: how weights start, KIND-K: 10^-K times what is uniform in [-1, 1], gaussian, orthogonal, eye or constant;
            with -sparse-SHARE behind it that share of every row is zero. Published default: "uniform-2".
    """

    loss: FeedbackLoss = field(default=reconstruction, metadata={"is_number": False})
    feedback_training_iterations: int | Sequence[int] = 5
    noise: float | Sequence[float] = 0.01
    b_optim: OptimizerSpec = field(default_factory=lambda: OptimizerSpec(lr=1e-3))
    init_symmetric_weights: bool = field(default=False, init=False)
    gradient: Gradient = field(default="autograd", init=False)
    style: Style = field(default="lee", init=False)
    init: str = "uniform-2"
    styles: ClassVar[frozenset[Style]] = frozenset({"lee"})

    def __post_init__(self) -> None:
        super().__post_init__()
        Start.of(self.init)

    def start(self, network: PairedNetwork) -> ByLossLearning:
        learning = TopDownLearning(network, self)
        set_all(network, Start.of(self.init))
        return learning


class TopDownLearning(ByLossLearning):
    """The feedback of a network by one `TopDown`."""

    def __init__(self, network: PairedNetwork, rule: TopDown) -> None:
        super().__init__(network, rule)
        self._losses: dict[int, Tensor] = {}

    def before_sweep(self, seen: Pass) -> None:
        self._losses = self._of_all_blocks(seen) if self.rule.scope == "network" else {}

    def learn(self, seen: Pass, block: int) -> Tensor:
        return self._losses.pop(block) if block in self._losses else super().learn(seen, block)

    def _of_all_blocks(self, seen: Pass) -> dict[int, Tensor]:
        """Make all updates of a batch, and return the mean loss of each block."""
        blocks = list(reversed(self.network.fed_numbers))
        totals = {block: self.no_loss(seen, block) for block in blocks}
        updates = {block: self.updates(seen, block) for block in blocks}
        while updates:
            for block in list(updates):
                loss = next(updates[block], None)
                if loss is None:
                    del updates[block]
                else:
                    totals[block] += loss
        return {block: total / max(1, self.numbers[block].iterations) for block, total in totals.items()}
