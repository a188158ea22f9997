"""The example of docs/networks.md runs as it stands, and the page names every network of others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from targetprop.app.overrides import CONF

PAGE = (Path(__file__).parents[1] / "docs/networks.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_example_learns() -> None:
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(EXAMPLE, names)
    losses = names["losses"]
    assert losses[-1] < 0.8 * losses[0]


def test_every_network_as_others_defined_it_is_listed() -> None:
    for path in (CONF / "network").glob("*.yaml"):
        target = re.search(r"_target_: targetprop\.models\.(\w+)", path.read_text())
        if target and target[1] in ("torchvision_resnet", "conv_mixer", "mlp_mixer", "vit", "decoder", "rnn"):
            assert f"`{path.stem}`" in PAGE
