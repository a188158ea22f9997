"""The exact minimiser of L-DRL for the linear map V of a block whose forward weights stand still.

L-DRL is quadratic in V. With P the layers below the map (a reshape), D1 the response of the features that V sees to
input noise eps, and D2 that to output noise eta, it is

    -2 E<eps, P V D1> + E||P V D2||^2,    so that    V E[D2 D2^T] = E[eps D1^T],

where for a convolution D1 and D2 are what each position of its input sees of the features. Features are those of the
style: the differences that its layers above the map carry down along the clean pass, without the gain, which is V's.

Input noise is drawn. Output noise is not: it reaches the features of one unit's own window alone, so that the left side
is made of integrals over one normal variable, which a quadrature gives. All of the sampling error is in the right side;
parts of the draws, solved apart, tell how large it is.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from targetprop import FeedbackLayer, Pair, Trace
from targetprop.layers.activation import Elementwise
from targetprop.layers.activation_feedback import AgainFeedback, GainedFeedback
from targetprop.layers.base import Context
from targetprop.layers.pool import OfMaxima
from targetprop.network.linear_feedback import LinearPart

Indices = Literal["held", "clean", "own"]
"""Which maxima a noisy pass pools, and where to they are un-pooled.

"held" are the units that were maxima in the clean pass: the noisy pass takes those, too. Otherwise it takes its own
maxima, and un-pools them to where those of the clean pass were ("clean"), or to where they are ("own"), as published
code does. Without max-pooling the three are one, called "held".
"""
Key = TypeVar("Key", bound=Hashable)
NODES = 16
"""Of the quadrature over output noise."""
FLAT = 5e-3
"""Of the largest curvature of the loss: directions of V with less are left out, as the loss hardly sees them."""


@dataclass(frozen=True)
class Twin:
    """The feedback of a block from its output down to the map, without a gain.

    Attributes:
        part: the map, and where it is.
        above: the feedback of the layers above it, in forward order.
    """

    part: LinearPart
    above: tuple[FeedbackLayer, ...]

    @classmethod
    def of(cls, pair: Pair) -> Twin:
        """That of a pair whose feedback has one linear map."""
        part = pair.linear
        assert part is not None, pair.not_linear
        first = part.position + 1
        above = zip(part.rule.layers[first:], part.rule.rules[first:], part.parts[first:], strict=True)
        return cls(part, tuple(_without_gain(layer, rule, each) for layer, rule, each in above))

    @property
    def indices(self) -> tuple[Indices, ...]:
        """The ways to treat maxima that differ here."""
        pools = any(isinstance(rule, OfMaxima) for rule in self.part.rule.rules)
        return ("held", "clean", "own") if pools else ("held",)

    def carry(self, difference: Tensor, context: Context) -> Tensor:
        """A difference of the block's output to that of the features, along the pass of this context."""
        return carried(self.above, difference, context[self.part.position + 1 :])

    def decode(self, y: Tensor, context: Context) -> Tensor:
        """The features themselves."""
        for each, own in zip(reversed(self.above), reversed(context), strict=False):
            y = each.decode(y, own)
        return y

    def response(self, trace: Trace, u: Tensor, indices: Indices) -> Tensor:
        """D1, for the map's output u in a noisy pass; the trace is of the clean one."""
        y, context = self._run_above(u, trace.context, held=indices == "held")
        if indices == "own":
            return self.decode(y, context) - self.decode(trace.y, trace.context)
        return self.carry(y - trace.y, trace.context)

    def _run_above(self, u: Tensor, clean: Context, *, held: bool) -> tuple[Tensor, Context]:
        """The layers above the map on its output u."""
        rule, contexts = self.part.rule, list(clean)
        for i in range(self.part.position + 1, len(rule.layers)):
            if held and isinstance(rule.rules[i], OfMaxima):
                indices = clean[i][0]
                u = u.flatten(2).gather(2, indices.flatten(2)).view_as(indices)
            else:
                u, contexts[i] = rule.rules[i].run(rule.layers[i], u, clean[i])
        return u, tuple(contexts)


