"""A checkpoint is never half written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from targetprop.app.trainer import build_trainer


def test_an_interrupted_save_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    saver = build_trainer(0).strategy.checkpoint_io
    saver.save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")
    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saver.save_checkpoint({"epoch": 2}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"epoch": 1}
