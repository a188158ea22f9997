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

LEAST_SIGMA = 0.02
"""Of `relative_reconstruction`."""

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


def relative_reconstruction(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
    """`reconstruction` as Meulemans et al. 2020 have it: the mean over batch and units, over the noise's variance.

    Less noise than .02 counts as .02. https://arxiv.org/abs/2006.14331.
    """
    return reconstruction(pair, trace, draw) / (trace.x[0].numel() * max(draw.sigma, LEAST_SIGMA) ** 2)


def _drl(seen: Pass, block: int, draw: Draw) -> Tensor:
    trace, pair = seen.trace(block).detach(), seen.network.pairs[block]
    eps = draw("input", trace.x)
    with torch.no_grad():
        difference = seen.output_for(trace.x + eps, block) - seen.output
        for above in range(len(seen.network.pairs) - 1, block, -1):
            through = seen.trace(above).detach()
            difference = seen.network.pairs[above].decode_difference(through.y, difference, through.context)
    return _relative(pair.decode_difference(trace.y, difference, trace.context) - eps, draw.sigma)


drl = NetworkLoss(_drl)
"""Difference reconstruction loss; drives the feedback of all blocks together to a pseudo-inverse of the network.

The block's input is moved by noise, s + eps; what that does to the network's output comes back down by difference
targets, to R(s + eps): mean of (R(s + eps) - (s + eps))^2 over batch and units, over the noise's variance. Only the
last stage is trained here, those above as they are. Meulemans et al., "A Theoretical Framework for Target
Propagation", 2020, https://arxiv.org/abs/2006.14331; the paper's penalty on the weights is the optimiser's weight
decay, as L2.
"""


def _direct_drl(seen: Pass, block: int, draw: Draw) -> Tensor:
    clean, pair = seen.trace(block).y.detach(), seen.network.pairs[block]
    eps = draw("output", clean)
    with torch.no_grad():
        difference = seen.output_for(clean + eps, block + 1) - seen.output
    return _relative(pair.decode_difference(seen.output, difference, clean) - eps, draw.sigma)


direct_drl = NetworkLoss(_direct_drl)
"""Difference reconstruction loss of feedback straight from the output: DDTP-linear, DDTP-RHL.

Mean of (Q(y(s + eps)) - Q(y(s)) - eps)^2 over batch and units, over the noise's variance, with noise on the block's
output s and the network's output y. For a matrix Q and small noise, with weight decay, the minimum over one sample is
the damped pseudo-inverse of dy/ds. Meulemans et al. 2020, https://arxiv.org/abs/2006.14331.
"""


def _direct_reconstruction(seen: Pass, block: int, draw: Draw) -> Tensor:
    clean, pair = seen.trace(block).y.detach(), seen.network.pairs[block]
    noisy = clean + draw("output", clean)
    with torch.no_grad():
        output = seen.output_for(noisy, block + 1)
    return (pair.decode(output, clean) - noisy).square().mean()


direct_reconstruction = NetworkLoss(_direct_reconstruction)
"""Reconstruction loss of feedback straight from the output, without the difference: DDTP-control.

Mean of (Q(y(s + eps)) - (s + eps))^2 over batch and units. Meulemans et al. 2020, https://arxiv.org/abs/2006.14331.
"""


def _relative(error: Tensor, sigma: float) -> Tensor:
    """Mean square over batch and units, over the variance of the noise."""
    return error.square().mean() / sigma**2
