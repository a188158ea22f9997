"""Losses of feedback in two halves, whose correction is held fixed while they are differentiated.

With g(y) = act(V y) the first half of a block's feedback and c its second, the correction, s the block's clean input:
only the g of a noisy pass is differentiated, in c only its activation. Both losses ask for the clean input. So they are
other losses than those of Meulemans et al. 2020 and Ernoult et al. 2022, which bear the same names.

Shibuya et al., "Fixed-Weight Difference Target Propagation", 2023, https://arxiv.org/abs/2212.10352, as their code has
them. They are sums over units and means over the batch here, and there sums over both, with a rate over the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from targetprop.feedback.losses import NetworkLoss
from targetprop.layers.halves import HalvesFeedback

if TYPE_CHECKING:
    from targetprop.network.pair import Pair, Trace
    from targetprop.network.passes import Pass
    from targetprop.noise import Draw


def corrected_l_drl(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
    """-<eps, c(g(F(s + eps))) - s> + 1/2 ||c(g(F(s) + eta)) - s||^2: half of L-DRL, but for what is held fixed.

    For linear g its gradient is, in the mean over noise, half that of Ernoult et al.'s loss.
    """
    eps, eta = draw("input", trace.x), draw("output", trace.y)
    with torch.no_grad():
        noisy, context = pair.encode(trace.x + eps, trace.context)
    from_input = _back(pair, trace, noisy, context)
    from_output = _back(pair, trace, trace.y + eta, trace.context)
    product = (eps * (from_input - trace.x)).sum()
    return ((from_output - trace.x).square().sum() / 2 - product) / len(eps)


@NetworkLoss
def corrected_drl(seen: Pass, block: int, draw: Draw) -> Tensor:
    """||c(g(...c(g(y~)))) - s||^2, with y~ the network's output for s + eps, brought back block by block.

    It asks for s, and not for s + eps: it pulls the response to noise towards zero.
    """
    trace = seen.trace(block).detach()
    with torch.no_grad():
        back = seen.output_for(trace.x + draw("input", trace.x), block)
        for above in range(len(seen.network.pairs) - 1, block, -1):
            upper = seen.trace(above).detach()
            back = _back(seen.network.pairs[above], upper, back, upper.context)
    back = _back(seen.network.pairs[block], trace, back, trace.context)
    return (back - trace.x).square().sum() / len(back)


def _back(pair: Pair, trace: Trace, y: Tensor, context: object) -> Tensor:
    """c(g(y)), y with the context of its own pass."""
    assert isinstance(pair.feedback, HalvesFeedback)
    with torch.no_grad():
        clean = pair.decode(trace.y, trace.context)
    return pair.feedback.correct(pair.decode(y, context), trace.x, clean)
