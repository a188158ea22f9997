"""Objects as a configuration describes them, and whose mistake it is where one cannot be made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from targetprop.app.schema.objects import check_object
from targetprop.app.schema.roles import check_made
from targetprop.utils.errors import UserError, prefixed, refuse_unknown


def build(config: DictConfig, **others: Any) -> Any:
    """What `hydra.utils.instantiate` makes of a configuration, and of other arguments beside it.

    Raises:
        UserError: a value that does not fit, or whatever is raised by what is made of it, named by its full key.
    """
    check_object(config)
    place = str(config._get_full_key(None))
    try:
        made = instantiate(config, **others)
    except InstantiationException as error:
        raise _blamed(error, place) from error.__cause__
    check_made(config, place.partition(".")[0], made)
    _check_parts(config, made, place)
    return made


def _check_parts(config: DictConfig, made: object, place: str) -> None:
    """Refuse a described part that came to nothing: what it is for would be left out in silence."""
    for key, part in ((str(each), config[each]) for each in config):
        target = part.get("_target_") if isinstance(part, DictConfig) else None
        if target and getattr(made, key, made) is None:
            raise UserError(f"expected what makes an object, got {target}, which makes nothing", key=f"{place}.{key}")


def _blamed(error: InstantiationException, place: str) -> UserError:
    """What went wrong while something at a place, or within it, was made, in one line with its key."""
    found = re.search(r"^full_key: (\S+)$", str(error), re.MULTILINE)
    key, cause = found[1] if found else place, error.__cause__ or error
    if isinstance(cause, UserError):
        return cause.under(key)
    reason = " ".join(str(cause).split())
    return UserError(f"cannot be made: {reason or type(cause).__name__}", key=key)


def build_members(config: DictConfig, group: str) -> list[Any]:
    """What the members of a group describe, without those that are null."""
    members = {key: each for key, each in (config.get(group) or {}).items() if each is not None}
    for key, each in members.items():
        if not isinstance(each, DictConfig) or "_target_" not in each:
            raise UserError(f"expected an object (_target_, ...) or null, got {each!r}", key=f"{group}.{key}")
    return [build(each) for each in members.values()]


def call(place: str, config: DictConfig, *arguments: Any, facts: Mapping[str, Any] | None = None) -> Any:
    """Call the `_target_` of a configuration, which stands at `place`, with its `hparams`.

    Args:
        arguments: what the data are like, which no configuration says.
        facts: what it is told beside them if it asks for it by name; no configuration says these.

    Raises:
        UserError: a number that does not fit, or that the target does not take, named by its full key; or data that it
            does not take, named by `place`.
    """
    target, hparams = get_method(config._target_), plain(config.hparams)
    names, facts = _names(target, len(arguments)), facts or {}
    with prefixed(f"{place}.hparams"):
        refuse_unknown(hparams, [name for name in names if name not in facts] or hparams)
    try:
        return target(*arguments, **hparams, **{name: facts[name] for name in facts if name in names})
    except TypeError as error:
        raise UserError(str(error), key=f"{place}.hparams") from error
    except UserError as error:
        if error.key in list(inspect.signature(target).parameters)[: len(arguments)]:
            raise UserError(f"it cannot take this data: {error.message}", key=place) from error.__cause__
        raise error.under(f"{place}.hparams") from error.__cause__


def _names(target: Callable[..., Any], given: int) -> list[str]:
    """What can be given by name behind so many arguments; empty if any name can."""
    parameters = list(inspect.signature(target).parameters.values())[given:]
    return [] if any(each.kind is each.VAR_KEYWORD for each in parameters) else [each.name for each in parameters]


def plain(config: DictConfig | ListConfig | dict[str, Any]) -> dict[str, Any]:
    """A configuration as a dict of plain values, resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
