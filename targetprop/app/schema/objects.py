"""Objects that a configuration describes by a `_target_` and its arguments, before they are made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from targetprop.app.schema import callbacks, datamodule, logger, model, network, scheduler, task, trainer
from targetprop.app.schema.annotations import kinds_of
from targetprop.app.schema.keys import Keys
from targetprop.app.schema.kinds import TRUTH, Kind, choice
from targetprop.utils.errors import UserError, prefixed, refuse_unknown, require

INSTRUCTIONS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
"""Keys that Hydra reads itself."""
SWITCHES = {"_partial_": TRUTH, "_recursive_": TRUTH, "_convert_": choice("none", "partial", "object", "all")}
DESCRIBED: Mapping[str, Keys] = {
    **trainer.TARGETS, **task.TARGETS, **model.TARGETS, **network.TARGETS, **datamodule.TARGETS, **scheduler.TARGETS,
    **callbacks.TARGETS, **logger.TARGETS,
}  # fmt: skip
"""Settings of the objects that the schema knows, by where these are defined."""


def find_target(config: DictConfig) -> Callable[..., Any]:
    """What the `_target_` of a described object names.

    Raises:
        UserError: nothing that can be called; the message has the full key.
    """
    return find_callable(str(config._get_full_key("_target_")), config["_target_"])


def find_callable(key: str, path: Any) -> Callable[..., Any]:
    """What an import path, which stands at `key`, names.

    Raises:
        UserError: nothing that can be called; the message has the key.
    """
    expected = "the import path of a class or function (package.module.NAME)"
    require(isinstance(path, str) and "." in path.strip("."), key, expected, path)
    try:
        target = get_object(path)
    except Exception as error:  # whatever a module raises while it is imported
        raise UserError(f"cannot be built: {' '.join(str(error).split())}", key=key) from error
    require(callable(target), key, expected, path)
    try:
        inspect.signature(target)
    except (TypeError, ValueError) as error:
        raise UserError(f"cannot be built: {error}", key=key) from error
    found: Callable[..., Any] = target
    return found


def described(target: Callable[..., Any]) -> Keys:
    """What the schema says of the settings of a target, or of the nearest of its bases; nothing of one unknown."""
    for each in inspect.getmro(target) if isinstance(target, type) else [target]:
        keys = DESCRIBED.get(f"{getattr(each, '__module__', '')}.{getattr(each, '__qualname__', '')}")
        if keys is not None:
            return keys
    return {}


def check_object(config: Any) -> None:
    """Refuse what a described object, or one within it, does not take.

    Raises:
        UserError: one of its settings, named by its full key.
    """
    if isinstance(config, DictConfig) and "_target_" in config:
        target = find_target(config)
        for name, kind in SWITCHES.items():
            if name in config:
                kind.check(str(config._get_full_key(name)), plain_value(config[name]))
        given = [str(key) for key in config if str(key) not in INSTRUCTIONS]
        check_arguments(target, config, given)
        if not config.get("_partial_") and "_args_" not in config:
            _refuse_missing(target, config)
    if isinstance(config, DictConfig | ListConfig) and not config._is_none():
        for each in config.values() if isinstance(config, DictConfig) else config:
            check_object(each)


def _refuse_missing(target: Callable[..., Any], config: DictConfig) -> None:
    kinds = setting_kinds(target)
    for name in required(target):
        if name in kinds and name not in config:
            raise UserError(f"expected {kinds[name].expected}, got nothing", key=str(config._get_full_key(name)))


def required(target: Callable[..., Any]) -> list[str]:
    """Names of what a target cannot do without."""
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(target).parameters.values()
    return [each.name for each in parameters if each.default is each.empty and each.kind not in variable]


def check_arguments(target: Callable[..., Any], config: DictConfig, given: Iterable[str], positional: int = 0) -> None:
    """Refuse settings of a section that a target does not take, or a value that is none of its kind.

    Args:
        target: what takes them.
        config: the section.
        given: names of the settings in it.
        positional: how many of the target's first parameters are not for the configuration.

    Raises:
        UserError: one of the settings, named by its full key.
    """
    kinds = setting_kinds(target, positional)
    parameters = inspect.signature(target).parameters.values()
    ours = str(target.__module__).startswith("targetprop.") and bool(described(target))
    takes_more = any(each.kind is each.VAR_KEYWORD for each in parameters) and not ours
    with prefixed(str(config._get_full_key(None))):
        if not takes_more:
            refuse_unknown(given, kinds)
        for name in given:
            if not OmegaConf.is_interpolation(config, name) and name in kinds:  # else the key it refers to is to blame
                kinds[name].check(name, plain_value(config[name]))


def setting_kinds(target: Callable[..., Any], positional: int = 0) -> dict[str, Kind]:
    """What each setting of a target takes: as the schema says, else by its annotation."""
    parameters = list(inspect.signature(target).parameters.values())[positional:]
    named = {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    known = {name: each.kind for name, each in described(target).items()}
    if not any(each.kind is each.VAR_KEYWORD for each in parameters):
        known = {name: kind for name, kind in known.items() if name in named}
    return {**{name: kind for name, kind in kinds_of(target).items() if name in named}, **known}


def plain_value(value: Any) -> Any:
    """A value as plain lists, dicts, numbers and text, without resolving what it refers to."""
    return OmegaConf.to_container(value) if isinstance(value, DictConfig | ListConfig) else value
