"""What `import targetprop` offers."""

from targetprop.algorithms import ALGORITHMS
from targetprop.algorithms.base import Algorithm
from targetprop.algorithms.dtp import AMORTISED_DTP, DTP, FIXED_DTP, LEE_DTP, PARALLEL_DTP, TP, VANILLA_DTP
from targetprop.algorithms.mirrors import DELTA_MIRROR, FEEDBACK_ALIGNMENT, KOLEN_POLLACK, WEIGHT_MIRROR
from targetprop.algorithms.shibuya import (
    ANALYTIC_DTP,
    FW_DTP,
    ITP,
    SHIBUYA_DRL,
    SHIBUYA_DTP,
    SHIBUYA_L_DRL,
    SHIBUYA_TP,
)
from targetprop.feedback.amortised import Amortised
from targetprop.feedback.analytic import Analytic
from targetprop.feedback.base import FeedbackLearning, FeedbackRule, OptimizerSpec
from targetprop.feedback.by_loss import ByLoss
from targetprop.feedback.delta_mirror import DeltaMirror
from targetprop.feedback.fixed import Fixed
from targetprop.feedback.fixed_weights import FixedWeights, Identity
from targetprop.feedback.kolen_pollack import KolenPollack
from targetprop.feedback.top_down import TopDown
from targetprop.feedback.weight_mirror import WeightMirror
from targetprop.layers.activation import register_elementwise
from targetprop.layers.base import FeedbackLayer, LayerRule, register
from targetprop.layers.lookup import rule_of
from targetprop.layers.residual import Residual
from targetprop.layers.shape import Reshape
from targetprop.layers.standardize import Standardize
from targetprop.learner import Learner, Trainable, explain
from targetprop.network.network import PairedNetwork
from targetprop.network.pair import Pair, Trace
from targetprop.network.passes import Pass
from targetprop.properties import Needs, Source
from targetprop.step import Step
from targetprop.targets.base import OutputSignal, TargetRule
from targetprop.targets.halves import CorrectedTargets, UncorrectedTargets
from targetprop.targets.layerwise import DifferenceTargets, PlainTargets
from targetprop.utils.errors import UserError
from targetprop.version import __version__

__all__ = [
    "ALGORITHMS",
    "AMORTISED_DTP",
    "ANALYTIC_DTP",
    "DELTA_MIRROR",
    "DTP",
    "FEEDBACK_ALIGNMENT",
    "FIXED_DTP",
    "FW_DTP",
    "ITP",
    "KOLEN_POLLACK",
    "LEE_DTP",
    "PARALLEL_DTP",
    "SHIBUYA_DRL",
    "SHIBUYA_DTP",
    "SHIBUYA_L_DRL",
    "SHIBUYA_TP",
    "TP",
    "VANILLA_DTP",
    "WEIGHT_MIRROR",
    "Algorithm",
    "Amortised",
    "Analytic",
    "ByLoss",
    "CorrectedTargets",
    "DeltaMirror",
    "DifferenceTargets",
    "FeedbackLayer",
    "FeedbackLearning",
    "FeedbackRule",
    "Fixed",
    "FixedWeights",
    "Identity",
    "KolenPollack",
    "LayerRule",
    "Learner",
    "Needs",
    "OptimizerSpec",
    "OutputSignal",
    "Pair",
    "PairedNetwork",
    "Pass",
    "PlainTargets",
    "Reshape",
    "Residual",
    "Source",
    "Standardize",
    "Step",
    "TargetRule",
    "TopDown",
    "Trace",
    "Trainable",
    "UncorrectedTargets",
    "UserError",
    "WeightMirror",
    "__version__",
    "explain",
    "register",
    "register_elementwise",
    "rule_of",
]
