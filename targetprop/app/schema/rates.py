"""The course of a learning rate, tried out before there is a network."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LRScheduler

from targetprop.app.schedule import Schedule, has_ended, refuse_plateau
from targetprop.app.schedules import Plateau
from targetprop.feedback.base import OptimizerSpec, each_of
from targetprop.utils.errors import UserError, require

STEPS = 10
"""Of an epoch that is tried out."""
MOST = 1000
"""Epochs that are."""


def try_rates(schedule: Schedule, f_optim: OptimizerSpec, epochs: int | None) -> None:
    """Make a schedule for one weight, and follow it for as many epochs as the run has.

    Args:
        schedule: to be tried.
        f_optim: the optimiser of the run.
        epochs: of the run; None or -1 if it has no number.

    Raises:
        UserError: it cannot be made, or it leads to a rate that is none.
    """
    groups = max(len(each_of(f_optim.lr)), len(each_of(f_optim.eps or 1.0)))  # whether they fit is not known yet
    optimizer = f_optim.build_by_block({str(n): [torch.zeros(1, requires_grad=True)] for n in range(groups)})
    length = MOST if epochs is None or epochs < 0 else min(epochs, MOST)
    schedule = schedule.with_length(STEPS * length, epochs) if length else schedule
    try:
        scheduler = schedule.make(optimizer)
    except Exception as error:  # whatever a schedule of the user's own raises
        raise _failed("no schedule can be made", error) from error
    require(isinstance(scheduler, LRScheduler), "scheduler._target_", "what makes an LRScheduler", scheduler)
    refuse_plateau(scheduler)
    by_step = schedule.counts_steps(scheduler)
    if isinstance(scheduler, Plateau):
        return  # its course is a matter of the metric, and never rises
    optimizer.step()
    for count in range(length * (STEPS if by_step else 1)):
        rates = [group["lr"] for group in optimizer.param_groups]
        if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
            what = "step" if by_step else "epoch"
            message = f"expected rates of 0 or more, got {float(rates[0]):g} in {what} {count + 1} of those tried"
            raise UserError(message, key="scheduler")
        if has_ended(scheduler):
            return
        try:
            scheduler.step()
        except Exception as error:
            if count and by_step:
                return  # it is at its end: how many steps the run has is not known yet
            raise _failed("the schedule cannot be followed", error) from error


def _failed(what: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{what}: {reason}", key="scheduler")
