"""Two runs in one directory, and runs into the directory of one that has ended."""

from __future__ import annotations

import random
import time

from . import oracle, records
from .case import SMALL, Bench, Outcome
from .child import PATIENCE

SECOND: dict[str, tuple[str, ...]] = {
    "the same command": (),
    "another seed": ("seed=7",),
    "a resume": ("ckpt_path=last",),
    "an evaluation": ("train=false", "ckpt_path=last"),
    "other settings": ("trainer.max_epochs=1", "logger=csv"),
}
LONG = (*(each for each in SMALL if "max_epochs" not in each), "trainer.max_epochs=12")
NAMES = ("output_dir", "hydra.run.dir", "ckpt_path")


class Directories:
    """The second run is refused, or leaves all records of the first one."""

    name = "directories"
    full = 20
    short = 2

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """A second run starts while the first is under way, or after it."""
        what = list(SECOND)[number // 2 % len(SECOND)]
        more = SECOND[what]
        if number % 2:
            return Outcome(f"{what}, into the directory of a finished run", self._after(bench, more))
        return Outcome(f"{what}, into the directory of a run under way", self._meanwhile(bench, more, chance))

    @staticmethod
    def _after(bench: Bench, more: tuple[str, ...]) -> list[str]:
        if said := oracle.ended_well(bench.run([*SMALL, bench.place()])):
            return said
        before = records.fingerprint(bench.rundir)
        end = bench.run([*without(SMALL, more), *more, bench.place()])
        if end.code != 0:
            return [*oracle.refused(end, [str(bench.rundir), *NAMES]), *oracle.kept(before, bench.rundir)]
        return [*oracle.ended_well(end), *lost(bench, before)]

    @staticmethod
    def _meanwhile(bench: Bench, more: tuple[str, ...], chance: random.Random) -> list[str]:
        expected = bench.reference(LONG)
        first = bench.server.start(bench.launch([*LONG, bench.place()]))
        limit = time.monotonic() + PATIENCE
        while not (bench.rundir / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < limit:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.5))
        second = bench.run([*without(LONG, more), *more, bench.place()])
        said = oracle.equal(first.end(), bench.rundir, expected)
        if second.code == 0:
            said += [] if more[:1] == ("train=false",) else ["the second run was let in"]
            return [*said, *oracle.ended_well(second)]
        return [*said, *oracle.refused(second, [str(bench.rundir), *NAMES])]


def without(overrides: tuple[str, ...], more: tuple[str, ...]) -> list[str]:
    """The overrides but those that others replace."""
    keys = {each.partition("=")[0] for each in more}
    return [each for each in overrides if each.partition("=")[0] not in keys]


def lost(bench: Bench, before: dict[str, str]) -> list[str]:
    """The tables, event files and results of the first run that are no longer there; checkpoints may be replaced."""
    tables = {name: digest for name, digest in before.items() if name.startswith(("csv", "tensorboard", "results"))}
    return oracle.kept(tables, bench.rundir)
