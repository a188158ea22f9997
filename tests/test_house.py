"""The house in order: who knows what, and who may import whom."""

from __future__ import annotations

from pathlib import Path

import targetprop

PACKAGE = Path(targetprop.__file__).parent
KNOWING = ("app", "compare", "published")
"""What stands on the command line is about it."""


def test_only_app_and_what_stands_on_it_know_the_configuration() -> None:
    """What a library user calls names its own arguments in messages, not keys of a command line."""
    words = ("hparams", "trainer.", "datamodule.")
    found = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in KNOWING
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if any(word in line for word in words)
    ]
    assert not found, "\n".join(found)
