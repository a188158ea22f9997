"""Angles and norm ratios between target propagation and backprop, measured during training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from torch import Tensor

from targetprop.app.callbacks.measurements import Measurements
from targetprop.execution.parallel import distributed_of, grid_of
from targetprop.layers.activation import CarryingFeedback
from targetprop.learner import Trainable
from targetprop.measure.alignment import angle, backprop_gradients, block_gradients, feedback_angles, norm_ratio
from targetprop.utils.errors import UserError, require_whole

if TYPE_CHECKING:
    from targetprop.app.module import TaskModule
    from targetprop.network.network import PairedNetwork

log = logging.getLogger(__name__)

SUITED = 15.0
"""Degrees between update and backprop's gradient on the first batch, up to which nothing is said."""


class Alignment(Measurements):
    """Logs every `every_n_steps` steps, for block n = 1, 2, ...:

    - `angle/block{n}`: degrees between its update and backprop's gradient on the same batch and weights;
    - `norm_ratio/block{n}`: norm of its update over `update_scale` (beta) times the norm of backprop's gradient;
    - `feedback_angle/block{n}`: degrees between feedback and forward weights (mean over its linear layers).

    The backprop pass runs beside the training step, on copies of buffers, with the step's random state.
    """

    def __init__(self, every_n_steps: int = 25) -> None:
        require_whole("every_n_steps", every_n_steps, least=1)
        super().__init__()
        self.every_n_steps = every_n_steps
        self._batch: tuple[Tensor, Tensor] | None = None
        self._random_state: list[Tensor] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse to compare the sum of several batches' gradients with that of one."""
        if trainer.accumulate_grad_batches != 1:
            raise UserError(
                "it compares the gradients of one batch; "
                f"with trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} set callbacks.alignment=null.",
                key="callbacks.alignment",
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch of a step that is due, and the random state its dropout masks come from."""
        learner = cast(Trainable, pl_module.learner)
        grid = grid_of(learner)
        if learner.update_scale is None or (grid and grid.column):
            return  # the first process of every group measures, each on its own batch
        if trainer.global_step % self.every_n_steps == 0:
            self._batch, self._random_state = batch, _random_state(batch[0].device)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Compare the gradients that the learner left with backprop's."""
        if self._batch is None:
            return
        (x, y), self._batch = self._batch, None
        learner = cast(Trainable, pl_module.learner)
        assert learner.update_scale is not None
        updates = block_gradients(learner.network)
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            _restore(self._random_state, x.device)
            gradients = backprop_gradients(learner.network, x, y, cast("TaskModule", pl_module).loss)
        if distributed := distributed_of(learner):
            distributed.average_over_rows(gradients)
        values: dict[str, float] = {}
        for n, (pair, update, gradient) in enumerate(zip(learner.network.pairs, updates, gradients, strict=True), 1):
            values[f"angle/block{n}"] = float(angle(update, gradient))
            values[f"norm_ratio/block{n}"] = float(norm_ratio(update, gradient)) / learner.update_scale
            if angles := feedback_angles(pair):
                values[f"feedback_angle/block{n}"] = float(torch.stack(angles).mean())
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        if not self.rows:
            for line in unsuited(learner.network, [values[f"angle/block{n}"] for n, _ in enumerate(updates, 1)]):
                log.warning(line)
        epoch = trainer.global_step / max(1, int(trainer.num_training_batches))
        self.rows.append({"step": trainer.global_step, "epoch": epoch, **values})


def unsuited(network: PairedNetwork, angles: Sequence[float]) -> list[str]:
    """A line for each activation through which targets come down far from where backprop's errors would.

    Args:
        angles: of every block's update to backprop's gradient, degrees.
    """
    lines = []
    for number, pair in network.fed.items():
        carrying = [each.name for each in pair.modules() if isinstance(each, CarryingFeedback)]
        if carrying and angles[number - 1] > SUITED:
            lines.append(
                f"Block {pair.name}: through {' and '.join(dict.fromkeys(carrying))} targets come down "
                f"{angles[number - 1]:.0f} degrees from backprop's gradient, on the first batch. Activations that "
                "suit: ELU, tanh, sigmoid, softplus; or a smaller beta."
            )
    return lines


def _random_state(device: torch.device) -> list[Tensor]:
    """Of the CPU and, if it is another one, of the device."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _restore(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
