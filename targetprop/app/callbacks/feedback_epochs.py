"""Whole epochs in which the feedback learns and nothing else: before training, and after each of its epochs."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from targetprop.app.callbacks.find import find_callback
from targetprop.app.callbacks.stop import StopOnSignal
from targetprop.data.loader import BatchLoader, EpochCounter
from targetprop.learner import Learner
from targetprop.utils.errors import UserError, refuse_unknown, require, require_whole

if TYPE_CHECKING:
    from targetprop.app.module import TaskModule

log = logging.getLogger(__name__)


class FeedbackEpochs(L.Callback):
    """Runs through the training images, in orders of its own, with `Learner.learn_feedback`.

    Meulemans et al. 2020 train so (https://arxiv.org/abs/2006.14331): six epochs before training, one after each epoch.
    A checkpoint holds how many there have been: a run that goes on makes the others.

    Args:
        before: epochs of the feedback before training.
        after_each: epochs of the feedback after each epoch of training.
        alone: whether the feedback learns in these epochs only: in training steps it then stays as it is.

    Raises:
        UserError: a number that does not fit, or none by which there is anything to do.
    """

    def __init__(self, before: int = 0, after_each: int = 0, *, alone: bool = False) -> None:
        require_whole("before", before, least=0)
        require_whole("after_each", after_each, least=0)
        require(isinstance(alone, bool), "alone", "true or false", alone)
        if alone and not before + after_each:
            raise UserError("the feedback would never learn: set before or after_each, or alone=false.", key="alone")
        self.before = before
        self.after_each = after_each
        self.alone = alone
        self._made = 0
        self._held: list[nn.Parameter] = []

    def state_dict(self) -> dict[str, Any]:
        """How many epochs there have been."""
        return {"made": self._made}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._made = int(state_dict["made"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse what cannot learn so."""
        learner = pl_module.learner
        if not self.before + self.after_each:
            return
        if not isinstance(learner, Learner) or not learner.learning.learns_alone:
            raise UserError(
                "the model has no feedback that learns by itself, set both to 0.", key="model.feedback_epochs"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The epochs before training."""
        module = cast("TaskModule", pl_module)
        if self.alone:
            self._held = [p for p in module.learner.network.feedback_parameters() if p.requires_grad]
            self._hold(held=True)
        self._go_on(trainer, module, self.before)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Those after an epoch."""
        self._go_on(trainer, cast("TaskModule", pl_module), self.before + (trainer.current_epoch + 1) * self.after_each)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let go of the feedback."""
        self._hold(held=False)

    def _hold(self, *, held: bool) -> None:
        for parameter in self._held:
            parameter.requires_grad_(not held)

    def _go_on(self, trainer: L.Trainer, module: TaskModule, wanted: int) -> None:
        """Make the epochs that are missing."""
        while self._made < wanted:
            self._hold(held=False)
            losses = self._epoch(trainer, module)
            self._hold(held=True)
            self._made += 1
            said = ", ".join(f"{float(loss):.3g}" for loss in losses)
            log.info("Epoch %d of the feedback alone; its losses: %s.", self._made, said)

    def _epoch(self, trainer: L.Trainer, module: TaskModule) -> Tensor:
        """One epoch; the mean loss of each block."""
        learner, total, count = module.learner, torch.zeros(()), 0
        assert isinstance(learner, Learner)
        stop = find_callback(trainer, StopOnSignal)
        for batch in itertools.islice(self._batches(trainer), int(trainer.num_training_batches)):
            if stop and not trainer.global_step:  # after an epoch, it is its checkpoint that is waited for
                stop.stop_if_asked(trainer)
            x = trainer.strategy.batch_to_device(batch)[0]
            with trainer.precision_plugin.train_step_context():
                total, count = total.to(x.device) + learner.learn_feedback(x), count + 1
        return (total / max(1, count)).reshape(-1)

    def _batches(self, trainer: L.Trainer) -> Iterator[Any]:
        """The training batches, without moving the loader that training goes on with."""
        loader: Any = trainer.train_dataloader
        if isinstance(loader, BatchLoader):
            loader = copy.copy(loader)
            loader.sampler = EpochCounter()
            loader.sampler.set_epoch(self._made)
            loader.load_state_dict({"batch": 0})
        return iter(loader)


def feedback_epochs(settings: Mapping[str, Any] | None) -> FeedbackEpochs | None:
    """The callback by `model.feedback_epochs`; None if there are none.

    Raises:
        UserError: a setting that there is not, or a value that does not fit.
    """
    if settings is None:
        return None
    require(isinstance(settings, Mapping), "", "before, after_each and alone", settings)
    refuse_unknown(settings, ["before", "after_each", "alone"])
    made = FeedbackEpochs(**settings)
    return made if made.before + made.after_each else None
