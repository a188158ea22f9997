"""Checkpoints that can be read, but whose content is not what it should be, by mistake or on purpose."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from . import oracle
from .case import Bench, NotApplicableError, Outcome
from .checkpoint_flips import OVERRIDES, stopped_run
from .child import End, Launch

VALUES: tuple[object, ...] = (
    None, "abc", -1, 10**30, float("nan"), True, [], {}, [[1]], {"a": 1}, b"x", torch.ones(3), torch.ones(0),
    torch.full((2,), float("inf")), torch.ones(2, dtype=torch.int8), torch.ones(2, dtype=torch.complex64),
    torch.eye(2).to_sparse(), torch.ones(2, device="meta"), "../../../outside", "/etc/passwd", "x" * 100_000,
)  # fmt: skip
VICTIM = "thesis"
"""A folder beside the run that no checkpoint may delete or change."""


SAVE = """
import sys, torch
saved = torch.load({source!r}, weights_only=True)
try:
    from targetprop.app.checkpoint.files import WholeFiles
except ImportError:
    torch.save(saved, {target!r})
else:
    WholeFiles().save_checkpoint(saved, {target!r})
"""
"""Writes a checkpoint as the project does, with whatever shows that it is whole: who forges one can do that, too."""


class HostileCheckpoints:
    """One leaf or section of a checkpoint is replaced, removed or moved."""

    name = "hostile_checkpoints"
    full = 300
    short = 8

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """Go on from it, or evaluate it: refused by its name, or a run that means something."""
        shutil.copytree(stopped_run(bench), bench.rundir)
        victim = bench.folder / VICTIM
        victim.mkdir()
        (victim / "chapter").write_text("1")
        saved = torch.load(bench.rundir / "checkpoints" / "last.ckpt", weights_only=True)
        forged = WAYS[number % len(WAYS)](saved, bench.rundir, chance)
        file = self._write(bench, saved)
        if number % 3 == 2:
            end = bench.run(["train=false", f"ckpt_path={file}", *OVERRIDES, bench.place()])
        else:
            end = bench.run([*OVERRIDES, bench.place(), f"ckpt_path={file}"])
        said = self._judged(bench, end, forged, evaluated=number % 3 == 2, names=[file.name, *forged.keys])
        if not (victim / "chapter").is_file():
            said.append("a folder outside the run was deleted")
        return Outcome(forged.did, said)

    @staticmethod
    def _write(bench: Bench, saved: dict[str, Any]) -> Path:
        source, target = bench.folder / "forged.pt", bench.rundir / "checkpoints" / "given.ckpt"
        torch.save(saved, source)
        code = SAVE.format(source=str(source), target=str(target))
        end = bench.server.run(Launch([], bench.folder, code=code))
        if end.code != 0:
            raise NotApplicableError(f"the project does not write such a checkpoint: {end.stderr.splitlines()[-1]}")
        return target

    @staticmethod
    def _judged(bench: Bench, end: End, forged: Forged, *, evaluated: bool, names: list[str]) -> list[str]:
        if end.code != 0 and forged.expected != "valid":
            return oracle.refused(end, names)
        if evaluated or forged.expected == "open":
            return oracle.finite(end, bench.rundir)
        return oracle.equal(end, bench.rundir, bench.reference(OVERRIDES))


@dataclass(frozen=True)
class Forged:
    """What was done to a checkpoint.

    Attributes:
        did: in words.
        expected: valid: it goes on as if nothing were; invalid: so, or it is refused; open: refused, or the run has a
            finite result, since nobody can see that a number of the right kind is another one.
        keys: settings that a refusal may name in place of the file.
    """

    did: str
    expected: Literal["valid", "invalid", "open"]
    keys: tuple[str, ...] = ()


def replace(saved: dict[str, Any], run: Path, chance: random.Random) -> Forged:
    """Something else in place of a leaf or a section."""
    path = chance.choice(paths(saved))
    value = chance.choice(VALUES)
    before = inner(saved, path)
    set_at(saved, path, value)
    return Forged(f"{show(path)} is {str(value)[:40]!r}", "open" if alike(before, value) else "invalid", keys_at(path))


def remove(saved: dict[str, Any], run: Path, chance: random.Random) -> Forged:
    """A leaf or a section is not there."""
    path = chance.choice(paths(saved))
    del inner(saved, path[:-1])[path[-1]]
    return Forged(f"{show(path)} is gone", "invalid", keys_at(path))


def scramble(saved: dict[str, Any], run: Path, chance: random.Random) -> Forged:
    """Weights are no numbers, or of another type."""
    name = chance.choice([n for n, v in saved["state_dict"].items() if isinstance(v, torch.Tensor) and v.ndim])
    value = saved["state_dict"][name]
    change: Callable[[torch.Tensor], torch.Tensor] = chance.choice(
        (
            lambda x: torch.full_like(x, float("nan")), lambda x: x.to(torch.int8), lambda x: x.flatten()[:-1],
            lambda x: x.double(), lambda x: x.T.contiguous() if x.ndim == 2 else x[None], lambda x: x.to("meta"),
        )
    )  # fmt: skip
    saved["state_dict"][name] = change(value) if value.is_floating_point() else torch.full_like(value, -1)
    return Forged(f"{name} is {saved['state_dict'][name].dtype} {tuple(saved['state_dict'][name].shape)}", "invalid")


def delete_a_folder(saved: dict[str, Any], run: Path, chance: random.Random) -> Forged:
    """The state of the callback for the best checkpoint names what it removes next."""
    outside = chance.choice((f"{run}/checkpoints/../../{VICTIM}", str(run.parent / VICTIM), f"../{VICTIM}"))
    for name, state in saved["callbacks"].items():
        if "Checkpoint" in name:
            state.update(kth_value=torch.tensor(-1.0), best_model_score=torch.tensor(-1.0))
            state.update(best_k_models={outside: torch.tensor(-1.0)}, kth_best_model_path=outside)
            state.update(best_model_path=outside, last_model_path=outside)
    return Forged(f"callbacks would remove {outside}", "open")


def rename(saved: dict[str, Any], run: Path, chance: random.Random) -> Forged:
    """A key is called otherwise."""
    path = chance.choice(paths(saved))
    holder = inner(saved, path[:-1])
    holder[f"{path[-1]}?"] = holder.pop(path[-1])
    return Forged(f"{show(path)} has another name", "invalid", keys_at(path))


def nothing(saved: dict[str, Any], run: Path, chance: random.Random) -> Forged:
    """The file is as it was: it must go on, or all the others are refused for nothing."""
    return Forged("nothing is changed", "valid")


WAYS = (replace, remove, scramble, delete_a_folder, replace, rename, nothing)


def alike(first: object, second: object) -> bool:
    """Whether one value could stand where the other does."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.dtype == second.dtype and first.shape == second.shape
    numbers = isinstance(first, int | float) and isinstance(second, int | float)
    return type(first) is type(second) or numbers


def keys_at(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The setting that stands at a path of the record of the run, and those around it."""
    if path[:2] != ("targetprop", "config"):
        return ()
    parts = [str(key) for key in path[2:]]
    return tuple(".".join(parts[:count]) for count in range(1, len(parts) + 1))


def paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where all entries of all mappings in it stand."""
    if not isinstance(node, dict):
        return []
    return [each for key, value in node.items() for each in ((*path, key), *paths(value, (*path, key)))]


def inner(node: Any, path: tuple[Any, ...]) -> Any:
    """What stands at a path."""
    for key in path:
        node = node[key]
    return node


def set_at(node: Any, path: tuple[Any, ...], value: object) -> None:
    """Put something at a path."""
    inner(node, path[:-1])[path[-1]] = value


def show(path: tuple[Any, ...]) -> str:
    """A path for a reader."""
    return "/".join(str(key)[:40] for key in path)
