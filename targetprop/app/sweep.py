"""A sweep goes on after a job that failed; it ends with a page of all runs, and says which ones failed.

A job may run in another process, on another machine: that it failed stands in a file in its directory.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.utils import get_method
from omegaconf import DictConfig

from targetprop.utils.errors import UserError
from targetprop.utils.files import write_text

FAILED = "failed.txt"
"""In the directory of a job that failed: its overrides, and why."""


def note_failure(reason: str) -> None:
    """Leave word, in the directory of this job, that it failed."""
    hydra = HydraConfig.get()
    write_text(Path(hydra.runtime.output_dir, FAILED), f"{hydra.job.override_dirname or hydra.job.name}: {reason}\n")


class SweepReport(Callback):
    """Ends a sweep with a page of its runs and, if jobs failed, a line for each of them, and exit code 1.

    Args:
        page: import path of what makes a page of the runs below a folder, and returns its path; None makes none.
    """

    def __init__(self, page: str | None = None) -> None:
        self.page = page

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget failures of an earlier sweep in the same directory."""
        for each in _failures(config):
            each.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the page, and say which jobs failed, and why."""
        if self.page is not None:
            _make_page(self.page, Path(config.hydra.sweep.dir))
        failed = _failures(config)
        if failed:
            lines = [f"  {each.parent}: {each.read_text().strip()}" for each in failed]
            jobs = "1 job" if len(failed) == 1 else f"{len(failed)} jobs"
            sys.exit("\n".join([f"Error: {jobs} of this sweep failed, the others have their results:", *lines]))


def _make_page(maker: str, folder: Path) -> None:
    """A page that cannot be made takes no results away."""
    try:
        path: Path | None = get_method(maker)(folder)
    except (UserError, OSError, ValueError) as error:
        print(f"No page of this sweep: {error}", flush=True)
    else:
        if path is not None:
            print(f"Page: {path}", flush=True)


def _failures(config: DictConfig) -> list[Path]:
    return sorted(Path(config.hydra.sweep.dir).rglob(FAILED), key=lambda path: (len(str(path)), path))
