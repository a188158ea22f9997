"""Amortised feedback learning: a delta rule on the response to noise, a little of it every batch.

The feedback map V predicts the response of the forward map W to noise at its input, and learns from the residual:

    R = W eps - V^T eps,    V += corr(eps, R) / (n + d)

W eps is the change that noise makes in the block's activity before its activation; nothing else of W is used (both
maps are linear, so where a layer is known the residual is one product with W - V^T). Forward weights move slowly, so
V keeps up with little noise a batch, and at V = W^T the residual, and with it all noise in V, is zero. For n
independent equations in d unknowns the mean squared error of V shrinks fastest, by d / (n + d) an update, with this
step, for every n. At the border of an image a tap of a kernel meets fewer units: n is counted for each tap, d is the
mean number of inputs that a unit sees.

This is another rule than L-DRL. It is L-DRL's limit of small noise with activation and pooling as twins without
weights of their own, read out before the activation: the setting of weight mirrors (Akrout et al. 2019) with a
delta rule. It needs twins whose slope is the transposed Jacobian's (style "linear" or "matched").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from targetprop.layers.maps import linear_map
from targetprop.network.linear_feedback import FeedbackMap
from targetprop.utils.precision import wide

MIXTURES = 16
"""Mixtures of activations for a block with one position; divided by the root of the positions."""
LARGEST_RATIO = 4.0
"""Of equations to unknowns: more noise than this is never worth its cost."""
PASSES, MIXTURE_PASSES = 2, 4
"""Passes through the map that a sample of isotropic noise costs, and one of shaped noise."""
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
        step: 1 / (n + d) for each input of a unit, (groups, 1, inputs).
        equations: n d / inputs, summed over inputs: ||W||^2 times this is the power of the response to expect.
    """

    rows: int
    mixtures: int
    step: Tensor
    equations: float


@torch.no_grad()
def map_shape(part: FeedbackMap, x: Tensor) -> MapShape:
    """The shape of a linear map for its input x (batch, ...)."""
    weight = part.map.map.weight
    seen = part.map.forward_map.patches(torch.ones_like(x[:1], dtype=weight.dtype))
    return MapShape(seen.shape[1], weight.numel(), float(seen.sum(2).mean()), seen.sum(1, keepdim=True))


def allocate(
    shapes: Sequence[MapShape], backprop: float, budget: float, efforts: Sequence[float] | None = None
) -> list[Allocation]:
    """Share a budget of noise out over the maps.

    Every map gets the same ratio r of equations to unknowns, hence about the same rate of learning, as large as the
    budget allows; about a quarter of the budget at most goes to shaped noise. A map gets one sample of each in any
    case, so that very small batches cost more than the budget.

    Args:
        backprop: multiply-adds of a backprop step of the whole batch.
        budget: share of it that feedback learning may cost.
        efforts: for each map what it gets in place of 1 times r; those above 1 only as far as the others leave room.
    """
    efforts = [1.0] * len(shapes) if efforts is None else efforts
    limit, scale = budget * backprop, 1.0

    def mixtures() -> list[int]:
        return [_mixtures(shape, scale * min(1.0, effort)) for shape, effort in zip(shapes, efforts, strict=True)]

    def cost(counts: Sequence[int]) -> int:
        return sum(n * shape.cost for n, shape in zip(counts, shapes, strict=True))

    def rows(ratio: float, efforts: Sequence[float]) -> list[int]:
        return [_rows(shape, ratio * effort) for shape, effort in zip(shapes, efforts, strict=True)]

    def largest(ratio: float, left: float, efforts: Sequence[float]) -> float:
        """The largest ratio up to this one that the rest of the budget allows."""
        if PASSES * cost(rows(ratio, efforts)) <= left:
            return ratio
        low = 0.0
        for _ in range(40):
            middle = (low + ratio) / 2
            low, ratio = (middle, ratio) if PASSES * cost(rows(middle, efforts)) <= left else (low, middle)
        return low

    while scale > 0.02 and MIXTURE_PASSES * cost(mixtures()) > limit / 4:
        scale *= 0.9
    left = limit - MIXTURE_PASSES * cost(mixtures())
    ratio = largest(LARGEST_RATIO, left, [1.0] * len(shapes))
    ratio = largest(ratio, left, efforts)
    allocations = []
    for shape, count, m, effort in zip(shapes, rows(ratio, efforts), mixtures(), efforts, strict=True):
        cheap = min(_rows(shape, 2.0 * effort), int(HEAD_SHARE * backprop / (PASSES * shape.cost)))
        allocations.append(_allocation(shape, max(count, cheap), m))
    return allocations


def warm_up(shapes: Sequence[MapShape]) -> tuple[list[Allocation], int]:
    """The noise that brings feedback from zero up on the first batch, and how often to repeat it."""
    allocations = [_allocation(shape, _rows(shape, 1.0), 1) for shape in shapes]
    slowest = min(a.rows * float(s.meets[s.meets > 0].min()) / s.seen for a, s in zip(allocations, shapes, strict=True))
    return allocations, math.ceil(-math.log(WARM_ERROR) / math.log1p(slowest))


