"""Feedback weights in closed form: the minimiser of L-DRL with linear feedback, for small noise.

With linear feedback G(y) = V y of a block F, and input and output noise of the same small size, the loss is in the mean
over the noise, but for a factor and a constant, the batch mean of ||V - J^T||^2, J the Jacobian of F. For F = act(W x)
it is least at the batch mean of W^T diag(act'(W x)). For convolutions, means over positions, too, it is so but for the
border that padding makes. With pooling it is the minimiser for the windows of the clean pass, and so not quite that of
L-DRL, whose noise moves maxima; where windows are averaged it is one for each unit by itself.

This is derived here. Bao et al., "Efficient Target Propagation by Deriving Analytical Solution", AAAI 2024,
https://doi.org/10.1609/aaai.v38i10.28977, publish an analytic solution of a loss that matches Jacobians; only their
abstract could be read, and it is not verified that this is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from targetprop.feedback.base import FeedbackLearning, FeedbackRule
from targetprop.layers.base import Style
from targetprop.noise import NoiseKey
from targetprop.properties import Needs
from targetprop.utils.errors import UserError
from targetprop.utils.precision import wide

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.pair import Pair
    from targetprop.network.passes import Pass, Scope


@dataclass(frozen=True)
class Analytic(FeedbackRule):
    """On every batch V = W^T diag(g), g the batch mean of the slopes: it reads the forward weights."""

    style: Style = field(default="map", init=False)
    styles: ClassVar[frozenset[Style]] = frozenset({"map"})

    @property
    def scope(self) -> Scope:
        return "block"

    @property
    def needs(self) -> Needs:
        return Needs(frozenset({"weights"}))

    def start(self, network: PairedNetwork) -> AnalyticLearning:
        for pair in network.trained:
            _check(pair)
        return AnalyticLearning(network)


class AnalyticLearning(FeedbackLearning):
    """Sets the feedback weights; there is no state."""

    @torch.no_grad()
    def learn(self, seen: Pass, block: int) -> Tensor:
        pair = self.network.pairs[block]
        _check(pair)
        assert pair.linear is not None
        held = pair.linear.map
        if held.weight.requires_grad:
            found, weight = held.forward_map, pair.linear.layer.weight
            assert isinstance(weight, Tensor)
            gains = mean_slopes(seen, block)
            held.transposed.copy_(found.from_matrix(gains[..., None] * found.matrix(weight)))
        return self.no_loss(seen, block)

    def explain(self, block: int) -> str:
        part = self.network.pairs[block].linear
        if part is None or part.map.weight.requires_grad:
            return "closed form, W^T times mean slopes"
        return "feedback stays as it is, its weights are frozen"


def mean_slopes(seen: Pass, block: int) -> Tensor:
    """For each unit or channel of a block's linear map, the mean slope of what stands behind it, (groups, units).

    Means are over the batch and those positions that pooling lets through. They are found with random signs d at the
    block's output as <J^T d, P d> / ||P d||^2 per channel, J^T down to the map, P without activation and norm: exact
    whatever the signs where no two outputs see the same unit.
    """
    pair, trace = seen.network.pairs[block], seen.trace(block).detach()
    part, chain = pair.linear, pair.chain
    assert part is not None
    assert chain is not None
    signs = seen.noise(NoiseKey(seen.step, block, 0, "white"), trace.y).sign()
    down = signs
    for i in range(len(chain.rule.layers) - 1, chain.position, -1):
        down = chain.rule.rules[i].vjp(chain.rule.layers[i], down, trace.context[i])
    found = part.map.forward_map
    across = found.rows(part.features(signs, trace.context).to(wide(signs.dtype)))
    power = across.square().sum(1)
    return (found.rows(down.to(wide(signs.dtype))) * across).sum(1) / power.clamp_min(torch.finfo(power.dtype).tiny)


def _check(pair: Pair) -> None:
    if pair.linear is None or pair.chain is None:
        raise UserError(
            f"block {pair.name}: the closed form of its feedback needs one linear map with weights, and behind it "
            "layers whose slopes are known; use another rule, such as 'dtp'.",
            key="network",
        )
