"""A run that diverges goes back to its last good checkpoint, with half the rates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from targetprop.app.checkpoint.find import FOLDER
from targetprop.app.checkpoint.names import LAST, PREVIOUS
from targetprop.app.errors import DivergenceError
from targetprop.app.processes import is_started

log = logging.getLogger(__name__)

STOP, REWIND = "stop", "rewind"
ANSWERS = (STOP, REWIND)
"""What `on_divergence` may be."""
MOST = 10
"""How often a run goes back: after so many halves its rates are a thousandth."""
RATES = ("model.hparams.f_optim.lr", "model.hparams.b_optim.lr")


def rewinding(work: Callable[[DictConfig], dict[str, float]], config: DictConfig) -> dict[str, float]:
    """Run `work`, and again from its last checkpoint, or its start, with half the rates as long as it diverges.

    Raises:
        DivergenceError: it diverges, and is not to go back, or has done so too often.
    """
    for _ in range(MOST):
        try:
            return work(config)
        except DivergenceError as error:
            # One of several processes ends with the others; and what is only evaluated has no rates.
            if config.on_divergence != REWIND or is_started() or not config.train:
                raise
            config = _slower(config)
            start = config.ckpt_path or "the start"
            log.warning("%s Going back to %s, with half the rates.", error, start)
    return work(config)


def _slower(config: DictConfig) -> DictConfig:
    """The configuration of the run that goes on."""
    slower: Any = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    folder = Path(config.output_dir) / FOLDER
    if any((folder / name).is_file() for name in (LAST, PREVIOUS)):
        slower.ckpt_path = "last"
    for key in RATES:
        rate = OmegaConf.select(slower, key)
        if rate is not None:
            halved = [each / 2 for each in rate] if isinstance(rate, ListConfig) else rate / 2
            OmegaConf.update(slower, key, halved)
    return slower
