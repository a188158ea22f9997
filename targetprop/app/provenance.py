"""What a run was made with: command, versions, commit, machine. It goes into checkpoints, results and every logger."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from targetprop.app.command import program
from targetprop.app.machine import machine
from targetprop.app.schema.costs import host_memory
from targetprop.version import __version__

PACKAGES = ("torch", "lightning", "hydra-core", "torchmetrics", "numpy")
PATIENCE = 5.0
"""Seconds for an answer of git, whose repository may lie on a slow disk."""


def provenance(device: torch.device, overrides: Sequence[str] | None) -> dict[str, Any]:
    """What a run on this device is made with, in plain types.

    Args:
        overrides: the command line that gave the configuration, if one did.

    Returns:
        "command", None without a command line; "versions" by package; "commits" of the package, where it is used from
        its repository, and of the working directory, where that is another one; "machine".
    """
    command = None if overrides is None else f"{program()} {shlex.join(overrides)}".rstrip()
    facts = machine(device)
    versions = {"targetprop": __version__, "python": facts.pop("python"), **_versions()}
    versions |= {name: str(facts.pop(name)) for name in ("torch", "cuda", "cudnn") if name in facts}
    return {
        "command": command,
        "versions": versions,
        "commits": commits(),
        "machine": {**facts, "host_bytes": host_memory()},
    }


def commits() -> dict[str, str]:
    """The commits of the repositories that hold this package and the working directory.

    Each is a hash, with " and changes" behind it where files that git knows differ from it.
    """
    package, here = Path(__file__).parents[1], Path.cwd()
    found = {"targetprop": _commit(package) if _is_tracked(package) else None}
    if _root(here) != _root(package):
        found["working directory"] = _commit(here)
    return {name: commit for name, commit in found.items() if commit}


def hyper_parameters(record: Mapping[str, Any]) -> dict[str, Any]:
    """What loggers are told of a run: its configuration, and what it was made with."""
    return {**record.get("config", {}), "made_with": record.get("made_with", {})}


def tell(loggers: Iterable[Logger], record: Mapping[str, Any]) -> None:
    """Tell every logger of a run with this record."""
    for each in loggers:
        each.log_hyperparams(hyper_parameters(record))


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # used from a directory, without having been installed
            continue
    return found


def _is_tracked(folder: Path) -> bool:
    return bool(_git(folder, "ls-files", "__init__.py"))


def _root(folder: Path) -> str | None:
    return _git(folder, "rev-parse", "--show-toplevel")


def _commit(folder: Path) -> str | None:
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no") if commit else None
    return f"{commit} and changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where there is no git, or it fails."""
    free = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # another process may be at work in the repository
    call = ["git", "-C", str(folder), *arguments]
    try:
        said = subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE, env=free, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip()
