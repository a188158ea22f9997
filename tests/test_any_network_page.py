"""The examples of docs/any_network.md run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

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
    assert 0.01 < min(names["genuine"][:-2])
    assert max(names["genuine"]) < 0.1
    assert max(names["genuine"][-2:]) < 1e-10
    assert max(names["too_small"]) < 0.01
    assert max(names["mirror"]) < 1e-10


def test_what_cannot_be_traced_has_a_way_out(names: dict[str, Any]) -> None:
    assert "Net cannot be traced" in names["refusal"]
    assert all(each.grad is not None for each in names["own"].network.forward_parameters())
