"""A mixin for modules of Lightning whose networks are trained by learners.

It imports no Lightning: whatever calls `on_fit_start` and `backward` as a `LightningModule` is called will do, of the
package `lightning` as of `pytorch_lightning`. The command line's own module (`app/module.py`) does more, for a
configuration; this one leaves `training_step`, the optimisers and everything else to the user.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from targetprop.learner import Learner
from targetprop.learners.base import LocalLearner
from targetprop.loops.hooked import hooked
from targetprop.utils.errors import UserError


class LightningMixin:
    """Trains the learners among a module's modules where Lightning calls `backward`; `training_step` stays as it is.

    >>> class Classifier(LightningMixin, L.LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net = Learner(network, "dtp")

    It stands in front of `LightningModule`. Automatic and manual optimisation, several learners and several optimisers
    work, which may be given `self.parameters()`: those of the feedback have no gradient, unless they follow the forward
    weights by your optimiser. With `accumulate_grad_batches` targets are those of the undivided loss. Checkpoints hold
    the state of the feedback.
    """

    def on_fit_start(self) -> None:
        """Hook the learners; an override must call it.

        Raises:
            UserError: there is none, or several processes are to train it.
        """
        learners = _learners_in(self)
        if not learners:
            name = type(self).__name__
            raise UserError(f"{name} has no learner: say self.net = Learner(network, 'dtp') in it.", key="module")
        processes = _run_of(self).world_size
        if processes > 1:
            raise UserError(
                f"expected one process, got {processes}: their gradients would not be averaged, and their feedback "
                "would learn apart; use targetprop.execution.parallel.distribute(learner, Grid.of_world(rows)).",
                key="devices",
            )
        for each in learners:
            if each.hook is None:
                hooked(each)
        super().on_fit_start()  # type: ignore[misc]

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """`loss.backward()`, which trains the learners.

        Raises:
            UserError: a learner was not hooked, since an override of `on_fit_start` did not call it.
        """
        for each in _learners_in(self):
            if each.hook is None:
                raise UserError("call super().on_fit_start() in on_fit_start of your module.", key="on_fit_start")
            each.hook.set_share(1 / _run_of(self).accumulate_grad_batches)
        super().backward(loss, *args, **kwargs)  # type: ignore[misc]


def _learners_in(module: Any) -> list[Learner | LocalLearner]:
    return [each for each in module.modules() if isinstance(each, Learner | LocalLearner)]


def _run_of(module: Any) -> Any:
    """The trainer that fits it."""
    return module.trainer