def _allocation(shape: MapShape, rows: int, mixtures: int) -> Allocation:
    return Allocation(rows, mixtures, 1 / (rows * shape.meets + shape.seen), rows * shape.met)


def _rows(shape: MapShape, ratio: float) -> int:
    return max(1, round(ratio * shape.seen / shape.positions))


def _mixtures(shape: MapShape, scale: float) -> int:
    return max(1, round(MIXTURES * scale / math.sqrt(shape.positions)))


@torch.no_grad()
def delta_rule(part: FeedbackMap, white: Tensor, shaped: Tensor, allocation: Allocation) -> Tensor:
    """Update V from noise at the map's input.

    Forward updates lie along activations, and so does what V lags behind by: hence noise shaped like activity beside
    the white one.

    Args:
        white: isotropic noise, (rows, *input).
        shaped: random mixtures of the batch's inputs, (mixtures, *input).

    Returns:
        ||R||^2 / ||W eps||^2 over the white noise (a scalar), the share of the response left over: zero when V is
        learned. Where W is known the power of the response is the expected one.
    """
    eps = torch.cat((white, shaped))
    patches = part.map.forward_map.patches(eps)
    residual, response = _residual(part, eps, patches)
    count = patches.shape[1] // len(eps) * len(white)
    left = residual[:, :count]
    power = _expected_power(part, allocation) if response is None else _power(response[:, :count])
    share = _power(left) / power.clamp_min(torch.finfo(power.dtype).tiny)  # a map of zeros responds to nothing
    weighted = patches[:, :count] * allocation.step  # V changes by the product of `left` and this
    _, units, inputs = part.map.forward_map.matrix(part.map.transposed).shape
    few = patches.shape[1] * (inputs + units) < 3 * inputs * units
    add = _add_by_rows if few else _add_by_matrices
    add(part, left, weighted, residual[:, count:], patches[:, count:])
    return share


# Two ways to the same change of V: by white noise, and by noise that is far from white, for which no fixed step is
# safe. For that, each unit of the output takes the step that minimises what the first change leaves of its residual.


def _add_by_rows(part: FeedbackMap, left: Tensor, weighted: Tensor, residual: Tensor, patches: Tensor) -> None:
    """For few patches beside a large V: nothing of V's size is made, and V changes in place, by one product."""
    residual = residual - (patches @ weighted.mT) @ left
    response = (patches @ patches.mT) @ residual
    power = (residual * response).sum(1, dtype=wide(response.dtype))
    residual = residual * _best_step(power, response).unsqueeze(1).to(residual.dtype)
    rows, columns = torch.cat((left, residual), 1), torch.cat((weighted, patches), 1)
    transposed, found = part.map.transposed, part.map.forward_map
    matrix = found.matrix(transposed)
    if matrix.data_ptr() == transposed.data_ptr() and matrix.dtype == rows.dtype == columns.dtype:
        matrix.baddbmm_(rows.mT, columns)
    else:  # V has another order of memory, or rows are narrower under autocast
        transposed.add_(found.from_matrix(rows.mT @ columns))


def _add_by_matrices(part: FeedbackMap, left: Tensor, weighted: Tensor, residual: Tensor, patches: Tensor) -> None:
    """For many patches: changes of V's size are made, and nothing of the size of their products."""
    transposed, found = part.map.transposed, part.map.forward_map
    change = (left.mT @ weighted).to(transposed.dtype)
    gradient = ((residual - patches @ change.mT).mT @ patches).to(transposed.dtype)
    power = torch.linalg.vector_norm(gradient, dim=2).square()
    change.addcmul_(gradient, _best_step(power, patches @ gradient.mT).unsqueeze(2))
    transposed.add_(found.from_matrix(change))


def _best_step(power: Tensor, response: Tensor) -> Tensor:
    """Of each unit, (groups, units), along the gradient of its residual's power.

    Args:
        power: of the gradient, (groups, units).
        response: of a change by the gradient to the noise, (groups, patches, units).
    """
    return power / (response.square().sum(1, dtype=power.dtype) + torch.finfo(power.dtype).tiny)


def _power(response: Tensor) -> Tensor:
    return response.square().sum(dtype=wide(response.dtype))


def _expected_power(part: FeedbackMap, allocation: Allocation) -> Tensor:
    """Of the response to the white noise, for a map whose weight is known."""
    assert isinstance(part.layer.weight, Tensor)
    return allocation.equations * torch.linalg.vector_norm(part.layer.weight).square()


def _residual(part: FeedbackMap, eps: Tensor, patches: Tensor) -> tuple[Tensor, Tensor | None]:
    """What V does not predict of the response, (groups, rows * positions, units); the response if it was measured."""
    layer, found, transposed = part.layer, part.map.forward_map, part.map.transposed
    if linear_map(layer) is not None:
        assert isinstance(layer.weight, Tensor)
        return patches @ found.matrix(layer.weight - transposed).mT, None
    with torch.autocast(eps.device.type, enabled=False):  # bfloat16 would not hold these differences
        eps, patches = eps.to(transposed.dtype), patches.to(transposed.dtype)
        response = found.rows(layer(eps) - layer(torch.zeros_like(eps[:1])))
        return response - patches @ found.matrix(transposed).mT, response
