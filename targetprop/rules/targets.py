"""Targets: where they start, at the output, and how the feedback carries them down."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from targetprop.network import Trace
from targetprop.pair import Pair

Propagation = Callable[[Pair, Trace, Tensor], Tensor]
"""(pair n, its trace, target t^n) -> target t^{n-1}."""


def output_target(s: Tensor, gradient: Tensor, beta: float) -> Tensor:
    """t^N = s^N - beta dL/ds^N, with the per-sample gradient dL/ds^N (batch, ...). Lee et al. 2015."""
    return s - beta * gradient


def direct(pair: Pair, trace: Trace, target: Tensor) -> Tensor:
    """Target propagation: t^{n-1} = G(t^n). Bengio 2014, Lee et al. 2015."""
    return pair.decode(target, trace.context)


def difference(pair: Pair, trace: Trace, target: Tensor) -> Tensor:
    """Difference target propagation: t^{n-1} = s^{n-1} + G(t^n) - G(s^n). Lee et al. 2015."""
    return trace.x + pair.decode_difference(target, trace.y, trace.context)


@torch.no_grad()
def propagate(pairs: Sequence[Pair], traces: Sequence[Trace], target: Tensor, rule: Propagation) -> list[Tensor]:
    """The target of every block's output, in forward order, from the output block's target downwards."""
    targets = [target]
    for pair, trace in zip(reversed(pairs[1:]), reversed(traces[1:]), strict=True):
        targets.append(rule(pair, trace, targets[-1]))
    return targets[::-1]
