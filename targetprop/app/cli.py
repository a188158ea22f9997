"""The command line: Hydra's, with errors that say what to do."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from targetprop.app import legacy
from targetprop.utils.errors import UserError, unknown

log = logging.getLogger(__name__)
CONF = Path(__file__).parent / "conf"
SILENT = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
"""Of the processes that torchrun starts only the first has a directory and a log; the others leave nothing behind."""
PLUGINS = {"optuna": "sweeps", "submitit_slurm": "cluster", "submitit_local": "cluster"}
"""Choices that Hydra has once an extra of this package is installed."""


def main() -> None:
    """Entry point of `main.py` and of the console script `targetprop`."""
    given = sys.argv[1:]
    try:
        arguments = legacy.translate(given)
        if not any(each.startswith("-") for each in arguments):  # sweeps and Hydra's own options are Hydra's to check
            check_overrides(arguments)
        is_first = os.environ.get("RANK", "0") == "0"
        sys.argv[1:] = [*arguments, *(legacy.claim_folder(given) if is_first else SILENT)]
    except UserError as error:
        sys.exit(f"Error: {error}")
    run()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(config: DictConfig) -> float | None:
    """One training run; returns the accuracy that a search maximises: in validation, without validation the test's."""
    # Here, so that --help and mistakes answer at once.
    from targetprop.app.callbacks.divergence import DivergenceError
    from targetprop.app.quiet import quiet_warnings
    from targetprop.app.run import train

    quiet_warnings()
    try:
        metrics = train(config)
        return metrics.get("validation/accuracy", metrics.get("test/accuracy"))
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, (UserError, OmegaConfBaseException)):
            raise
        log.error("Error: %s", cause)
        if isinstance(cause, DivergenceError) and HydraConfig.get().mode == RunMode.MULTIRUN:
            return 0.0  # the sweep goes on: a network of infinite weights gets nothing right
        sys.exit(1)


def check_overrides(overrides: list[str]) -> DictConfig:
    """The configuration that these overrides give.

    Raises:
        UserError: a choice or key that does not exist, with the nearest ones that do, or one that cannot be read.
    """
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return hydra.compose("config", overrides)
        except MissingConfigException as error:
            raise _unknown_choice(error) from None
        except ConfigCompositionException as error:
            raise _unknown_key(str(error), overrides) from None
        except HydraException as error:
            where = f"{error.override}: " if isinstance(error, OverrideParseException) else ""
            raise UserError(where + str(error)) from None


def _unknown_choice(error: MissingConfigException) -> UserError:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    if choice in PLUGINS:
        return UserError(f'{group}={choice} is a plugin of Hydra: pip install "targetprop[{PLUGINS[choice]}]"')
    return unknown(group, choice, error.options or []) if group else UserError(str(error))


def _unknown_key(message: str, overrides: list[str]) -> UserError:
    """Explain a key that the configuration lacks by the keys that stand in its place, in the groups chosen."""
    found = re.search(r"Could not (?:override|find|append).*?'([\w./@-]+)'", message)
    if not found:
        return UserError(message)
    *parents, last = found[1].split(".")
    node: Any = hydra.compose("config", [each for each in overrides if (CONF / each.partition("=")[0]).is_dir()])
    reached: list[str] = []
    for key in parents:
        if not isinstance(node, DictConfig) or key not in node:
            last = key
            break
        node = node._get_node(key)
        reached.append(key)
    if not isinstance(node, DictConfig):
        return UserError(message)
    names = [str(key) for key in node]
    where = ".".join([*reached, last])
    nearest = difflib.get_close_matches(last, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    place = f"{'.'.join(reached)} has" if reached else "there are"
    return UserError(
        f"{where}: no such key.{hint} In its place {place}: {', '.join(sorted(names))}. A + before it adds a key."
    )
