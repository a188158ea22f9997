"""Feedback that learns from responses of the forward maps to noise, a little every batch.

Forward weights move slowly, so feedback weights keep up with them on little noise; how much each map gets is a budget,
shared out. What a rule does with a response is its own: the delta rule (`delta.py`), or Hebb's (`weight_mirror.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import radians, tan
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from targetprop.feedback.base import FeedbackLearning, FeedbackRule
from targetprop.feedback.budget import (
    FEW,
    MEASURING,
    READING,
    Allocation,
    MapShape,
    Passes,
    allocate,
    backprop_cost,
    evaluating,
    map_shape,
    warm_up,
)
from targetprop.feedback.delta import delta_rule
from targetprop.network.feedback_map import FeedbackMap, entering
from targetprop.noise import Kind, NoiseKey
from targetprop.properties import Needs
from targetprop.utils.errors import UserError, is_number, require

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.passes import Pass, Scope

EVERY = 32
"""Steps between two decisions about effort: the only moments at which anything waits for the device."""
LEAST, MOST = 1 / 8, 4.0
"""Effort of a pair, relative to an equal share of the budget; halved and doubled between these."""
POOR = tan(radians(2)) ** 2
"""Share of the response left over from which a pair gets more noise: feedback 2 degrees from the forward weights."""
GOOD = POOR / 4
"""Share below which it gets less."""
_T = TypeVar("_T")
MapDraw = Callable[[int, Kind, Tensor], Tensor]
"""(repetition, kind, like) -> standard-normal noise."""


@dataclass(frozen=True)
class ByResponses(FeedbackRule):
    """Every linear map of the feedback learns by itself, from responses of its forward map to noise.

    Args:
        budget: multiply-adds of a batch's feedback learning, as a share of those of a backprop step. Over it go only
            the first batch, one sample of each noise that a block gets in any case, and narrow maps (`HEAD_SHARE`).
        adaptive: False keeps every block at an equal share of the whole budget; True gives less to blocks that are
            well aligned.
        reads_weights: False applies the forward map to the noise, and what learns sees its response. True computes
            what the feedback fails to predict of the response as one product with W - V^T, where a layer is known: the
            same numbers but for rounding, and faster.

    """

    budget: float = 0.12
    adaptive: bool = True
    reads_weights: bool = False

    def __post_init__(self) -> None:
        require(isinstance(self.adaptive, bool), "adaptive", "true or false", self.adaptive)
        require(isinstance(self.reads_weights, bool), "reads_weights", "true or false", self.reads_weights)
        require(is_number(self.budget) and self.budget > 0, "budget", "a number above 0", self.budget)
        self.check_style()

    @property
    def scope(self) -> Scope:
        return "block"

    @property
    def needs(self) -> Needs:
        return Needs(frozenset({"weights"} if self.reads_weights else ()), noisy_phase=True)

    @property
    @abstractmethod
    def passes(self) -> Passes:
        """What an update costs."""

    @abstractmethod
    def update(self, part: FeedbackMap, noise: MapNoise, allocation: Allocation, repetition: int | None) -> Tensor:
        """Update a map once.

        Args:
            repetition: on the first batch, which brings feedback up from zero, the number of updates before this one.

        Returns:
            The share of the response that the map did not predict; zero of a rule that does not look.
        """

    def start(self, network: PairedNetwork) -> ResponseLearning:
        for pair in network.trained:
            if pair.feedback_parameters() and not pair.maps:
                raise UserError(
                    f"block {pair.name}: its feedback is not made of linear maps, which alone can learn from "
                    "responses to noise; use another rule, such as 'dtp'.",
                    key="network",
                )
        return ResponseLearning(network, self)

    def explain(self, maps: int) -> str:
        """In words, how the feedback of a block with so many maps learns."""
        return self.words if maps == 1 else f"{self.words}, each of its {maps} linear maps by itself"

    @property
    @abstractmethod
    def words(self) -> str:
        """In words, how a map learns."""


@dataclass(frozen=True)
class ByDeltaRule(ByResponses):
    """Feedback weights follow the forward weights by the delta rule."""

    @property
    def passes(self) -> Passes:
        return READING if self.reads_weights else MEASURING

    def update(self, part: FeedbackMap, noise: MapNoise, allocation: Allocation, repetition: int | None) -> Tensor:
        return delta_rule(part, noise.white(), noise.shaped(), allocation, reads_weights=self.reads_weights)


@dataclass
class Shapes:
    """What a plan needs to know of the network on batches of one shape."""

    maps: list[MapShape]
    backprop: float
    warm_allocations: list[Allocation]
    warm_times: int
    plans: dict[tuple[float, ...], list[Allocation]] = field(default_factory=dict)  # kept: CUDA graphs read them


class ResponseLearning(FeedbackLearning):
    """The feedback of a network by one `ByResponses`; each linear map learns by itself, with the effort of its block.

    Effort is decided from the residuals, which cost nothing extra, every `EVERY` steps; in between, plans are fixed.
    """

    def __init__(self, network: PairedNetwork, rule: ByResponses) -> None:
        super().__init__(network)
        self.rule = rule
        self.efforts = [1.0] * len(self.maps)
        self._left: Tensor | None = None  # sums of residual shares since the last decision
        self._shapes: dict[Hashable, Shapes] = {}
        self._times = 1
        self._plan: dict[int, list[Allocation]] = {}
        for each in self._flat():
            if each.map.weight.requires_grad:
                torch.nn.init.zeros_(each.map.weight)

    @property
    def maps(self) -> dict[int, tuple[FeedbackMap, ...]]:
        """The linear maps of the blocks that have any."""
        return {block: pair.maps for block, pair in self.network.fed.items() if pair.maps}

    @property
    def plan(self) -> Hashable:
        return tuple(self.efforts)

    def before_sweep(self, seen: Pass) -> None:
        if self.maps:
            shapes = self._shapes_for(seen.x)
            self._plan = self._by_block(self._allocations(shapes) if seen.step else shapes.warm_allocations)
            self._times = 1 if seen.step else shapes.warm_times

    def learn(self, seen: Pass, block: int) -> Tensor:
        """The share of the response to noise that the block's maps did not predict, their mean, in place of a loss."""
        trace = seen.trace(block).detach()
        maps = self.maps.get(block, ())
        shares = [trace.x.new_zeros(())] if not maps else []
        for number, (part, allocation) in enumerate(zip(maps, self._plan.get(block, ()), strict=True)):

            def draw(repetition: int, kind: Kind, like: Tensor, number: int = number) -> Tensor:
                return seen.noise(NoiseKey(seen.step, block, repetition * len(maps) + number, kind), like)

            if part.map.weight.requires_grad:
                x = entering(part, part.map_input(trace.x, trace.context))
                shares.append(self._updates(part, x, allocation, draw, warm=seen.step == 0))
            else:
                shares.append(trace.x.new_zeros(()))
        if self.average is not None:
            self.average(self.network.pairs[block].feedback_parameters())
        return shares[0] if len(shares) == 1 else torch.stack(shares).mean()

    def _updates(self, part: FeedbackMap, x: Tensor, allocation: Allocation, draw: MapDraw, *, warm: bool) -> Tensor:
        """All updates of a map on this batch; what is left of the response in the last one."""
        left = x.new_zeros(())
        with torch.no_grad():
            for repetition in range(self._times):
                noise = MapNoise(x, allocation, partial(draw, repetition))
                left = self.rule.update(part, noise, allocation, repetition if warm else None)
        return left

    def between_steps(self, step: int, losses: Tensor) -> None:
        """Now and then decide about effort: the only place that changes the plan."""
        if not (self.rule.adaptive and step and self.maps):
            return
        place = {block: i for i, block in enumerate(self.network.fed)}
        left = torch.stack([losses[place[block]] for block in self.maps])
        self._left = left if self._left is None else self._left.to(left) + left  # may come from another device
        if step % EVERY:
            return
        means, self._left = (self._left / EVERY).tolist(), None
        self.efforts = [_effort(effort, mean) for effort, mean in zip(self.efforts, means, strict=True)]

    def explain(self, block: int) -> str:
        maps = self.network.pairs[block].maps
        if not any(part.map.weight.requires_grad for part in maps):
            return "feedback stays as it is, its weights are frozen" if maps else "feedback without weights"
        return self.rule.explain(len(maps))

    def _allocations(self, shapes: Shapes) -> list[Allocation]:
        """The noise of every map at the present effort of its block."""
        efforts = tuple(self.efforts)
        if efforts not in shapes.plans:
            each = [effort for effort, maps in zip(efforts, self.maps.values(), strict=True) for _ in maps]
            shapes.plans[efforts] = allocate(shapes.maps, shapes.backprop, self.rule.budget, each, self.rule.passes)
        return shapes.plans[efforts]

    def _shapes_for(self, x: Tensor) -> Shapes:
        key = (x.shape, x.device)
        if key not in self._shapes:
            with evaluating(self.network), torch.no_grad():
                traces = self.network.trace(x[:FEW].detach())
            inputs = [each.map_input(traces[i].x, traces[i].context) for i, maps in self.maps.items() for each in maps]
            maps = [map_shape(each, x) for each, x in zip(self._flat(), inputs, strict=True)]
            self._shapes[key] = Shapes(maps, backprop_cost(self.network, x), *warm_up(maps))
        return self._shapes[key]

    def _flat(self) -> list[FeedbackMap]:
        return [each for maps in self.maps.values() for each in maps]

    def _by_block(self, values: Iterable[_T]) -> dict[int, list[_T]]:
        """Values of all maps, in the order of `_flat`, for each block."""
        left = iter(values)
        return {block: list(islice(left, len(maps))) for block, maps in self.maps.items()}

    def state_dict(self) -> dict[str, Any]:
        """Efforts, and what is watched to decide the next ones."""
        return {"efforts": self.efforts, "left": self._left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.efforts, self._left = list(state["efforts"]), state["left"]


def _effort(effort: float, left: float) -> float:
    if left > POOR:
        return min(MOST, effort * 2)
    return max(LEAST, effort / 2) if left < GOOD else effort


class MapNoise:
    """The noise of one update of a map, at its input.

    Args:
        x: what enters the map in the clean pass, (batch, *input).
        draw: (kind, like) -> standard-normal noise.
    """

    def __init__(self, x: Tensor, allocation: Allocation, draw: Callable[[Kind, Tensor], Tensor]) -> None:
        self._x, self._allocation, self._draw = x, allocation, draw

    def white(self) -> Tensor:
        """Isotropic noise, (rows, *input)."""
        x = self._x
        order = torch.channels_last if x.dim() == 4 else torch.contiguous_format
        shape = (self._allocation.rows, *x.shape[1:])
        return self._draw("white", torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order))

    def shaped(self) -> Tensor:
        """Random mixtures of the batch's own inputs, (mixtures, *input): noise shaped like activity."""
        x = self._x
        return _mixtures(self._draw("mixture", x.new_empty(self._allocation.mixtures, len(x))), x)


def _mixtures(weights: Tensor, x: Tensor) -> Tensor:
    """Weighted sums of the samples of x: (mixtures, batch) and (batch, ...) to (mixtures, ...), in the order of x."""
    if x.dim() == 4:
        memory = x.permute(0, 2, 3, 1)
        return (weights @ memory.flatten(1)).unflatten(1, memory.shape[1:]).permute(0, 3, 1, 2)
    return (weights @ x.flatten(1)).unflatten(1, x.shape[1:])
