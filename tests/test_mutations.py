"""The defects of `tests/mutations.py` can be made, and each one's test is there; that they are caught is slow."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def mutations() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutations", ROOT / "tests/mutations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_is_one_line_that_is_there_once_and_its_test_is_there(mutations: ModuleType) -> None:
    assert len(mutations.MUTATIONS) == 20
    for each in mutations.MUTATIONS:
        text = (ROOT / each.file).read_text()
        assert text.count(each.old) == 1, each
        assert "\n" not in each.old + each.new
        file, name = each.test.partition("[")[0].split("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), each


def test_a_defect_that_no_test_notices_is_told(mutations: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f(x):\n    return x + 1  # more\n")
    (tmp_path / "test_a.py").write_text("import a\n\n\ndef test_f():\n    assert a.f(1) == 2\n")
    verdicts = {
        ("x + 1", "x + 2", "test_a.py::test_f"): "caught",
        ("more", "less", "test_a.py::test_f"): "missed",
        ("y + 1", "x", "test_a.py::test_f"): "no such line",
        ("x", "y", "test_a.py::test_f"): "several lines",
    }
    for (old, new, test), verdict in verdicts.items():
        assert mutations.try_out(tmp_path, mutations.Mutation("a.py", old, new, test)) == verdict
    assert "x + 1" in (tmp_path / "a.py").read_text()


@pytest.mark.slow
def test_all_of_them_are_caught(mutations: ModuleType) -> None:
    assert mutations.main() == 0
