"""Algorithms by name, for tests that take them all: on which networks they train, and whether their feedback learns."""

from __future__ import annotations

from targetprop import ALGORITHMS, FixedSignSymmetry, UniformSignSymmetry
from targetprop.feedback.fixed import Fixed, Untrained
from targetprop.feedback.fixed_weights import FixedWeights, Identity
from targetprop.feedback.orthogonal import NearlyOrthogonal

OWN_NETWORK = {"gait_prop": "invertible_mlp", "counter_current": "mlp", "lra_e": "mlp", "tptt": "rnn", "tpri": "rnn",
               "tpri_linearized": "rnn"}  # fmt: skip
"""The network of those that train no other, or no convolution."""
GENERAL = [name for name in ALGORITHMS if name not in OWN_NETWORK]
"""Those that train any network."""
BY_LOSS_ALONE = [name for name in GENERAL if "labels" not in ALGORITHMS[name].needs.transports]
"""Of these, those that need to be told nothing but the loss."""
STILL = (Fixed, FixedWeights, Identity, Untrained, NearlyOrthogonal, UniformSignSymmetry, FixedSignSymmetry)
"""Rules whose feedback does not change with every batch."""
LEARNING = [name for name in BY_LOSS_ALONE if not isinstance(ALGORITHMS[name].feedback, STILL)]
"""Of these, those whose feedback does."""
