"""One core, and the same random numbers for every test whatever ran before it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("targetprop", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("targetprop")


LONGEST = ("tests/torture/test_short.py", "tests/compare/test_real.py")
"""Files that go first, so that no process is still at one of them when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and skip what needs a GPU where there is none."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_imagenet32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes files in the format of ImageNet32 by the script for it, and returns their data directory."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "commands"))
    script = importlib.import_module("make_imagenet32")

    def make(**settings: int) -> Path:
        script.main([str(tmp_path / "data"), *(f"--{name}={value}" for name, value in settings.items())])
        return tmp_path / "data"

    return make
