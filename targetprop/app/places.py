"""Where in the configuration the settings stand that the core's messages name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from targetprop.utils.errors import UserError

NUMBERS = "model.hparams"
"""Where all numbers of an algorithm stand."""
OTHERS = {
    "algorithm": "model",
    "rule": "model",
    "cuda_graph": "trainer",
    "data_parallel": "trainer",
    "processes": "trainer",
    "network": "",  # what the whole group describes
}
"""Where settings stand that are no numbers of an algorithm."""


@contextmanager
def placed() -> Iterator[None]:
    """Within it, a `UserError` of the core is raised with the full key of the setting that it names."""
    try:
        yield
    except UserError as error:
        place = OTHERS.get(error.key.partition(".")[0], NUMBERS) if error.key else ""
        raise (error.under(place) if place else error) from error.__cause__
