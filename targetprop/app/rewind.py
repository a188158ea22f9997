"""A run that diverges goes back to its last good checkpoint, with half the rates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from targetprop.app.checkpoint.names import FOLDER, LAST, PREVIOUS
from targetprop.app.errors import DivergenceError
from targetprop.app.objects import plain
from targetprop.app.processes import is_started
from targetprop.app.schema.plain import REWIND

log = logging.getLogger(__name__)

MOST = 10
"""How often a run goes back: after so many halves its rates are a thousandth."""
RATES = ("model.hparams.f_optim.lr", "model.hparams.b_optim.lr")


def rewinding(work: Callable[[DictConfig], dict[str, float]], config: DictConfig) -> dict[str, float]:
    """Run `work`, and again from its last checkpoint with half the rates as long as it diverges.

    Where it diverges before the next checkpoint is reached, the last one was not good: the one before it is taken, and
    then the start.

    Raises:
        DivergenceError: it diverges, and is not to go back, or has done so too often.
    """
    places: list[dict[str, Any]] = []
    reached = None
    for _ in range(MOST):
        try:
            return work(config)
        except DivergenceError as error:
            # One of several processes ends with the others; and what is only evaluated has no rates.
            if config.on_divergence != REWIND or is_started() or not config.train:
                raise
            newest = _newest(config)
            if newest != reached or not places:
                places, reached = _places(config), newest
            config = _slower(config, places.pop(0))
            log.warning("%s Going back to %s, with half the rates.", error, config.ckpt_path or "the start")
    return work(config)


def _places(config: DictConfig) -> list[dict[str, Any]]:
    """Where a run may go back to, one after the other: settings that start it there."""
    folder = Path(config.output_dir) / FOLDER
    kept = [{"ckpt_path": str(path)} for name in (LAST, PREVIOUS) if (path := folder / name).is_file()]
    return [*kept, {"ckpt_path": None, "overwrite": True}]


def _newest(config: DictConfig) -> int | None:
    """By what a last checkpoint differs from another one; None if there is none."""
    path = Path(config.output_dir) / FOLDER / LAST
    return path.stat().st_mtime_ns if path.is_file() else None


def _slower(config: DictConfig, place: dict[str, Any]) -> DictConfig:
    """The configuration of the run that goes on."""
    slower: Any = OmegaConf.create({**plain(config), **place})
    for key in RATES:
        rate = OmegaConf.select(slower, key)
        if rate is not None:
            halved = [each / 2 for each in rate] if isinstance(rate, ListConfig) else rate / 2
            OmegaConf.update(slower, key, halved)
    return slower
