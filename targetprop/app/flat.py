"""Settings by their full names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any


def flat(config: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Every setting of a plain configuration by its full name; of `without`, none, nor what stands below it."""
    return dict(_items("", config, without))


def _items(prefix: str, config: Mapping[str, Any], without: Collection[str]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in without:
            continue
        if isinstance(value, Mapping):
            yield from _items(f"{key}.", value, without)
        else:
            yield key, value
