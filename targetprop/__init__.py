"""Train deep networks by target propagation instead of backprop."""

from targetprop.algorithms import AMORTISED_DTP, DTP, LEE_DTP, TP, VANILLA_DTP, OptimizerSpec, Recipe
from targetprop.feedback.updates import explain
from targetprop.layers.encoding import encode
from targetprop.layers.residual import Residual
from targetprop.layers.shape import Reshape
from targetprop.layers.twins import Twin, register_twin, twin_of
from targetprop.learner import Learner
from targetprop.network.network import PairedNetwork, Trace
from targetprop.network.pair import Pair
from targetprop.step import Step
from targetprop.utils.errors import UserError

__version__ = "0.1.0"

__all__ = [
    "AMORTISED_DTP",
    "DTP",
    "LEE_DTP",
    "TP",
    "VANILLA_DTP",
    "Learner",
    "OptimizerSpec",
    "Pair",
    "PairedNetwork",
    "Recipe",
    "Reshape",
    "Residual",
    "Step",
    "Trace",
    "Twin",
    "UserError",
    "encode",
    "explain",
    "register_twin",
    "twin_of",
]
