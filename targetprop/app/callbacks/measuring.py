"""What all callbacks that take measures have in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from torch import Tensor

from targetprop.app.callbacks.measurements import Measurements
from targetprop.execution.parallel import distributed_of, grid_of
from targetprop.measure.probe import InapplicableError, Probe, RandomState
from targetprop.measure.registry import MEASURES, Numbers, chosen
from targetprop.utils.errors import UserError, require_whole

if TYPE_CHECKING:
    from targetprop.app.module import Batch, TaskModule

log = logging.getLogger(__name__)


class Measuring(Measurements):
    """Takes measures between the backward pass and the optimiser's step, and logs their values by their names.

    Feedback has learned on the batch by then. Nothing of the run changes. A measure that makes no sense for what is
    trained is left out.

    Args:
        which: names of measures.
        every_n_steps: steps from one measurement to the next; None is the first batch of each epoch.
        numbers: of these measures, by name, where they are not to be the default ones.

    Raises:
        UserError: a measure or a number that there is not.
    """

    key = "callbacks.measures"
    """Where it stands in a configuration."""

    def __init__(self, which: Sequence[str], every_n_steps: int | None = None, numbers: Numbers | None = None) -> None:
        super().__init__()
        if every_n_steps is not None:
            require_whole("every_n_steps", every_n_steps, least=1)
        self.names = list(chosen(which, numbers))
        self.numbers = numbers
        self.every_n_steps = every_n_steps
        self._left_out: set[str] = set()
        self._batch: Batch | None = None
        self._random: RandomState | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse to compare the sum of several batches' gradients with that of one."""
        of_updates = [name for name in self.names if MEASURES[name].of_updates]
        if trainer.accumulate_grad_batches != 1 and of_updates:
            raise UserError(
                f"{', '.join(of_updates)}: the update must be of one batch; "
                f"with trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} set {self.key}=null.",
                key=self.key,
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch of a step that is due, and the random state its dropout masks come from."""
        grid = grid_of(pl_module.learner)
        if grid and grid.column:
            return  # the first process of every group measures, each on its own batch
        due = batch_idx == 0 if self.every_n_steps is None else trainer.global_step % self.every_n_steps == 0
        if due and set(self.names) - self._left_out:
            self._batch, self._random = batch, RandomState(batch[0].device)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure, log, and keep."""
        if self._batch is None:
            return
        (x, y), self._batch = self._batch, None
        module = cast("TaskModule", pl_module)
        values = self._values(self._probe(module, x, y))
        if not values:
            return
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        if not self.rows:
            self.say_first(module, values)
        epoch = trainer.global_step / max(1, int(trainer.num_training_batches))
        self.rows.append({"step": trainer.global_step, "epoch": epoch, **values})

    def _probe(self, module: TaskModule, x: Tensor, y: Tensor) -> Probe:
        distributed = distributed_of(module.learner)
        average = distributed.average_over_rows if distributed and distributed.grid.rows > 1 else None
        return Probe(module.learner, x, y, module.loss, is_after_backward=True, random=self._random, average=average)

    def _values(self, probe: Probe) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, taken in chosen(self.names, self.numbers).items():
            if name in self._left_out:
                continue
            try:
                values |= taken(probe)
            except InapplicableError as error:
                self._leave_out(name, error.message)
            except RuntimeError as error:  # what torch cannot do with a layer of the user's own, or no memory
                if not probe.is_alone:
                    raise  # or other processes would wait for this one
                self._leave_out(name, " ".join(str(error).split()))
        return values

    def _leave_out(self, name: str, reason: str) -> None:
        self._left_out.add(name)
        self.say_left_out(name, reason)

    def say_first(self, module: TaskModule, values: Mapping[str, float]) -> None:
        """Say what is to be said of the first values of a run."""

    def say_left_out(self, name: str, reason: str) -> None:
        """Say once that a measure is left out, and why."""
        log.warning("%s: the measure %s is left out: %s", self.key, name, reason)
