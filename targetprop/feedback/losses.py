"""Losses that train the feedback, by autograd: the textbook path that every fast path is tested against.

A loss is a function of a pair and of its trace on the clean batch. It draws its noise with `draw(kind, like)`,
already scaled. Only the twin's parameters get gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from targetprop.network.network import Trace
from targetprop.network.pair import Pair
from targetprop.noise import Kind

Draw = Callable[[Kind, Tensor], Tensor]
FeedbackLoss = Callable[[Pair, Trace, Draw], Tensor]


def l_drl(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
    """Local difference reconstruction loss, Ernoult et al. 2022; drives G to the transposed Jacobian.

    -2 <eps, G(F(s + eps)) - G(F(s))> + ||G(F(s) + eta) - G(F(s))||^2

    The noisy forward pass is decoded with its own pooling indices, the other two with the clean ones.
    """
    eps, eta = draw("input", trace.x), draw("output", trace.y)
    with torch.no_grad():
        noisy, noisy_context = pair.encode(trace.x + eps, trace.context)
    clean = pair.decode(trace.y, trace.context)
    response = pair.decode(noisy, noisy_context) - clean
    output_response = pair.decode(trace.y + eta, trace.context) - clean
    return (output_response.square().sum() - 2 * (eps * response).sum()) / len(eps)


def reconstruction(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
    """Reconstruction loss, Lee et al. 2015; drives G to the inverse of F near the data.

    ||G(F(s + eps)) - (s + eps)||^2
    """
    noisy_input = trace.x + draw("input", trace.x)
    with torch.no_grad():
        noisy, context = pair.encode(noisy_input, trace.context)
    return (pair.decode(noisy, context) - noisy_input).square().sum() / len(noisy_input)
