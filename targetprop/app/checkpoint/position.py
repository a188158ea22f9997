"""Where in a run a checkpoint was written, and how Lightning's loops go on from just there.

Lightning can save in the middle of an epoch, but goes on from there in ways of its own: after a batch behind which
validation was due it leaves out the validation, after an epoch's last batch also the end of the epoch, and what was
about to be logged is lost. So a checkpoint says by itself where it was written, and before it is loaded the counters of
its loops are set to what they are between two batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import lightning as L

from targetprop.utils.errors import UserError


class Position(NamedTuple):
    """How far a run is.

    Attributes:
        epoch: whole epochs behind it.
        batch: batches of the running epoch behind it; 0 between two epochs.
        step: steps of the optimiser behind it.
        validation_due: whether a validation comes before the next batch.
        accumulated: batches whose gradients wait for a step.
        cut_short: whether the last epoch behind it ended before its batches did.
    """

    epoch: int
    batch: int
    step: int
    validation_due: bool = False
    accumulated: int = 0
    cut_short: bool = False

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}, after batch {self.batch}" if self.batch else f"the end of epoch {self.epoch}"


def position_of(trainer: L.Trainer) -> Position:
    """Where a trainer is, in any hook of the training."""
    loop = trainer.fit_loop
    epochs: Any = loop.epoch_progress.current
    batches: Any = loop.epoch_loop.batch_progress.current
    epoch, step = epochs.processed, trainer.global_step
    last = loop.epoch_loop._num_ready_batches_reached()
    if epochs.started == epoch:
        return Position(epoch, 0, step, cut_short=batches.processed > 0 and not last)
    after_batch = batches.completed < batches.processed  # and before what Lightning does at the end of one
    waiting = after_batch and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]
    accumulated = 0 if last else batches.processed % trainer.accumulate_grad_batches
    return Position(epoch, batches.processed, step, waiting or bool(trainer.validating), accumulated)


def saved_position(saved: Mapping[str, Any]) -> Position:
    """Where the checkpoint was written.

    Raises:
        UserError: it does not say, or it was where no run can go on.
    """
    given = saved["targetprop"].get("position")
    try:
        position = Position(**given)
        loops = saved["loops"]["fit_loop"]
        counters = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]["current"]
        whole = all(isinstance(each, int) and each >= 0 for each in (*position, *counters[0].values()))
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError("it does not say where in the run it was written.")
    if position.cut_short:
        raise UserError(
            f"the run ended within epoch {position.epoch}, as it was told to, and does not go on from there."
        )
    if position.accumulated:
        raise UserError(
            f"it was written {position.accumulated} batches after the last step, and does not hold their gradients; "
            "checkpoints are written every so many steps, not batches."
        )
    return position


def between_batches(saved: Mapping[str, Any], position: Position) -> dict[str, Any]:
    """The loops of a checkpoint, as they are once all is done that belongs to the batch behind it."""
    loops: dict[str, Any] = deepcopy(saved["loops"])
    if not position.batch:
        return loops
    fit = loops["fit_loop"]
    batches = fit["epoch_loop.batch_progress"]
    after_batch = batches["current"]["completed"] < batches["current"]["processed"]
    for counters in (batches["total"], batches["current"]):
        counters["completed"] = counters["processed"]
    if position.validation_due:
        begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        validation = fit["epoch_loop.val_loop.batch_progress"]
        validation.update(total=dict(begun), current=dict(begun), is_last_batch=False)
    elif after_batch:
        fit["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    return loops
