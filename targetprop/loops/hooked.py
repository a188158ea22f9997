"""Learners that train when `loss.backward()` is called, for loops that others wrote."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from targetprop.baselines.backprop import Backprop
from targetprop.hook import Hook
from targetprop.learner import Learner
from targetprop.learners.base import LocalLearner
from targetprop.utils.errors import UserError

L = TypeVar("L", bound=nn.Module)


def hooked(learner: L, *, share: float = 1.0) -> L:
    """Have `loss.backward()` train a learner, in place of `learner.backward(loss)`; gradients are the same.

    >>> learner = hooked(Learner(network, "dtp"))
    >>> F.cross_entropy(learner(x), y).backward()

    `learner.backward(loss, ...)` still works, and a loss may depend on several calls and on several learners, each
    call being a step of its feedback. `learner.hook.latest` is the latest `Step`.

    Args:
        learner: a Learner, or one in its place; backprop needs no hook.
        share: of a loss that a loop divides before it calls backward, as 1/4 where it adds up four batches: targets
            are then those of the undivided loss. Without it they lie a quarter as far from the activations.

    Returns:
        The same learner.

    Raises:
        UserError: it is no learner, or no such share.
    """
    if isinstance(learner, Learner | LocalLearner):
        learner.hook = Hook(share)
    elif not isinstance(learner, Backprop):
        raise UserError(f"expected a Learner, got {type(learner).__name__}.", key="hooked")
    return learner
