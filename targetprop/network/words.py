"""Words of messages about a module that is traced."""

from __future__ import annotations

WAYS_OUT = (
    "put that part into a module with a rule (@targetprop.register), which is then one layer, or give the network's "
    "layers in sequence"
)


def own_name(name: str) -> str:
    """Of a module, what the user's model calls it."""
    return name.removeprefix("model").removeprefix(".")
