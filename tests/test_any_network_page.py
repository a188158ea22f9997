"""The examples of docs/any_network.md run as they stand, one after the other."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from targetprop.app.overrides import check_overrides
from targetprop.app.run import train

PAGE = (Path(__file__).parents[1] / "docs/any_network.md").read_text()


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the examples define."""
    defined: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        for example in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
            exec(example, defined)
        defined["picture"] = Path("cut.png").read_bytes()
    return defined


def test_the_decoder_learns(names: dict[str, Any]) -> None:
    assert names["losses"][0] > 2
    assert names["losses"][-1] < 0.5


def test_the_cut_is_as_printed(names: dict[str, Any]) -> None:
    (printed,) = re.findall(r"```\n(Block .*?)```", PAGE, flags=re.DOTALL)
    assert printed in "\n".join(names["lines"]) + "\n"
    assert names["picture"].startswith(b"\x89PNG")


def test_the_numbers_tell_target_propagation_from_a_mirror(names: dict[str, Any]) -> None:
    assert min(names["genuine"][:-2]) > 0.01
    assert max(names["genuine"]) < 0.1
    assert max(names["genuine"][-2:]) < 1e-10
    assert max(names["too_small"]) < 0.01
    assert max(names["mirror"]) < 1e-10


def test_what_cannot_be_traced_has_a_way_out(names: dict[str, Any]) -> None:
    assert "Net cannot be traced" in names["refusal"]
    assert all(each.grad is not None for each in names["own"].network.forward_parameters())


OWN = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, channels, classes, width):
        super().__init__()
        self.a, self.b = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(16 * width, classes)

    def forward(self, x):
        x = F.elu(self.a(x))
        return self.head(F.max_pool2d(F.elu(x + self.b(x)), 2).flatten(1))


def make(image_shape, num_classes, width=4):
    return Net(image_shape[0], num_classes, width)
"""


@pytest.mark.parametrize("model", ["amortised_dtp", "backprop"])
def test_any_module_is_a_network_on_the_command_line(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = re.findall(r"^python main\.py model=amortised_dtp (network=own .*)$", PAGE, flags=re.MULTILINE)
    (tmp_path / "my_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_network", raising=False)  # other pages have one, too
    small = ["trainer.max_epochs=3", "trainer.threads=1", f"output_dir={tmp_path}", "model.hparams.f_optim.lr=0.05"]
    overrides = [f"model={model}", *command.split(), *small]
    assert train(check_overrides(overrides))["test/accuracy"] > 0.7
