"""The configuration that overrides of the command line give, with errors that say what to do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from targetprop.app import habits, naming
from targetprop.app.moved import refuse_moved
from targetprop.app.quoting import refuse_unreadable
from targetprop.utils.errors import UserError, no_such, unknown

naming.register()
CONF = Path(__file__).parent / "conf"
PLUGINS = {"submitit_slurm": "cluster", "submitit_local": "cluster"}
"""Choices that Hydra has once an extra of this package is installed."""


def one_line(error: Exception) -> str:
    """What an error says, without line breaks; a report of another process keeps its own."""
    text = str(error)
    if isinstance(error, OmegaConfBaseException):  # the key stands on a line of its own below the message
        key = getattr(error, "full_key", None)
        return f"{key}: {text.splitlines()[0]}" if key else text.splitlines()[0]
    return text if "Traceback" in text else " ".join(text.split())


def check_overrides(overrides: list[str]) -> DictConfig:
    """The configuration that these overrides give; of a search without what is typed to be varied.

    Raises:
        UserError: a choice or key that does not exist, with the nearest ones that do, or one that cannot be read.
    """
    refuse_moved(overrides)
    searches = any(each.startswith("hparams_search=") for each in overrides)
    varied = [each for each in overrides if searches and _is_sweep(each)]
    overrides = [each for each in overrides if each not in varied]
    refuse_unreadable(overrides)
    for override in overrides:
        _refuse_no_choice(override)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            if searches:
                keys = [each.partition("=")[0] for each in varied]
                check_search(hydra.compose("config", overrides, return_hydra_config=True), keys)
            return hydra.compose("config", overrides)
        except MissingConfigException as error:
            raise _unknown_choice(error) from None
        except ConfigCompositionException as error:
            raise _unknown_key(error, overrides) from None
        except HydraException as error:
            raise UserError(one_line(error)) from None


def first_run(arguments: list[str]) -> DictConfig:
    """The configuration of the first run of a sweep.

    Raises:
        UserError: as `check_overrides`.
    """
    return check_overrides(_first_values(arguments))


def completed(arguments: list[str]) -> list[str]:
    """These arguments, and what follows where of an optimiser another type is given, and no numbers.

    Of a sweep over types nothing follows: numbers would be the same for all of them.
    """
    overrides = _first_values(arguments)
    typed = dict(map(_parted, overrides))
    given_whole = {key for key, value in typed.items() if value.startswith("{")}
    added: list[str] = []
    for section in habits.OPTIMIZERS:
        key = f"{section}.type"
        swept = key in typed and f"{key}={typed[key]}" not in [each.lstrip("+") for each in arguments]
        if key not in typed or swept or given_whole & {section, "model.hparams", "model"}:
            continue
        with contextlib.suppress(UserError):  # which is said when all of them are looked at
            without = check_overrides([each for each in overrides if _parted(each)[0] != key])
            before = OmegaConf.select(without, section) or {}
            added += habits.of_another_type(section, typed[key], typed, before)
    return [*arguments, *added]


def _first_values(arguments: list[str]) -> list[str]:
    """The overrides among these arguments, and of those of a sweep the first value."""
    overrides = [habits.first_of_sweep(each) for each in arguments if not each.startswith("-")]
    return [each for each in overrides if each is not None]


def _parted(override: str) -> tuple[str, str]:
    """Key and value."""
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def _refuse_no_choice(override: str) -> None:
    """Refuse a value that is no name in place of a choice of a group."""
    parsed = OverridesParser.create().parse_override(override)
    group, value = parsed.key_or_group, parsed.value()
    if parsed.is_delete() or not (CONF / group).is_dir() or isinstance(value, dict):
        return  # of a dict, Hydra takes the keys
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(each, str | QuotedString) for each in names):
        raise unknown(
            group, parsed.get_value_element_as_str(), sorted(each.stem for each in (CONF / group).glob("*.yaml"))
        )


def _is_sweep(override: str) -> bool:
    """Whether it gives several values; what cannot be read does not."""
    try:
        return OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return False


def check_search(config: DictConfig, typed: Sequence[str] = ()) -> None:
    """Refuse a search over keys that the configuration does not have.

    Args:
        config: with Hydra's own part.
        typed: keys that are varied beside those of the search.

    Raises:
        UserError: one of the keys that the sweeper varies is none of the configuration's, or Optuna is not there.
    """
    for key in (*(config.hydra.sweeper.get("params") or {}), *typed):
        if not (CONF / str(key)).is_dir() and OmegaConf.select(config, str(key)) is None:
            raise UserError(
                f"this search varies {key}, which the model that was chosen does not have. Choose another model, or "
                "write a search of your own beside conf/hparams_search/dtp.yaml.",
                key="hparams_search",
            )
    if find_spec("optuna") is None:
        raise UserError('it needs Optuna: pip install "targetprop[sweeps]"', key="hparams_search")


def _unknown_choice(error: MissingConfigException) -> UserError:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    if said := habits.hint(f"{group}={choice}", f"{group}={choice}"):
        return UserError(f"there is no such choice. {said}", key=f"{group}={choice}")
    if choice in PLUGINS:
        return UserError(f'{group}={choice} is a plugin of Hydra: pip install "targetprop[{PLUGINS[choice]}]"')
    return unknown(group, choice, error.options or []) if group else UserError(str(error))


def _is_choice(override: str) -> bool:
    """Whether it chooses a file of a group."""
    group, _, value = override.partition("=")
    return (CONF / group).is_dir() and not value.startswith("{")


def _takes_more(place: list[str], node: DictConfig) -> bool:
    """Whether something reads a key that is added there; elsewhere one that is added is refused."""
    if place[:1] == ["model"]:
        return place[1:] == ["hparams"] and list(node) == ["f_optim"]  # of an algorithm of one's own
    if place == ["network", "hparams"]:
        return not list(node)  # of a network of one's own
    return place in (["trainer"], ["callbacks"], ["logger"], ["scheduler"])


def _unknown_key(error: ConfigCompositionException, overrides: list[str]) -> UserError:
    """Explain a key that the configuration lacks by the keys that stand in its place, in the groups chosen."""
    message = str(error)
    within = re.search(r"full_key: (\S+)", str(error.__cause__))  # of a section that was given as a whole
    found = within or re.search(r"Could not (?:override|find|append).*?'([\w./@-]+)'", message)
    found = found or re.search(r"Multiple values for ([\w/]+)", message)
    message = " ".join(message.split())
    if not found:
        return UserError(message)
    if "An item is already at" in message or "Multiple values for" in message:
        return UserError("it is there already: leave out the + before it.", key=found[1])
    typed = next((each for each in overrides if _parted(each)[0].startswith(found[1])), found[1])
    if said := habits.hint(typed, found[1]):
        return UserError(f"there is no such setting. {said}", key=found[1])
    *parents, last = found[1].split(".")
    try:
        node: Any = hydra.compose("config", [each for each in overrides if _is_choice(each)])
    except HydraException:  # what is wrong is in one of the files chosen
        return UserError(message)
    reached: list[str] = []
    for key in parents:
        if not isinstance(node, DictConfig) or key not in node:
            last = key
            break
        node = node._get_node(key)
        reached.append(key)
    if not isinstance(node, DictConfig):
        return UserError(message)
    explained = no_such(last, [str(key) for key in node])
    adds = " A + before it adds a key." if _takes_more(reached, node) else ""
    return UserError(explained.message + adds, key=".".join([*reached, last]))
