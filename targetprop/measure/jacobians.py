"""What the feedback is of the block: near its transposed Jacobian, near its inverse, by random probes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from targetprop.measure.probe import Clean, Probe, by_block, check_numbers, draws, root_of_ratio
from targetprop.measure.solve import conjugate_gradients

if TYPE_CHECKING:
    from targetprop.network.pair import Pair, Trace

STEP = 1e-9
"""Where along a probe the Jacobian of feedback is taken, relative to the probe.

Zero would be no place for it: some feedback asks which units a difference reaches, and activations have kinks.
"""


class Jacobian:
    """The Jacobian J of a function at x, by autograd."""

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        with torch.enable_grad():
            self._x = x.detach().requires_grad_()
            self._y = function(self._x)
            # J^T w is linear in w, so that its own transpose is J.
            self._w = torch.zeros_like(self._y).requires_grad_()
            self._back = _gradient(self._y, self._x, self._w, create_graph=True)

    def times(self, v: Tensor) -> Tensor:
        """J v."""
        return _gradient(self._back, self._w, v)

    def transposed(self, v: Tensor) -> Tensor:
        """J^T v."""
        return _gradient(self._y, self._x, v)


def _gradient(of: Tensor, by: Tensor, v: Tensor, *, create_graph: bool = False) -> Tensor:
    if not of.requires_grad:
        return torch.zeros_like(by)
    (found,) = torch.autograd.grad(
        of, by, v, retain_graph=True, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return found


def transpose(probe: Probe, probes: int = 2) -> dict[str, float]:
    """Of each block with feedback, over the samples of a batch together (at most 128):

    - `transpose_angle`: arccos(<J_G, J_F^T> / (||J_G|| ||J_F||)), Frobenius, degrees;
    - `transpose_ratio`: ||J_G|| / ||J_F||.

    J_F is the Jacobian of the block at its input, J_G that of its feedback at its output, along the probe. Masks are
    held fixed; the samples of a batch meet where they do in training, in the statistics of a batch norm. Zero degrees
    is the Jacobian matching condition of Ernoult et al. 2022, under which small targets bring backprop's updates,
    https://arxiv.org/abs/2201.13415.

    Estimator: <A, B> is the mean of <A v, B v> over v ~ N(0, I) (Hutchinson 1990,
    https://doi.org/10.1080/03610919008812866). It is unbiased in each of the three sums; the relative standard
    deviation of ||A||^2 is at most sqrt(2 / (probes * samples)) where samples count alike, and smaller the more
    singular values there are. Costs for each block and probe about three passes through block and feedback.

    Args:
        probes: for each sample.
    """
    check_numbers(probes=probes)
    return _compared(probe, probes, lambda clean, block: forward_jacobian(clean, block).transposed, "transpose")


def inverse(probe: Probe, damping: float = 1e-2, probes: int = 1, iterations: int = 20) -> dict[str, float]:
    """As `transpose`, for the damped pseudo-inverse J^+ = J_F^T (J_F J_F^T + damping I)^-1 in place of J_F^T:

    - `inverse_angle`: of J_G and J^+, degrees;
    - `inverse_ratio`: ||J_G|| / ||J^+||;
    - `inverse_residual`: ||(J_F J_F^T + damping I) w - v|| / ||v||, how far J^+ v = J_F^T w is from solved.

    The pseudo-inverse is what the difference reconstruction loss drives feedback towards: Meulemans et al. 2020,
    https://arxiv.org/abs/2006.14331. Estimator as of `transpose`. Costs for each block and probe up to `iterations` of
    conjugate gradients, each of two passes through the block in float64.

    Args:
        damping: what is added to all eigenvalues of J_F J_F^T; without it there is a solution only where no unit of the
            block's output follows from others.
        probes: for each sample.
        iterations: of conjugate gradients, at most.
    """
    check_numbers(damping=damping, probes=probes, iterations=iterations)

    residuals: dict[int, Tensor] = {}

    def pseudo_inverse(clean: Clean, block: int) -> Callable[[Tensor], Tensor]:
        forward = forward_jacobian(clean, block)

        def damped(v: Tensor) -> Tensor:
            return forward.times(forward.transposed(v)) + damping * v

        def solved(v: Tensor) -> Tensor:
            w = conjugate_gradients(damped, v, iterations)
            residuals[block] = (damped(w) - v).norm() / v.norm()
            return forward.transposed(w)

        return solved

    values = _compared(probe, probes, pseudo_inverse, "inverse")
    probe.average(list(residuals.values()))
    return values | by_block("inverse_residual", residuals)


def forward_jacobian(clean: Clean, block: int) -> Jacobian:
    """J_F of a block, counted from 0, on the clean pass."""
    return Jacobian(lambda x: clean.anew(block, x), clean.trace(block).x)


def feedback_times(pair: Pair, trace: Trace, v: Tensor) -> Tensor:
    """J_G v, for v (batch, *output of the block)."""
    return Jacobian(lambda d: pair.decode_difference(trace.y, d, trace.context), STEP * v).times(v)


def _compared(
    probe: Probe, probes: int, other: Callable[[Clean, int], Callable[[Tensor], Tensor]], name: str
) -> dict[str, float]:
    """Angle and ratio of J_G to another map from a block's output space to its input space."""
    angles: dict[int, Tensor] = {}
    ratios: dict[int, Tensor] = {}
    clean = probe.few
    for block, pair in probe.fed.items():
        trace, map_down = clean.trace(block), other(clean, block)
        sums = trace.y.new_zeros(3)
        for v in draws(trace.y, probes):
            a, b = feedback_times(pair, trace, v), map_down(v)
            sums += torch.stack([(a * b).sum(), a.square().sum(), b.square().sum()])
        probe.average([sums])
        cosine = sums[0] / (sums[1] * sums[2]).sqrt()
        angles[block] = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
        ratios[block] = root_of_ratio(sums[1:])
    return by_block(f"{name}_angle", angles) | by_block(f"{name}_ratio", ratios)
