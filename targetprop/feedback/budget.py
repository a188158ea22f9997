"""How much noise every linear map gets a batch: a budget of multiply-adds, shared out.

Everything is counted in multiply-adds, never in seconds: the same seed gives the same run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from targetprop.network.feedback_map import FeedbackMap, entering, where_noise_enters

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork

FEW = 2
"""Samples that tell the shapes; one would be too few for a norm without running statistics."""
MIXTURES = 16
"""Mixtures of activations for a block with one position; divided by the root of the positions."""
LARGEST_RATIO = 4.0
"""Of equations to unknowns: more noise than this is never worth its cost."""
HEAD_SHARE = 0.002
"""Of a backprop step that any one block may always spend: narrow layers, as the output, are learned almost exactly."""
WARM_ERROR = 1e-6
"""Mean squared error, relative to the start, to which the first batch brings the feedback."""


class Passes(NamedTuple):
    """Passes through a map that a sample of isotropic noise costs, and one of shaped noise; 0 if a rule uses none."""

    white: int
    shaped: int


READING, MEASURING = Passes(2, 4), Passes(3, 5)
"""Of the delta rule, where the response is computed from the weights, and where it is measured."""


@dataclass(frozen=True)
class MapShape:
    """What the allocation needs to know of one linear map.

    Attributes:
        positions: P, how often the map is applied to a sample (pixels of a convolution's output, before pooling).
        weights: number of its weights.
        seen: d, the mean number of inputs that a unit of the output sees.
        meets: for each input of a unit, at how many positions it is inside the image, (groups, 1, inputs).
    """

    positions: int
    weights: int
    seen: float
    meets: Tensor

    @property
    def cost(self) -> int:
        """Multiply-adds of one pass of one sample."""
        return self.positions * self.weights

    @cached_property
    def met(self) -> float:
        """The mean of `meets`, for which a device is waited for only once."""
        return float(self.meets.mean())


@dataclass(frozen=True)
class Allocation:
    """How much noise one map gets a batch.

    Attributes:
        rows: samples of isotropic noise.
        mixtures: samples of noise shaped like activity.
        counts: n, for each input of a unit the number of equations that it is met in, (groups, 1, inputs).
        step: 1 / (n + d), alike.
        equations: n d / inputs, summed over inputs: ||W||^2 times this is the power of the response to expect.
    """

    rows: int
    mixtures: int
    counts: Tensor
    step: Tensor
    equations: float


@torch.no_grad()
def map_shape(part: FeedbackMap, x: Tensor) -> MapShape:
    """The shape of a linear map for its input x (batch, ...)."""
    weight = part.map.weight
    seen = where_noise_enters(part).patches(torch.ones_like(entering(part, x[:1]), dtype=weight.dtype))
    return MapShape(seen.shape[1], weight.numel(), float(seen.sum(2).mean()), seen.sum(1, keepdim=True))


def allocate(
    shapes: Sequence[MapShape],
    backprop: float,
    budget: float,
    efforts: Sequence[float] | None = None,
    passes: Passes = READING,
) -> list[Allocation]:
    """Share a budget of noise out over the maps.

    Every map gets the same ratio r of equations to unknowns, hence about the same rate of learning, as large as the
    budget allows; about a quarter of the budget at most goes to shaped noise. A map gets one sample of each in any
    case, so that very small batches cost more than the budget.

    Args:
        backprop: multiply-adds of a backprop step of the whole batch.
        budget: share of it that feedback learning may cost.
        efforts: for each map what it gets in place of 1 times r; those above 1 only as far as the others leave room.
        passes: what a sample costs.
    """
    efforts = [1.0] * len(shapes) if efforts is None else efforts
    limit, scale = budget * backprop, 1.0

    def mixtures() -> list[int]:
        if not passes.shaped:
            return [0] * len(shapes)
        return [_mixtures(shape, scale * min(1.0, effort)) for shape, effort in zip(shapes, efforts, strict=True)]

    def cost(counts: Sequence[int]) -> int:
        return sum(n * shape.cost for n, shape in zip(counts, shapes, strict=True))

    def rows(ratio: float, efforts: Sequence[float]) -> list[int]:
        return [_rows(shape, ratio * effort) for shape, effort in zip(shapes, efforts, strict=True)]

    def largest(ratio: float, left: float, efforts: Sequence[float]) -> float:
        """The largest ratio up to this one that the rest of the budget allows."""
        if passes.white * cost(rows(ratio, efforts)) <= left:
            return ratio
        low = 0.0
        for _ in range(40):
            middle = (low + ratio) / 2
            low, ratio = (middle, ratio) if passes.white * cost(rows(middle, efforts)) <= left else (low, middle)
        return low

    while scale > 0.02 and passes.shaped * cost(mixtures()) > limit / 4:
        scale *= 0.9
    left = limit - passes.shaped * cost(mixtures())
    ratio = largest(LARGEST_RATIO, left, [1.0] * len(shapes))
    ratio = largest(ratio, left, efforts)
    allocations = []
    for shape, count, m, effort in zip(shapes, rows(ratio, efforts), mixtures(), efforts, strict=True):
        cheap = min(_rows(shape, 2.0 * effort), int(HEAD_SHARE * backprop / (passes.white * shape.cost)))
        allocations.append(_allocation(shape, max(count, cheap), m))
    return allocations


def warm_up(shapes: Sequence[MapShape]) -> tuple[list[Allocation], int]:
    """The noise that brings feedback from zero up on the first batch, and how often to repeat it."""
    allocations = [_allocation(shape, _rows(shape, 1.0), 1) for shape in shapes]
    slowest = min(a.rows * float(s.meets[s.meets > 0].min()) / s.seen for a, s in zip(allocations, shapes, strict=True))
    return allocations, math.ceil(-math.log(WARM_ERROR) / math.log1p(slowest))


def _allocation(shape: MapShape, rows: int, mixtures: int) -> Allocation:
    counts = rows * shape.meets
    return Allocation(rows, mixtures, counts, 1 / (counts + shape.seen), rows * shape.met)


def _rows(shape: MapShape, ratio: float) -> int:
    return max(1, round(ratio * shape.seen / shape.positions))


def _mixtures(shape: MapShape, scale: float) -> int:
    return max(1, round(MIXTURES * scale / math.sqrt(shape.positions)))


@torch.no_grad()
def backprop_cost(network: PairedNetwork, x: Tensor) -> float:
    """Multiply-adds of backprop on a batch: three passes through each map, but no gradient for the input."""
    flops, y = [], network.look_at(x[:FEW].detach())
    with evaluating(network):
        for pair in network.pairs:
            with FlopCounterMode(display=False) as counter:
                y = pair.rule.apply(pair.block, y)
            flops.append(counter.get_total_flops())
    return len(x) / len(x[:FEW]) * (3 * sum(flops) - flops[0]) / 2


@contextmanager
def evaluating(network: PairedNetwork) -> Iterator[None]:
    """The network in evaluation mode: a few samples may pass, and leave no trace in running statistics."""
    modes = {module: module.training for module in network.all_modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
