"""What a run could not write: a full disk ends no training, and is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from targetprop.utils.errors import UserError

log = logging.getLogger(__name__)

_lost: dict[str, str] = {}
"""Why a file is not what it should be, by its path; of the run of this process."""


def reset() -> None:
    """Begin anew, with a run."""
    _lost.clear()


@contextmanager
def or_told(path: Path) -> Iterator[None]:
    """Go on where a file cannot be written; the first time that is said at once, and at the end of the run again."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if _lost.get(str(path)) != reason:
            log.error("%s cannot be written: %s.", path, reason)
        _lost[str(path)] = reason
    else:
        _lost.pop(str(path), None)


def refuse() -> None:
    """Raise `UserError` if anything that this run should have written is missing at its end."""
    if _lost:
        path, reason = next(iter(_lost.items()))
        others = len(_lost) - 1
        more = f" (and {others} more file{'s' * (others > 1)})" if others else ""
        raise UserError(f"{path}{more} could not be written: {reason}. Make room, and go on from the last checkpoint.")
