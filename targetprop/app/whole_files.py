"""Checkpoint files that are either whole or not there."""

from __future__ import annotations

import os
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO


class WholeFiles(TorchCheckpointIO):
    """Replaces a checkpoint by the next one in one move.

    Lightning copies it from the directory of temporary files, which may lie on another disk: a process that is ended
    meanwhile, as the others are if one of several dies, would leave half a file in place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the file, then take its place."""
        partial = f"{path}.part"
        super().save_checkpoint(checkpoint, partial, storage_options)
        os.replace(partial, path)
