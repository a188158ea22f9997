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
        clean = pair.decode(trace.y, trace.context)
    from_input = _corrected(pair, trace, pair.decode(noisy, context), clean)
    from_output = _corrected(pair, trace, pair.decode(trace.y + eta, trace.context), clean)
    product = (eps * (from_input - trace.x)).sum()
    return ((from_output - trace.x).square().sum() / 2 - product) / len(eps)


def _drl(seen: Pass, block: int, draw: Draw) -> Tensor:
    trace = seen.trace(block).detach()
    with torch.no_grad():
        back = seen.output_for(trace.x + draw("input", trace.x), block)
        for above in range(len(seen.network.pairs) - 1, block, -1):
            back = _back(seen, above, back)
    back = _back(seen, block, back)
    return (back - trace.x).square().sum() / len(back)


corrected_drl = NetworkLoss(_drl)
"""||c(g(...c(g(y~)))) - s||^2, with y~ the network's output for s + eps, brought back block by block.

It asks for s, and not for s + eps: it pulls the response to noise towards zero.
"""


def _back(seen: Pass, block: int, y: Tensor) -> Tensor:
    """c(g(y)) of one block, on the clean pass."""
    pair, trace = seen.network.pairs[block], seen.trace(block).detach()
    with torch.no_grad():
        clean = pair.decode(trace.y, trace.context)
    return _corrected(pair, trace, pair.decode(y, trace.context), clean)


def _corrected(pair: Pair, trace: Trace, v: Tensor, clean: Tensor) -> Tensor:
    """c(v), `clean` being g(F(s))."""
    assert isinstance(pair.feedback, HalvesFeedback)
    return pair.feedback.correct(v, trace.x, clean)
