"""What `ckpt_path` means: last, best, auto, the directory of a run, or a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from targetprop.app.checkpoint.files import DamagedError, read
from targetprop.app.checkpoint.names import BEST, FOLDER, LAST, PREVIOUS
from targetprop.app.finite import first_not_finite
from targetprop.utils.errors import UserError

log = logging.getLogger(__name__)

AUTO = "auto"
WORDS = ("last", "best", AUTO)


def find(ckpt_path: str, output_dir: str, *, train: bool) -> tuple[Path, dict[str, Any]] | None:
    """The newest good checkpoint of those that are meant, and what it holds; None of `auto` where there is none.

    Args:
        ckpt_path: "last" or "best" of this run's own directory; "auto", its last one if there is one; the directory of
            a run, of which training takes the last and evaluation the best one; or a file, in place of which the one
            before it is taken if it is damaged.

    Raises:
        UserError: there is none, or none of them is whole.
    """
    candidates = _meant(ckpt_path, Path(output_dir), train=train)
    if not candidates and ckpt_path == AUTO:
        return None
    if not candidates:
        raise UserError(f"there is no checkpoint in {_folder(ckpt_path, Path(output_dir))}.{_hint(ckpt_path)}")
    damaged: list[DamagedError] = []
    for path in candidates:
        try:
            saved = _good(path)
        except DamagedError as error:
            damaged.append(error)
            continue
        for each in damaged:
            log.warning("%s Going back to %s.", each, path)
        return path, saved
    raise DamagedError(" ".join(map(str, damaged)))


def _good(path: Path) -> dict[str, Any]:
    """What a checkpoint holds.

    Raises:
        DamagedError: it is not what was written, or of a run that had diverged.
    """
    saved = read(path)
    try:
        bad = first_not_finite(saved["state_dict"])
    except Exception as error:  # of a kind of tensor that holds no numbers, or not in the usual way
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path} is no checkpoint of targetprop: {reason}") from None
    if bad is not None:
        raise DamagedError(f"{path} is of a run that had diverged: {bad} is not finite.")
    return saved


def run_of(path: Path) -> Path:
    """The directory of the run that a checkpoint is of."""
    return path.parent.parent if path.parent.name == FOLDER else path.parent


def _meant(ckpt_path: str, output_dir: Path, *, train: bool) -> list[Path]:
    """The checkpoints to try, in that order."""
    folder = _folder(ckpt_path, output_dir)
    if folder is None:
        return [Path(ckpt_path), *_before(Path(ckpt_path))]
    last = [folder / LAST, folder / PREVIOUS]
    best = [folder / BEST]
    if ckpt_path == "best":
        wanted = best
    elif ckpt_path in WORDS or train:
        wanted = last
    else:
        wanted = [*best, *last]
    return [each for each in wanted if each.is_file()]


def _folder(ckpt_path: str, output_dir: Path) -> Path | None:
    """The folder of checkpoints that is meant; None if a file is."""
    given = output_dir if ckpt_path in WORDS else Path(ckpt_path)
    if ckpt_path not in WORDS and not given.is_dir():
        return None
    return given / FOLDER if (given / FOLDER).is_dir() or ckpt_path in WORDS else given


def _before(path: Path) -> list[Path]:
    """What to go back to from a damaged file."""
    previous = path.with_name(PREVIOUS)
    return [previous] if path.name == LAST and previous.is_file() else []


def _hint(ckpt_path: str) -> str:
    """How to name a run, where the directory of a new one was looked into."""
    if ckpt_path not in WORDS:
        return ""
    runs = sorted(Path("runs").glob(f"*/*/{FOLDER}/{LAST}"), key=lambda path: path.stat().st_mtime)
    example = runs[-1].parent.parent if runs else "RUN"
    return f" Name the run: ckpt_path={example}, or hydra.run.dir={example} ckpt_path={ckpt_path}"
