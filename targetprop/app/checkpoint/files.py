"""Checkpoint files: written whole, with a checksum in them, and read only if it still holds."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from targetprop.app.checkpoint.record import KEY, SEALED
from targetprop.app.unwritten import or_told
from targetprop.utils.errors import UserError
from targetprop.utils.files import whole_file
from targetprop.version import __version__

END = b"PK\x05\x06"
"""How the last entry of a zip archive begins: 22 bytes, of which the last two are the length of a comment behind it."""
MARK = b"targetprop sha256 "
SEAL = len(MARK) + hashlib.sha256().digest_size * 2
CHUNK = 2**22


class DamagedError(UserError):
    """A checkpoint is not what was written."""


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside the last one, seals it, and has it take its place in one move.

    Lightning copies it from the directory of temporary files, which may lie on another disk: a process that is ended
    meanwhile, as the others are if one of several dies, would leave half a file in place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file, whole or not at all; where that fails the run is told and goes on, in all its processes."""
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        with or_told(Path(path)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with whole_file(Path(path)) as partial:
                partial.write_bytes(sealed(buffer.getvalue()))

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What the file holds, unless it is damaged."""
        return read(Path(path))


def sealed(file: bytes) -> bytes:
    """The bytes of a file of torch's with a checksum behind them: as the comment of the zip archive that it is."""
    announced = file[:-2] + struct.pack("<H", SEAL)
    return announced + MARK + hashlib.sha256(announced).hexdigest().encode()


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint of this edition holds, its tensors on the CPU.

    Raises:
        DamagedError: it is not what was written.
        UserError: it is no checkpoint, or none of this edition.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}.")
    try:
        is_sealed = _check_seal(path)
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # whatever reading a file that is none of ours raises
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DamagedError(f"{path} is no checkpoint of targetprop: {reason}") from None
    if not isinstance(saved, dict) or not isinstance(saved.get("state_dict"), dict):
        raise UserError(f"{path} is no checkpoint of targetprop: it has no state_dict.")
    record = record_in(saved)
    if "pytorch-lightning_version" in saved and record is None:
        raise UserError(
            f"{path} was written by the first edition of targetprop or by another program, "
            f"and cannot be read by version {__version__}: train anew."
        )
    if record is not None and record.get(SEALED) and not is_sealed:
        mend = f"if you changed it yourself, remove [{KEY!r}][{SEALED!r}] from it, too"
        raise DamagedError(f"{path} is damaged: its checksum is gone ({mend}).")
    return saved


def record_in(saved: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a checkpoint says of the run that wrote it; None if it does not."""
    record = saved.get(KEY)
    return record if isinstance(record, Mapping) and isinstance(record.get("config"), Mapping) else None


def _check_seal(path: Path) -> bool:
    """Whether a file has a checksum.

    Raises:
        DamagedError: it has, and the file has changed since.
    """
    size = path.stat().st_size - SEAL
    if size < 22:
        return False
    with path.open("rb") as file:
        file.seek(size - 22)
        end, written = file.read(22), file.read(SEAL)
    if not written.startswith(MARK):
        return False
    if not end.startswith(END) or written != MARK + _digest(path, size):
        raise DamagedError(f"{path} is damaged: it is not what was written.")
    return True


def _digest(path: Path, size: int) -> bytes:
    """SHA-256 of the first so many bytes, in hexadecimal."""
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest().encode()
