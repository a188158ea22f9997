"""All algorithms, by name; those of a family stand in one file."""

from __future__ import annotations

from collections.abc import Mapping

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
from targetprop.utils.errors import unknown

ALGORITHMS: Mapping[str, Algorithm] = {
    "dtp": DTP,
    "amortised_dtp": AMORTISED_DTP,
    "parallel_dtp": PARALLEL_DTP,
    "vanilla_dtp": VANILLA_DTP,
    "lee_dtp": LEE_DTP,
    "tp": TP,
    "fixed_dtp": FIXED_DTP,
    "feedback_alignment": FEEDBACK_ALIGNMENT,
    "kolen_pollack": KOLEN_POLLACK,
    "weight_mirror": WEIGHT_MIRROR,
    "delta_mirror": DELTA_MIRROR,
    "uniform_sign_symmetry": UNIFORM_SIGN_SYMMETRY,
    "batchwise_sign_symmetry": BATCHWISE_SIGN_SYMMETRY,
    "fixed_sign_symmetry": FIXED_SIGN_SYMMETRY,
    "gait_prop": GAIT_PROP,
    "direct_feedback_alignment": DIRECT_FEEDBACK_ALIGNMENT,
    "drtp": DRTP,
    "drl": DRL,
    "ddtp_linear": DDTP_LINEAR,
    "ddtp_rhl": DDTP_RHL,
    "ddtp_control": DDTP_CONTROL,
    "gauss_newton": GAUSS_NEWTON,
    "meulemans_dtp": MEULEMANS_DTP,
    "meulemans_lee_dtp": MEULEMANS_LEE_DTP,
    "meulemans_dfa": MEULEMANS_DFA,
    "fw_dtp": FW_DTP,
    "itp": ITP,
    "shibuya_tp": SHIBUYA_TP,
    "shibuya_dtp": SHIBUYA_DTP,
    "shibuya_drl": SHIBUYA_DRL,
    "shibuya_l_drl": SHIBUYA_L_DRL,
    "analytic_dtp": ANALYTIC_DTP,
}
"""Algorithms by name."""


def named(name: str) -> Algorithm:
    """An algorithm by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]
