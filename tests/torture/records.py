"""What a run leaves in its directory, read back without the project's own code."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

CHECKPOINTS = ("last", "best")
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "callbacks")
"""Of a checkpoint: what decides how the run goes on, and what it has shown so far."""
CLOCK = ("seconds", "time")
"""Words in the names of numbers that the wall clock gives."""
OF_THE_PROCESS = ("cost", "overrides", "made_with")
"""What results.json says of the process that ended the run, its command line, and what it ran on."""
KEPT = ("checkpoints/*", "csv/*", "tensorboard/*", "results.json", "config.yaml")
"""Files that are records of a run."""


@dataclass(frozen=True)
class Records:
    """All that two equal runs have in common.

    Attributes:
        checkpoints: by name, the leaves of each by their path.
        rows: of csv/metrics.csv, without empty columns.
        scalars: of the event files: (step, value) by tag, in the order of steps.
        results: of results.json; None where there is none.
    """

    checkpoints: Mapping[str, Mapping[str, object]]
    rows: tuple[Mapping[str, str], ...]
    scalars: Mapping[str, tuple[tuple[int, float], ...]]
    results: Mapping[str, object] | None


def read(run: Path) -> Records:
    """The records of the run in this directory."""
    found = {name: run / "checkpoints" / f"{name}.ckpt" for name in CHECKPOINTS}
    return Records(
        {name: checkpoint(path, run) for name, path in found.items() if path.is_file()},
        rows(run),
        scalars(run),
        results(run),
    )


def checkpoint(path: Path, run: Path) -> dict[str, object]:
    """The leaves of a checkpoint by their path, without the clock; places in the run's directory are relative."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    parts = {name: saved[name] for name in COMPARED if name in saved}
    return {name: leaf for name, leaf in _leaves(parts, run.resolve()) if not _of_the_clock(name)}


def _leaves(node: object, run: Path, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(node, Mapping):
        items: Any = sorted(node.items(), key=lambda item: str(item[0]))
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    else:
        yield name, _comparable(node, run)
        return
    for key, value in items:
        yield from _leaves(value, run, f"{name}/{_relative(str(key), run)}")


def _comparable(leaf: object, run: Path) -> object:
    """Something equal to its like bit for bit, NaN too."""
    if isinstance(leaf, torch.Tensor):
        content = leaf.detach().cpu().contiguous()
        digest = hashlib.sha256(content.reshape(-1).view(torch.uint8).numpy().tobytes() if content.numel() else b"")
        return f"{content.dtype} {tuple(content.shape)} {digest.hexdigest()}"
    if isinstance(leaf, float):
        return leaf.hex()
    return _relative(leaf, run) if isinstance(leaf, str) else leaf


def _relative(text: str, run: Path) -> str:
    return text.replace(str(run), "RUN")


def _of_the_clock(name: str) -> bool:
    return any(word in name.rpartition("/")[2] for word in CLOCK)


def rows(run: Path) -> tuple[dict[str, str], ...]:
    """The rows of the table of metrics, without empty columns and the clock."""
    path = run / "csv" / "metrics.csv"
    if not path.is_file():
        return ()
    with path.open(newline="") as file:
        return tuple(
            {str(name): str(value) for name, value in row.items() if value and not _of_the_clock(str(name))}
            for row in csv.DictReader(file)
        )


def scalars(run: Path) -> dict[str, tuple[tuple[int, float], ...]]:
    """What TensorBoard shows of the run, by step: the order of its files is that of the clock, which may jump."""
    folder = run / "tensorboard"
    if not folder.is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator  # slow to import

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    return {
        tag: tuple(sorted((each.step, each.value) for each in events.Scalars(tag)))
        for tag in events.Tags()[SCALARS]
        if not _of_the_clock(tag)
    }


def results(run: Path) -> dict[str, object] | None:
    """The accuracies and facts of results.json, without the clock and what is the process's own."""
    path = run / "results.json"
    if not path.is_file():
        return None
    written = json.loads(path.read_text()).items()
    return {name: value for name, value in written if not _of_the_clock(name) and name not in OF_THE_PROCESS}


def fingerprint(run: Path) -> dict[str, str]:
    """Checksums of the files that are a run's records."""
    files = [path for pattern in KEPT for path in run.glob(pattern) if path.is_file()]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}
