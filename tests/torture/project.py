"""A checkout of the project whose runs are tried, and in what words it is spoken to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .child import End, surroundings

EDITIONS: dict[str, dict[str, str | None]] = {
    "targetprop/app/conf": {},
    "targetprop/conf": {
        "callbacks.last.every_n_steps=": "",
        "trainer.worker_timeout=": "",
        "callbacks.genuineness.": None,
        "ckpt_path=last": "ckpt_path={run}/checkpoints/last.ckpt",
        "ckpt_path=best": "ckpt_path={run}/checkpoints/best.ckpt",
        "scheduler=one_cycle": None,
        "model=delta_mirror": None,
        "model=weight_mirror": None,
        "model=kolen_pollack": "feedback=kolen_pollack",
        "model=feedback_alignment": None,
        "model=fixed_dtp": None,
    },
}
"""By the folder of the configuration: what a beginning of an override is there.

"" leaves the override out, None says that the case cannot be told.
"""
FIRST = "targetprop/conf"
"""Where the first edition has its configuration."""
LIST = """
import json, sys, hydra
from omegaconf import OmegaConf
with hydra.initialize_config_dir(sys.argv[1], version_base="1.3"):
    config = hydra.compose("config", [*sys.argv[2:], "output_dir=RUN"])
print(json.dumps(OmegaConf.to_container(config, resolve=False)))
"""


class UntranslatableError(Exception):
    """The checkout has no words for an override."""


@dataclass(frozen=True)
class Project:
    """A checkout at `root`."""

    root: Path

    @cached_property
    def conf(self) -> str:
        """The folder of its configuration, below the root."""
        return next(each for each in EDITIONS if (self.root / each).is_dir())

    @cached_property
    def commit(self) -> str:
        """What is checked out, with a mark if files differ from it."""
        asked = ["git", "-C", str(self.root), "describe", "--always", "--dirty", "--exclude=*"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "no repository"

    @property
    def is_first_edition(self) -> bool:
        """Whether it is another edition than the suite was written for."""
        return self.conf == FIRST

    @property
    def environment(self) -> dict[str, str]:
        """What its runs need beside the usual: the first edition breaks the line of a mistake as a terminal would."""
        return {"COLUMNS": "2000"} if self.is_first_edition else {}

    def heard(self, end: End) -> End:
        """How a run ended, with the line of a mistake where it belongs: the first edition has it in the log."""
        found = re.search(r"(?<!\w)Error: .*", end.stdout, re.DOTALL)
        if not self.is_first_edition or end.stderr.strip() or found is None:
            return end
        return replace(end, stderr=" ".join(found[0].split()) + "\n")

    def translated(self, overrides: Sequence[str]) -> list[str]:
        """The overrides as this edition has them.

        Raises:
            UntranslatableError: it has no words for one of them.
        """
        words = EDITIONS[self.conf]
        run = next((each.partition("=")[2] for each in overrides if each.startswith("hydra.run.dir=")), "")
        return [word for each in overrides if (word := self._word(each, words, run))]

    @staticmethod
    def _word(override: str, words: dict[str, str | None], run: str) -> str:
        for old, new in words.items():
            exact = "=" in old and not old.endswith("=")
            if override == old or (not exact and override.lstrip("+").startswith(old)):
                if new is None:
                    raise UntranslatableError(override)
                return new.format(run=run) if exact or not new else new + override.removeprefix(old)
        return override

    def composed(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The configuration with these overrides, not interpolated."""
        asked = [sys.executable, "-c", LIST, str(self.root / self.conf), *self.translated(overrides)]
        said = subprocess.run(asked, capture_output=True, text=True, check=True, env=surroundings(self.root)).stdout
        made: dict[str, Any] = json.loads(said)
        return made
