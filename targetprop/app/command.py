"""The command that a run is started by, and the one that goes on with it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from targetprop.app.quoting import quoted


def program() -> str:
    """How this program was called, as a shell takes it, without its arguments."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return "python -m targetprop"
    return f"python {shlex.quote(called)}" if called.endswith(".py") else Path(called).name


def command(folder: str) -> str:
    """What goes on with the run in this directory, as a shell takes it."""
    place = quoted("hydra.run.dir", folder) or shlex.quote(f"hydra.run.dir={folder}")
    return f"{program()} {place} ckpt_path=last"
