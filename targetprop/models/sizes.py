"""Sizes of a network, as they come from a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from targetprop.utils.errors import require, require_whole


def require_sizes(key: str, sizes: object) -> None:
    """Raise `UserError` unless `sizes` is a list of whole numbers, 1 or more."""
    require(isinstance(sizes, Sequence) and not isinstance(sizes, str), key, "a list of whole numbers", sizes)
    assert isinstance(sizes, Sequence)
    for size in sizes:
        require_whole(key, size, least=1)
