"""Amortised feedback learning of a network: who gets how much noise, and the updates of a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from targetprop.linear_part import LinearPart
from targetprop.network import PairedNetwork, Trace
from targetprop.noise import Kind
from targetprop.rules.amortised import Allocation, allocate, delta_rule, map_shape, shaped_delta_rule

DrawOf = Callable[[int, Kind, Tensor], Tensor]
"""(repetition, kind, like) -> standard-normal noise."""


@dataclass(frozen=True)
class Plan:
    """The noise of every pair with a linear part, by its index, and how often to repeat it on the first batch."""

    allocations: dict[int, Allocation]
    warm: int


def make_plan(network: PairedNetwork, traces: Sequence[Trace], budget: float) -> Plan:
    """The plan for batches of this shape; it depends on shapes only."""
    parts = {i: pair.linear for i, pair in enumerate(network.pairs) if isinstance(pair.linear, LinearPart)}
    shapes = [map_shape(part, part.map_input(traces[i].x, traces[i].context)) for i, part in parts.items()]
    if not shapes:
        return Plan({}, 0)
    allocations, warm = allocate(shapes, backprop_cost(network, traces[0].x), budget)
    return Plan(dict(zip(parts, allocations, strict=True)), warm)


def backprop_cost(network: PairedNetwork, x: Tensor) -> float:
    """Multiply-adds of backprop on a batch: three passes through each map, but no gradient for the input."""
    shadow, x = copy.deepcopy(network).to("meta").eval(), x.to("meta")
    with FlopCounterMode(display=False) as whole:
        shadow(x)
    with FlopCounterMode(display=False) as first:
        shadow.pairs[0].block(x)
    return (3 * whole.get_total_flops() - first.get_total_flops()) / 2


@torch.no_grad()
def learn_amortised(part: LinearPart, trace: Trace, allocation: Allocation, times: int, draw: DrawOf) -> Tensor:
    """Update V `times` times; returns the share of the response that V did not predict the last time."""
    x = part.map_input(trace.x, trace.context)
    isotropic, mixing = x.new_empty(allocation.rows, *x.shape[1:]), x.new_empty(allocation.mixtures, len(x))
    if x.dim() == 4:
        isotropic = isotropic.contiguous(memory_format=torch.channels_last)
    left = x.new_zeros(())
    for repetition in range(times):
        change, left = delta_rule(part, draw(repetition, "input", isotropic), allocation.step)
        part.map.map.weight += change
        part.map.map.weight += shaped_delta_rule(part, _mixtures(draw(repetition, "mixture", mixing), x))
    return left


def _mixtures(weights: Tensor, x: Tensor) -> Tensor:
    """Weighted sums of the samples of x: (mixtures, batch) and (batch, ...) to (mixtures, ...), in the order of x."""
    if x.dim() == 4:
        memory = x.permute(0, 2, 3, 1)
        return (weights @ memory.flatten(1)).unflatten(1, memory.shape[1:]).permute(0, 3, 1, 2)
    return (weights @ x.flatten(1)).unflatten(1, x.shape[1:])
