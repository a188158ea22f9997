"""Noise for feedback learning, drawn anew for every key: nothing is carried from draw to draw.

A draw is determined by (seed, step, block, iteration, kind) alone, so a resumed run repeats an uninterrupted one,
and the noise of one pair does not depend on which other pairs a process trains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

Kind = Literal["input", "output", "white", "mixture", "magnitude"]
"""What noise is for; "white" is for rules that use nothing of it but its covariance, "magnitude" is of weights."""


class NoiseKey(NamedTuple):
    """Which draw: training step, index of the block (from 0), feedback iteration, and what the noise is for."""

    step: int
    block: int
    iteration: int
    kind: Kind


NoiseSource = Callable[[NoiseKey, Tensor], Tensor]
"""Standard-normal noise for a key, of the shape, type and device of a tensor; in memory that the caller may change.

Of the kind "white" it may have another distribution: independent numbers with mean 0 and variance 1.
"""


class Draw(Protocol):
    """The noise of one update.

    Attributes:
        sigma: its standard deviation.
    """

    @property
    def sigma(self) -> float: ...

    def __call__(self, kind: Kind, like: Tensor) -> Tensor:
        """Noise of one kind, of the shape of a tensor, already scaled."""


@dataclass(frozen=True)
class NoiseOf:
    """The noise of one update of one block, from a source: a `Draw`."""

    source: NoiseSource
    step: int
    block: int
    iteration: int
    sigma: float

    def __call__(self, kind: Kind, like: Tensor) -> Tensor:
        """See `Draw`."""
        return self.source(NoiseKey(self.step, self.block, self.iteration, kind), like).mul_(self.sigma)


CHUNK = 1 << 16
"""Numbers that one generator draws, about, on a CPU. Chunks are drawn in parallel; parts of a batch may share one."""


class GaussianNoise:
    """The `NoiseSource` of real runs. On a CPU the chunks of a batch are drawn by all threads that torch may use.

    White noise is uniform there, which is drawn several times faster.

    Args:
        row, rows: which part of a batch of `rows` times the size to draw. A sample's noise depends on its place in
            the whole batch; on a GPU, where a launch for each chunk would cost more than the draw, on the row as well.
    """

    def __init__(self, seed: int, row: int = 0, rows: int = 1) -> None:
        self.seed = seed
        self.row, self.rows = row, rows

    def part(self, row: int, rows: int) -> GaussianNoise:
        """The same noise for one part of a larger batch."""
        return GaussianNoise(self.seed, row, rows)

    def __call__(self, key: NoiseKey, like: Tensor) -> Tensor:
        noise, memory = _empty_in_order(like)
        count = len(memory)
        first, whole = self.row * count, self.rows * count
        uniform = key.kind == "white" and not memory.is_cuda
        size = count if memory.is_cuda else max(1, CHUNK // max(1, memory[:1].numel()))  # samples

        def fill(number: int) -> None:
            generator = torch.Generator(memory.device).manual_seed(_hash(self.seed, *key, number))
            start, end = number * size, min((number + 1) * size, whole)
            ours = slice(max(start, first), min(end, first + count))
            place = memory[ours.start - first : ours.stop - first]
            shared = len(place) < end - start  # with another row
            chunk = memory.new_empty(end - start, *memory.shape[1:]) if shared else place
            if uniform:
                _fill_uniform(chunk, generator)
            else:
                chunk.normal_(generator=generator)
            if shared:
                place.copy_(chunk[ours.start - start : ours.stop - start])

        numbers = range(first // size, -(-(first + count) // size))
        threads = 1 if uniform else torch.get_num_threads()  # it is drawn sooner than other threads have begun
        if len(numbers) == 1 or threads == 1:
            for number in numbers:
                fill(number)
        else:
            list(_threads(threads).map(fill, numbers))
        return noise


def _fill_uniform(memory: Tensor, generator: torch.Generator) -> None:
    """Bytes at random, moved to mean 0 and scaled to variance 1: eight numbers of one draw of the generator."""
    words = torch.empty(-(-memory.numel() // 8), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    levels = words.view(torch.int8)[: memory.numel()].view(memory.shape)
    memory.copy_(levels).add_(0.5).mul_((12 / (2**16 - 1)) ** 0.5)


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
