"""What a run takes at the least, in memory and time, and what of it is too much for this machine or for anybody."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from targetprop.utils.errors import UserError

log = logging.getLogger(__name__)

CORE, GPU = 1e11, 1e15
"""Multiply-adds a second that no core of a CPU, and no GPU, exceeds: an estimate by them is a lower bound."""
UPDATE = 50e-6
"""Seconds that an update of a block's feedback takes however small the block is."""
STEP = 1e-3
"""Seconds that a training step takes however little there is to do."""
HOUR, DAY = 3600.0, 86400.0
LONGEST_STEP = HOUR / 6
LONGEST_RUN = 365 * DAY
LONG_RUN = DAY
"""Steps and runs that would take longer at the least are refused; runs of more than a day are told of."""
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container says how much of the machine's memory it has."""


@dataclass(frozen=True)
class Work:
    """What a training step does.

    Attributes:
        multiply_adds: of all passes and feedback updates, forward and back.
        updates: of feedback, one for each block, iteration and sample of noise.
    """

    multiply_adds: float
    updates: float


def host_memory() -> int:
    """Bytes of memory of this machine, or of the container that this process runs in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for place in map(Path, LIMITS):
        text = place.read_text().strip() if place.is_file() else ""
        if text.isdigit():
            total = min(total, int(text))
    return total


def least_memory(
    network: nn.Module,
    weights: Iterable[Tensor],
    shape: tuple[int, ...],
    batch: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[int, int]:
    """Bytes that training takes at the least: of weights with their gradients, and of a batch in its largest layer.

    Args:
        network: on the device "meta", which takes no memory.
        weights: all that are trained, those of the feedback, too.
        shape: of an input; of an image (channels, height, width).
        batch: inputs in a step.
        dtype: of inputs.
    """
    sizes = [math.prod(shape)]
    images = torch.zeros(2, *shape, device="meta", dtype=dtype)  # two, as some layers take no single one

    def note(layer: nn.Module, given: object, made: object) -> None:
        if isinstance(made, Tensor):
            sizes.append(made.numel() // len(images))

    hooks = [each.register_forward_hook(note) for each in network.modules()]
    training = network.training
    with torch.no_grad():
        network.eval()(images)
    network.train(training)
    for hook in hooks:
        hook.remove()
    return 2 * sum(each.numel() * each.element_size() for each in weights), 4 * batch * max(sizes)


def refuse_memory(weights: int, activations: int, available: int, where: str) -> None:
    """Raise `UserError` if so many bytes of weights and activations cannot be had.

    Args:
        available: bytes.
        where: they are, in words.
    """
    if weights + activations > available:
        key = "network.hparams" if weights > activations else "network.hparams, datamodule.batch_size"
        message = (
            f"expected a run that fits the {_bytes(available)} of {where}, got one that takes at least "
            f"{_bytes(weights + activations)}: {_bytes(weights)} for weights and their gradients, "
            f"{_bytes(activations)} for a batch in the largest layer"
        )
        raise UserError(message, key=key)


def refuse_endless(key: str, work: Work, steps: float, rate: float) -> None:
    """Raise `UserError` for a step or a run that cannot end in reasonable time; say how long one of days will take.

    Args:
        key: the setting that is most to blame.
        work: of a step.
        steps: of the run; infinite if it has no number of them.
        rate: multiply-adds a second of this machine, at most.
    """
    step = STEP + work.multiply_adds / rate + work.updates * UPDATE
    if step > LONGEST_STEP:
        message = (
            f"expected training steps of ten minutes at most, got one of {_time(step)} at the least on this machine"
        )
        raise UserError(message, key=key)
    if LONGEST_RUN < step * steps < math.inf:
        message = (
            f"expected a run of a year at most, got one of {_time(step * steps)} at the least on this machine: "
            f"{steps:.0f} steps of {step:.2g} s"
        )
        raise UserError(message, key=key)
    if LONG_RUN < step * steps < math.inf:
        log.warning(
            "This run takes %s at the least on this machine: %.0f steps of %.2g s.", _time(step * steps), steps, step
        )


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def _time(seconds: float) -> str:
    for unit, length in (("years", 365 * DAY), ("days", DAY), ("hours", HOUR), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"
