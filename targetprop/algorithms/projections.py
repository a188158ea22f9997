"""Errors or labels straight to hidden blocks by random matrices; none of this is target propagation."""

from __future__ import annotations

from targetprop.algorithms.base import Algorithm
from targetprop.feedback.fixed import Untrained
from targetprop.properties import Source
from targetprop.targets.projections import DirectErrors, DirectLabels

DIRECT_FEEDBACK_ALIGNMENT = Algorithm(
    DirectErrors(),
    Untrained(),
    Source(
        "Nøkland",
        "Direct Feedback Alignment Provides Learning in Deep Neural Networks",
        2016,
        "https://arxiv.org/abs/1609.01596",
    ),
)
"""The output's error straight to every hidden block by a random matrix (Nøkland 2016)."""

DRTP = Algorithm(
    DirectLabels(),
    Untrained(),
    Source(
        "Frenkel et al.",
        "Learning without feedback: Direct random target projection as a feedback-alignment algorithm with layerwise "
        "feedforward training",
        2019,
        "https://arxiv.org/abs/1909.01311",
    ),
)
"""The labels straight to every hidden block by a random matrix (Frenkel et al. 2019)."""
