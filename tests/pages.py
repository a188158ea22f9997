"""What the pages of the documentation have in fences: commands, code, and files that the reader writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: as written behind the fence; empty for commands.
        title: the file that the reader writes the block into, or empty.
        text: its lines.
    """

    language: str
    title: str
    text: str

    def write(self, folder: Path) -> None:
        """Do what the title asks of the reader, below `folder`."""
        path = folder / self.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text)

    @property
    def commands(self) -> list[str]:
        """The lines, those with a backslash at their end joined to the next, without empty ones."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of the text of a page, in the order printed."""
    found = re.findall(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    return [Block(*each) for each in found]