def _without_gain(layer: torch.nn.Module, rule: object, feedback: FeedbackLayer) -> FeedbackLayer:
    if not isinstance(feedback, GainedFeedback):
        return feedback
    assert isinstance(rule, Elementwise)
    return AgainFeedback(layer, rule)


def carried(layers: tuple[FeedbackLayer, ...], difference: Tensor, contexts: Context) -> Tensor:
    """A difference carried down through feedback layers, given in forward order."""
    for each, context in zip(reversed(layers), reversed(contexts), strict=True):
        difference = each.carry(difference, context)
    return difference


@torch.no_grad()
def right_sides(
    twins: Mapping[Key, tuple[Twin, Indices, float]],
    trace: Trace,
    draws: int,
    parts: int,
    generator: torch.Generator,
) -> tuple[dict[Key, Tensor], int]:
    """E[eps D1^T] of twins of one block, (parts, *shape of W) each, in float64, and the number of draws made for them.

    Args:
        twins: each with its way to treat maxima, and sigma. All hear the same noise.
        trace: of the clean pass; the noisy ones have its type.
        draws: of the noise of one sample, so many at least in all.
    """
    part = next(iter(twins.values()))[0].part
    layer, found = part.layer, part.map.forward_map
    x = part.map_input(trace.x, trace.context)
    u, at_zero = layer(x), layer(torch.zeros_like(x[:1]))
    batches = math.ceil(draws / (parts * len(x)))
    sides = []
    for _ in range(parts):
        total = torch.zeros((), dtype=torch.float64)
        for _ in range(batches):
            eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            xi = layer(eps) - at_zero
            responses = [sigma * twin.response(trace, u + sigma * xi, how) for twin, how, sigma in twins.values()]
            total = total + found.correlate(eps, torch.cat(responses, 1)).double()
        sides.append(total.unflatten(0, (len(twins), -1)) / (batches * len(x)))
    return dict(zip(twins, torch.stack(sides, 1), strict=True)), parts * batches * len(x)


