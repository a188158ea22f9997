"""What of a run is left when it has ended early."""

from __future__ import annotations

from pathlib import Path


def kept_in(output_dir: Path) -> str:
    """Which command goes on from where a run was, if there is one."""
    last = output_dir / "checkpoints" / "last.ckpt"
    return f"ckpt_path={last} goes on from the last checkpoint." if last.is_file() else "There was no checkpoint yet."
