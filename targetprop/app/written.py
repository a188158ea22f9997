"""What a run writes of itself: its configuration, and its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from targetprop.app.folder import RESULTS, free_name
from targetprop.app.objects import plain
from targetprop.app.processes import rank
from targetprop.app.task import Result
from targetprop.app.unwritten import or_told
from targetprop.utils.errors import UserError
from targetprop.utils.files import write_text


def keep_config(config: DictConfig) -> None:
    """Write config.yaml; one of other settings, with which the run began, stays beside it."""
    path = Path(config.output_dir, "config.yaml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = OmegaConf.to_yaml(config, resolve=True)
        if path.is_file() and _settings(path.read_text()) != _settings(text):
            path.replace(path.with_name(free_name(path.parent, "config", ".yaml")))
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.", key="output_dir") from None


def _settings(text: str) -> dict[str, Any]:
    """Of a config.yaml, without what only says where the run went on from."""
    return {key: value for key, value in plain(OmegaConf.create(text)).items() if key not in ("ckpt_path", "overwrite")}


def keep_results(folder: Path, results: dict[str, Result], facts: dict[str, Any], *, trained: bool) -> None:
    """Write results.json; beside that of a run which trained, an evaluation has a file of its own."""
    if rank() > 0:
        return
    path = folder / RESULTS
    if not trained and path.exists():
        path = folder / free_name(folder, "results", ".json")
    parts = {part: vars(result) for part, result in results.items()}
    with or_told(path):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({**parts, **facts}, indent=2) + "\n")
