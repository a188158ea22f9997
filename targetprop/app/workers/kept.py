"""What of a run is left when it has ended early."""

from __future__ import annotations

from pathlib import Path

from targetprop.app.checkpoint.names import FOLDER, LAST, PREVIOUS
from targetprop.app.command import command


def kept_in(output_dir: Path) -> str:
    """Which command goes on from where a run was, if there is one."""
    there = any((output_dir / FOLDER / name).is_file() for name in (LAST, PREVIOUS))
    return f"To go on: {command(str(output_dir))}" if there else "There was no checkpoint yet."
