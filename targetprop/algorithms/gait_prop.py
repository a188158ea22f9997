"""Targets by exact inverses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from targetprop.algorithms.base import Algorithm
from targetprop.feedback.orthogonal import NearlyOrthogonal
from targetprop.properties import Source
from targetprop.targets.inverse import InverseTargets

GAIT_PROP = Algorithm(
    InverseTargets(),
    NearlyOrthogonal(),
    Source(
        "Ahmad et al.",
        "GAIT-prop: A biologically plausible learning rule derived from backpropagation of error",
        2020,
        "https://arxiv.org/abs/2006.06438",
    ),
)
"""Gradient-adjusted incremental targets (Ahmad et al. 2020), for `models.invertible_mlp` and its like."""


def half_squared_error(output: Tensor, labels: Tensor) -> Tensor:
    """1/2 ||output - onehot||^2, mean over the batch: the error that GAIT-prop is published with."""
    wanted = F.one_hot(labels, output.shape[1]).to(output.dtype)
    return (output - wanted).square().sum() / (2 * len(output))
