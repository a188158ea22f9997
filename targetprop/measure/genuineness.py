"""Is it target propagation, or backprop under another name? One number for each block tells."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from targetprop.measure.probe import MOST, Probe, by_block, in_float64
from targetprop.network.passes import StoredPass
from targetprop.noise import GaussianNoise
from targetprop.targets.base import OutputSignal, TargetRule
from targetprop.targets.from_output import FromOutput
from targetprop.targets.layerwise import LayerwiseTargets

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from targetprop.network.network import PairedNetwork

SMALLER = 100
"""By what beta is divided for comparison."""


def genuineness(probe: Probe) -> dict[str, float]:
    """`nonlinearity` of each block, over the samples of a batch together (at most 128), without a unit.

    Zero of backprop by another name: see the function `nonlinearity`. Costs a pass and two sweeps of the samples in
    float64, and a copy of the network.
    """
    found = nonlinear_power(probe.learner.network, probe.layerwise, probe.x[:MOST], probe.loss_of)
    assert found is not None
    probe.average([found])
    return by_block("nonlinearity", dict(enumerate(ratio(found))))


def nonlinearity(
    network: PairedNetwork, targets: TargetRule, x: Tensor, loss: Callable[[Tensor], Tensor]
) -> list[Tensor] | None:
    """How far the target of every block is from a linear function of the output's error.

    With d(b) the difference of a block's target to its output at the step size b of the output target,

        ||d(b) / b - d(b / 100) / (b / 100)|| / ||d(b) / b||

    at the run's own b. Where errors are carried down by slopes of the clean pass it is zero, whatever the feedback
    weights are: the update is then b times backprop with other weights, and b is a second name for the learning rate.
    So it is where targets come straight from the output by a matrix, or by each sample's Jacobian.
    It is zero, too, for the blocks above which there is no activation: for the output block, and mostly the one below.

    Everything is computed in float64 on a copy of the network. No feedback learns here.

    Args:
        targets: the rule by which the network is trained, with its beta.
        x: a batch, (batch, ...).
        loss: one value per sample of the output, (batch,), or their mean.

    Returns:
        A scalar for each block, in forward order; None for a rule whose targets have no such step size.
    """
    found = nonlinear_power(network, targets, x, loss)
    return None if found is None else list(ratio(found))


def nonlinear_power(
    network: PairedNetwork, targets: TargetRule, x: Tensor, loss: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """Squares of the numerator and of the denominator of `nonlinearity`, (blocks, 2), which add up over batches."""
    if not isinstance(targets, LayerwiseTargets | FromOutput):
        return None
    network = deepcopy(network).double()
    with torch.random.fork_rng([x.device] if x.is_cuda else []), torch.enable_grad():
        seen = StoredPass(network, in_float64(x), GaussianNoise(0), 0)
        output = seen.output.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(output).mean(), output)
    signal = OutputSignal(gradient * len(x))
    with torch.no_grad():
        at_beta, at_less = (
            dict(replace(targets, beta=beta).sweep(seen, signal)) for beta in (targets.beta, targets.beta / SMALLER)
        )
        if isinstance(targets, LayerwiseTargets) and targets.output_follows_loss:
            at_less[len(at_less) - 1] /= SMALLER  # the output block knows no step size
        pairs = [(at_beta[n] - SMALLER * at_less[n], at_beta[n]) for n in range(len(network.pairs))]
        return torch.stack([torch.stack([each.square().sum() for each in pair]) for pair in pairs])


def ratio(power: Tensor) -> Tensor:
    """Of what `nonlinear_power` gave, `nonlinearity` of each block, (blocks,); zero where nothing comes down."""
    nonlinear, whole = power.unbind(1)
    return torch.where(whole > 0, (nonlinear / whole).sqrt(), 0.0)
