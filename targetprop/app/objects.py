"""Objects as a configuration describes them, and whose mistake it is where one cannot be made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from targetprop.utils.errors import UserError, no_such, prefixed


def build(config: DictConfig, **others: Any) -> Any:
    """What `hydra.utils.instantiate` makes of a configuration, and of other arguments beside it.

    Raises:
        UserError: a value that does not fit, named by its full key.
    """
    try:
        return instantiate(config, **others)
    except InstantiationException as error:
        if not isinstance(error.__cause__, UserError):
            raise
        place = re.search(r"^full_key: (\S+)$", str(error), re.MULTILINE)
        raise error.__cause__.under(place[1]) if place else error.__cause__ from None


def build_members(config: DictConfig, group: str) -> list[Any]:
    """What the members of a group describe, without those that are null."""
    return [build(each) for each in (config.get(group) or {}).values() if each is not None]


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
