"""docs/saved_runs.md works as it stands, on a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from targetprop.app.commands import command_of
from targetprop.app.run import train
from targetprop.data import digits

Compose = Callable[..., DictConfig]
PAGE = (Path(__file__).parents[2] / "docs/saved_runs.md").read_text()


def test_the_examples_run(compose: Compose, tmp_path: Path) -> None:
    config = compose("callbacks.alignment=null", "callbacks.history=null")
    train(config)
    first, lines = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    images = digits.load().test.pixels[:4]
    names: dict[str, Any] = {"RUN": config.output_dir, "images": images}
    exec(first, names)
    assert isinstance(names["network"], nn.Sequential)
    assert names["logits"].shape == (4, 10)
    exec(lines.replace("CHECKPOINT", f"{config.output_dir}/checkpoints/last.ckpt"), names)
    assert torch.equal(next(names["network"].parameters()), next(names["learner"].network.parameters()))
    assert hasattr(names["module"], "val_metrics")


def test_the_commands_are_there(tmp_path: Path) -> None:
    commands = [
        shlex.split(line)[1:]
        for line in re.findall(r"\btargetprop (?:predict|evaluate|export) .*$", PAGE, flags=re.MULTILINE)
    ]
    assert [each[0] for each in commands] == ["predict", "evaluate", "export"]
    assert all(command_of(each) for each in commands)
