"""The loggers of a run, and when they begin."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from targetprop.app.loggers.journal import Journal
from targetprop.app.objects import build_members
from targetprop.utils.errors import UserError


def loggers_of(config: DictConfig) -> list[Logger]:
    """The loggers; of an evaluation without those whose files belong to the training."""
    made = build_members(config, "logger")
    return [each for each in made if config.train or not isinstance(each, Journal)]


def begin_logging(config: DictConfig, trainer: L.Trainer) -> None:
    """Have the loggers of others, which may want an account or a server, begin before there is anything to lose.

    Raises:
        UserError: one cannot.
    """
    names = [str(name) for name, each in (config.get("logger") or {}).items() if each is not None]
    for name, each in zip(names, trainer.loggers, strict=False):  # of a fast_dev_run there is another one
        if isinstance(each, Journal) or not hasattr(type(each), "experiment"):
            continue
        try:
            _ = each.experiment  # type: ignore[attr-defined]
        except Exception as error:  # whatever its package raises
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(f"it cannot begin: {reason}", key=f"logger.{name}") from error
