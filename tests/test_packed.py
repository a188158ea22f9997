"""Bytes that are no state are refused, whatever they are."""

from __future__ import annotations

from contextlib import suppress

import torch
from hypothesis import given
from hypothesis import strategies as st

from targetprop.utils.errors import UserError
from targetprop.utils.packed import packed, unpacked

STATE = {"steps": 3, "noise": torch.arange(3)}
WHOLE = bytes(packed(STATE).tolist())


def bytes_of(data: bytes) -> torch.Tensor:
    return torch.tensor(list(data), dtype=torch.uint8)


def test_a_state_comes_back() -> None:
    state = unpacked(bytes_of(WHOLE))
    assert state["steps"] == 3
    assert torch.equal(state["noise"], torch.arange(3))


@given(st.binary(max_size=64), st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_other_bytes_raise_no_other_error(begins: bytes, place: int, byte: int) -> None:
    for each in (begins, WHOLE[:place], WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :]):
        with suppress(UserError):
            assert isinstance(unpacked(bytes_of(each)), dict)
