"""Activations of one block at a time: memory that does not grow with depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from targetprop.layers.graph import title_of
from targetprop.layers.lookup import layers_in, rule_of
from targetprop.network.passes import Pass
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.learner import Learner
    from targetprop.network.network import PairedNetwork
    from targetprop.network.pair import Trace
    from targetprop.noise import NoiseSource


class RecomputedPass(Pass):
    """Keeps the batch alone; activations of each block are computed anew from it, in blocks / 2 times the passes."""

    def __init__(self, network: PairedNetwork, x: Tensor, noise: NoiseSource, step: int) -> None:
        super().__init__(network, x, noise, step)
        self._held: tuple[int, Trace] | None = None
        with torch.no_grad():
            self.output = network(x)

    def trace(self, block: int) -> Trace:
        if self._held is None or self._held[0] != block:
            self._held = None  # let go before the next one is made
            with torch.enable_grad():
                self._held = block, self.network.trace_block(self.x, block)
        return self._held[1]

    def release(self, block: int) -> None:
        self.at_map.pop(block, None)
        if self._held is not None and self._held[0] == block:
            self._held = None


def recomputed(learner: Learner) -> Learner:
    """Have a learner keep no activations; the results are the same.

    >>> learner = recomputed(Learner(network))

    Raises:
        UserError: a layer does not give the same activations twice.
    """
    for pair in learner.network.pairs:
        for layer in layers_in(pair.block):
            if rule_of(layer).facts(layer).varies:
                raise UserError(
                    f"block {pair.name}: {title_of(layer)} does not give the same activations twice.", key="network"
                )
    learner.keep_pass = RecomputedPass
    return learner
