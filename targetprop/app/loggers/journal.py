"""A logger whose files a run that goes on cuts back to where it goes on from."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any


class Journal(ABC):
    """Files that grow with the run.

    A checkpoint keeps how far they were. A run that goes on from it has them end there, so that no step comes twice;
    what stood behind it is kept beside them.
    """

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the files are."""

    @abstractmethod
    def length(self) -> dict[str, Any]:
        """How far the files are, after having written all that was logged, in plain types."""

    @abstractmethod
    def go_on(self, length: dict[str, Any], source: Path) -> bool:
        """Take over the files in the folder `source`, which may be this one, up to a length, before anything is logged.

        Returns:
            Whether they were there, and long enough.
        """


def keep_aside(path: Path, name: str) -> None:
    """Keep a copy of a file that is about to be cut, beside it: superseded-0-`name`, or the next free number."""
    number = 0
    while (copy := path.with_name(f"superseded-{number}-{name}")).exists():
        number += 1
    shutil.copy2(path, copy)
