"""The README's Python examples run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from targetprop import Learner
from targetprop.data import digits
from targetprop.layers.sequence import feedback_of

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_run_and_the_first_one_learns() -> None:
    training, registering, algorithm = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(training, names)
    test = digits.load().test
    with torch.no_grad():
        accuracy = (names["net"]((test.pixels / 255 - 0.3) / 0.4).argmax(1) == test.labels).float().mean()
    assert accuracy > 0.9

    exec(registering, names)
    swap, images = names["Swap"](), torch.randn(2, 6, 4, 4)
    assert torch.equal(feedback_of(swap).decode(swap(images), None), images)

    exec(algorithm, names)
    assert isinstance(names["learner"], Learner)
    assert names["learner"].algorithm == names["algorithm"]
