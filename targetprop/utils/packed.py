"""States as one tensor of bytes."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor

from targetprop.utils.errors import UserError


def packed(state: dict[str, Any]) -> Tensor:
    """The bytes of a state of plain types and tensors, (bytes,), uint8, on the CPU."""
    file = io.BytesIO()
    torch.save(state, file)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def unpacked(state: Tensor) -> dict[str, Any]:
    """What `packed` was given; nothing in it is executed.

    Raises:
        UserError: it is not that.
    """
    try:
        made = torch.load(io.BytesIO(state.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)
    except Exception:  # of bytes that are no state torch raises nearly anything
        made = None
    if not isinstance(made, dict):
        raise UserError("the bytes of the state were not written by a learner.", key="state")
    return made
