"""What can be said of a configuration at once, before torch is imported: whether values are of the kind of their keys.

`check` says the same, and all the rest; this is for the mistake that is made most often, a slip of the keyboard.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from omegaconf import DictConfig, OmegaConf

from targetprop.app.schema.keys import Keys
from targetprop.app.schema.logger import PACKAGES
from targetprop.app.schema.objects import DESCRIBED, plain_value
from targetprop.app.schema.plain import PLAIN
from targetprop.app.schema.trainer import refuse_places
from targetprop.utils.errors import UserError, prefixed

GROUPS = ("trainer", "task", "network", "model", "datamodule", "scheduler", "callbacks", "logger")


def check_early(config: DictConfig) -> None:
    """Refuse values that are of another kind than their key, and loggers whose package is not there.

    Raises:
        UserError: one of the settings, named by its full key.
    """
    _check_kinds(config, PLAIN)
    for group in GROUPS:
        for section in _objects(config.get(group)):
            if group == "trainer":
                with prefixed("trainer"):
                    refuse_places([str(name) for name in section])
            keys = _keys(str(section["_target_"]))
            numbers = section.get("hparams") if group == "network" else section
            if isinstance(numbers, DictConfig):
                _check_kinds(numbers, keys)
            _refuse_lacking(section)


def _objects(section: object) -> Iterator[DictConfig]:
    """Everything with a `_target_` in a section."""
    if not isinstance(section, DictConfig) or section._is_none():
        return
    if isinstance(section.get("_target_"), str):
        yield section
    for name in section:
        if not OmegaConf.is_interpolation(section, str(name)):
            yield from _objects(section._get_node(name))


def _keys(target: str) -> Keys:
    """What the schema says of the settings of a target, also where it stands in another module than it is made in."""
    module, _, name = target.rpartition(".")
    found = (keys for path, keys in DESCRIBED.items() if path.startswith(f"{module}.") and path.endswith(f".{name}"))
    return DESCRIBED.get(target) or next(found, {})


def _check_kinds(section: DictConfig, keys: Keys) -> None:
    values = plain_value(section)
    for name in map(str, section):
        if name in keys and not OmegaConf.is_interpolation(section, name):
            keys[name].kind.check(str(section._get_full_key(name)), values[name])


def _refuse_lacking(section: DictConfig) -> None:
    """Refuse a logger whose package is not there."""
    package = PACKAGES.get(str(section["_target_"]))
    if package is not None and find_spec(package) is None:
        message = f"it needs the package {package}, which is not installed: pip install {package}"
        raise UserError(message, key=str(section._get_full_key(None)))
