"""The Lightning module: a learner, its forward optimiser, and the metrics of its task."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric, MetricCollection

from targetprop.app.checkpoint.forms import refuse_foreign_state, refuse_other_forms
from targetprop.app.checkpoint.harmless import inside_only
from targetprop.app.checkpoint.position import between_batches, position_of, saved_position
from targetprop.app.checkpoint.record import KEY as RECORD
from targetprop.app.checkpoint.resume import Start
from targetprop.app.checkpoint.running import running, take_over
from targetprop.app.checkpoint.settings import WHOLE_EPOCHS
from targetprop.app.checkpoint.stopping import ended, keep_own_patience
from targetprop.app.errors import DivergenceError
from targetprop.app.finite import ADVICE, Outputs, block_not_finite
from targetprop.app.optimizers import build_forward
from targetprop.app.places import NUMBERS
from targetprop.app.provenance import hyper_parameters
from targetprop.app.schedule import Schedule, advance, has_ended, refuse_plateau, refuse_short
from targetprop.app.schedules import Plateau
from targetprop.app.single import refuse_single_images
from targetprop.app.task import Loss, Result, Task
from targetprop.data.loader import BatchLoader
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.data.views import Views
    from targetprop.execution.graph import GraphedStep, Outcome
    from targetprop.execution.grid import Grid
    from targetprop.feedback.base import OptimizerSpec
    from targetprop.step import Step
    from targetprop.trainable import Trainable

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]


class TaskModule(L.LightningModule):
    """Trains a network for a task, by whatever rule.

    Optimisation is Lightning's automatic one: only `backward` differs, where that of the learner stands for
    `loss.backward()`.

    Args:
        learner: what is trained.
        f_optim: optimiser of the forward blocks.
        task: what for.
        outputs: how many numbers the network gives for an example.
        loss: what is minimised: (outputs, targets) -> mean over the batch. Evaluation reports the task's own.
        scheduler: the learning-rate schedule of the forward optimiser.
        graphed: the learner's training step as CUDA graphs; None trains step by step.

    Attributes:
        record: what every checkpoint keeps of the run, in plain types (see `checkpoint.record`).
        start: what the run goes on from.
        multiply_adds: of one example's forward pass, where they were counted.
        views: by which evaluations are made a second time, on the mean of the outputs of all views.
        results: of the last evaluations, by their place: "val", "test", "val_views", "test_views".
    """

    def __init__(
        self,
        learner: Trainable,
        f_optim: OptimizerSpec,
        task: Task,
        outputs: int,
        loss: Loss,
        scheduler: Schedule | None = None,
        graphed: GraphedStep | None = None,
    ) -> None:
        super().__init__()
        self.learner = learner
        self.f_optim = f_optim
        self.task = task
        self.scheduler = scheduler
        self.graphed = graphed
        self.loss = loss
        self.record: Mapping[str, Any] = {}
        self.has_begun = self._ended_early = False
        self.start = Start()
        self.multiply_adds = 0
        self.views: Views | None = None
        self._targets: Tensor | None = None  # of the batch, between training_step and backward
        self._outcome: Outcome | None = None  # of a graph, between training_step and backward
        self.last_step: Step | None = None
        self._train_metrics = nn.ModuleDict(task.training_metrics(outputs))
        self.val_metrics, self.test_metrics, self.view_metrics = (task.evaluation_metrics(outputs) for _ in range(3))
        self.results: dict[str, Result] = {}
        self._outputs = Outputs()  # of the evaluation that is under way

    @property
    def train_metrics(self) -> dict[str, Metric]:
        """Those of the running epoch, by their names; "loss" is among them."""
        return cast(dict[str, Metric], dict(self._train_metrics.items()))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (batch, outputs) for examples (batch, ...)."""
        return self.learner(x)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of the batch."""
        x, y = batch
        self._targets = y
        if self.graphed is None:
            outputs = self.learner(x)
            loss = self.loss(outputs, y)
        else:
            self.zero_grad()  # Lightning does so only between this and `backward`
            self._outcome = self.graphed.run(x, y)
            outputs, loss = self._outcome.output, self._outcome.loss
        for name, metric in self.train_metrics.items():
            metric.update(*((loss.detach(),) if name == "loss" else (outputs.detach(), y)))
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The learner's, in place of backprop; of a graph, which has done it, only the results."""
        targets, self._targets = self._targets, None
        if self.graphed is None or self._outcome is None:
            assert targets is not None
            loss_of = partial(self._loss_of, targets)
            self.last_step = self.learner.backward(loss, labels=self.task.labels(targets), loss_of=loss_of)
        else:
            self.graphed.hand_over(self._outcome)
            self.last_step, self._outcome = self._outcome.step, None

    def _loss_of(self, targets: Tensor, output: Tensor) -> Tensor:
        return self.loss(output, targets)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the run is, where it is, and what is under way.

        Raises:
            DivergenceError: weights are not finite, so that it would be no good checkpoint.
        """
        if (bad := block_not_finite(self.learner.network.pairs)) is not None:
            step = self.trainer.global_step
            raise DivergenceError(f"Training diverged by step {step}: not finite: {bad}. Nothing was saved. {ADVICE}")
        position = position_of(self.trainer)
        under_way = running(self.trainer, position, self._epoch_metrics)
        checkpoint[RECORD] = {**self.record, "position": position._asdict(), "running": under_way}
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = hyper_parameters(self.record)  # where others look for them

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set Lightning's counters to where the run goes on, and believe no path outside the folders of checkpoints."""
        if self.trainer.state.fn == "fit":
            refuse_other_forms(self.trainer, checkpoint)
            checkpoint["loops"] = between_batches(checkpoint, saved_position(checkpoint))
            inside_only(checkpoint["callbacks"])
            keep_own_patience(self.trainer, checkpoint["callbacks"])

    def on_train_start(self) -> None:
        """Refuse batches that the network cannot be trained on; go on from where the run was, with new settings."""
        loader = self.trainer.train_dataloader
        if isinstance(loader, BatchLoader):
            refuse_single_images(loader, int(self.trainer.num_training_batches), self.learner.network)
            # Lightning would, but not where it looked into the loader before, as for the length of a schedule.
            loader.load_state_dict({"batch": 0 if self._epoch_was_over else self.start.position.batch})
        if self.start.changed:
            self._change(self.start)
        if self.start.running:
            take_over(self.trainer, self.start.running, self._epoch_metrics)
        if self.start.path:
            refuse_foreign_state([*self.trainer.optimizers, *self.learner.own_optimizers()])
        if self.start.path and (reason := ended(self.trainer, self.start.changed)):
            log.info("Early stopping has ended this run: %s With more patience it would go on.", reason)
            self._ended_early = True
            self.trainer.should_stop = not self._epoch_was_over  # else at its end
        self.has_begun = True

    @property
    def _epoch_was_over(self) -> bool:
        """Whether the run goes on behind an epoch's last batch, but before the epoch's end."""
        return self.start.position.batch == self.trainer.num_training_batches

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Give back the batch that Lightning begins with where the epoch goes on that has none left."""
        position = self.start.position
        if self._epoch_was_over and not position.validation_due and batch_idx == position.batch:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress
            for counters in (progress.total, progress.current):
                counters.ready -= 1
            self.trainer.should_stop |= self._ended_early
            raise StopIteration

    def _change(self, start: Start) -> None:
        """Have settings take effect that a checkpoint brought other values of."""
        keys = [each.key for each in start.changed]
        if any(key.startswith(f"{NUMBERS}.b_optim.") for key in keys):
            self.learner.use_own_numbers()
        lengths = WHOLE_EPOCHS if any(each.interval == "step" for each in self.trainer.lr_scheduler_configs) else ()
        if any(key.startswith((f"{NUMBERS}.f_optim.", "scheduler", "trainer.max_", *lengths)) for key in keys):
            (optimizer,) = self.trainer.optimizers
            self.f_optim.set_numbers(optimizer)
            for each in self.trainer.lr_scheduler_configs:
                each.scheduler = self._caught_up(each.scheduler, optimizer, keys)
            rate = optimizer.param_groups[0]["lr"]
            log.info("Rates go on as they would be had these settings been the run's from its start: now %.4g.", rate)

    def _caught_up(self, so_far: LRScheduler, optimizer: torch.optim.Optimizer, changed: list[str]) -> LRScheduler:
        """The schedule of the settings of now, where it would be had they been the run's from its start."""
        scheduler = self._schedule(optimizer)
        if isinstance(scheduler, Plateau):
            if {"scheduler._target_", "scheduler.monitor"} & {*changed}:
                message = "the run so far has not been waiting for this metric; start one without ckpt_path"
                raise UserError(f"{message}, got {scheduler.monitor!r}", key="scheduler.monitor")
            assert isinstance(so_far, Plateau)
            scheduler.replay(so_far.seen, so_far.latest)
            return scheduler
        position = self.start.position
        epochs, steps = position.epoch + self._epoch_was_over, position.step
        if any(key.startswith(WHOLE_EPOCHS) for key in changed):
            steps = epochs * round(self.trainer.estimated_stepping_batches / (self.trainer.max_epochs or 1))
        assert self.scheduler is not None
        advance(scheduler, steps if self.scheduler.counts_steps(scheduler) else epochs)
        return scheduler

    @property
    def _epoch_metrics(self) -> list[Metric]:
        """Those of the running epoch."""
        return list(self.train_metrics.values())

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let go of the step, which the callbacks have seen: its activations would double the next one's memory.

        With an epoch's last batch, processes that train on other batches add theirs to the epoch's means.
        """
        self.last_step = None
        grid: Grid | None = getattr(self.trainer.strategy, "grid", None)
        if grid and grid.rows > 1 and batch_idx + 1 == self.trainer.num_training_batches:
            for metric in self._epoch_metrics:
                metric.sync(process_group=grid.same_pairs)
                metric._is_synced = False  # else the first reader of several would undo it

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means, and show a schedule that waits for a metric what has come of the epoch."""
        for name, metric in self.train_metrics.items():
            self.log(f"train/{name}", metric)
        for plateau in self._plateaus:
            if (name := plateau.monitor.removeprefix("train/")) in self.train_metrics and name != plateau.monitor:
                plateau.latest = float(self.train_metrics[name].compute())
            plateau.end_epoch()

    @property
    def _plateaus(self) -> list[Plateau]:
        """The schedules of a run in training that wait for a metric."""
        if self.trainer.state.fn != "fit" or self.trainer.sanity_checking:
            return []
        return [each.scheduler for each in self.trainer.lr_scheduler_configs if isinstance(each.scheduler, Plateau)]

    def on_train_end(self) -> None:
        """Refuse to end well with a network that is not one of finite numbers."""
        self._outputs.refuse_not_finite("training", self.learner.network.pairs)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the validation metrics."""
        self._evaluate(self.val_metrics, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the test metrics."""
        self._evaluate(self.test_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_evaluation("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_evaluation("test", self.test_metrics)

    def _evaluate(self, metrics: MetricCollection, batch: Batch) -> None:
        x, y = batch
        if self.views is None:
            metrics.update(self._outputs.see(self.learner(x)), y)
            return
        outputs = [self._outputs.see(self.learner(view)) for view in self.views(x)]
        metrics.update(outputs[0], y)
        self.view_metrics.update(torch.stack(outputs).mean(0), y)

    def _log_evaluation(self, part: str, metrics: MetricCollection) -> None:
        self._outputs.refuse_not_finite(part, self.learner.network.pairs)
        self._log_metrics(part, metrics)
        if self.views is not None:
            self._log_metrics(f"{part}_views", self.view_metrics)

    def _log_metrics(self, part: str, metrics: MetricCollection) -> None:
        values = metrics.compute()
        self.results[part] = self.task.result(values, metrics)
        metrics.reset()
        self.log_dict({f"{part}/{name}": values[name] for name in self.task.evaluated})
        for plateau in self._plateaus:
            if (found := values.get(plateau.monitor.removeprefix(f"{part}/"))) is not None:
                plateau.latest = float(found)

    def configure_optimizers(self) -> Any:
        """The forward optimiser and its schedule, which is stepped once an epoch unless it counts steps."""
        optimizer = build_forward(self.f_optim, self.learner)
        if self.scheduler is None:
            return optimizer
        scheduler = self._schedule(optimizer)
        interval = "step" if self.scheduler.counts_steps(scheduler) else "epoch"
        own = {"scheduler": scheduler, "interval": interval, "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": own}

    def _schedule(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """The schedule of the whole run, at its start.

        Raises:
            UserError: it does not fit.
        """
        assert self.scheduler is not None
        steps = self.trainer.estimated_stepping_batches
        schedule = self.scheduler.with_length(steps, self.trainer.max_epochs)
        try:
            scheduler = schedule.make(optimizer)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise UserError(str(error), key="scheduler") from error
        refuse_plateau(scheduler)
        if schedule.counts_steps(scheduler):
            refuse_short(scheduler, steps)
        return scheduler

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule, unless it has come to its end, or waits for a metric."""
        if not (has_ended(scheduler) or isinstance(scheduler, Plateau)):
            super().lr_scheduler_step(scheduler, metric)
