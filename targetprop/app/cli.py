"""The command line: Hydra's, with errors that say what to do."""

from __future__ import annotations

import logging
import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from targetprop.app import legacy
from targetprop.app.going_on import with_recorded
from targetprop.app.moved import refuse_moved
from targetprop.app.overrides import CONF, check_overrides, one_line
from targetprop.app.quoting import refuse_unreadable
from targetprop.app.repeated import refuse_repeated
from targetprop.app.sweep import note_failure
from targetprop.app.waiting import set_wait_policy
from targetprop.utils.errors import UserError

log = logging.getLogger(__name__)
SILENT = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
"""Of the processes that torchrun starts only the first has a directory and a log; the others leave nothing behind."""


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
    from targetprop.app.objects import build
    from targetprop.app.quiet import quiet_warnings
    from targetprop.app.run import train
    from targetprop.app.task import searched, worst

    quiet_warnings()
    result = 0.0
    try:
        task = build(config.task)
        result = worst(task)
        return searched(train(config), task)
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
    return result  # the sweep goes on


def _is_of_a_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN
