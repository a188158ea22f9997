"""A run owns the directory that it writes into, so that a second run there cannot spoil the first one's files."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from targetprop.utils.errors import UserError

if HAS_LOCKS := sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

NAME = ".lock"
"""The file in the directory that is locked. The kernel frees it with the process, however that ends."""

PATIENCE = 10.0
"""Seconds that the processes which an ended run has just forked have for letting go of its lock, see `_let_go`."""

_held: set[int] = set()
"""Descriptors of this process's locks."""


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a directory, which is made if need be, for as long as this lasts.

    To be entered by the one process that a run's directory belongs to, see `processes.speaks_for_run`. Processes that
    it starts or forks meanwhile do not own the directory. Where the file system has no locks a warning says so.

    Args:
        folder: the run's directory.

    Raises:
        UserError: another run owns it, or it cannot be written to.
    """
    if not HAS_LOCKS:
        log.warning("There are no locks of directories on this system: start no second run in %s.", folder)
        yield
        return
    file = _locked(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()  # before it is freed, or it could be another run's already
        _held.discard(file)
        os.close(file)


def _locked(folder: Path) -> int:
    """The descriptor of the locked file, with what there is to know of this process in it."""
    path, deadline = folder / NAME, time.monotonic() + PATIENCE
    while True:
        file = _opened(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _Owner.of(file)
            os.close(file)
            if owner.has_ended() and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            message = f"{folder} belongs to a run that is under way ({owner}); choose another directory for this one."
            raise UserError(message, key="output_dir (hydra.run.dir)") from None
        except OSError as error:
            log.warning("No lock for %s (%s): start no second run there.", folder, error.strerror)
            break
        if _is_at(file, path):
            break
        os.close(file)  # its last owner removed it between the opening and the locking
    _held.add(file)
    _describe(file)
    return file


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        message = f"{path.parent} cannot be written to ({error.strerror}); choose another directory."
        raise UserError(message, key="output_dir (hydra.run.dir)") from None


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one that is found at a path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _describe(file: int) -> None:
    """Write who owns the lock; without room on the disk it is held all the same."""
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(owner).encode(), 0)


@dataclass(frozen=True)
class _Owner:
    """Who owns a lock, as far as can be read."""

    process: int | None = None
    host: str = ""
    since: str = ""

    @classmethod
    def of(cls, file: int) -> _Owner:
        try:
            told = json.loads(os.pread(file, 4096, 0))
            return cls(int(told["pid"]), str(told["host"]), str(told["since"]))
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def __str__(self) -> str:
        if self.process is None:
            return "it has not said which"
        return f"process {self.process} on {self.host} since {self.since}"

    def has_ended(self) -> bool:
        """Whether the process is known to be gone: one of another host, or of another user, may be alive."""
        if self.process is None or self.process <= 0 or self.host != socket.gethostname():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False


def _let_go() -> None:
    """In a forked process: a lock lasts until all copies of its descriptor are closed."""
    for file in _held:
        os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
