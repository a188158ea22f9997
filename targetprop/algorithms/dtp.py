"""Difference target propagation with feedback that learns block by block, and what is nearest to it."""

from __future__ import annotations

from targetprop.algorithms.base import Algorithm
from targetprop.feedback.amortised import Amortised
from targetprop.feedback.base import OptimizerSpec
from targetprop.feedback.by_loss import ByLoss
from targetprop.feedback.fixed import Fixed
from targetprop.feedback.losses import l_drl, reconstruction
from targetprop.properties import Source
from targetprop.targets.layerwise import DifferenceTargets, PlainTargets

_ERNOULT = Source(
    "Ernoult et al.",
    "Towards Scaling Difference Target Propagation by Learning Backprop Targets",
    2022,
    "https://arxiv.org/abs/2201.13415",
)

_LEE = Source("Lee et al.", "Difference Target Propagation", 2015, "https://arxiv.org/abs/1412.7525")

DTP = Algorithm(DifferenceTargets(), ByLoss(l_drl), _ERNOULT)
"""Difference target propagation with the local difference reconstruction loss (Ernoult et al. 2022)."""

AMORTISED_DTP = Algorithm(DifferenceTargets(), Amortised())
"""Difference target propagation whose feedback learns, from a little noise a batch, what L-DRL drives it towards."""

PARALLEL_DTP = Algorithm(
    DifferenceTargets(),
    ByLoss(
        l_drl, feedback_training_iterations=1, noise_samples=10, b_optim=OptimizerSpec("adam", 3e-4, weight_decay=1e-4)
    ),
    _ERNOULT,
)
"""L-DRL with one feedback update a batch, on the mean of several noise samples (Ernoult et al. 2022)."""

VANILLA_DTP = Algorithm(DifferenceTargets(), ByLoss(reconstruction, b_optim=OptimizerSpec(lr=4e-4, momentum=0.9)), _LEE)
"""Difference target propagation with the reconstruction loss (Lee et al. 2015), otherwise as `DTP`."""

LEE_DTP = Algorithm(
    DifferenceTargets(output_follows_loss=True),
    ByLoss(reconstruction, feedback_training_iterations=1, style="lee"),
    _LEE,
)
"""Difference target propagation as Lee et al. 2015 define it: their feedback; targets start below the output block."""

TP = Algorithm(
    PlainTargets(beta=3.0),
    ByLoss(reconstruction, b_optim=OptimizerSpec("adam", lr=3e-3)),
    Source(
        "Bengio",
        "How Auto-Encoders Could Provide Credit Assignment in Deep Networks via Target Propagation",
        2014,
        "https://arxiv.org/abs/1407.7906",
    ),
)
"""Target propagation (Bengio 2014). Its first step is large, since targets bring the errors of reconstruction along."""

FIXED_DTP = Algorithm(DifferenceTargets(), Fixed())
"""Difference target propagation by feedback weights that stay at random."""
