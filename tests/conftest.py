"""One core, and the same random numbers for every test whatever ran before it."""

from __future__ import annotations

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("targetprop", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("targetprop")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
