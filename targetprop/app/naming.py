"""What a run is called by itself: the choices of model, network and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

REPLACED: Mapping[str, Sequence[str]] = {
    "model": ("model._target_", "model.algorithm", "model.rule"),
    "network": ("network._target_",),
    "datamodule": ("datamodule._target_", "datamodule.load._target_", "datamodule.dataset"),
}
"""Keys by which something else stands in place of the choice of a group."""


def chosen(group: str) -> str:
    """The name of what was chosen in a group, or typed in its place; of a run without a command line the group's."""
    if not HydraConfig.initialized():
        return group
    hydra = HydraConfig.get()
    typed = [each.lstrip("+").partition("=") for each in hydra.overrides.task or ()]
    for key, _, value in reversed(typed):
        if key in REPLACED.get(group, ()):
            return value.strip("'\"").rpartition(".")[2]
    return str(hydra.runtime.choices.get(group) or group)


def register() -> None:
    """Have `${chosen:GROUP}` in configurations."""
    OmegaConf.register_new_resolver("chosen", chosen, replace=True)
