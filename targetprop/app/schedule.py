"""When a learning-rate schedule is stepped, and by what."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from omegaconf import DictConfig, open_dict
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from targetprop.app.schedules import Plateau, WarmupCosine
from targetprop.utils.errors import UserError

MakeScheduler = Callable[[Optimizer], LRScheduler]
STEPS_PER_EPOCH = "steps_per_epoch"
LENGTHS = ("T_max", "total_iters")
"""Lengths of schedules, in what they count."""
INTERVAL = "interval"
"""What of a section is not the scheduler's: what it counts."""


@dataclass(frozen=True)
class Schedule:
    """How a schedule is made, and what it counts.

    Args:
        make: it, for an optimiser.
        interval: "step" or "epoch"; None for what such a schedule counts by itself.
    """

    make: MakeScheduler
    interval: str | None = None

    def counts_steps(self, scheduler: LRScheduler) -> bool:
        """Whether it is to be stepped after every step of the optimiser, and not after every epoch.

        Raises:
            UserError: it cannot count what it is asked to.
        """
        by_itself = counts_steps(scheduler)
        if self.interval == "epoch" and by_itself:
            raise UserError(f"expected step, since {type(scheduler).__name__} counts steps, got epoch", key=_INTERVAL)
        if self.interval == "step" and isinstance(scheduler, Plateau):
            raise UserError("expected epoch, since it looks at validations, got step", key=_INTERVAL)
        return by_itself or self.interval == "step"

    def with_length(self, steps: float, epochs: int | None) -> Schedule:
        """The same, with the length of this run where a schedule's was left null.

        Args:
            steps: of the run.
            epochs: of the run.

        Raises:
            UserError: it was, and the run has no number of epochs.
        """
        given = self.make.keywords if isinstance(self.make, partial) else {}
        left = [name for name in (STEPS_PER_EPOCH, *LENGTHS) if name in given and given[name] is None]
        if not left:
            return self
        if epochs is None or epochs < 1:
            what = "epochs" if left[0] in LENGTHS and self.interval != "step" else "steps"
            message = f"expected a number of {what}, since trainer.max_epochs gives the run no length, got null"
            raise UserError(message, key=f"scheduler.{left[0]}")
        length = round(steps) if self.interval == "step" else epochs
        filled = {name: round(steps / epochs) if name == STEPS_PER_EPOCH else length for name in left}
        return Schedule(partial(self.make, **filled), self.interval)


_INTERVAL = f"scheduler.{INTERVAL}"


def scheduler_of(section: DictConfig) -> DictConfig:
    """A section without what is not the scheduler's own."""
    own = section.copy()
    with open_dict(own):
        own.pop(INTERVAL, None)
    return own


def counts_steps(scheduler: LRScheduler) -> bool:
    """Whether it is made to be stepped after every step of the optimiser; all others count epochs."""
    parts = getattr(scheduler, "_schedulers", [])  # of one that is made of several
    return isinstance(scheduler, OneCycleLR | CyclicLR | WarmupCosine) or any(map(counts_steps, parts))


def has_ended(scheduler: LRScheduler) -> bool:
    """Whether a one-cycle schedule is at its last rate: torch would have it rise again, and then fail."""
    return isinstance(scheduler, OneCycleLR) and scheduler.last_epoch >= scheduler.total_steps - 1


def refuse_plateau(scheduler: LRScheduler) -> None:
    """Raise `UserError` for torch's own schedule that waits for a metric, which would not go on exactly."""
    if isinstance(scheduler, ReduceLROnPlateau) and not isinstance(scheduler, Plateau):
        message = "expected targetprop.app.schedules.Plateau (scheduler=plateau), got ReduceLROnPlateau"
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
