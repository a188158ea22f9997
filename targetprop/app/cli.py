"""The command line: Hydra's, with errors that say what to do."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from targetprop.app import legacy
from targetprop.app.going_on import with_recorded
from targetprop.app.moved import refuse_moved
from targetprop.app.quoting import refuse_unreadable
from targetprop.app.repeated import refuse_repeated
from targetprop.app.sweep import note_failure
from targetprop.app.waiting import set_wait_policy
from targetprop.utils.errors import UserError, no_such, unknown

log = logging.getLogger(__name__)
CONF = Path(__file__).parent / "conf"
SILENT = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
"""Of the processes that torchrun starts only the first has a directory and a log; the others leave nothing behind."""
PLUGINS = {"optuna": "sweeps", "submitit_slurm": "cluster", "submitit_local": "cluster"}
"""Choices that Hydra has once an extra of this package is installed."""


def main() -> None:
    """Entry point of `main.py` and of the console script `targetprop`."""
    set_wait_policy(os.environ)  # nothing has imported torch yet
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where import paths on the command line are looked for, as by `python main.py`
    given = sys.argv[1:]
    if given[:1] == ["convert_imagenet"]:
        from targetprop.app.convert_imagenet import main as convert_imagenet  # here, because no training needs it

        convert_imagenet(given[1:])
        return
    try:
        refuse_repeated(given)
        arguments = with_recorded(legacy.translate(given))
        if any(each.startswith("-") for each in arguments):  # sweeps and Hydra's own options are Hydra's to check
            refuse_moved(arguments)
            refuse_unreadable(arguments)
        else:
            check_overrides(arguments)
        is_first = os.environ.get("RANK", "0") == "0"
        sys.argv[1:] = [*arguments, *(legacy.claim_folder(given) if is_first else SILENT)]
    except UserError as error:
        sys.exit(f"Error: {error}")
    run()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(config: DictConfig) -> float | None:
    """One training run; returns what a search maximises: of validation, without validation of the test."""
    # Here, so that --help and mistakes answer at once.
    from targetprop.app.errors import DivergenceError
    from targetprop.app.quiet import quiet_warnings
    from targetprop.app.run import train
    from targetprop.app.task import searched

    quiet_warnings()
    try:
        return searched(train(config))
    except (UserError, OmegaConfBaseException) as error:
        said = one_line(error)
        log.error("Error: %s", said)  # into run.log, where the run has one
        if not _is_of_a_sweep():
            sys.exit(f"Error: {said}")
        if not isinstance(error, DivergenceError):  # which is a result: infinite weights get nothing right
            note_failure(said)
        print(f"Error: {said}", flush=True)
    except Exception as error:
        if not _is_of_a_sweep():
            raise
        log.exception("This job failed.")
        note_failure(" ".join(f"{type(error).__name__}: {error}".split()))
    return 0.0  # the sweep goes on


def _is_of_a_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def one_line(error: Exception) -> str:
    """What an error says, without line breaks; a report of another process keeps its own."""
    text = str(error)
    if isinstance(error, OmegaConfBaseException):  # the key stands on a line of its own below the message
        key = getattr(error, "full_key", None)
        return f"{key}: {text.splitlines()[0]}" if key else text.splitlines()[0]
    return text if "Traceback" in text else " ".join(text.split())


def check_overrides(overrides: list[str]) -> DictConfig:
    """The configuration that these overrides give.

    Raises:
        UserError: a choice or key that does not exist, with the nearest ones that do, or one that cannot be read.
    """
    refuse_moved(overrides)
    refuse_unreadable(overrides)
    for override in overrides:
        _refuse_no_choice(override)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            if any(each.startswith("hparams_search=") for each in overrides):
                check_search(hydra.compose("config", overrides, return_hydra_config=True))
            return hydra.compose("config", overrides)
        except MissingConfigException as error:
            raise _unknown_choice(error) from None
        except ConfigCompositionException as error:
            raise _unknown_key(error, overrides) from None
        except HydraException as error:
            raise UserError(one_line(error)) from None


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


def check_search(config: DictConfig) -> None:
    """Refuse a search over keys that the configuration does not have.

    Args:
        config: with Hydra's own part.

    Raises:
        UserError: one of the keys that the sweeper varies is none of the configuration's.
    """
    for key in config.hydra.sweeper.get("params") or {}:
        if not (CONF / str(key)).is_dir() and OmegaConf.select(config, str(key)) is None:
            raise UserError(
                f"this search varies {key}, which the model that was chosen does not have. Choose another model, or "
                "write a search of your own beside conf/hparams_search/dtp.yaml.",
                key="hparams_search",
            )


def _unknown_choice(error: MissingConfigException) -> UserError:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
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
    return place in (["trainer"], ["callbacks"], ["logger"], ["scheduler"])


def _unknown_key(error: ConfigCompositionException, overrides: list[str]) -> UserError:
    """Explain a key that the configuration lacks by the keys that stand in its place, in the groups chosen."""
    message = str(error)
    within = re.search(r"full_key: (\S+)", str(error.__cause__))  # of a section that was given as a whole
    found = within or re.search(r"Could not (?:override|find|append).*?'([\w./@-]+)'", message)
    message = " ".join(message.split())
    if not found:
        return UserError(message)
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
