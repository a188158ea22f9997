"""L-DRL without autograd, for feedback with a linear part; equal to the autograd path with the same noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from targetprop.network.linear_feedback import LinearPart
    from targetprop.network.pair import Pair, Trace
    from targetprop.noise import Draw


@torch.no_grad()
def l_drl_gradient(pair: Pair, part: LinearPart, trace: Trace, clean: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Gradient of the L-DRL loss for the linear map V (in its weight's shape), and the loss itself (a scalar).

    2 corr(V D2, D2) - 2 corr(eps, D1), mean over the batch, with the responses D1 = a(F(s + eps)) - a(F(s)) and
    D2 = a(F(s) + eta) - a(F(s)). The loss is quadratic in V, hence <V, gradient> - ||V D2||^2. The bias cancels:
    its gradient is zero.

    Args:
        clean: a(F(s)), the same for all noise on this batch.
    """
    eps = draw("input", trace.x)
    gradient, power = _output_term(part, trace, draw)
    noisy, noisy_context = pair.encode(trace.x + eps, trace.context)
    response = part.features(noisy, noisy_context) - clean
    gradient -= part.correlate(eps, response, trace.context)
    gradient *= 2 / len(eps)
    loss = (part.map.weight * gradient).sum() - power / len(eps)
    return gradient, loss


def _output_term(part: LinearPart, trace: Trace, draw: Draw) -> tuple[Tensor, Tensor]:
    """Half the gradient of ||V D2||^2, and ||V D2||^2 itself."""
    response = part.features_difference(trace.y, draw("output", trace.y), trace.context)
    feedback = part.feed_back(response, trace.context)
    return part.correlate(feedback, response, trace.context), torch.linalg.vector_norm(feedback).square()
