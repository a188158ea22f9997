"""When a learning-rate schedule is stepped."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from targetprop.utils.errors import UserError

MakeScheduler = Callable[[Optimizer], LRScheduler]
LENGTH = "steps_per_epoch"


def with_length(make: MakeScheduler, steps: float, epochs: int | None) -> MakeScheduler:
    """The same, with the steps of an epoch of this run where a schedule's `steps_per_epoch` was left null.

    Args:
        steps: of the run.
        epochs: of the run.

    Raises:
        UserError: it was, and the run has no number of epochs.
    """
    if not (isinstance(make, partial) and LENGTH in make.keywords and make.keywords[LENGTH] is None):
        return make
    if epochs is None or epochs < 1:
        message = "expected a number of steps, since trainer.max_epochs gives the run no length, got null"
        raise UserError(message, key=f"scheduler.{LENGTH}")
    return partial(make, **{LENGTH: round(steps / epochs)})


def counts_steps(scheduler: LRScheduler) -> bool:
    """Whether it is made to be stepped after every step of the optimiser; all others count epochs."""
    parts = getattr(scheduler, "_schedulers", [])  # of one that is made of several
    return isinstance(scheduler, OneCycleLR | CyclicLR) or any(map(counts_steps, parts))


def has_ended(scheduler: LRScheduler) -> bool:
    """Whether a one-cycle schedule is at its last rate: torch would have it rise again, and then fail."""
    return isinstance(scheduler, OneCycleLR) and scheduler.last_epoch >= scheduler.total_steps - 1


def refuse_plateau(scheduler: LRScheduler) -> None:
    """Raise `UserError` for a schedule that waits for a metric: a rate that follows it is not known beforehand."""
    if isinstance(scheduler, ReduceLROnPlateau):
        message = (
            "expected a schedule by epochs or steps, such as StepLR, got ReduceLROnPlateau, which waits for a metric"
        )
        raise UserError(message, key="scheduler._target_")


def refuse_short(scheduler: LRScheduler, steps: float) -> None:
    """Raise `UserError` for a one-cycle schedule that ends before the so many steps of a run do."""
    if isinstance(scheduler, OneCycleLR) and scheduler.total_steps < steps:
        message = f"expected {steps:.0f} or more, the steps of the run, got {scheduler.total_steps}"
        raise UserError(message, key="scheduler.total_steps")


def advance(scheduler: LRScheduler, steps: int) -> None:
    """Bring a schedule that begins to where it is after so many steps of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the optimiser has made no step: another one of it has
        for _ in range(steps):
            if not has_ended(scheduler):
                scheduler.step()
