"""The second term of L-DRL in expectation over the output noise: no draw, no noise in the gradient.

E ||V D2||^2 with D2 = a(y + eta) - a(y). Where `a` acts unit by unit, the entries of D2 are independent, and the
expectation is ||V m||^2 + <S, V^2>, with the mean m of D2 and the sum S of its variances over batch and positions,
kept apart for each entry of V, since at the border of an image not every tap of a kernel meets every unit.
The *diagonal* form takes second moments for variances and drops ||V m||^2, which costs a pass through V and a
correlation for each update; what it neglects is small where the activation is nearly odd about y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from targetprop.network.linear_feedback import LinearPart
from targetprop.network.network import Trace

NODES = 16
"""Of the Gauss-Hermite rule. Smooth activations need three; the kink of ReLU makes up for its error over units."""


@dataclass(frozen=True)
class OutputNoise:
    """What the output noise does in expectation on one batch.

    Attributes:
        mean: m, in the shape of the features; None in the diagonal form.
        power: S, in the shape of V's weight: summed variances, or second moments in the diagonal form.
    """

    mean: Tensor | None
    power: Tensor

    def gradient(self, part: LinearPart, trace: Trace) -> tuple[Tensor, Tensor]:
        """Half the gradient of E ||V D2||^2, summed over the batch, and E ||V D2||^2 itself."""
        weight = part.map.map.weight
        gradient = self.power * weight
        if self.mean is not None:
            gradient += part.correlate(part.feed_back(self.mean, trace.context), self.mean, trace.context)
        return gradient, (gradient * weight).sum()


@torch.no_grad()
def output_noise(part: LinearPart, trace: Trace, sigma: float, *, diagonal: bool) -> OutputNoise:
    """Moments of the response to output noise of standard deviation sigma; `part` must be `unitwise`."""
    clean = part.features(trace.y, trace.context)
    mean, second = torch.zeros_like(clean), torch.zeros_like(clean)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    for node, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
        response = part.features(trace.y + sigma * node, trace.context) - clean
        mean += weight * response
        second += weight * response.square()
    ones = torch.ones_like(trace.x)
    if diagonal:
        return OutputNoise(None, part.correlate(ones, second, trace.context))
    return OutputNoise(mean, part.correlate(ones, second - mean.square(), trace.context))
