"""Amortised feedback learning: a delta rule on the response to noise, a little of it every batch.

The feedback map V predicts the response of the forward map W to noise at its input, and learns from the residual:

    R = W eps - V^T eps,    V += corr(eps, R) / (n + d)

No forward weight is read: W eps is the change that noise makes in the block's activity before its activation. Forward
weights move slowly, so V keeps up with little noise a batch, and at V = W^T the residual, and with it all noise in V,
is zero. For n independent equations in d unknowns the mean squared error of V shrinks fastest, by d / (n + d) an
update, with this step, for every n. At the border of an image a tap of a kernel meets fewer units: n is counted for
each tap, d is the mean number of inputs that a unit sees.

This is another rule than L-DRL. It is L-DRL's limit of small noise with activation and pooling as twins without
weights of their own, read out before the activation: the setting of weight mirrors (Akrout et al. 2019) with a
delta rule. It needs twins whose slope is the transposed Jacobian's (style "linear" or "matched").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from targetprop.linear_part import LinearPart

MIXTURES = 16
"""Mixtures of activations for a block with one position; divided by the root of the positions."""
LARGEST_RATIO = 4.0
"""Of equations to unknowns: more noise than this is never worth its cost."""
HEAD_SHARE = 0.002
"""Of a backprop step that any one block may always spend: narrow layers, as the output, are learned almost exactly."""
WARM_ERROR = 1e-6
"""Mean squared error, relative to the start, to which the first batch brings the feedback."""


@dataclass(frozen=True)
class MapShape:
    """What the allocation needs to know of one linear map.

    Attributes:
        positions: P, how often the map is applied to a sample (pixels of a convolution's output, before pooling).
        weights: number of its weights.
        seen: d, the mean number of inputs that a unit of the output sees.
        meets: for each weight, at how many positions it meets an input, in the weight's shape.
    """

    positions: int
    weights: int
    seen: float
    meets: Tensor

    @property
    def cost(self) -> int:
        """Multiply-adds of one pass of one sample."""
        return self.positions * self.weights


@dataclass(frozen=True)
class Allocation:
    """How much noise one pair gets a batch.

    Attributes:
        rows: samples of isotropic noise.
        mixtures: samples of noise shaped like activity.
        step: 1 / (n + d) for each weight.
    """

    rows: int
    mixtures: int
    step: Tensor


@torch.no_grad()
def map_shape(part: LinearPart, x: Tensor) -> MapShape:
    """The shape of a pair's linear map for its input x (batch, ...)."""
    one = torch.ones_like(x[:1])
    weight = part.map.map.weight
    response = part.map.respond(one, weight)
    meets = part.map.correlate(one, torch.ones_like(response))
    units = part.map.unit_power(weight, response)[0].numel()
    positions = response.numel() // units
    return MapShape(positions, weight.numel(), float(meets.sum()) / (units * positions), meets)


def allocate(shapes: Sequence[MapShape], backprop: float, budget: float) -> list[Allocation]:
    """Share a budget of noise out over the pairs.

    Every pair gets the same ratio r of equations to unknowns, hence about the same rate of learning, as large as the
    budget allows; about a quarter of the budget at most goes to shaped noise. A pair gets one sample of each in any
    case, so that very small batches cost more than the budget.

    Args:
        backprop: multiply-adds of a backprop step of the whole batch.
        budget: share of it that feedback learning may cost.
    """
    limit, scale = budget * backprop, 1.0
    mixtures = [_mixtures(shape, scale) for shape in shapes]
    while scale > 0.02 and sum(4 * m * s.cost for m, s in zip(mixtures, shapes, strict=True)) > limit / 4:
        scale *= 0.9
        mixtures = [_mixtures(shape, scale) for shape in shapes]
    left = limit - sum(4 * m * s.cost for m, s in zip(mixtures, shapes, strict=True))
    low, ratio = 0.0, LARGEST_RATIO
    if sum(3 * _rows(s, ratio) * s.cost for s in shapes) > left:
        for _ in range(40):
            middle = (low + ratio) / 2
            affordable = sum(3 * _rows(s, middle) * s.cost for s in shapes) <= left
            low, ratio = (middle, ratio) if affordable else (low, middle)
        ratio = low
    allocations = []
    for shape, m in zip(shapes, mixtures, strict=True):
        cheap = min(_rows(shape, 2.0), int(HEAD_SHARE * backprop / (3 * shape.cost)))
        allocations.append(_allocation(shape, max(_rows(shape, ratio), cheap), m))
    return allocations


def warm_up(shapes: Sequence[MapShape]) -> tuple[list[Allocation], int]:
    """The noise that brings feedback from zero up on the first batch, and how often to repeat it."""
    allocations = [_allocation(shape, _rows(shape, 1.0), 1) for shape in shapes]
    slowest = min(a.rows * float(s.meets[s.meets > 0].min()) / s.seen for a, s in zip(allocations, shapes, strict=True))
    return allocations, math.ceil(-math.log(WARM_ERROR) / math.log1p(slowest))


def _allocation(shape: MapShape, rows: int, mixtures: int) -> Allocation:
    return Allocation(rows, mixtures, 1 / (rows * shape.meets + shape.seen))


def _rows(shape: MapShape, ratio: float) -> int:
    return max(1, round(ratio * shape.seen / shape.positions))


def _mixtures(shape: MapShape, scale: float) -> int:
    return max(1, round(MIXTURES * scale / math.sqrt(shape.positions)))


@torch.no_grad()
def delta_rule(part: LinearPart, eps: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """The change of V from isotropic noise at the map's input, (rows, *input); and the share of the response left over.

    Returns:
        the change, in V's shape, and ||R||^2 / ||W eps||^2 (a scalar): zero when V is learned.
    """
    response = _response(part, eps)
    residual = response - part.map.respond(eps, part.map.map.weight)
    change = part.map.correlate(eps, residual) * step
    tiny = torch.finfo(response.dtype).tiny  # a forward map of zeros responds to nothing
    return change, residual.square().sum() / response.square().sum().clamp_min(tiny)


@torch.no_grad()
def shaped_delta_rule(part: LinearPart, eps: Tensor) -> Tensor:
    """The change of V from noise shaped like activity: random mixtures of the batch's inputs.

    Forward updates lie along activations, and so does what V lags behind by. Such noise is far from white, so no
    fixed step is safe: each unit of the output takes the step that minimises its own residual on this noise.
    """
    residual = _response(part, eps) - part.map.respond(eps, part.map.map.weight)
    gradient = part.map.correlate(eps, residual)
    power, response_power = part.map.unit_power(gradient, part.map.respond(eps, gradient))
    return gradient * (power / (response_power + torch.finfo(power.dtype).tiny))


def _response(part: LinearPart, eps: Tensor) -> Tensor:
    """What noise at the input of the forward map changes at its output."""
    layer = part.layers[part.position]
    return layer(eps) - layer(torch.zeros_like(eps[:1]))
