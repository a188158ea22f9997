"""Objects as a configuration describes them, and whose mistake it is where one cannot be made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_method, get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from targetprop.utils.errors import UserError, no_such, prefixed, require

INSTRUCTIONS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
"""Keys that Hydra reads itself."""
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
"""What a parameter of a type takes, by the name of the type."""


def build(config: DictConfig, **others: Any) -> Any:
    """What `hydra.utils.instantiate` makes of a configuration, and of other arguments beside it.

    Raises:
        UserError: a value that does not fit, named by its full key.
    """
    _check(config)
    try:
        return instantiate(config, **others)
    except InstantiationException as error:
        if not isinstance(error.__cause__, UserError):
            raise
        place = re.search(r"^full_key: (\S+)$", str(error), re.MULTILINE)
        raise error.__cause__.under(place[1]) if place else error.__cause__ from None


def build_members(config: DictConfig, group: str) -> list[Any]:
    """What the members of a group describe, without those that are null."""
    members = {key: each for key, each in (config.get(group) or {}).items() if each is not None}
    for key, each in members.items():
        if not isinstance(each, DictConfig) or "_target_" not in each:
            raise UserError(f"expected an object (_target_, ...) or null, got {each!r}", key=f"{group}.{key}")
    return [build(each) for each in members.values()]


def call(place: str, config: DictConfig, *arguments: Any) -> Any:
    """Call the `_target_` of a configuration with its `hparams`, which stand at `place`.

    Raises:
        UserError: a number that does not fit, or that the target does not take, named by its full key.
    """
    target, hparams = get_method(config._target_), plain(config.hparams)
    with prefixed(place):
        refuse_unknown(hparams, _names(target, len(arguments)) or hparams)
        try:
            return target(*arguments, **hparams)
        except TypeError as error:
            raise UserError(str(error)) from error


def _check(config: Any) -> None:
    """Refuse settings that what is built does not take, and text where it takes a number or a truth value.

    Raises:
        UserError: one of them, named by its full key.
    """
    if isinstance(config, DictConfig) and "_target_" in config:
        try:
            taken = inspect.signature(get_object(config._target_)).parameters
        except Exception as error:  # whatever a module raises while it is imported
            reason = " ".join(str(error).split())
            raise UserError(f"cannot be built: {reason}", key=str(config._get_full_key("_target_"))) from error
        given = [str(key) for key in config if str(key) not in INSTRUCTIONS]
        with prefixed(str(config._get_full_key(None))):
            if not any(each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in taken.values()):
                refuse_unknown(given, taken)
            for key in given:
                if OmegaConf.is_interpolation(config, key):  # the key that it refers to is to blame
                    continue
                annotation = getattr(taken.get(key), "annotation", None)
                expected = KINDS.get(str(getattr(annotation, "__name__", annotation)))
                require(expected is None or not isinstance(config[key], str), key, str(expected), config[key])
    if isinstance(config, DictConfig | ListConfig):
        for each in config.values() if isinstance(config, DictConfig) else config:
            _check(each)


def _names(target: Callable[..., Any], given: int) -> list[str]:
    """What can be given by name behind so many arguments; empty if any name can."""
    parameters = list(inspect.signature(target).parameters.values())[given:]
    return [] if any(each.kind is each.VAR_KEYWORD for each in parameters) else [each.name for each in parameters]


def refuse_unknown(given: Iterable[str], valid: Iterable[str]) -> None:
    """Raise `UserError` for the first of the settings given that is not a valid one: names it, and the nearest."""
    names = list(valid)
    for key in given:
        if key not in names:
            raise no_such(key, names)


def plain(config: DictConfig | ListConfig | dict[str, Any]) -> dict[str, Any]:
    """A configuration as a dict of plain values, resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
