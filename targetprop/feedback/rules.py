"""The mathematics, pure: no state, no trainer, no global random numbers. Each function cites its equation.

Notation: s^n = F^n(s^{n-1}) are activations, t^n targets, G^n the feedback of block n. Losses are sums over
units and means over the batch.
"""

from targetprop.feedback.closed_form import l_drl_gradient
from targetprop.feedback.expected import OutputNoise, output_noise
from targetprop.feedback.kolen_pollack import mirror_gradient
from targetprop.feedback.losses import Draw, FeedbackLoss, l_drl, reconstruction
from targetprop.local import add_local_gradients, local_loss
from targetprop.targets import Propagation, adjoint_difference, difference, direct, output_difference

__all__ = [
    "Draw",
    "FeedbackLoss",
    "OutputNoise",
    "Propagation",
    "add_local_gradients",
    "adjoint_difference",
    "difference",
    "direct",
    "l_drl",
    "l_drl_gradient",
    "local_loss",
    "mirror_gradient",
    "output_difference",
    "output_noise",
    "reconstruction",
]
