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


def cells() -> list[tuple[str, str]]:
    """The kind and the text of every cell, as examples/build_notebook.py reads them, which needs more packages."""
    found = re.findall(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", SOURCE, flags=re.MULTILINE | re.DOTALL)
    bare = [re.sub(r"^# ?", "", text, flags=re.MULTILINE) if mark else text for mark, text in found]
    return [("markdown" if mark else "code", text.strip()) for (mark, _), text in zip(found, bare, strict=True)]


def code_cells() -> list[str]:
    return [text for kind, text in cells() if kind == "code"]


def random_images(count: int) -> Images:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10, tuple("abcdefghij"))


def test_the_notebook_is_built_from_its_source_and_ran() -> None:
    text = (EXAMPLES / "notebook_dtp_cifar10.ipynb").read_text()
    made = json.loads(text)["cells"]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in made] == cells()
    code = [cell for cell in made if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
    assert len(text) < 1_000_000


def test_every_cell_runs_and_shows_what_the_text_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On random images: hidden layers stand still as printed, and move with targets held fixed."""
    plt.switch_backend("agg")
    monkeypatch.setattr(cifar10, "load", lambda *_: Splits(random_images(1290), random_images(50)))
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in code_cells():
        exec(re.sub(r"^(EPOCHS|WIDTH) = \d+", r"\1 = 1 if '\1' == 'EPOCHS' else 30", cell, flags=re.MULTILINE), names)
        plt.close("all")
    shown = capsys.readouterr().out
    assert re.findall(r"block \d, hidden: +([\d.]+) +([\d.]+)", shown) == [("0.0000", "0.000000")] * 3
    assert "0.0000" not in re.findall(r"block 4, output: +([\d.]+)", shown)
    moved = re.findall(r"moved by ([\d.]+), from", shown)
    assert len(moved) == 4
    assert all(float(each) > 0 for each in moved)
    degrees = [float(each) for each in re.findall(r"block \d: +([\d.]+) degrees from backprop", shown)]
    assert degrees[2:] == [0, 0]  # the output block, and the one with the first target
    assert min(degrees[:2]) > 1


def test_dtp_takes_thirty_lines() -> None:
    """What the text says of the cell with the algorithm, without empty lines, comments and docstrings."""
    (cell,) = (cell for cell in code_cells() if "def forward_gradients" in cell)
    lines = [line.strip() for line in cell.splitlines()]
    code = [line for line in lines if line and not line.startswith(("#", '"""'))]
    assert len(code) <= 30


def test_the_comparison_is_of_equals() -> None:
    """Every run that is compared sees the same images for the same number of epochs."""
    text = "\n".join(code_cells())
    assert len(re.findall(r"^EPOCHS = ", text, flags=re.MULTILINE)) == 1
    loaders = re.findall(r"BatchLoader\((\w+), .*shuffle=True", text)
    assert set(loaders) == {"few_images", "images"}  # `images` are those of batches_of, which is given few_images
    assert set(re.findall(r"batches_of\((\w+)\)", text)) == {"few_images"}


def test_the_page_of_results_has_the_numbers_of_the_notebook() -> None:
    text = (EXAMPLES / "notebook_dtp_cifar10.ipynb").read_text()
    (overall,) = re.findall(r"overall +([\d.]+)% +([\d.]+)% +([\d.]+)% +([\d.]+)%", text)
    page = (EXAMPLES.parent / "docs" / "results.md").read_text()
    section = page.split("## A small comparison on a part of CIFAR-10")[1].split("\n## ")[0]
    assert re.findall(r"\| (\d\d\.\d\d) \|", section) == list(overall)
