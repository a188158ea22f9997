"""Layers that stand in several blocks, as in an unrolled network: measures leave them as they are, and see all uses."""

from __future__ import annotations

import torch
from foreign_networks import made
from torch import Tensor

from targetprop import Algorithm, DifferenceTargets, Fixed, Learner
from targetprop.measure.alignment import backprop_gradients, block_gradients

EXACT = Algorithm(DifferenceTargets(beta=0.5), Fixed(init_symmetric_weights=True, style="linear"))


def test_gradients_of_backprop_are_found_without_a_trace() -> None:
    network, x = made("RNN", torch.float64)
    learner = Learner(network, EXACT)
    before = list(network.parameters())

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return output.square().flatten(1).sum(1)

    learner.backward(loss(learner(x), x))
    found = backprop_gradients(learner.network, x, x, loss)
    assert all(a is b for a, b in zip(network.parameters(), before, strict=True))
    for mine, wanted in zip(block_gradients(learner.network), found, strict=True):
        assert float(wanted.norm()) > 0
        torch.testing.assert_close(2 * mine, wanted)
