"""What a run says, and where: in a terminal above its progress bar, elsewhere in plain lines, one for each message."""

from __future__ import annotations

import logging
from datetime import datetime

from rich import get_console
from rich.console import Console
from rich.highlighter import ReprHighlighter
from rich.text import Text

TIME = "[%H:%M:%S]"
WIDE = 100
"""Columns from which on a terminal has room for the time of a message, too."""


def shows_lines_only(console: Console) -> bool:
    """Whether what is written goes into a file or a pipe, or to a terminal that cannot go back over a line."""
    return not console.file.isatty() or console.is_dumb_terminal


class LogHandler(logging.Handler):
    """Log messages on the console that the progress bar is on, too, so that neither writes over the other.

    A message is one line, however long: a terminal breaks it as it can, and a path or a command in it can be copied.
    """

    def __init__(self) -> None:
        super().__init__()
        self.console = get_console()
        self._highlight = ReprHighlighter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        try:
            said = " ".join(self.format(record).split("\n"))
            time = datetime.fromtimestamp(record.created).strftime(TIME)
            if shows_lines_only(self.console):
                self.console.file.write(f"{time} {said}\n")
                self.console.file.flush()
            else:
                message = self._highlight(Text(said))
                line = Text.assemble((time, "dim"), " ", message) if self.console.width >= WIDE else message
                self.console.print(line, soft_wrap=True)
        except Exception:
            self.handleError(record)
