"""A learner's step as a part of `loss.backward()`, for loops that others wrote; `targetprop.loops.hooked` sets it up.

The output that a hooked learner gives is a node of autograd's graph. When its gradient has come, the node trains the
learner, and passes on the gradient of the input. So a loss may depend on several calls, and on several learners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from targetprop.step import Step
from targetprop.utils.compiled import uncompiled
from targetprop.utils.errors import UserError, require


@dataclass(frozen=True)
class Asked:
    """What a step is given beside the gradient, and whether to keep outputs and targets; see `Learner.backward`."""

    labels: Tensor | None = None
    loss_of: Callable[[Tensor], Tensor] | None = None
    keep: bool = False

    @property
    def is_of_one_call(self) -> bool:
        """Whether there is something in it that belongs to one batch."""
        return self.labels is not None or self.loss_of is not None


class Trains(Protocol):
    """What can be hooked."""

    def train_on(self, call: Any, gradient: Tensor, asked: Asked, share: float) -> tuple[Step, Tensor | None]:
        """The step of a forward call.

        Args:
            call: what the forward call kept.
            gradient: dL/ds^N of each sample's own loss, (batch, ...).
            share: what the gradients of the parameters and of the input are multiplied by.

        Returns:
            The step, and the gradient of the input if it asks for one.
        """


class Hook:
    """Trains a learner when the gradient of its output comes.

    Args:
        share: which part of the loss's mean a backward pass is, as 1/4 where four losses, each divided by four, are to
            be one step. Targets are those of the undivided loss, and gradients add up to its.

    Attributes:
        latest: the latest step.

    Raises:
        UserError: a share that is no number above 0 and up to 1.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.set_share(share)
        self.latest: Step | None = None
        self._asked: Asked | None = None

    def set_share(self, share: float) -> None:
        """Have backward passes be this part of a loss's mean from now on."""
        met = isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1
        require(met, "share", "a number above 0 and up to 1", share)
        self.share = float(share)

    def hand_out(self, learner: Trains, call: Any, x: Tensor, output: Tensor) -> Tensor:
        """The output of a call on x, as a node that waits for its gradient."""
        anchor = torch.zeros((), requires_grad=True).view(())  # no leaf, of which torch does not tell what is wanted
        made: Tensor = _Arrives.apply(x, anchor, output, self, learner, call)
        return made

    def go_back(self, loss: Tensor, asked: Asked) -> Step:
        """`loss.backward()` of one loss, or of one for each sample, with more than it can tell.

        Raises:
            UserError: the loss is of no call in training mode, or of several and there are labels or a function.
        """
        require(isinstance(loss, Tensor), "backward", "a loss, computed from the output", type(loss).__name__)
        self._go_back(loss, asked)
        if self.latest is None:
            raise UserError(
                "the loss must be computed from the output of a call in training mode, with gradients on.",
                key="backward",
            )
        return self.latest

    def _go_back(self, loss: Tensor, asked: Asked) -> None:
        self.latest, self._asked = None, asked
        try:
            if loss.requires_grad:
                loss.mean().backward()
        finally:
            self._asked = None

    @uncompiled
    def arrive(self, learner: Trains, call: Any, gradient: Tensor) -> Tensor | None:
        """Train on the gradient at the output, (batch, ...); returns that of the input, if it asks for one."""
        asked = self._asked or Asked()
        if asked.is_of_one_call and self.latest is not None:
            raise UserError("labels and loss_of belong to one call, and the loss is of several.", key="backward")
        try:
            step, below = learner.train_on(call, gradient * (len(gradient) / self.share), asked, self.share)
        except UserError as error:
            if error.key != "labels" or asked.labels is not None:
                raise
            message = f"{error.message.rstrip('.')}: call learner.backward(loss, labels=y) in place of loss.backward()."
            raise UserError(message, key="labels") from None
        self.latest = step
        return below


class _Arrives(torch.autograd.Function):
    """The output of a call, as autograd sees it: made from x and from an anchor, which wants a gradient in any case."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, output: Tensor, hook: Hook, learner: Trains, call: Any) -> Tensor:
        ctx.hook, ctx.learner, ctx.call = hook, learner, call
        return output.clone()  # which the caller may change in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.call is None:
            raise UserError("this pass has been trained on: call the learner again.", key="backward")
        if not torch._C._will_engine_execute_node(_anchor_of(ctx)):
            raise UserError(
                "a gradient of the input alone would train a hooked learner: ask for it in evaluation mode, after "
                "learner.eval().",
                key="backward",
            )
        call, ctx.call = ctx.call, None
        return ctx.hook.arrive(ctx.learner, call, gradient), None, None, None, None, None


def _anchor_of(ctx: FunctionCtx) -> Any:
    return ctx.next_functions[1][0]  # type: ignore[attr-defined]
