"""Learners in loops that other people wrote: `loss.backward()` as a step, modules of Lightning, states in tensors.

Nothing here imports a loop's package: what a loop calls is known by its name.
"""

from targetprop.loops.hooked import hooked
from targetprop.loops.lightning import LightningMixin
from targetprop.loops.tensors import state_in_tensors

__all__ = ["LightningMixin", "hooked", "state_in_tensors"]
