"""What is measured beside the training, without touching it."""

from targetprop.measure.alignment import (
    angle,
    backprop,
    backprop_gradients,
    block_gradients,
    feedback_angles,
    feedback_distances,
    feedback_weights,
    norm_ratio,
)
from targetprop.measure.gauss_newton import gauss_newton, gauss_newton_targets
from targetprop.measure.genuineness import genuineness, nonlinearity
from targetprop.measure.jacobians import inverse, transpose
from targetprop.measure.probe import InapplicableError, Probe
from targetprop.measure.rank import effective_rank, rank
from targetprop.measure.reach import reach, reconstruction
from targetprop.measure.registry import MEASURES, Measure, measure
from targetprop.measure.shares import time_share

__all__ = [
    "MEASURES",
    "InapplicableError",
    "Measure",
    "Probe",
    "angle",
    "backprop",
    "backprop_gradients",
    "block_gradients",
    "effective_rank",
    "feedback_angles",
    "feedback_distances",
    "feedback_weights",
    "gauss_newton",
    "gauss_newton_targets",
    "genuineness",
    "inverse",
    "measure",
    "nonlinearity",
    "norm_ratio",
    "rank",
    "reach",
    "reconstruction",
    "time_share",
    "transpose",
]
