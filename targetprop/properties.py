"""What an algorithm is published in, and what it needs beside each block's own input, output and target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Transport = Literal["weights", "weight signs", "weight updates", "labels"]
"""What is carried from where it is known to where nature has no way to bring it."""


@dataclass(frozen=True)
class Source:
    """A publication.

    Attributes:
        authors: as one would cite them, e.g. "Lee et al.".
        remark: what of the rule here is not from there, or not verified to be.
    """

    authors: str
    title: str
    year: int
    url: str
    remark: str = ""

    def __str__(self) -> str:
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.authors}, “{self.title}”, {self.year}, {self.url}{remark}"


@dataclass(frozen=True)
class Needs:
    """What a rule needs beside each block's own input, output and target.

    Attributes:
        transports: what it carries to the feedback: the forward weights themselves, their signs, or their updates; or,
            straight to hidden blocks, the labels.
        global_error: whether hidden blocks are told the output's error straight from the output, and not by way of the
            blocks between.
        noisy_phase: whether it runs blocks on noise.
        passes: forward passes of a batch through the network, the clean one among them; noise within one block is none.
    """

    transports: frozenset[Transport] = frozenset()
    global_error: bool = False
    noisy_phase: bool = False
    passes: int = 1

    def __or__(self, other: Needs) -> Needs:
        """What both need."""
        return Needs(
            self.transports | other.transports,
            self.global_error or other.global_error,
            self.noisy_phase or other.noisy_phase,
            max(self.passes, other.passes),
        )
