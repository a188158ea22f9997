"""The package is a house of few floors: whoever reads a module need not know what stands above it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from house import House

ROOT = Path(__file__).parents[1]
WAY = "without TYPE_CHECKING"


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    made: House = importlib.import_module("house").House(ROOT)
    return made


def test_few_files_stand_at_the_top_level(house: House) -> None:
    assert len(house.files_at_the_top) <= 12, house.files_at_the_top


def test_no_chain_of_imports_is_long(house: House) -> None:
    chain = importlib.import_module("house").longest_chain(house.modules(WAY))
    assert len(chain) <= 14, " -> ".join(chain)


def test_there_are_few_floors_and_no_two_rooms_import_each_other(house: House) -> None:
    module = importlib.import_module("house")
    assert max(module.floors(house.rooms(WAY)).values()) <= 12
    assert module.in_circles(house.rooms(WAY)) == "none"


def test_no_import_goes_up(house: House) -> None:
    assert not house.without_place
    assert not [str(each) for each in house.upward("all imports")]


def test_imports_are_read_as_python_reads_them(house: House, tmp_path: Path) -> None:
    """Relative ones, those of modules in a folder, in functions and for types; chains, floors and circles of them."""
    sources = {
        "__init__": "from targetprop.learner import Learner",
        "learner": "def f():\n    import targetprop.app.run\n",
        "app/__init__": "",
        "app/run": "import typing\nfrom . import cli\nif typing.TYPE_CHECKING:\n    from ..targets import T\n",
        "app/cli": "import os, targetprop.utils.errors\nhparams = 1",
        "utils/__init__": "",
        "utils/errors": "from targetprop import app",
        "targets": "x = trainer.y",
    }
    for name, source in sources.items():
        path = tmp_path / "targetprop" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    module = importlib.import_module("house")
    small = module.House(tmp_path)
    assert small.files_at_the_top == ["__init__", "learner", "targets"]
    assert {str(each) for each in small.upward("all imports")} == {"learner:2 -> app.run", "utils.errors:1 -> app"}
    assert {str(each) for each in small.upward("at once")} == {"utils.errors:1 -> app"}
    assert [str(each) for each in small.imports if each.kind == "typing"] == ["app.run:4 -> targets"]
    chain = module.longest_chain(small.modules("without TYPE_CHECKING"))
    assert chain == ["__init__", "learner", "app.run", "app.cli", "utils.errors", "app"]
    assert module.in_circles(small.rooms("at once")) == "app, utils"
    assert module.floors(small.rooms("without TYPE_CHECKING")) == {
        "app": 1, "utils": 1, "learner": 2, "__init__": 3, "targets": 1
    }  # fmt: skip
    assert small.words == ["targets:1"]
