"""The directory of a run: what it may write over, and what it puts aside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetprop.app.checkpoint.names import FOLDER
from targetprop.app.checkpoint.resume import Start
from targetprop.utils.errors import UserError

RESULTS = "results.json"
RECORDS = ("config.yaml", RESULTS, "curves.png", "csv", "tensorboard", FOLDER, "feedback")
"""What runs leave in their directories."""


def claim(folder: Path, start: Start, *, overwrite: bool) -> None:
    """Make sure that a run that trains in this directory has it to itself.

    What an attempt left that came to no checkpoint is put aside, into superseded-0 or the next number that is free, and
    so is a whole run with `overwrite`.

    Raises:
        UserError: it holds another run than the one that goes on.
    """
    if start.run is not None and start.run.resolve() == folder.resolve():
        return
    kept = [name for name in (FOLDER, RESULTS) if _is_there(folder / name)]
    if kept and not overwrite:
        message = (
            f"{folder} holds a run already ({' and '.join(kept)}): choose another hydra.run.dir, go on with it "
            "(ckpt_path=last), or put it aside (overwrite=true)."
        )
        raise UserError(message, key="output_dir")
    put_aside(folder, [name for name in RECORDS if (folder / name).exists()])


def make_folders(callbacks: Mapping[str, Any]) -> None:
    """Make the folders that callbacks are to write to, before a run has anything to lose.

    Args:
        callbacks: their part of the configuration.

    Raises:
        UserError: one cannot be made.
    """
    for name, each in callbacks.items():
        if each and (folder := each.get("dirpath")):
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                message = f"{folder} cannot be made: {error.strerror}"
                raise UserError(message, key=f"callbacks.{name}.dirpath") from None


def put_aside(folder: Path, names: list[str]) -> None:
    """Move files and folders of a directory into one of their own."""
    if names:
        aside = folder / free_name(folder, "superseded", "")
        aside.mkdir()
        for name in names:
            os.replace(folder / name, aside / name)


def free_name(folder: Path, stem: str, suffix: str) -> str:
    """`stem`-0`suffix` or the next number that is free."""
    number = 0
    while (folder / f"{stem}-{number}{suffix}").exists():
        number += 1
    return f"{stem}-{number}{suffix}"


def _is_there(path: Path) -> bool:
    """Whether there is a file, or a folder with something in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))
