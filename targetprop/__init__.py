"""Train deep networks by target propagation instead of backprop."""

from targetprop.encoding import encode
from targetprop.errors import UserError
from targetprop.layers import Reshape
from targetprop.learner import Learner
from targetprop.network import PairedNetwork, Trace
from targetprop.pair import Pair
from targetprop.recipes import AMORTISED_DTP, DTP, LEE_DTP, TP, VANILLA_DTP, OptimizerSpec, Recipe
from targetprop.residual import Residual
from targetprop.step import Step
from targetprop.twins import Twin, register_twin, twin_of
from targetprop.updates import explain

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
