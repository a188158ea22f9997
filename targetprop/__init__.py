"""Train deep networks by target propagation instead of backprop.

The names stand in `targetprop.public`, which is imported when one of them is first asked for: the command line has to
say how threads wait before torch is imported (`app/waiting.py`), and answers `--help` without it.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from targetprop.app.saved.load import load as load
    from targetprop.public import *  # noqa: F403

OF_THE_APPLICATION = {"load": "targetprop.app.saved.load"}
"""Public names that need Lightning and Hydra, which nothing else here imports, and where they stand."""


def __getattr__(name: str) -> Any:
    """A module or folder of the package, or a public name."""
    if name.startswith("__") and name not in ("__all__", "__version__"):  # tools ask any module for those
        raise AttributeError(name)
    if name in OF_THE_APPLICATION:
        return vars(import_module(OF_THE_APPLICATION[name]))[name]
    if find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    try:
        return vars(import_module("targetprop.public"))[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return [*globals(), *OF_THE_APPLICATION, *import_module("targetprop.public").__all__]
