"""Commands that are no training run: `targetprop NAME ...`, or `python main.py NAME ...`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

COMMANDS = {
    "convert_imagenet": "targetprop.app.convert_imagenet:main",
    "predict": "targetprop.app.saved.cli:predict",
    "evaluate": "targetprop.app.saved.cli:evaluate",
    "export": "targetprop.app.saved.cli:export",
}
"""Where each stands."""


def command_of(given: Sequence[str]) -> Callable[[Sequence[str]], None] | None:
    """What does the command that a command line begins with; None if it is a training run."""
    place = COMMANDS.get(given[0]) if given else None
    if place is None:
        return None
    module, _, name = place.partition(":")
    found: Callable[[Sequence[str]], None] = vars(import_module(module))[name]
    return found
