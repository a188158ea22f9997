"""The table of all rules says of each what the rule says of itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from targetprop import ALGORITHMS
from targetprop.algorithms.base import Algorithm
from targetprop.learners import LEARNERS
from targetprop.learners.base import LearnerRule
from targetprop.properties import Needs

PAGE = Path(__file__).parents[1] / "docs" / "family.md"
ROOT = PAGE.parents[1] / "targetprop"
RULES: dict[str, Algorithm | LearnerRule] = {**ALGORITHMS, **LEARNERS}


def rows() -> dict[str, list[str]]:
    """The cells of every row behind the first, by what the first names."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = [first.strip("`") for first, *_ in cells]
    assert len(names) == len(set(names))
    return {name: others for name, (_, *others) in zip(names, cells, strict=True)}


def in_words(needs: Needs) -> set[str]:
    words: set[str] = set(needs.transports)
    words |= {"global error"} if needs.global_error else set()
    words |= {"noise"} if needs.noisy_phase else set()
    words |= {f"{needs.passes} passes"} if needs.passes > 1 else set()
    return words or {"nothing"}


def test_every_rule_has_a_row_and_every_row_a_rule() -> None:
    assert set(rows()) == set(RULES)
    assert not set(ALGORITHMS) & set(LEARNERS)


@pytest.mark.parametrize("name", RULES)
def test_a_row_says_what_its_rule_says(name: str) -> None:
    rule, (_, needs, code, source) = RULES[name], rows()[name]
    assert set(needs.split(", ")) == in_words(rule.needs)
    if rule.source is None:
        assert source.startswith("ours")
    else:
        assert source == rule.source.url
    short = re.fullmatch(r"(A )?`(.+)`", code)
    assert short is not None
    text = (ROOT / ("algorithms" if short[1] else "") / short[2]).read_text()
    assert re.search(rf"^{name.upper()} = Algorithm\(", text, re.M) or f"class {type(rule).__name__}(" in text


def test_what_was_not_built_has_no_name_here() -> None:
    assert not {name for name in RULES if "forward_target" in name or name.startswith(("ftp", "rec_lra"))}
