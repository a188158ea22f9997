"""Noise for feedback learning, drawn anew for every key: nothing is carried from draw to draw.

A draw is determined by (seed, step, block, iteration, kind) alone, so a resumed run repeats an uninterrupted one,
and the noise of one pair does not depend on which other pairs a process trains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kind = Literal["input", "output", "mixture"]


class NoiseKey(NamedTuple):
    """Which draw: training step, index of the block (from 0), feedback iteration, and what the noise is for."""

    step: int
    block: int
    iteration: int
    kind: Kind


NoiseSource = Callable[[NoiseKey, Tensor], Tensor]
"""Standard-normal noise for a key, of the shape, type and device of a tensor; in memory that the caller may change."""


CHUNK = 16
"""Samples that one generator draws, on a CPU; chunks can be drawn in parallel."""


class GaussianNoise:
    """The `NoiseSource` of real runs. On a CPU the chunks of a batch are drawn by all threads that torch may use."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, key: NoiseKey, like: Tensor) -> Tensor:
        noise, memory = _empty_in_order(like)
        # A launch for each chunk would cost a GPU more than the draw.
        chunks = [memory] if memory.is_cuda else memory.split(CHUNK)

        def fill(number: int) -> None:
            generator = torch.Generator(memory.device).manual_seed(_hash(self.seed, *key, number))
            chunks[number].normal_(generator=generator)

        threads = torch.get_num_threads()
        if len(chunks) == 1 or memory.numel() < 1 << 16 or threads == 1:
            for number in range(len(chunks)):
                fill(number)
        else:
            list(_threads(threads).map(fill, range(len(chunks))))
        return noise


class StepNoise:
    """A `NoiseSource` that a CUDA graph can replay: one generator, seeded by `start` before every step.

    Inside a graph no generator can be made or seeded: what is recorded is that this one draws, one tensor after the
    other. So a draw is determined by (seed, step) and by the draws before it in the step, not by its key alone.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.generator = torch.Generator(device)

    def start(self, step: int) -> None:
        """Before the draws of a step, or before its replay; on the host."""
        self.generator.manual_seed(_hash(self.seed, step))

    def __call__(self, key: NoiseKey, like: Tensor) -> Tensor:
        noise, memory = _empty_in_order(like)
        memory.normal_(generator=self.generator)
        return noise


def _empty_in_order(like: Tensor) -> tuple[Tensor, Tensor]:
    """An uninitialised tensor like the given one, and the view of it in which memory runs forward: filled fastest."""
    if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last):
        batch, channels, height, width = like.shape
        memory = like.new_empty(batch, height, width, channels)
        return memory.permute(0, 3, 1, 2), memory
    memory = like.new_empty(like.shape)
    return memory, memory


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count)


def _hash(*parts: int | str) -> int:
    """A well-mixed seed: generators seeded with neighbouring numbers give correlated streams on some devices."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "little")
