"""When a learning-rate schedule is stepped."""

from __future__ import annotations

from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from targetprop.utils.errors import UserError


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
