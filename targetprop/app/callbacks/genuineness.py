"""Whether what trains is target propagation, in one number for each block, logged through the run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import lightning as L
from torch import Tensor

from targetprop.app.callbacks.measurements import Measurements
from targetprop.execution.parallel import distributed_of, grid_of
from targetprop.learner import Learner
from targetprop.measure.genuineness import nonlinear_power, ratio

if TYPE_CHECKING:
    from targetprop.app.module import TaskModule

log = logging.getLogger(__name__)

MOST = 128
"""Images that are looked at: more would tell the same, and in float64 take longer than a step."""
NOTHING = 1e-6
"""Below it targets are a linear function of the output's error."""


class Genuineness(Measurements):
    """Logs on the first batch of each epoch, for block n = 1, 2, ..., `nonlinearity/block{n}` (see `nonlinearity`).

    It is zero of mirrors and of feedback alignment, which form no target, and of blocks below no activation.
    """

    def __init__(self) -> None:
        super().__init__()
        self._batch: tuple[Tensor, Tensor] | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the first batch of an epoch."""
        grid = grid_of(pl_module.learner)
        first_of_group = grid is None or grid.column == 0  # each measures on its own batch
        if batch_idx == 0 and first_of_group and isinstance(pl_module.learner, Learner):
            self._batch = batch

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """Measure with the feedback that has learned on this batch."""
        if self._batch is None:
            return
        (x, y), self._batch = (each[:MOST] for each in self._batch), None
        module = cast("TaskModule", pl_module)
        learner = cast(Learner, module.learner)
        found = nonlinear_power(learner.network, learner.algorithm.targets, x, lambda output: module.loss(output, y))
        if found is None:
            return
        if distributed := distributed_of(learner):
            distributed.average_over_rows([found])
        numbers: list[float] = ratio(found).tolist()
        values = {f"nonlinearity/block{n}": each for n, each in enumerate(numbers, start=1)}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        if not self.rows:
            log.info(verdict(numbers))
        self.rows.append({"step": trainer.global_step, "epoch": trainer.current_epoch, **values})

    @property
    def facts(self) -> dict[str, Any]:
        """The numbers of all blocks, as last measured; none before that."""
        last = self.rows[-1] if self.rows else {}
        return {"nonlinearity": [value for key, value in last.items() if key.startswith("nonlinearity/")]}


def verdict(numbers: list[float]) -> str:
    """In words, what the numbers of all blocks say."""
    if max(numbers) < NOTHING:
        return "Targets are linear in the output's error: backprop with other weights, no target propagation."
    shown = ", ".join(f"{each:.3f}" for each in numbers)
    return f"How far targets are from linear in the output's error, block by block: {shown}."
