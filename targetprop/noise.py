"""Noise for feedback learning, drawn anew for every key: nothing is carried from draw to draw.

A draw is determined by (seed, step, block, iteration, kind) alone, so a resumed run repeats an uninterrupted one,
and the noise of one pair does not depend on which other pairs a process trains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kind = Literal["input", "output"]


class NoiseKey(NamedTuple):
    """Which draw: training step, index of the block (from 0), feedback iteration, input or output noise."""

    step: int
    block: int
    iteration: int
    kind: Kind


NoiseSource = Callable[[NoiseKey, Tensor], Tensor]
"""Standard-normal noise for a key, of the shape, type and device of a tensor."""


class GaussianNoise:
    """The `NoiseSource` of real runs: a generator seeded by the key, on the tensor's device."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __call__(self, key: NoiseKey, like: Tensor) -> Tensor:
        generator = self._generators.setdefault(like.device, torch.Generator(like.device))
        generator.manual_seed(_hash(self.seed, *key))
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _hash(*parts: int | str) -> int:
    """63 well-mixed bits: a generator seeded with neighbouring numbers gives correlated streams on some devices."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1
