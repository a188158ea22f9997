"""What the described objects of a group are for, and so what they must be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch.optim.lr_scheduler import LRScheduler

from targetprop.app.task import Task
from targetprop.utils.errors import UserError, require

ROLES: dict[str, type] = {
    "trainer": L.Trainer,
    "task": Task,
    "datamodule": L.LightningDataModule,
    "scheduler": LRScheduler,
    "callbacks": L.Callback,
    "logger": Logger,
}
"""By group."""


def check_role(config: DictConfig, group: str, target: Callable[..., Any]) -> None:
    """Raise `UserError` if a target is a class, and not of the kind that a group is of; of a function nobody knows."""
    role = ROLES[group]
    fits = not isinstance(target, type) or issubclass(target, role)
    require(
        fits, str(config._get_full_key("_target_")), f"the import path of a kind of {role.__name__}", config["_target_"]
    )


def check_made(config: DictConfig, group: str, made: object) -> None:
    """Raise `UserError` if what has been made of a description is not of the kind that a group is of."""
    role = ROLES.get(group)
    if role is not None and not config.get("_partial_"):
        expected = f"the import path of a kind of {role.__name__}"
        require(isinstance(made, role), str(config._get_full_key("_target_")), expected, config["_target_"])


def check_call(config: DictConfig, target: Callable[..., Any], expected: str, *values: Any, **others: Any) -> None:
    """Raise `UserError` if a target cannot be called with these arguments, whatever else it needs."""
    try:
        inspect.signature(target).bind_partial(*values, **others)
    except TypeError as error:
        key = str(config._get_full_key("_target_"))
        raise UserError(f"expected {expected}, got {config['_target_']!r}", key=key) from error
