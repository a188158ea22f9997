"""Targets: where they start, at the output, and how the feedback carries them down.

A target t^n is kept as its difference d^n = t^n - s^n to what the block put out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from targetprop.network.linear_feedback import LinearPart
from targetprop.network.network import Trace
from targetprop.network.pair import Pair

Propagation = Callable[[Pair, Trace, Tensor, Tensor | None], Tensor]
"""(pair n, its trace, d^n, J^T d^n at the output of its linear map if that is known) -> d^{n-1}."""


def output_difference(gradient: Tensor, beta: float) -> Tensor:
    """d^N: t^N = s^N - beta dL/ds^N, with the per-sample gradient dL/ds^N (batch, ...). Lee et al. 2015."""
    return -beta * gradient


def adjoint_difference(pair: Pair, trace: Trace, difference: Tensor, at_map: Tensor | None = None) -> Tensor:
    """J^T d^n, by the transposed Jacobian of the block itself, on the clean batch.

    Below an output block that follows the loss, d = -dL/ds^N, this is -dL/ds^{N-1}: the first target is
    t^{N-1} = s^{N-1} - beta dL/ds^{N-1}. Lee et al. 2015, whose targets start there.
    """
    with torch.enable_grad():
        x = trace.x.detach().requires_grad_()
        y, _ = pair.encode(x, trace.context)
        return torch.autograd.grad(y, x, difference)[0]


def direct(pair: Pair, trace: Trace, difference: Tensor, at_map: Tensor | None = None) -> Tensor:
    """Target propagation: t^{n-1} = G(t^n). Bengio 2014, Lee et al. 2015."""
    return pair.decode(trace.y + difference, trace.context) - trace.x


def difference(pair: Pair, trace: Trace, difference: Tensor, at_map: Tensor | None = None) -> Tensor:
    """Difference target propagation: t^{n-1} = s^{n-1} + G(t^n) - G(s^n). Lee et al. 2015."""
    if at_map is not None and isinstance(pair.linear, LinearPart) and pair.linear.adjoint_above:
        return pair.linear.feed_back(at_map, trace.context)
    return pair.decode_difference(trace.y, difference, trace.context)
