"""The loss that a network learns by: at an import path, and checked before there is a network."""

from __future__ import annotations

import inspect
from functools import partial

import torch
from hydra.utils import get_method
from omegaconf import DictConfig
from torch import Tensor

from targetprop.app.described import Described
from targetprop.app.objects import build
from targetprop.app.schema.roles import made_by
from targetprop.app.task import Loss, Task
from targetprop.utils.errors import UserError, is_number, prefixed, require

OF_THE_LOSS = ("loss", "label_smoothing")
"""What of a model makes its loss."""


def task_and_loss(config: DictConfig, data: Described) -> tuple[Task, Loss]:
    """What a network is to do with such data, and the loss by which it learns to.

    Raises:
        UserError: the data are of another task, or the loss is none of it, named by its full key.
    """
    task: Task = build(config.task)
    path = config.model.get("loss", task.loss)
    with prefixed("model"):
        loss = _loss(path, config.model.get("label_smoothing", 0.0))
    task.check(data, loss)
    _check_loss(loss, path, task.output_shape(data), data)
    return task, loss


def _loss(path: str, label_smoothing: float) -> Loss:
    """The loss at an import path, on labels of which this share is spread over all classes."""
    loss = get_method(path)
    fits = is_number(label_smoothing) and 0 <= label_smoothing < 1
    require(fits, "label_smoothing", "a number in [0, 1)", label_smoothing)
    if label_smoothing == 0:
        return loss
    if "label_smoothing" not in inspect.signature(loss).parameters:
        raise UserError(f"{path} has none; set it to 0.", key="label_smoothing")
    return partial(loss, label_smoothing=label_smoothing)


def _check_loss(loss: Loss, path: str, outputs: tuple[int, ...], data: Described) -> None:
    """Refuse a loss that gives no mean over a batch, which two examples show.

    Args:
        outputs: shape of the network's, of one example.

    Raises:
        UserError: says what it gives.
    """
    given = torch.zeros(2, *outputs, requires_grad=True)
    labelled = () if data.places is None else (data.places,)
    wanted = torch.zeros(2, *outputs) if data.classes is None else torch.zeros(2, *labelled, dtype=torch.long)
    what = "a mean loss, one number with a gradient"
    made_by("model.loss", partial(loss, given, wanted), path, _is_mean, what)


def _is_mean(made: object) -> bool:
    return isinstance(made, Tensor) and made.dim() == 0 and made.requires_grad
