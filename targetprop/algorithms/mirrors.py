"""Backprop with other weights in place of W^T: no target is formed, and none of them is target propagation."""

from __future__ import annotations

from targetprop.algorithms.base import Algorithm
from targetprop.feedback.delta_mirror import DeltaMirror
from targetprop.feedback.fixed import Fixed
from targetprop.feedback.kolen_pollack import KolenPollack
from targetprop.feedback.sign_symmetry import BatchwiseSignSymmetry, FixedSignSymmetry, UniformSignSymmetry
from targetprop.feedback.weight_mirror import WeightMirror
from targetprop.properties import Source
from targetprop.targets.layerwise import DifferenceTargets

KOLEN_POLLACK = Algorithm(
    DifferenceTargets(),
    KolenPollack(),
    Source(
        "Kolen and Pollack",
        "Backpropagation without weight transport",
        1994,
        "https://doi.org/10.1109/ICNN.1994.374486",
    ),
)
"""Feedback weights take the forward weights' updates (Kolen and Pollack 1994); a mirror, not target propagation."""

FEEDBACK_ALIGNMENT = Algorithm(
    DifferenceTargets(),
    Fixed(style="linear"),
    Source(
        "Lillicrap et al.",
        "Random synaptic feedback weights support error backpropagation for deep learning",
        2016,
        "https://doi.org/10.1038/ncomms13276",
    ),
)
"""Backprop with random weights in place of W^T (Lillicrap et al. 2016); a mirror of nothing, no target propagation."""

WEIGHT_MIRROR = Algorithm(
    DifferenceTargets(),
    WeightMirror(),
    Source("Akrout et al.", "Deep Learning without Weight Transport", 2019, "https://arxiv.org/abs/1904.05391"),
)
"""Feedback weights follow the forward weights by Hebb's rule on noise (Akrout et al. 2019); a mirror, no DTP."""

DELTA_MIRROR = Algorithm(DifferenceTargets(), DeltaMirror())
"""Feedback weights follow the forward weights by a delta rule on noise; a mirror, not target propagation."""

_LIAO = Source(
    "Liao et al.", "How Important Is Weight Symmetry in Backpropagation?", 2015, "https://arxiv.org/abs/1510.05067"
)

UNIFORM_SIGN_SYMMETRY = Algorithm(DifferenceTargets(), UniformSignSymmetry(), _LIAO)
"""Backprop with the signs of W^T, all of one magnitude (Liao et al. 2015); a mirror, not target propagation."""

BATCHWISE_SIGN_SYMMETRY = Algorithm(DifferenceTargets(), BatchwiseSignSymmetry(), _LIAO)
"""Backprop with the signs of W^T and magnitudes drawn for every batch (Liao et al. 2015); a mirror."""

FIXED_SIGN_SYMMETRY = Algorithm(DifferenceTargets(), FixedSignSymmetry(), _LIAO)
"""Backprop with the signs of W^T and magnitudes drawn once (Liao et al. 2015); a mirror."""
