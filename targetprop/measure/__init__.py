"""What is measured beside the training, without touching it."""

from targetprop.measure.alignment import (
    angle,
    backprop_gradients,
    block_gradients,
    feedback_angles,
    feedback_distances,
    norm_ratio,
)
from targetprop.measure.genuineness import nonlinearity

__all__ = [
    "angle",
    "backprop_gradients",
    "block_gradients",
    "feedback_angles",
    "feedback_distances",
    "nonlinearity",
    "norm_ratio",
]