@dataclass(frozen=True)
class OutputNoise:
    """The features' response D2 to output noise, at the nodes of a quadrature over it.

    Attributes:
        moved: D2, (nodes, batch, units, *positions).
        weights: of the nodes.
        sigma: of the noise.
    """

    moved: Tensor
    weights: Tensor
    sigma: float

    @classmethod
    @torch.no_grad()
    def on(cls, twin: Twin, trace: Trace, sigma: float) -> OutputNoise:
        """All units of the output are moved alike, and each one's window sees its own move alone."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        moved = [twin.carry(torch.full_like(trace.y, sigma * node), trace.context) for node in nodes]
        return cls(torch.stack(moved), torch.from_numpy(weights / weights.sum()), sigma)

    def mean(self, values: Tensor) -> Tensor:
        """The expectation of what is given for every node."""
        return torch.tensordot(self.weights, values, 1)

    @property
    def reached(self) -> Tensor:
        """1 for the features that output noise reaches, (batch, units, *positions)."""
        return (self.moved != 0).any(0).to(self.moved.dtype)


def left_side(part: LinearPart, noise: OutputNoise, y: Tensor) -> Tensor:
    """E[D2 D2^T] as the positions of the map's input see D2, (taps * units, taps * units), the mean over samples.

    What the means of the features leave has a covariance within a channel and a window of the pooling only.

    Args:
        y: the block's output.
    """
    mean = noise.mean(noise.moved)
    seen = part.map.forward_map.patches(mean)[0]
    matrix = seen.mT @ seen
    _by_taps(matrix, mean.shape[1]).diagonal(dim1=1, dim2=3).add_(_within_windows(part, noise, y))
    return matrix / len(mean)


def _by_taps(matrix: Tensor, units: int) -> Tensor:
    """(taps, units, taps, units)."""
    return matrix.unflatten(0, (-1, units)).unflatten(2, (-1, units))


def _within_windows(part: LinearPart, noise: OutputNoise, y: Tensor) -> Tensor:
    """Covariances of taps of one channel, summed over samples and positions, (taps, taps, units)."""
    left = noise.moved - noise.mean(noise.moved)
    size = left.shape[3:]
    rows = left.reshape(*left.shape[:3], -1).transpose(1, 2).flatten(3)  # (nodes, units, batch, positions)
    covariance = sum((w * (r.mT @ r) for w, r in zip(noise.weights, rows, strict=True)), rows.new_zeros(()))
    around = F.pad(covariance * _one_window(y, size), (1, 0, 1, 0))
    number = torch.arange(1, 1 + rows.shape[3], dtype=y.dtype).view(1, 1, *size)
    place = part.map.forward_map.patches(number)[0].long()  # (positions, taps), 0 beyond the border
    return around[:, place[:, :, None], place[:, None, :]].sum(1).movedim(0, -1)


def _one_window(y: Tensor, size: torch.Size) -> Tensor:
    """Whether two positions of the features belong to one unit of the output, whose windows tile them."""
    window = torch.arange(y[0, 0].numel(), dtype=y.dtype).view(1, 1, *y.shape[2:])
    window = (F.interpolate(window, size=size) if size else window).flatten()
    return window == window[:, None]


def as_rows(weight: Tensor) -> Tensor:
    """V^T, in the shape of W, as what multiplies patches of features: (taps * units, inputs)."""
    flipped = weight.flip(list(range(2, weight.dim())))
    return flipped.movedim((0, 1), (-2, -1)).flatten(0, -2)


@dataclass(frozen=True)
class Minimiser:
    """What L-DRL learns.

    Attributes:
        estimates: of V^T as rows, by every part of the draws, (parts, taps * units, inputs).
        seen: projects rows to the directions that the loss sees, (taps * units, taps * units).
    """

    estimates: Tensor
    seen: Tensor

    @classmethod
    def of(cls, left: Tensor, right: Tensor) -> Minimiser:
        """The solution of the normal equations, for every part of the right side."""
        values, vectors = torch.linalg.eigh(left)
        kept = values > FLAT * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        rows = torch.stack([as_rows(each) for each in right])
        return cls((vectors / values) @ (vectors.mT @ rows), vectors @ vectors.mT)

    @property
    def flat(self) -> float:
        """The share of directions that are left out."""
        return 1 - float(self.seen.trace()) / len(self.seen)


# Gains, one for each output unit of the map. All of them multiply V^T in the shape of W.


def product_gain(pair: Pair, trace: Trace) -> Tensor:
    """What the pair's own feedback multiplies the features by."""
    twin = Twin.of(pair)
    part, small = twin.part, torch.full_like(trace.y, 1e-4)
    first = part.position + 1
    own, plain = carried(part.parts[first:], small, trace.context[first:]), twin.carry(small, trace.context)
    return _over_units(own * plain) / _over_units(plain.square())


def finite_noise_gain(part: LinearPart, noise: OutputNoise, right: Tensor, x: Tensor) -> Tensor:
    """Response to input noise along xi = W eps over response to output noise, both at their own sigma.

    E[xi D1] / E[xi^2] / (E[D2^2] / sigma^2), over the units that noise reaches.

    Args:
        right: E[eps D1^T], (*shape of W).
        x: the map's input.
    """
    weight, reached = part.layer.weight, noise.reached
    assert isinstance(weight, Tensor)
    met = part.map.forward_map.correlate(torch.ones_like(x), reached) / len(x)  # by each weight, how often
    power = noise.sigma**2 * (weight.square() * met).flatten(1).sum(1)
    output = _over_units(noise.mean(noise.moved.square())) / (noise.sigma**2 * _over_units(reached))
    return (weight * right).flatten(1).sum(1) / power / output


def best_gain(part: LinearPart, left: Tensor, right: Tensor) -> Tensor:
    """The gain for each unit at which W^T, times it, has the least L-DRL: how far any gain can mend."""
    weight = part.layer.weight
    assert isinstance(weight, Tensor)
    rows = as_rows(weight)
    curvature = _by_taps((rows @ rows.mT) * left, len(weight)).sum((0, 2))
    return torch.linalg.solve(curvature, (weight * right).flatten(1).sum(1))


def _over_units(values: Tensor) -> Tensor:
    return values.sum([0, *range(2, values.dim())])
