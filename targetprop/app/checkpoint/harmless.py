"""Paths that a checkpoint names are followed inside its own folder only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMED = ("best_model_path", "kth_best_model_path", "last_model_path")


def inside_only(callbacks: Mapping[str, Any]) -> None:
    """Forget the files in states of Lightning's `ModelCheckpoint` that lie outside the folder it writes to.

    It removes the files that its state names once better ones have taken their place, and one may come from anybody.
    """
    for state in callbacks.values():
        if not isinstance(state, dict) or "best_k_models" not in state:
            continue
        folder = Path(str(state.get("dirpath") or ".")).resolve()
        for name in NAMED:
            if not _is_inside(state.get(name), folder):
                state[name] = ""
        state["best_k_models"] = {
            path: score for path, score in state["best_k_models"].items() if _is_inside(path, folder)
        }


def _is_inside(path: object, folder: Path) -> bool:
    return isinstance(path, str) and Path(path).resolve().parent.is_relative_to(folder)
