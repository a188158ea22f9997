"""Losses that train the feedback, for autograd: the path that every fast path is tested against.

A loss draws its noise with `draw(kind, like)`, already scaled. Only the feedback's parameters get gradients. Most look
at one block and are functions of its pair and of the pair's trace on the clean batch; one that looks further is marked
as a `NetworkLoss`, and is a function of the whole pass and of the block's number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from targetprop.noise import Draw

if TYPE_CHECKING:
    from targetprop.network.pair import Pair, Trace
    from targetprop.network.passes import Pass

BlockLoss: TypeAlias = "Callable[[Pair, Trace, Draw], Tensor]"


@dataclass(frozen=True)
class NetworkLoss:
    """A loss that looks beyond its own block: `of` is a function (seen, block, draw) -> scalar.

    >>> @NetworkLoss
    ... def loss(seen: Pass, block: int, draw: Draw) -> Tensor: ...
    """

    of: Callable[[Pass, int, Draw], Tensor]

    def __call__(self, seen: Pass, block: int, draw: Draw) -> Tensor:
        return self.of(seen, block, draw)


FeedbackLoss: TypeAlias = "BlockLoss | NetworkLoss"


def l_drl(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
    """Local difference reconstruction loss; drives G to the transposed Jacobian.

    -2 <eps, G(F(s + eps)) - G(F(s))> + ||G(F(s) + eta) - G(F(s))||^2

    The noisy forward pass is decoded with its own pooling indices, the other two with the clean ones. Ernoult et al.,
    "Towards Scaling Difference Target Propagation by Learning Backprop Targets", 2022,
    https://arxiv.org/abs/2201.13415.
    """
    eps, eta = draw("input", trace.x), draw("output", trace.y)
    with torch.no_grad():
        noisy, noisy_context = pair.encode(trace.x + eps, trace.context)
    clean = pair.decode(trace.y, trace.context)
    response = pair.decode(noisy, noisy_context) - clean
    output_response = pair.decode(trace.y + eta, trace.context) - clean
    return (output_response.square().sum() - 2 * (eps * response).sum()) / len(eps)


def reconstruction(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
    """Reconstruction loss; drives G to the inverse of F near the data.

    ||G(F(s + eps)) - (s + eps)||^2

    Lee et al., "Difference Target Propagation", 2015, https://arxiv.org/abs/1412.7525.
    """
    noisy_input = trace.x + draw("input", trace.x)
    with torch.no_grad():
        noisy, context = pair.encode(noisy_input, trace.context)
    return (pair.decode(noisy, context) - noisy_input).square().sum() / len(noisy_input)
