"""The command line: Hydra's, with errors that say what to do."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from targetprop.app import legacy
from targetprop.app.commands import command_of
from targetprop.app.environment import load_environment
from targetprop.app.going_on import with_recorded
from targetprop.app.habits import translated
from targetprop.app.moved import refuse_moved
from targetprop.app.overrides import CONF, check_overrides, completed, first_run, one_line
from targetprop.app.quoting import refuse_unreadable
from targetprop.app.repeated import refuse_repeated
from targetprop.app.schema.early import check_early
from targetprop.app.sweep import note_failure
from targetprop.app.user_conf import offer_user_conf
from targetprop.app.waiting import set_wait_policy
from targetprop.utils.errors import UserError
from targetprop.version import __version__

log = logging.getLogger(__name__)
SILENT = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
"""Of the processes that torchrun starts only the first has a directory and a log; the others leave nothing behind."""


def main() -> None:
    """Entry point of `main.py` and of the console script `targetprop`."""
    try:
        _main()
    except KeyboardInterrupt:  # what trains hears it itself
        print("\nInterrupted: nothing was under way that could go on.", file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGINT)


def _main() -> None:
    given = sys.argv[1:]
    if given == ["--version"]:
        print(f"targetprop {__version__}")
        return
    try:
        load_environment(Path.cwd(), os.environ)
    except UserError as error:
        sys.exit(f"Error: {error}")
    set_wait_policy(os.environ)  # nothing has imported torch yet
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where import paths on the command line are looked for, as by `python main.py`
    if command := command_of(given):
        command(given[1:])
        return
    offer_user_conf()
    try:
        arguments = arguments_of(given)
        is_first = os.environ.get("RANK", "0") == "0"
        sys.argv[1:] = [*arguments, *(legacy.claim_folder(given) if is_first else SILENT)]
    except UserError as error:
        sys.exit(f"Error: {error}")
    run()


def arguments_of(given: list[str]) -> list[str]:
    """The command line as Hydra is to read it.

    Raises:
        UserError: something in it that can be seen at once to be none of the configuration's.
    """
    refuse_repeated(given)
    arguments = translated(with_recorded(legacy.translate(given)))
    dashed = [each for each in arguments if each.startswith("-")]
    if not dashed:
        arguments = completed(arguments)
        check_early(check_overrides(arguments))
        return arguments
    refuse_moved(arguments)  # the rest of what is asked with Hydra's own options is Hydra's to check
    refuse_unreadable(arguments)
    if dashed in (["-m"], ["--multirun"]):
        arguments = completed(arguments)
        check_early(first_run(arguments))
    return arguments


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(config: DictConfig) -> float | None:
    """One training run; returns what a search looks at: `optimized_metric`, or that of the task."""
    # Here, so that --help and mistakes answer at once.
    from targetprop.app.errors import DivergenceError
    from targetprop.app.objects import build
    from targetprop.app.quiet import quiet_warnings
    from targetprop.app.run import train
    from targetprop.app.task import searched

    quiet_warnings()
    try:
        return searched(train(config), config.optimized_metric, build(config.task))
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
    return _worst(config)  # the sweep goes on


def _worst(config: DictConfig) -> float:
    """What a search is told of a run that failed."""
    from targetprop.app.objects import build
    from targetprop.app.task import worst

    try:
        return worst(config.optimized_metric, build(config.task))
    except (UserError, OmegaConfBaseException):  # of the task itself, as has been said
        return 0.0


def _is_of_a_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN
