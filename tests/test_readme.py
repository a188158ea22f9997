"""The README's Python examples run as they stand, one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from targetprop.data import digits
from targetprop.layers import twins

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(twins._FACTORIES, "published", dict(twins._FACTORIES["published"]))
    return


@pytest.mark.usefixtures("_own_registry")
def test_the_examples_run_and_the_first_one_learns() -> None:
    training, registering, recipe = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(training, names)
    test = digits.load().test
    with torch.no_grad():
        accuracy = (names["net"]((test.pixels / 255 - 0.3) / 0.4).argmax(1) == test.labels).float().mean()
    assert accuracy > 0.9

    exec(registering, names)
    swap, images = names["Swap"](), torch.randn(2, 6, 4, 4)
    assert torch.equal(twins.twin_of(swap).decode(swap(images), None), images)

    exec(recipe, names)
    assert names["learner"].recipe.noise == [0.2, 0.1]
