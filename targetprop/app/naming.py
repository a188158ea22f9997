"""What a run is called by itself: the choices of model, network and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

REPLACED: Mapping[str, Sequence[str]] = {
    "model": ("model._target_", "model.algorithm", "model.rule"),
    "network": ("network._target_",),
    "datamodule": ("datamodule._target_", "datamodule.load._target_", "datamodule.dataset"),
}
"""Keys by which something else stands in place of the choice of a group."""


def chosen(group: str, _root_: DictConfig) -> str:
    """The name of what was chosen in a group, or typed in its place.

    Of a configuration that no command line gave, and so no choices, it is what the group describes.
    """
    if not HydraConfig.initialized():
        section = _root_.get(group)
        return (described(section) if isinstance(section, Mapping) else "") or group
    hydra = HydraConfig.get()
    typed = [each.lstrip("+").partition("=") for each in hydra.overrides.task or ()]
    for key, _, value in reversed(typed):
        if key in REPLACED.get(group, ()):
            return value.strip("'\"").rpartition(".")[2]
    return str(hydra.runtime.choices.get(group) or group)


def described(section: Mapping[str, Any]) -> str:
    """What a section of a configuration names: a rule, a network, a data set."""
    load = section.get("load") or {}
    named = section.get("algorithm") or section.get("rule") or section.get("dataset") or load.get("_target_")
    path = str(named or section.get("_target_") or "")
    return path.removesuffix(".load").rpartition(".")[2]


def register() -> None:
    """Have `${chosen:GROUP}` in configurations."""
    OmegaConf.register_new_resolver("chosen", chosen, replace=True)
