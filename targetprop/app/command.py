"""The command that goes on with a run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from targetprop.app.quoting import quoted


def command(folder: str) -> str:
    """What goes on with the run in this directory, as a shell takes it."""
    program = sys.argv[0]
    start = f"python {program}" if program.endswith(".py") else Path(program).name
    if program.endswith("__main__.py"):
        start = "python -m targetprop"
    return f"{start} {quoted('hydra.run.dir', folder) or shlex.quote(f'hydra.run.dir={folder}')} ckpt_path=last"
