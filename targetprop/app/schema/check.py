"""The whole configuration, checked before any data is read: what each section is, what stands in it, what fits what."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from targetprop.app.models import check_hparams
from targetprop.app.schema.combinations import refuse_combinations
from targetprop.app.schema.kinds import MAPPING, NULL, OBJECT
from targetprop.app.schema.objects import check_arguments, check_object, find_target, plain_value
from targetprop.app.schema.plain import PLAIN
from targetprop.app.schema.rehearsal import rehearse
from targetprop.app.trainer import refuse_places
from targetprop.utils.errors import UserError, prefixed, refuse_unknown, require

GROUPS = ("trainer", "model", "network", "datamodule", "scheduler", "callbacks", "logger")
"""In an order in which a key comes before those that refer to it."""
NEEDED = GROUPS[:4]
"""Groups without which there is no run."""
MODEL_CALL = "a function (network, hparams, *, seed, ...) that makes what is trained"
NETWORK_CALL = "a function (image_shape, num_classes, ...) that makes a Sequential"


def check(config: DictConfig) -> None:
    """Refuse a configuration that cannot work.

    Raises:
        UserError: one of its settings, named by its full key, in one line.
    """
    refuse_unknown(map(str, config), [*PLAIN, *GROUPS])
    for name, key in PLAIN.items():
        require(name in config, name, key.kind.expected, "nothing")
        key.kind.check(name, plain_value(config[name]))
    for name in GROUPS:
        _check_section(config, name)
    with prefixed("trainer"):
        refuse_places([name for name in map(str, config.trainer) if not name.startswith("_")])
    for name in ("trainer", "datamodule"):
        check_object(config[name])
    _check_model(config.model)
    _check_network(config.network)
    for name in ("scheduler", "callbacks", "logger"):
        check_object(config.get(name))
    check_hparams(config.model)
    refuse_combinations(config)
    rehearse(config)


def _check_section(config: DictConfig, name: str) -> None:
    """Refuse what stands in place of a group."""
    given = plain_value(config.get(name))
    if name in NEEDED:
        require(OBJECT.takes(given), name, f"one of the choices of the group ({OBJECT.expected})", given)
    elif name == "scheduler":
        kind = OBJECT | NULL
        require(given == {} or kind.takes(given), name, f"one of the choices of the group ({kind.expected})", given)
    else:
        kind = MAPPING | NULL
        require(kind.takes(given), name, f"one of the choices of the group ({kind.expected})", given)
        for member, each in (given or {}).items():
            (OBJECT | NULL).check(f"{name}.{member}", each)


def _check_model(config: DictConfig) -> None:
    target = find_target(config)
    with prefixed("model"):
        require("hparams" in config, "hparams", MAPPING.expected, "nothing")
    given = [str(name) for name in config if name not in ("_target_", "hparams", "loss", "label_smoothing")]
    check_arguments(target, config, ["hparams", *given], positional=1)
    check_arguments(target, config, [name for name in ("loss", "label_smoothing") if name in config], positional=1)
    _require_call(target, config, MODEL_CALL, None, {}, seed=0, **dict.fromkeys(given))


def _check_network(config: DictConfig) -> None:
    target = find_target(config)
    with prefixed("network"):
        refuse_unknown(map(str, config), ["_target_", "hparams"])
        require("hparams" in config, "hparams", MAPPING.expected, "nothing")
        MAPPING.check("hparams", plain_value(config.hparams))
    given = [str(name) for name in config.hparams]
    _require_call(target, config, NETWORK_CALL, (1, 1, 1), 1)
    check_arguments(target, config.hparams, given, positional=2)


def _require_call(target: Callable[..., Any], config: DictConfig, expected: str, *values: Any, **others: Any) -> None:
    """Refuse a target that cannot be called with these arguments, whatever else it takes."""
    try:
        inspect.signature(target).bind_partial(*values, **others)
    except TypeError as error:
        key = str(config._get_full_key("_target_"))
        raise UserError(f"expected {expected}, got {config['_target_']!r}", key=key) from error
