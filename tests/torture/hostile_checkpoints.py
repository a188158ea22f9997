"""Checkpoints that can be read, but whose content is not what it should be, by mistake or on purpose."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import oracle
from .case import Bench, Outcome
from .checkpoint_flips import OVERRIDES, stopped_run, unbroken
from .child import End

VALUES: tuple[object, ...] = (
    None, "abc", -1, 10**30, float("nan"), True, [], {}, [[1]], {"a": 1}, b"x", torch.ones(3), torch.ones(0),
    torch.full((2,), float("inf")), torch.ones(2, dtype=torch.int8), torch.ones(2, dtype=torch.complex64),
    torch.eye(2).to_sparse(), torch.ones(2, device="meta"), "../../../outside", "/etc/passwd", "x" * 100_000,
)  # fmt: skip
VICTIM = "thesis"
"""A folder beside the run that no checkpoint may delete or change."""


class HostileCheckpoints:
    """One leaf or section of a checkpoint is replaced, removed or moved."""

    name = "hostile_checkpoints"
    full = 300
    short = 8

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """Go on from it, or evaluate it: refused by its name, or the result of the uninterrupted run."""
        shutil.copytree(stopped_run(bench), bench.rundir)
        victim = bench.folder / VICTIM
        victim.mkdir()
        (victim / "chapter").write_text("1")
        file = bench.folder / "given.ckpt"
        saved = torch.load(bench.rundir / "checkpoints" / "last.ckpt", weights_only=True)
        did = WAYS[number % len(WAYS)](saved, bench.rundir, chance)
        torch.save(saved, file)
        if number % 3 == 2:
            end = bench.run(["train=false", f"ckpt_path={file}", *OVERRIDES, bench.place()])
            said = oracle.refused(end, [file.name]) if end.code != 0 else oracle.finite(end, bench.rundir)
        else:
            end = bench.run([*OVERRIDES, bench.place(), f"ckpt_path={file}"])
            said = oracle.refused(end, [file.name]) if end.code != 0 else self._went_on(bench, end)
        if not (victim / "chapter").is_file():
            said.append("a folder outside the run was deleted")
        return Outcome(did, said)

    @staticmethod
    def _went_on(bench: Bench, end: End) -> list[str]:
        said = oracle.equal(end, bench.rundir, bench.reference(OVERRIDES))
        return said if "given.ckpt" in unbroken(end) or not said else [*said, "and the file was not named"]


def replace(saved: dict[str, Any], run: Path, chance: random.Random) -> str:
    """Something else in place of a leaf or a section."""
    path = chance.choice(paths(saved))
    value = chance.choice(VALUES)
    set_at(saved, path, value)
    return f"{show(path)} is {str(value)[:40]!r}"


def remove(saved: dict[str, Any], run: Path, chance: random.Random) -> str:
    """A leaf or a section is not there."""
    path = chance.choice(paths(saved))
    del inner(saved, path[:-1])[path[-1]]
    return f"{show(path)} is gone"


def scramble(saved: dict[str, Any], run: Path, chance: random.Random) -> str:
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
    return f"{name} is {saved['state_dict'][name].dtype} {tuple(saved['state_dict'][name].shape)}"


def delete_a_folder(saved: dict[str, Any], run: Path, chance: random.Random) -> str:
    """The state of the callback for the best checkpoint names what it removes next."""
    outside = chance.choice((f"{run}/checkpoints/../../{VICTIM}", str(run.parent / VICTIM), f"../{VICTIM}"))
    for name, state in saved["callbacks"].items():
        if "Checkpoint" in name:
            state.update(kth_value=torch.tensor(-1.0), best_model_score=torch.tensor(-1.0))
            state.update(best_k_models={outside: torch.tensor(-1.0)}, kth_best_model_path=outside)
            state.update(best_model_path=outside, last_model_path=outside)
    return f"callbacks would remove {outside}"


def rename(saved: dict[str, Any], run: Path, chance: random.Random) -> str:
    """A key is called otherwise."""
    path = chance.choice(paths(saved))
    holder = inner(saved, path[:-1])
    holder[f"{path[-1]}?"] = holder.pop(path[-1])
    return f"{show(path)} has another name"


WAYS = (replace, remove, scramble, delete_a_folder, replace, rename)


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
