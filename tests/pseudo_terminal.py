"""What a command shows in a terminal: it runs in a pseudo-terminal, and pyte makes of what it writes what is seen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyte

LINES = 50
Keys = Callable[[bytes], object]
Watch = Callable[["Seen", Keys], None]
CONTROL_C = b"\x03"


class Seen:
    """A terminal of so many columns, with all that scrolled out of it."""

    def __init__(self, columns: int, lines: int = LINES) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=100_000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)

    def feed(self, data: bytes) -> None:
        """Show what a program writes."""
        self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        """All of them, from the first one that was written to the last one on the screen."""
        columns = range(self.screen.columns)
        gone = ["".join(line[column].data for column in columns).rstrip() for line in self.screen.history.top]
        return [*gone, *(line.rstrip() for line in self.screen.display)]

    @property
    def text(self) -> str:
        """The lines as one text, without the empty ones at its end."""
        return "\n".join(self.lines).rstrip()


def run_in_terminal(
    command: Sequence[str], cwd: Path, columns: int, *, watch: Watch | None = None, seconds: float = 600
) -> tuple[int, Seen]:
    """Run a command to its end.

    Args:
        columns: of the terminal.
        watch: is called after everything that the command wrote, and may press keys.
        seconds: after which it is given up.

    Returns:
        Its exit code, and what was seen.
    """
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, cwd=cwd, stdin=inner, stdout=inner, stderr=inner, env=environment,
        start_new_session=True, preexec_fn=_at_the_terminal,
    )  # fmt: skip
    os.close(inner)
    seen, until = Seen(columns), time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            if select.select([outer], [], [], 0.2)[0]:
                try:
                    data = os.read(outer, 65536)
                except OSError:  # so Linux says that nobody writes any more
                    break
                if not data:
                    break
                seen.feed(data)
            if watch is not None:
                watch(seen, lambda pressed: os.write(outer, pressed))
        return process.wait(timeout=max(1.0, until - time.monotonic())), seen
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(outer)


def _at_the_terminal() -> None:
    """Be the process that the terminal's keys are for, also where these tests run behind something else."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
