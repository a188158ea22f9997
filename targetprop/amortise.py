"""Amortised feedback learning of a network: who gets how much noise, and the updates of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from targetprop.linear_part import LinearPart
from targetprop.network import PairedNetwork, Trace
from targetprop.noise import Kind
from targetprop.rules.amortised import Allocation, allocate, delta_rule, map_shape, shaped_delta_rule, warm_up

DrawOf = Callable[[int, Kind, Tensor], Tensor]
"""(repetition, kind, like) -> standard-normal noise."""


@dataclass(frozen=True)
class Plan:
    """The noise of every pair that learns so, by its index: of a batch, and of the first batch with its repetitions."""

    allocations: Mapping[int, Allocation]
    warm_allocations: Mapping[int, Allocation]
    warm_times: int


def make_plan(network: PairedNetwork, parts: Mapping[int, LinearPart], traces: Sequence[Trace], budget: float) -> Plan:
    """The plan for batches of this shape; it depends on shapes only.

    Args:
        parts: of the pairs that learn so, by index.
        budget: multiply-adds of a batch's feedback learning, as a share of those of a backprop step.
    """
    if not parts:
        return Plan({}, {}, 0)
    shapes = [map_shape(part, part.map_input(traces[i].x, traces[i].context)) for i, part in parts.items()]
    allocations = allocate(shapes, backprop_cost(network, traces[0].x), budget)
    warm_allocations, warm_times = warm_up(shapes)
    by_index, warm_by_index = (dict(zip(parts, each, strict=True)) for each in (allocations, warm_allocations))
    return Plan(by_index, warm_by_index, warm_times)


@torch.no_grad()
def backprop_cost(network: PairedNetwork, x: Tensor) -> float:
    """Multiply-adds of backprop on a batch: three passes through each map, but no gradient for the input."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    with FlopCounterMode(display=False) as whole:
        network(x[:1])
    with FlopCounterMode(display=False) as first:
        network.pairs[0].block(x[:1])
    for module, training in modes.items():
        module.training = training
    return len(x) * (3 * whole.get_total_flops() - first.get_total_flops()) / 2


@torch.no_grad()
def learn_amortised(part: LinearPart, trace: Trace, allocation: Allocation, times: int, draw: DrawOf) -> Tensor:
    """Update V `times` times; returns the share of the response that V did not predict the last time."""
    x = part.map_input(trace.x, trace.context)
    order = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    shape = (allocation.rows, *x.shape[1:])
    isotropic = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order)
    mixing = x.new_empty(allocation.mixtures, len(x))
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
