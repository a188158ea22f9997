"""Disks that are full: one line, and the last good checkpoint is kept."""

from __future__ import annotations

import os
import random
import subprocess

from . import oracle
from .case import SMALL, Bench, NotApplicableError, Outcome
from .records import Records

SIZES = (4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 320, 384, 8192)
"""Kilobytes of the file system that the run is written to; the last one is large enough."""
NAMES = ("no space", "No space", "full", "disk")
ROOMY = "64m"


class FullDisk:
    """A run on a small file system, which then is made larger."""

    name = "full_disk"
    full = 20
    short = 3

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """The run says that the disk is full, and goes on from what it kept once there is room."""
        size = SIZES[(number * 7 + 5) % len(SIZES)]
        did = f"a disk of {size} kB"
        expected = bench.reference(SMALL)
        disk = bench.folder / "disk"
        disk.mkdir()
        mount("-o", f"size={size}k", "tmpfs", str(disk))
        try:
            return Outcome(did, self._try(bench, [*SMALL, f"hydra.run.dir={disk}/run"], expected))
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)

    @staticmethod
    def _try(bench: Bench, command: list[str], expected: Records) -> list[str]:
        disk = bench.folder / "disk"
        run = disk / "run"
        end = bench.run(command)
        if end.code == 0:
            return oracle.equal(end, run, expected)
        said = oracle.refused(end, [str(run), *NAMES])
        kept = run / "checkpoints" / "last.ckpt"
        if not kept.is_file():
            return said
        mount("-o", f"remount,size={ROOMY}", str(disk))
        again = bench.run([*command, "ckpt_path=last"])
        return [*said, *oracle.loadable(kept), *oracle.equal(again, run, expected)]


def mount(*arguments: str) -> None:
    """Mount, or remount, a file system in memory.

    Raises:
        NotApplicableError: that is not allowed here.
    """
    if os.geteuid() != 0:
        raise NotApplicableError("mounting a small disk needs to be root")
    done = subprocess.run(["mount", "-t", "tmpfs", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotApplicableError(done.stderr.strip())
