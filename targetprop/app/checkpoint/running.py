"""What is under way in a run beside weights and states: a checkpoint keeps it, a run that goes on takes it over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from targetprop.app.checkpoint.position import Position
from targetprop.app.loggers.journal import Journal

State = Mapping[str, Any]


def running(trainer: L.Trainer, position: Position, metrics: Sequence[Metric]) -> State:
    """What is under way, in plain types and tensors.

    Args:
        position: where the run is.
        metrics: the running epoch's, so far.
    """
    return {
        "journals": [each.length() for each in trainer.loggers if isinstance(each, Journal)],
        "unlogged": _unlogged(trainer, position),
        "seen": {key: float(value) for key, value in trainer.callback_metrics.items()},
        "metrics": _of_all_rows(trainer, [_metric_state(each) for each in metrics]) if position.batch else [],
        "random": _random_state(trainer.strategy.root_device),
    }


def go_on_logging(trainer: L.Trainer, state: State, source: Path, own: Path) -> bool:
    """Have the files of the loggers go on from where they were, before anything is logged.

    Args:
        source: directory of the run that wrote the checkpoint.
        own: directory of this run.

    Returns:
        Whether all that had been logged is there.
    """
    whole = True
    journals = [each for each in trainer.loggers if isinstance(each, Journal)]
    for journal, length in zip(journals, state["journals"], strict=False):
        inside = journal.folder.resolve().is_relative_to(own.resolve())
        place = source / journal.folder.resolve().relative_to(own.resolve()) if inside else journal.folder
        whole &= journal.go_on(length, journal.folder if place.resolve() == journal.folder.resolve() else place)
    if unlogged := state["unlogged"]:
        for logger in trainer.loggers:
            logger.log_metrics(unlogged["values"], step=unlogged["step"])
            logger.save()
    return whole


def take_over(trainer: L.Trainer, state: State, metrics: Sequence[Metric]) -> None:
    """Set what is under way, once everything is on its device and before the first batch."""
    device = trainer.strategy.root_device
    trainer.callback_metrics.update({key: torch.tensor(value) for key, value in state["seen"].items()})
    if state["metrics"]:
        grid = getattr(trainer.strategy, "grid", None)
        for metric, saved in zip(metrics, state["metrics"][grid.row if grid else 0], strict=True):
            _set_metric(metric, saved, device)
    torch.set_rng_state(state["random"]["cpu"])
    if device.type == "cuda" and "cuda" in state["random"]:
        torch.cuda.set_rng_state(state["random"]["cuda"], device)


def _unlogged(trainer: L.Trainer, position: Position) -> State | None:
    """The means of an epoch that ends with this hook: Lightning logs them after all callbacks have saved."""
    ending: Any = trainer.fit_loop.epoch_progress.current
    if position.batch or not trainer.training or ending.completed == ending.processed:
        return None
    values = {key: float(value) for key, value in trainer._logger_connector.metrics["log"].items()}
    step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
    return {"step": step, "values": {"epoch": trainer.current_epoch, **values}} if values else None


def _of_all_rows(trainer: L.Trainer, own: list[dict[str, Any]]) -> list[Any]:
    """The states of all groups of processes that train on batches of their own; a collective call."""
    grid = getattr(trainer.strategy, "grid", None)
    if grid is None or grid.rows == 1:
        return [own]
    gathered: list[Any] = [None] * grid.rows
    dist.all_gather_object(gathered, own, group=grid.same_pairs)
    return gathered


def _metric_state(metric: Metric) -> dict[str, Any]:
    states = metric.metric_state.items()
    values = {name: value.detach().cpu().clone() for name, value in states if isinstance(value, Tensor)}
    return {"count": metric.update_count, "values": values}


def _set_metric(metric: Metric, state: Mapping[str, Any], device: torch.device) -> None:
    for name, value in state["values"].items():
        setattr(metric, name, value.to(device))
    metric._update_count = state["count"]


def _random_state(device: torch.device) -> State:
    state = {"cpu": torch.get_rng_state()}
    return {**state, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state
