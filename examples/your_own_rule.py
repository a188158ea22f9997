"""A rule of your own, whole: DTP whose feedback learns a local inverse of each block.

    python -m targetprop model=own model.algorithm=examples.your_own_rule.LOCAL_INVERSE
    python -m targetprop compare --rules backprop dtp examples.your_own_rule.LOCAL_INVERSE \
        --networks tiny_vgg --data digits --seeds 1 2 3

An `Algorithm` is two values: how targets come down, and how the feedback learns. Here the first is that of DTP, and the
second is a loss of our own; a class in place of either makes any other rule (docs/architecture.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from targetprop import Algorithm, ByLoss, DifferenceTargets, OptimizerSpec, Pair, Trace
from targetprop.noise import Draw


def difference_reconstruction(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
    """||G(F(s + eps)) - G(F(s)) - eps||^2: what a small change of the input does to the output, G takes back.

    Args:
        pair: the block F with its feedback G.
        trace: input and output of the block on this batch.
        draw: makes noise of the rule's standard deviation.
    """
    eps = draw("input", trace.x)
    with torch.no_grad():  # the loss trains the feedback alone
        noisy, context = pair.encode(trace.x + eps, trace.context)
    response = pair.decode(noisy, context) - pair.decode(trace.y, trace.context)
    return (response - eps).square().sum() / len(eps)


LOCAL_INVERSE = Algorithm(
    DifferenceTargets(beta=0.3),
    ByLoss(difference_reconstruction, feedback_training_iterations=2, b_optim=OptimizerSpec("adam", lr=1e-3)),
)
