"""Warnings as lines of the log."""

from __future__ import annotations

import logging
import warnings


def quiet_warnings() -> None:
    """Warnings as lines of the log, without the advice of Lightning's that does not hold here."""
    warnings.formatwarning = lambda message, *_, **__: str(message)
    logging.captureWarnings(True)
    for message in (
        ".*does not have many workers.*",
        ".*lower value for log_every_n_steps.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*sync_dist=True.*",
        ".*Total length of `list` across ranks is zero.*",
        ".*exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.raiseExceptions = False  # a log on a full disk ends no run, and what is full is told elsewhere
    # The trainer's: of every checkpoint that it is written as asked, and of a signal that it was heard.
    for name in ("utilities.rank_zero", "trainer.connectors"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
