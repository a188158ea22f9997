"""Amortised feedback learning of a network: who gets how much noise in a batch, and the updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from math import radians, tan
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from targetprop.feedback.amortised import (
    Allocation,
    MapShape,
    allocate,
    delta_rule,
    map_shape,
    warm_up,
)
from targetprop.network.linear_feedback import FeedbackMap
from targetprop.network.network import PairedNetwork, Trace
from targetprop.noise import Kind, NoiseKey, NoiseSource

EVERY = 32
"""Steps between two decisions about effort: the only moments at which anything waits for the device."""
LEAST, MOST = 1 / 8, 4.0
"""Effort of a pair, relative to an equal share of the budget; halved and doubled between these."""
POOR = tan(radians(2)) ** 2
"""Share of the response left over from which a pair gets more noise: feedback 2 degrees from the forward weights."""
GOOD = POOR / 4
"""Share below which it gets less."""
FEW = 2
"""Samples that tell the shapes; one would be too few for a norm without running statistics."""

_T = TypeVar("_T")


@dataclass
class Shapes:
    """What a plan needs to know of the network on batches of one shape."""

    maps: list[MapShape]
    backprop: float
    warm_allocations: list[Allocation]
    warm_times: int
    plans: dict[tuple[float, ...], list[Allocation]] = field(default_factory=dict)  # kept: CUDA graphs read them


class Amortised:
    """The feedback of all pairs of a network that learn by the amortised rule.

    Effort is decided from the residuals, which cost nothing extra, every `EVERY` steps; in between, plans are fixed.
    Everything is counted in multiply-adds, never in seconds: the same seed gives the same run.

    Args:
        maps: the linear maps of the pairs, by index of the pair. Each learns by itself, with the effort of its pair.
        budget: multiply-adds of a batch's feedback learning, as a share of those of a backprop step. Over it go only
            the first batch, one sample of each noise that a pair gets in any case, and narrow maps (`HEAD_SHARE`).
        adaptive: False keeps every pair at an equal share of the whole budget.
    """

    def __init__(
        self,
        network: PairedNetwork,
        maps: Mapping[int, Sequence[FeedbackMap]],
        budget: float,
        *,
        adaptive: bool = True,
    ) -> None:
        self.network = network
        self.maps = maps
        self.budget = budget
        self.adaptive = adaptive
        self.efforts = [1.0] * len(maps)
        self._left: Tensor | None = None  # sums of residual shares since the last decision
        self._shapes: dict[tuple[torch.Size, torch.device], Shapes] = {}
        self._step, self._times = 0, 1
        self._plan: dict[int, list[Allocation]] = {}
        for each in self._flat():
            torch.nn.init.zeros_(each.map.map.weight)

    def begin(self, x: Tensor, step: int) -> None:
        """Before the updates of a step, with the batch that the network saw, (batch, ...)."""
        if self.maps:
            shapes = self._shapes_for(x)
            plan = self.plan(shapes) if step else shapes.warm_allocations
            self._plan = self._by_block(plan)
            self._times = 1 if step else shapes.warm_times
        self._step = step

    def learn(self, block: int, trace: Trace, noise: NoiseSource) -> Tensor:
        """Update a pair's maps; returns the share of the response to noise that they did not predict, their mean."""
        maps, shares = self.maps[block], []
        for number, (each, allocation) in enumerate(zip(maps, self._plan[block], strict=True)):

            def draw(repetition: int, kind: Kind, like: Tensor, number: int = number) -> Tensor:
                return noise(NoiseKey(self._step, block, repetition * len(maps) + number, kind), like)

            shares.append(_learn(each, trace, allocation, self._times, draw))
        return shares[0] if len(shares) == 1 else torch.stack(shares).mean()

    def watch(self, shares: Tensor, step: int) -> None:
        """After a step, with what `learn` returned for the blocks from the second on: now and then decide about effort.

        The only place at which a step waits for the device, and the only one that changes the plan.
        """
        if not (self.adaptive and step and self.maps):
            return
        left = torch.stack([shares[block - 1] for block in self.maps])
        self._left = left if self._left is None else self._left.to(left) + left  # may come from another device
        if step % EVERY:
            return
        means, self._left = (self._left / EVERY).tolist(), None
        self.efforts = [_effort(effort, mean) for effort, mean in zip(self.efforts, means, strict=True)]

    def plan(self, shapes: Shapes) -> list[Allocation]:
        """The noise of every map at the present effort of its pair."""
        efforts = tuple(self.efforts)
        if efforts not in shapes.plans:
            each = [effort for effort, maps in zip(efforts, self.maps.values(), strict=True) for _ in maps]
            shapes.plans[efforts] = allocate(shapes.maps, shapes.backprop, self.budget, each)
        return shapes.plans[efforts]

    def _shapes_for(self, x: Tensor) -> Shapes:
        key = (x.shape, x.device)
        if key not in self._shapes:
            with _evaluating(self.network), torch.no_grad():
                traces = self.network.trace(x[:FEW])
            inputs = [each.map_input(traces[i].x, traces[i].context) for i, maps in self.maps.items() for each in maps]
            maps = [map_shape(each, x) for each, x in zip(self._flat(), inputs, strict=True)]
            self._shapes[key] = Shapes(maps, backprop_cost(self.network, x), *warm_up(maps))
        return self._shapes[key]

    def _flat(self) -> list[FeedbackMap]:
        return [each for maps in self.maps.values() for each in maps]

    def _by_block(self, values: Iterable[_T]) -> dict[int, list[_T]]:
        """Values of all maps, in the order of `_flat`, for each pair."""
        left = iter(values)
        return {block: list(islice(left, len(maps))) for block, maps in self.maps.items()}

    def state_dict(self) -> dict[str, Any]:
        """Efforts, and what is watched to decide the next ones."""
        return {"efforts": self.efforts, "left": self._left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.efforts, self._left = list(state["efforts"]), state["left"]


def _effort(effort: float, left: float) -> float:
    if left > POOR:
        return min(MOST, effort * 2)
    return max(LEAST, effort / 2) if left < GOOD else effort


@torch.no_grad()
def backprop_cost(network: PairedNetwork, x: Tensor) -> float:
    """Multiply-adds of backprop on a batch: three passes through each map, but no gradient for the input."""
    with _evaluating(network):
        with FlopCounterMode(display=False) as whole:
            network(x[:FEW])
        with FlopCounterMode(display=False) as first:
            network.pairs[0].block(x[:FEW])
    return len(x) / len(x[:FEW]) * (3 * whole.get_total_flops() - first.get_total_flops()) / 2


@contextmanager
def _evaluating(network: PairedNetwork) -> Iterator[None]:
    """The network in evaluation mode: a few samples may pass, and leave no trace in running statistics."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def _learn(
    part: FeedbackMap,
    trace: Trace,
    allocation: Allocation,
    times: int,
    draw: Callable[[int, Kind, Tensor], Tensor],
) -> Tensor:
    """Update V `times` times; returns the share of the response that V did not predict the last time."""
    x = part.map_input(trace.x, trace.context)
    order = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    shape = (allocation.rows, *x.shape[1:])
    isotropic = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order)
    mixing = x.new_empty(allocation.mixtures, len(x))
    left = x.new_zeros(())
    for repetition in range(times):
        white, weights = draw(repetition, "white", isotropic), draw(repetition, "mixture", mixing)
        left = delta_rule(part, white, _mixtures(weights, x), allocation)
    return left


def _mixtures(weights: Tensor, x: Tensor) -> Tensor:
    """Weighted sums of the samples of x: (mixtures, batch) and (batch, ...) to (mixtures, ...), in the order of x."""
    if x.dim() == 4:
        memory = x.permute(0, 2, 3, 1)
        return (weights @ memory.flatten(1)).unflatten(1, memory.shape[1:]).permute(0, 3, 1, 2)
    return (weights @ x.flatten(1)).unflatten(1, x.shape[1:])
