"""Every process of a run gives signs of life, and ends if another one has stopped giving them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from targetprop.app.workers.signs import INTERVAL, PROGRESS, Board, Roll, Sign
from targetprop.utils.errors import UserError

GRACE = 5.0
"""Seconds for which a process that misses another waits to be ended, so that the lost one is named as the cause."""
MISSED = 3.0
"""Seconds of silence, several intervals, after which a process is not counted on."""


class Watch:
    """Gives the signs of this process, and looks for those of all, for as long as this lasts.

    Two threads of its own do it, which go on beside a long step, a long load or a long wait for others, but are stopped
    with the process. One talks to the store, which may keep it waiting; the other counts, and ends the process.

    Args:
        board: where the signs are.
        rank: of this process.
        roll: of all processes.
        output_dir: of this process.
        parent_tells: whether the process that started this one watches, too: then it goes first, and says why.
    """

    def __init__(self, board: Board, rank: int, roll: Roll, output_dir: Path, *, parent_tells: bool) -> None:
        self._board = board
        self._rank = rank
        self._roll = roll
        self._output_dir = os.path.abspath(output_dir)
        self._parent_tells = parent_tells
        self._follows = False  # whether this process ends because another one has
        self._over = threading.Event()
        self._seen: dict[int, Sign] = {}
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._give, self._count)]

    def __enter__(self) -> Watch:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for each in self._threads:
            each.join(timeout=GRACE)

    def _give(self) -> None:
        while not self._over.is_set():
            self._exchange(left=False)
            self._over.wait(INTERVAL)
        if not self._follows:
            self._exchange(left=True)

    def _exchange(self, *, left: bool) -> None:
        try:
            self._board.put(self._rank, PROGRESS.sign(self._output_dir, left=left))
            self._seen = self._board.read()
        except RuntimeError:  # no store: nobody is heard then, this process neither
            pass

    def _count(self) -> None:
        before = time.monotonic()
        while not self._over.wait(INTERVAL):
            now = time.monotonic()
            self._roll.look(self._seen, now - before)
            before = now
            lost = self._roll.lost(self._roll.present)
            if lost is not None:
                self._end(lost)

    def _end(self, lost: int) -> NoReturn:
        """End this process, which may be waiting for the lost one and so can do nothing by itself."""
        if self._parent_tells:
            time.sleep(GRACE)
        seconds = self._roll.silent[self._rank]
        unheard = seconds >= MISSED  # not even the own signs are seen
        if unheard:
            store = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            speaks = os.environ.get("LOCAL_RANK", "0") == "0"
            said = (
                f"The store at {store}, through which processes know of each other, has not answered process "
                f"{self._rank} for {seconds:.0f} s (trainer.worker_timeout={self._roll.limit:g}): "
                "the command that keeps it was stopped, or its machine is lost. So the run ends."
            )
        else:
            speaks = self._speaks(lost)
            said = self._roll.does_not_respond(lost)
        if speaks:
            tell(f"{said} {self._roll.kept}")
        elif not self._parent_tells:
            time.sleep(GRACE)  # who speaks goes first
        if not unheard and lost in self._roll.signs:
            kill_sibling(self._roll.signs[lost].pid)
        os._exit(1)

    def _speaks(self, lost: int) -> bool:
        """Whether this process speaks for those that are left: process 0, or the next that responds."""
        responding = [rank for rank in self._roll.present if self._roll.silent[rank] < MISSED]
        return self._rank == min({*responding, self._rank} - {lost})

    def explained(self, error: RuntimeError) -> BaseException:
        """What to raise for an exchange with other processes that has failed, a while after it did.

        In the meantime `torchrun` or the parent may end this process, and say why.
        """
        if not self._parent_tells and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, which cannot tell of other machines
        self._follows = True
        time.sleep(GRACE)
        roll = self._roll
        if len(roll.present) < len(roll.silent):
            return SystemExit(1)  # who is done before the others has said why
        silent = [rank for rank in roll.present if roll.silent[rank] >= MISSED and rank != self._rank]
        if not silent:
            first = str(error).partition("\n")[0]
            each = "; ".join(f"process {rank}: {roll.last_sign(rank)}" for rank in roll.present)
            return UserError(f"An exchange between processes failed ({first}). {each}. {roll.kept}")
        lost = max(silent, key=lambda rank: roll.silent[rank])
        if not self._speaks(lost):
            return SystemExit(1)
        return UserError(f"{roll.name(lost)} has ended: {roll.last_sign(lost)}. So the run ends. {roll.kept}")


def kill_sibling(pid: int) -> None:
    """Kill a process that was started by what has started this one, if that is what the number stands for here.

    `torchrun` asks a stopped process to end, which that does not hear, and waits for 30 s before it kills it.
    """
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):  # elsewhere than on Linux, or on another machine
        return
    if parent == os.getppid() and pid != os.getpid():
        os.kill(pid, signal.SIGKILL)


def tell(said: str) -> None:
    """Into the log of the run, and to the terminal."""
    log = logging.getLogger("targetprop.app.cli")
    if log.hasHandlers():
        log.error("Error: %s", said)
    print(f"Error: {said}", file=sys.stderr, flush=True)
