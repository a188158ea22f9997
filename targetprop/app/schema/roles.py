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
    check_takes(str(config._get_full_key("_target_")), config["_target_"], target, expected, *values, **others)


def check_takes(key: str, path: str, target: Callable[..., Any], expected: str, *values: Any, **others: Any) -> None:
    """The same of what an import path names that stands at `key`."""
    try:
        inspect.signature(target).bind_partial(*values, **others)
    except TypeError as error:
        raise UserError(f"expected {expected}, got {path!r}", key=key) from error


def made_by(key: str, target: Callable[[], Any], path: str, fits: Callable[[Any], bool], what: str) -> Any:
    """What a target makes.

    Args:
        key: where its import path stands.
        target: with all of its arguments.
        path: its import path.
        fits: whether what is made is what it should be.
        what: that in words, with an article.

    Raises:
        UserError: whatever it raises, in one line, or that it made nothing that fits.
    """
    try:
        made = target()
    except (UserError, OSError, MemoryError):
        raise  # of the settings, or of the machine
    except Exception as error:  # whatever code raises that is not ours
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} makes no {what.split(' ', 1)[1]}: {reason}", key=key) from error
    if not fits(made):
        raise UserError(
            f"expected the import path of what makes {what}, got {path}, which makes {_said(made)}", key=key
        )
    return made


def is_a(*kinds: type) -> Callable[[Any], bool]:
    """Whether something is of one of these kinds."""
    return lambda made: isinstance(made, kinds)


def path_of(target: Callable[..., Any]) -> str:
    """The import path of a function, or of what `functools.partial` made of one."""
    function = getattr(target, "func", target)
    return f"{function.__module__}.{function.__qualname__}"


def _said(made: object) -> str:
    return "nothing" if made is None else f"a {type(made).__name__}"
