"""Metrics into MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import loggers


class MLFlowLogger(loggers.MLFlowLogger):
    """Lightning's, for tags that are words: MLflow's are texts by name, and these stand together as "tags".

    Args:
        tags: words that say what the run is.
        options: what Lightning's takes beside.
    """

    def __init__(self, tags: Sequence[str] = (), **options: Any) -> None:
        super().__init__(tags={"tags": ", ".join(tags)} if tags else None, **options)
