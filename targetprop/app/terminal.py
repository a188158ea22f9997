"""What a run says, and where: in a terminal with times beside it, elsewhere in plain lines, one for each message."""

from __future__ import annotations

import logging
from datetime import datetime

from rich import get_console
from rich.console import Console
from rich.logging import RichHandler

TIME = "[%H:%M:%S]"


def shows_lines_only(console: Console) -> bool:
    """Whether what is written goes into a file or a pipe, or to a terminal that cannot go back over a line."""
    return not console.file.isatty() or console.is_dumb_terminal


class LogHandler(RichHandler):
    """Log messages on the console that the progress bar is on, too, so that neither writes over the other.

    Where nobody looks on, a message is one line, however long: what reads it then, as `grep` or a batch system, takes
    lines as they are.
    """

    def __init__(self) -> None:
        super().__init__(console=get_console(), show_path=False, show_level=False, log_time_format=TIME)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        if not shows_lines_only(self.console):
            super().emit(record)
            return
        try:
            said = " ".join(self.format(record).split("\n"))
            time = datetime.fromtimestamp(record.created).strftime(TIME)
            self.console.file.write(f"{time} {said}\n")
            self.console.file.flush()
        except Exception:
            self.handleError(record)
