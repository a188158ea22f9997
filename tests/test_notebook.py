"""The example notebook: made of its source, and its cells run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch

from targetprop.data import Images, Splits, cifar10

EXAMPLES = Path(__file__).parents[1] / "examples"
SOURCE = (EXAMPLES / "notebook_dtp_cifar10.py").read_text()


def code_cells() -> list[str]:
    cells = re.split(r"^# %%", SOURCE, flags=re.MULTILINE)[1:]
    return [cell.strip() for cell in cells if not cell.startswith(" [markdown]")]


def random_images(count: int) -> Images:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10, tuple("abcdefghij"))


def test_the_notebook_is_built_from_its_source_and_ran() -> None:
    text = (EXAMPLES / "notebook_dtp_cifar10.ipynb").read_text()
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert ["".join(cell["source"]) for cell in cells] == code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
    assert len(text) < 1_000_000


def test_every_cell_runs_and_shows_what_the_text_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On random images: hidden layers stand still as printed, and move with targets held fixed."""
    plt.switch_backend("agg")
    monkeypatch.setattr(cifar10, "load", lambda *_: Splits(random_images(1290), random_images(50)))
    names: dict[str, Any] = {}
    for cell in code_cells():
        exec(re.sub(r"EPOCHS = \d+", "EPOCHS = 1", cell), names)
        plt.close("all")
    shown = capsys.readouterr().out
    assert re.findall(r"block \d, hidden: +([\d.]+) +([\d.]+)", shown) == [("0.0000", "0.000000")] * 3
    assert "0.0000" not in re.findall(r"block 4, output: +([\d.]+)", shown)
    moved = re.findall(r"moved by ([\d.]+), from", shown)
    assert len(moved) == 4
    assert all(float(each) > 0 for each in moved)
