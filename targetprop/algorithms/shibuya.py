"""Feedback in two halves, a map with an activation behind it and a correction; and the analytic feedback.

The rules that bear names of others, and here the name shibuya_, are those rules as the code of Shibuya et al. 2023 has
them: each of them differs (targetprop/feedback/corrected_losses.py). Their batch norm belongs to the network: it is
`Standardize` behind activations, and feedback and correction then have it, too.
"""

from __future__ import annotations

from dataclasses import replace

from targetprop.algorithms.base import Algorithm
from targetprop.feedback.analytic import Analytic
from targetprop.feedback.base import OptimizerSpec
from targetprop.feedback.corrected_losses import corrected_drl, corrected_l_drl
from targetprop.feedback.fixed_weights import FixedWeights, Identity
from targetprop.feedback.losses import reconstruction
from targetprop.feedback.top_down import TopDown
from targetprop.properties import Source
from targetprop.targets.halves import CorrectedTargets, UncorrectedTargets
from targetprop.targets.layerwise import DifferenceTargets

_SHIBUYA = Source(
    "Shibuya et al.", "Fixed-Weight Difference Target Propagation", 2023, "https://arxiv.org/abs/2212.10352"
)

_NUMBERS = TopDown(noise=0.1, init="uniform-1", b_optim=OptimizerSpec(lr=3e-3))
"""Our own, as the published ones are too small for the networks here (docs/fixed_weights.md)."""

FW_DTP = Algorithm(CorrectedTargets(), FixedWeights("uniform-1"), _SHIBUYA)
"""FW-DTP: difference targets through feedback weights that stay as they are drawn."""

ITP = Algorithm(CorrectedTargets(), Identity(), _SHIBUYA)
"""ITP: feedback is the rectangular identity. It is linear: targets are proportional to beta, whatever it is."""

SHIBUYA_TP = Algorithm(
    UncorrectedTargets(beta=30.0),
    replace(_NUMBERS, loss=reconstruction, feedback_training_iterations=1, init="orthogonal-0"),
    _SHIBUYA,
)
"""Target propagation, without a correction, as FW-DTP's authors compare with.

Its first step is large and wants a small forward rate, since targets bring the errors of reconstruction along.
"""

SHIBUYA_DTP = Algorithm(CorrectedTargets(), replace(_NUMBERS, loss=reconstruction), _SHIBUYA)
"""Difference target propagation by the reconstruction loss, as FW-DTP's authors compare with."""

SHIBUYA_DRL = Algorithm(CorrectedTargets(), replace(_NUMBERS, loss=corrected_drl), _SHIBUYA)
"""Difference target propagation by what FW-DTP's authors call DRL: another loss than that of Meulemans et al. 2020."""

SHIBUYA_L_DRL = Algorithm(
    CorrectedTargets(), replace(_NUMBERS, loss=corrected_l_drl, b_optim=OptimizerSpec(lr=0.3)), _SHIBUYA
)
"""Difference target propagation by what FW-DTP's authors call L-DRL: another loss than that of Ernoult et al. 2022."""

ANALYTIC_DTP = Algorithm(
    DifferenceTargets(),
    Analytic(),
    Source(
        "Bao et al.",
        "Efficient Target Propagation by Deriving Analytical Solution",
        2024,
        "https://doi.org/10.1609/aaai.v38i10.28977",
        remark="only the abstract was read: the solution is derived here, and not verified to be theirs",
    ),
)
"""Feedback is set to the minimiser of L-DRL with linear feedback, for small noise; it reads the forward weights.

Derived here, and not verified to be what Bao et al. 2024 do. It is linear: targets are proportional to beta.
"""
