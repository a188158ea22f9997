"""Checkpoints of which one bit is another, or a part is missing: noticed, named, and the one before it is used."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from . import oracle
from .case import SMALL, Bench, BrokenReferenceError, Outcome
from .child import End
from .triggers import Trigger

OVERRIDES = (*(each for each in SMALL if "limit_train" not in each), "trainer.limit_train_batches=3")
STOPPED_AT = 8
"""The step at which the run is killed: two epochs of three have been saved."""


class CheckpointFlips:
    """Bit flips, above all; some truncated, emptied, overwritten and missing files."""

    name = "checkpoint_flips"
    full = 1000
    short = 12

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """Damage last.ckpt, or also what is kept beside it, and go on from the last one in place."""
        stopped = stopped_run(bench)
        shutil.copytree(stopped, bench.rundir)
        names = ["last.ckpt"]
        if number % 10 == 8 and (bench.rundir / "checkpoints" / "previous.ckpt").is_file():
            names.append("previous.ckpt")
        damages = [damage(bench.rundir / "checkpoints" / name, number, chance) for name in names]
        did = "; ".join(f"{name}: {what}" for name, what in zip(names, damages, strict=True))
        end = bench.run([*OVERRIDES, bench.place(), "ckpt_path=last"])
        if end.code != 0:
            return Outcome(did, oracle.refused(end, names))
        said = oracle.equal(end, bench.rundir, bench.reference(OVERRIDES))
        said += [f"{name} is damaged, and that was not said" for name in names if name not in unbroken(end)]
        return Outcome(did, said)


def unbroken(end: End) -> str:
    """What a run said, without the line breaks of a terminal that is 80 characters wide."""
    return "".join(end.text.split())


def stopped_run(bench: Bench) -> Path:
    """A run that was killed in its third epoch; made once for each bench, in the very directory where it goes on."""
    kept = bench.folder.parent / f"{bench.folder.name}-stopped"
    if not kept.is_dir():
        end = bench.run([*OVERRIDES, bench.place()], triggers=[Trigger("step", STOPPED_AT, (signal.SIGKILL,))])
        if end.code != -signal.SIGKILL:
            raise BrokenReferenceError(f"the run to be killed ended with code {end.code}: {end.stderr[-200:]}")
        bench.rundir.rename(kept)
    return kept


def damage(path: Path, number: int, chance: random.Random) -> str:
    """Damage a file; what was done."""
    content = bytearray(path.read_bytes())
    size = len(content)
    way = number % 20
    if way == 3:
        content = content[: chance.randrange(size)]
        what = f"cut to {len(content)} of {size} bytes"
    elif way == 7:
        content, what = bytearray(), "empty"
    elif way == 11:
        start = chance.randrange(0, size, 4096)
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
        what = f"4096 zeros from byte {start} on"
        if bytes(content) == path.read_bytes():
            content[start] ^= 1
    elif way == 13:
        content += b"\0"
        what = "a byte more"
    else:
        bit = chance.randrange(8 * size)
        content[bit // 8] ^= 1 << bit % 8
        what = f"bit {bit} of {8 * size} flipped"
    path.write_bytes(content)
    return what
