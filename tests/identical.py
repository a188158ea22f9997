"""Whether two checkpoints are the same, bit for bit."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch


def assert_identical(a: Any, b: Any, where: str, without: Collection[str] = ()) -> None:
    """Equal structures of tensors and plain values, but for what stands at the keys `without`."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in without:
                assert_identical(a[key], b[key], f"{where}.{key}", without)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_identical(x, y, f"{where}[{i}]", without)
    else:
        assert a == b, where
