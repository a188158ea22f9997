"""Metrics into Trackio, which keeps them on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from targetprop.app.flat import flat


class TrackioLogger(Logger):
    """A run in a project of Trackio's, begun with the first that is logged; Trackio ends it with the process.

    Args:
        project: of Trackio's, which groups runs.
        name: of the run.
        tags: kept beside its hyper-parameters.
        options: what `trackio.init` takes beside, such as space_id.
    """

    def __init__(
        self, project: str = "targetprop", name: str | None = None, tags: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init__()
        self.project = project
        self._name = name
        self._options = options
        self._config: dict[str, Any] = {"tags": ", ".join(tags)} if tags else {}
        self._run: Any = None

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str | None:
        return self._name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run."""
        if self._run is None:
            import trackio  # here, because it is not installed with this package

            self._run = trackio.init(project=self.project, name=self._name, config=self._config, **self._options)
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep hyper-parameters, by their full names, for the run that begins with the first metrics."""
        given = vars(params) if isinstance(params, argparse.Namespace) else params
        self._config |= flat(given)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add what was measured at a step."""
        self.experiment.log({key: float(value) for key, value in metrics.items()}, step=step)
