"""What Hydra finds of searches: `hydra/sweeper=search`. Hydra takes sweepers out of this folder alone.

Hydra imports this module whenever it starts, so that what it needs is imported by its methods.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class Search(Sweeper):
    """Tries settings in turn, each chosen by Optuna in view of what the others gave (see `targetprop.app.search`).

    Args:
        numbers: settings of the search, as `conf/hydra/sweeper/search.yaml` names them.
        params: what is varied: sweeps in Hydra's words, by key.
    """

    def __init__(self, params: Mapping[str, Any], **numbers: Any) -> None:
        self.params = params
        self.numbers = numbers
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search; a mistake ends it in one line.

        Raises:
            SystemExit: says what cannot work.
        """
        from targetprop.utils.errors import UserError, prefixed, refuse_unknown  # here, as no other start needs them

        assert self.config is not None
        assert self.launcher is not None
        try:
            with prefixed("hydra.sweeper"):
                _refuse_without_optuna()
                from targetprop.app.search.search import Settings, search

                refuse_unknown(self.numbers, Settings.__dataclass_fields__)
                settings = Settings(**self.numbers)
            minimize = _minimizes(self.config)
            folder = self.config.hydra.sweep.dir
            return search(arguments, self.params, settings, folder, self.launcher.launch, minimize=minimize)
        except UserError as error:
            sys.exit(f"Error: {error}")


def _minimizes(config: DictConfig) -> bool:
    """Whether less of what trials return is better."""
    from targetprop.app.objects import build
    from targetprop.app.task import less_is_better

    return less_is_better(config.optimized_metric, build(config.task))


def _refuse_without_optuna() -> None:
    from targetprop.utils.errors import UserError

    if find_spec("optuna") is None:
        raise UserError('it needs Optuna: pip install "targetprop[sweeps]"')
