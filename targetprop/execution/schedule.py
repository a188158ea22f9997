"""Work that a CUDA graph holds, side by side: layers of one batch seldom fill a GPU by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key")


def is_recorded(x: Tensor) -> bool:
    """Whether work on this tensor's device is being recorded into a CUDA graph."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def side_by_side(works: Mapping[Key, Callable[[], Tensor]]) -> dict[Key, Tensor]:
    """Start each work on a stream of its own, and have the current stream wait for all.

    Outside a graph it would gain nothing: there the host cannot launch kernels as fast as one stream runs them.
    """
    current, results = torch.cuda.current_stream(), {}
    streams = [_stream(current.device, number) for number in range(len(works))]
    for stream, (key, work) in zip(streams, works.items(), strict=True):
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            results[key] = work()
    for stream in streams:
        current.wait_stream(stream)
    return results


@cache
def _stream(device: torch.device, number: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
