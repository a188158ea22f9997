"""Signals that end a run: it finishes the step, writes a checkpoint, says how to go on, and ends as signals end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""What asks a run to end: batch systems, Ctrl-C, a closed terminal, preemption."""
AGAIN = 1.0
"""Seconds after which a signal counts as a second one: `timeout` sends it to the process and to its group."""
CLEARED = "\r\x1b[K"
"""Takes the line of a terminal away that the cursor is on: that of the progress bar, with ^C in it."""


class StoppedError(Exception):
    """A run ends because a signal asked it to."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def code(self) -> int:
        """The exit code by which shells and batch systems know it."""
        return 128 + self.number


class Signals:
    """Hears the signals that end a run, for as long as this lasts.

    The first is only remembered; the second, a second later or more, ends the process at once. Signals that were
    ignored before, as `nohup` has it, stay ignored. Elsewhere than in the main thread nothing is heard.

    Attributes:
        heard: the number of the first signal; 0 before there is one.
    """

    def __init__(self) -> None:
        self.heard = 0
        self._heard_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @staticmethod
    def name(number: int) -> str:
        """SIGTERM and the like."""
        return signal.Signals(number).name

    def listen(self) -> None:
        """Hear them from here on, also where other code has taken over since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in ENDING:
            now = signal.getsignal(number)
            if now not in (signal.SIG_IGN, None) and now != self._hear:
                self._before.setdefault(number, now)
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard and time.monotonic() - self._heard_at < AGAIN:
            return
        if self.heard:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.heard, self._heard_at = number, time.monotonic()
        said = f"{self.name(number)}: this step is finished, then the run ends; once more ends it at once.\n"
        where = sys.__stderr__.fileno() if sys.__stderr__ else 2
        os.write(where, f"{CLEARED if os.isatty(where) else chr(10)}{said}".encode())


def requeue(number: int) -> str | None:
    """Have SLURM start the job anew if it is one, and the signal is the one that SLURM is asked to send before the end.

    Returns:
        What became of it, in words; None where there was nothing to do.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if number != getattr(signal, "SIGUSR1", None) or job is None:
        return None
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scontrol could not requeue job {job}: {error}"
    return f"Job {job} was requeued." if done.returncode == 0 else f"scontrol did not requeue job {job}: {done.stderr}"
