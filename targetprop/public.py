"""What `import targetprop` offers."""

from targetprop.algorithms import ALGORITHMS
from targetprop.algorithms.base import Algorithm
from targetprop.algorithms.dtp import AMORTISED_DTP, DTP, FIXED_DTP, LEE_DTP, PARALLEL_DTP, TP, VANILLA_DTP
from targetprop.algorithms.gait_prop import GAIT_PROP
from targetprop.algorithms.meulemans import (
    DDTP_CONTROL,
    DDTP_LINEAR,
    DDTP_RHL,
    DRL,
    GAUSS_NEWTON,
    MEULEMANS_DFA,
    MEULEMANS_DTP,
    MEULEMANS_LEE_DTP,
)
from targetprop.algorithms.mirrors import (
    BATCHWISE_SIGN_SYMMETRY,
    DELTA_MIRROR,
    FEEDBACK_ALIGNMENT,
    FIXED_SIGN_SYMMETRY,
    KOLEN_POLLACK,
    UNIFORM_SIGN_SYMMETRY,
    WEIGHT_MIRROR,
)
from targetprop.algorithms.projections import DIRECT_FEEDBACK_ALIGNMENT, DRTP
from targetprop.algorithms.shibuya import (
    ANALYTIC_DTP,
    FW_DTP,
    ITP,
    SHIBUYA_DRL,
    SHIBUYA_DTP,
    SHIBUYA_L_DRL,
    SHIBUYA_TP,
)
from targetprop.feedback.after_targets import AfterTargets, DirectAfterTargets
from targetprop.feedback.amortised import Amortised
from targetprop.feedback.analytic import Analytic
from targetprop.feedback.base import FeedbackLearning, FeedbackRule, OptimizerSpec
from targetprop.feedback.by_loss import ByLoss
from targetprop.feedback.delta_mirror import DeltaMirror
from targetprop.feedback.fixed import Fixed
from targetprop.feedback.fixed_weights import FixedWeights, Identity
from targetprop.feedback.kolen_pollack import KolenPollack
from targetprop.feedback.orthogonal import NearlyOrthogonal
from targetprop.feedback.sign_symmetry import BatchwiseSignSymmetry, FixedSignSymmetry, UniformSignSymmetry
from targetprop.feedback.top_down import TopDown
from targetprop.feedback.weight_mirror import WeightMirror
from targetprop.layers.activation import register_elementwise
from targetprop.layers.base import FeedbackLayer, LayerRule, register
from targetprop.layers.fixed import FirstUnits
from targetprop.layers.lookup import rule_of
from targetprop.layers.residual import Residual
from targetprop.layers.shape import Reshape
from targetprop.layers.standardize import Standardize
from targetprop.learner import Learner, explain
from targetprop.learners import LEARNERS
from targetprop.learners.base import LearnerRule
from targetprop.learners.counter_current import CounterCurrent
from targetprop.learners.lra_e import LRAE
from targetprop.learners.tpri import TPRI, TPRILinearized
from targetprop.learners.tptt import TPTT
from targetprop.loops.hooked import hooked
from targetprop.loops.lightning import LightningMixin
from targetprop.loops.tensors import state_in_tensors
from targetprop.network.network import PairedNetwork
from targetprop.network.pair import Pair, Trace
from targetprop.network.passes import Pass
from targetprop.network.shapes import Blocks
from targetprop.properties import Needs, Source
from targetprop.step import Step
from targetprop.targets.base import OutputSignal, TargetRule
from targetprop.targets.direct import DirectTargets, HiddenLayerTargets
from targetprop.targets.gauss_newton import GaussNewtonTargets
from targetprop.targets.halves import CorrectedTargets, UncorrectedTargets
from targetprop.targets.inverse import InverseTargets
from targetprop.targets.layerwise import DifferenceTargets, PlainTargets
from targetprop.targets.projections import DirectErrors, DirectLabels
from targetprop.trainable import Trainable
from targetprop.utils.errors import UserError
from targetprop.utils.losses import token_cross_entropy
from targetprop.version import __version__

__all__ = [
    "ALGORITHMS",
    "AMORTISED_DTP",
    "ANALYTIC_DTP",
    "BATCHWISE_SIGN_SYMMETRY",
    "DDTP_CONTROL",
    "DDTP_LINEAR",
    "DDTP_RHL",
    "DELTA_MIRROR",
    "DIRECT_FEEDBACK_ALIGNMENT",
    "DRL",
    "DRTP",
    "DTP",
    "FEEDBACK_ALIGNMENT",
    "FIXED_DTP",
    "FIXED_SIGN_SYMMETRY",
    "FW_DTP",
    "GAIT_PROP",
    "GAUSS_NEWTON",
    "ITP",
    "KOLEN_POLLACK",
    "LEARNERS",
    "LEE_DTP",
    "LRAE",
    "MEULEMANS_DFA",
    "MEULEMANS_DTP",
    "MEULEMANS_LEE_DTP",
    "PARALLEL_DTP",
    "SHIBUYA_DRL",
    "SHIBUYA_DTP",
    "SHIBUYA_L_DRL",
    "SHIBUYA_TP",
    "TP",
    "TPRI",
    "TPTT",
    "UNIFORM_SIGN_SYMMETRY",
    "VANILLA_DTP",
    "WEIGHT_MIRROR",
    "AfterTargets",
    "Algorithm",
    "Amortised",
    "Analytic",
    "BatchwiseSignSymmetry",
    "Blocks",
    "ByLoss",
    "CorrectedTargets",
    "CounterCurrent",
    "DeltaMirror",
    "DifferenceTargets",
    "DirectAfterTargets",
    "DirectErrors",
    "DirectLabels",
    "DirectTargets",
    "FeedbackLayer",
    "FeedbackLearning",
    "FeedbackRule",
    "FirstUnits",
    "Fixed",
    "FixedSignSymmetry",
    "FixedWeights",
    "GaussNewtonTargets",
    "HiddenLayerTargets",
    "Identity",
    "InverseTargets",
    "KolenPollack",
    "LayerRule",
    "Learner",
    "LearnerRule",
    "LightningMixin",
    "NearlyOrthogonal",
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
    "TPRILinearized",
    "TargetRule",
    "TopDown",
    "Trace",
    "Trainable",
    "UncorrectedTargets",
    "UniformSignSymmetry",
    "UserError",
    "WeightMirror",
    "__version__",
    "explain",
    "hooked",
    "register",
    "register_elementwise",
    "rule_of",
    "state_in_tensors",
    "token_cross_entropy",
]
