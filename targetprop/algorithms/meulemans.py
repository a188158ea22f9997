"""The rules of "A Theoretical Framework for Target Propagation" (Meulemans et al. 2020), and those it compares with.

In all of them feedback takes one step of Adam a batch, after the targets; its loss is a mean over batch and units. What
the published code has otherwise than here is a matter of numbers:
- its target step stands before the gradient of the batch's mean loss: `beta` here is that step over the batch size;
- its local loss has no 1/2, and its Adam divides the rate by the target step: with Adam here, `f_optim.lr` is that
  quotient and `f_optim.eps` half the published one. Its convolutions' local loss is a mean over units, too: their eps
  is to be multiplied by the number of units as well, in a list per block.
"""

from __future__ import annotations

from targetprop.algorithms.base import Algorithm
from targetprop.feedback.after_targets import AfterTargets, DirectAfterTargets
from targetprop.feedback.base import OptimizerSpec
from targetprop.feedback.fixed import Untrained
from targetprop.feedback.losses import direct_drl, direct_reconstruction, drl, relative_reconstruction
from targetprop.properties import Source
from targetprop.targets.direct import DirectTargets, HiddenLayerTargets
from targetprop.targets.gauss_newton import GaussNewtonTargets
from targetprop.targets.layerwise import DifferenceTargets

_MEULEMANS = Source(
    "Meulemans et al.",
    "A Theoretical Framework for Target Propagation",
    2020,
    "https://arxiv.org/abs/2006.14331",
)


def _adam(rate: float) -> OptimizerSpec:
    """Whose decay is the paper's penalty on feedback weights; rates are our own, for the digits."""
    return OptimizerSpec("adam", rate, weight_decay=1e-5)


DRL = Algorithm(DifferenceTargets(), AfterTargets(drl, b_optim=_adam(3e-4)), _MEULEMANS)
"""Difference target propagation with the difference reconstruction loss (DTP-DRL)."""

DDTP_LINEAR = Algorithm(DirectTargets(), DirectAfterTargets(direct_drl, b_optim=_adam(3e-3)), _MEULEMANS)
"""Targets straight from the output by matrices that learn by the difference reconstruction loss."""

DDTP_RHL = Algorithm(HiddenLayerTargets(), DirectAfterTargets(direct_drl, b_optim=_adam(3e-4)), _MEULEMANS)
"""The same, by matrices behind a fixed random hidden layer that all blocks share."""

DDTP_CONTROL = Algorithm(
    DirectTargets(feedback_bias=True), DirectAfterTargets(direct_reconstruction, b_optim=_adam(1e-3)), _MEULEMANS
)
"""Targets as `DDTP_LINEAR`, by matrices that learn by a reconstruction loss without the difference."""

GAUSS_NEWTON = Algorithm(GaussNewtonTargets(), Untrained(), _MEULEMANS)
"""Targets by the pseudo-inverse of each sample's own Jacobian: what the other rules approximate (GNT)."""

MEULEMANS_DTP = Algorithm(
    DifferenceTargets(), AfterTargets(relative_reconstruction, b_optim=OptimizerSpec("adam", lr=1e-3)), _MEULEMANS
)
"""Difference target propagation with the reconstruction loss as this paper has it."""

MEULEMANS_LEE_DTP = Algorithm(DifferenceTargets(output_follows_loss=True), MEULEMANS_DTP.feedback, _MEULEMANS)
"""The same with targets from below the output block, which follows the loss. The published code has ReLU feedback."""

MEULEMANS_DFA = Algorithm(DirectTargets(), Untrained(), _MEULEMANS)
"""Direct feedback alignment as this paper runs it: targets by random matrices that do not learn."""
