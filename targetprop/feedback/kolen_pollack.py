"""Kolen-Pollack feedback learning: feedback weights take the updates of the forward weights.

With the same update and the same weight decay on both, V - W^T decays to zero (Kolen and Pollack 1994; Akrout et al.
2019 for deep networks). The update is a product of two activities that both weights see, so nothing is transported;
but it is another rule than L-DRL, and needs weight decay: after t steps at rate lr, (1 - lr decay)^t of the initial
difference is left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from targetprop.network.linear_feedback import FeedbackMap


@torch.no_grad()
def mirror_gradient(part: FeedbackMap) -> None:
    """Give V the gradient of W, for the optimiser that W has."""
    gradient, weight = part.layer.weight.grad, part.map.map.weight
    assert gradient is None or isinstance(gradient, Tensor)
    if gradient is None:
        weight.grad = None
        return
    if weight.grad is None:
        weight.grad = torch.empty_like(weight)
    weight.grad.copy_(gradient if gradient.dim() > 2 else gradient.t())
