"""The examples of docs/data.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from targetprop.app.overrides import CONF, check_overrides
from targetprop.app.run import train

PAGE = Path(__file__).parents[1] / "docs/data.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
(COMMAND,) = re.findall(r"^python main\.py (datamodule=own .*)$", PAGE.read_text(), flags=re.MULTILINE)


def test_a_module_of_ones_own_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text(EXAMPLES[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    small = ["network.hparams.hidden=[32]", "trainer.max_epochs=10", f"output_dir={tmp_path}", "trainer.threads=1"]
    assert train(check_overrides([*COMMAND.split(), *small]))["test/accuracy"] > 0.7  # chance is .33


def test_a_loop_of_ones_own_learns() -> None:
    names: dict[str, Any] = {}
    exec(EXAMPLES[1], names)
    with torch.no_grad():
        error = F.mse_loss(names["net"](names["x"]), names["y"])
    assert error < 0.3 * names["y"].var()


def test_every_data_set_is_listed() -> None:
    page = PAGE.read_text()
    for path in (CONF / "datamodule").glob("*.yaml"):
        assert f"`{path.stem}`" in page
