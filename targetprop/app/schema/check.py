"""The sections of a configuration: what each is, what stands in it, and what fits what."""

from __future__ import annotations

from omegaconf import DictConfig

from targetprop.app.datamodule import ExampleDataModule
from targetprop.app.schedule import INTERVAL, scheduler_of
from targetprop.app.schema import scheduler as scheduler_keys
from targetprop.app.schema.combinations import refuse_combinations
from targetprop.app.schema.kinds import MAPPING, NULL, OBJECT
from targetprop.app.schema.model import COMMON
from targetprop.app.schema.objects import (
    check_arguments,
    check_object,
    find_callable,
    find_target,
    plain_value,
    required,
    setting_kinds,
)
from targetprop.app.schema.plain import PLAIN
from targetprop.app.schema.roles import ROLES, check_call, check_role, check_takes
from targetprop.app.schema.trainer import refuse_places
from targetprop.utils.errors import prefixed, refuse_unknown, require

GROUPS = ("trainer", "task", "model", "network", "datamodule", "scheduler", "callbacks", "logger")
"""In an order in which a key comes before those that refer to it."""
NEEDED = GROUPS[:5]
"""Groups without which there is no run."""
TOLD = ("seed", "input_shape")
"""What a model is told that its section does not say."""
MODEL_CALL = "a function (network, hparams, *, seed, ...) that makes what is trained"
LOSS_CALL = "a function (outputs, targets) that returns their mean loss"
NETWORK_CALL = "a function (image_shape, num_classes, ...) that makes a Module"

LOAD_CALL = "a function (data_dir, download) that reads a data set"
MAKE_CALL = "a function without further arguments that makes a data set"


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
    _check_roles(config)
    with prefixed("trainer"):
        refuse_places([name for name in map(str, config.trainer) if not name.startswith("_")])
    check_object(config.trainer)
    check_object(config.task)
    _check_data(config.datamodule)
    _check_model(config.model)
    _check_network(config.network)
    if scheduler := config.get("scheduler"):
        given = scheduler.get("_partial_")
        require(given is True, "scheduler._partial_", "true, since the optimiser is made later", given)
        scheduler_keys.INTERVAL.kind.check("scheduler.interval", scheduler.get(INTERVAL))
        check_object(scheduler_of(scheduler))
    for name in ("callbacks", "logger"):
        check_object(config.get(name))
    refuse_combinations(config)


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
        for member, each in (config.get(name) or {}).items():
            (OBJECT | NULL).check(f"{name}.{member}", plain_value(each))


def _check_roles(config: DictConfig) -> None:
    """Refuse classes that are of another kind than their group."""
    for name in ROLES:
        section = config.get(name) or {}
        for each in [section] if "_target_" in section else section.values():
            if isinstance(each, DictConfig):
                check_role(each, name, find_target(each))


def _check_data(config: DictConfig) -> None:
    check_object(config)
    load = config.get("load")
    if isinstance(load, DictConfig):
        reads = find_target(config) is not ExampleDataModule
        check_call(load, find_target(load), *((LOAD_CALL, "", True) if reads else (MAKE_CALL,)))


def _check_model(config: DictConfig) -> None:
    target = find_target(config)
    own = {name: kind for name, kind in setting_kinds(target, positional=1).items() if name not in TOLD}
    kinds = {**own, **{name: key.kind for name, key in COMMON.items()}}
    given = [str(name) for name in config if name != "_target_"]
    with prefixed("model"):
        refuse_unknown(given, kinds)
        for name in ("hparams", *own):
            require(name in config or name not in required(target), name, kinds[name].expected, "nothing")
        for name in given:
            kinds[name].check(name, plain_value(config[name]))
        if "loss" in config:
            check_takes("loss", config.loss, find_callable("loss", config.loss), LOSS_CALL, None, None)
    check_call(config, target, MODEL_CALL, None, {}, seed=0)


def _check_network(config: DictConfig) -> None:
    target = find_target(config)
    with prefixed("network"):
        refuse_unknown(map(str, config), ["_target_", "hparams"])
        require("hparams" in config, "hparams", MAPPING.expected, "nothing")
        MAPPING.check("hparams", plain_value(config.hparams))
    given = [str(name) for name in config.hparams]
    check_call(config, target, NETWORK_CALL, (1, 1, 1), 1)
    check_arguments(target, config.hparams, given, positional=2)
