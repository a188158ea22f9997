"""What a checkpoint keeps of the run that wrote it, beside weights and states."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from targetprop.version import __version__

log = logging.getLogger(__name__)
Place = dict[str, Any]

KEY = "targetprop"
"""Where the record stands in a checkpoint."""
SEALED = "sealed"
"""What in it says that the file has a checksum (see `files.sealed`), so that one without is known to be damaged."""


def record_of(
    config: Mapping[str, Any],
    places: Sequence[Place] = (),
    overrides: Sequence[str] | None = None,
    *,
    made_with: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of a run with this plain configuration, which has been in these places.

    Args:
        overrides: the command line that gave the configuration, if one did.
        made_with: what it was made with (see `provenance`).
        data: what a network must know of its data (see `described.Described`), so that it can be made without them.
    """
    record = {"version": __version__, SEALED: True, "config": dict(config), "places": list(places)}
    record |= {"made_with": dict(made_with or {}), "data": dict(data or {})}
    return record if overrides is None else {**record, "overrides": list(overrides)}


def with_place(places: Sequence[Place], epochs: int, device: str, *, cuda_graph: bool) -> list[Place]:
    """The places of a run that goes on after so many epochs, on this device; a run that moves is told so.

    Args:
        places: where it has been: what each is, and "epochs", how many the run had behind it when it came there.
    """
    here: Place = {"device": device, "cuda_graph": cuda_graph}
    before = {key: places[-1][key] for key in here} if places else here
    if places and before == here:
        return list(places)
    if before != here:
        message = "The run moves from %s to %s: the rest is not, to the last bit, what it would have been there."
        log.warning(message, _named(before), _named(here))
    return [*places, {"epochs": epochs, **here}]


def _named(place: Place) -> str:
    return f"{place['device']}{' with CUDA graphs' if place['cuda_graph'] else ''}"
