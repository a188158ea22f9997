"""A sweep goes on after a job that failed, and says at its end which ones did.

A job may run in another process, on another machine: that it failed stands in a file in its directory.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from targetprop.utils.files import write_text

FAILED = "failed.txt"
"""In the directory of a job that failed: its overrides, and why."""


def note_failure(reason: str) -> None:
    """Leave word, in the directory of this job, that it failed."""
    hydra = HydraConfig.get()
    write_text(Path(hydra.runtime.output_dir, FAILED), f"{hydra.job.override_dirname or hydra.job.name}: {reason}\n")


class SweepReport(Callback):
    """Ends a sweep with a line for each job that failed, and then with exit code 1."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget failures of an earlier sweep in the same directory."""
        for each in _failures(config):
            each.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Say which jobs failed, and why."""
        failed = _failures(config)
        if failed:
            lines = [f"  {each.parent}: {each.read_text().strip()}" for each in failed]
            jobs = "1 job" if len(failed) == 1 else f"{len(failed)} jobs"
            sys.exit("\n".join([f"Error: {jobs} of this sweep failed, the others have their results:", *lines]))


def _failures(config: DictConfig) -> list[Path]:
    return sorted(Path(config.hydra.sweep.dir).rglob(FAILED), key=lambda path: (len(str(path)), path))
