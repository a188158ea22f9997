"""When the feedback of which block learns: wrappers that stand where a `FeedbackLearning` does."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from targetprop.feedback.base import FeedbackLearning
from targetprop.network.passes import Pass, StoredPass
from targetprop.utils.errors import UserError

Key = TypeVar("Key", bound=Hashable)


class Wrapper(FeedbackLearning):
    """Does what `inner` does; modes of execution override what they do in another way.

    Raises:
        UserError: the algorithm looks beyond one block.
    """

    def __init__(self, inner: FeedbackLearning) -> None:
        super().__init__(inner.network)
        if inner.scope == "network":
            raise UserError(
                "the algorithm looks beyond one block, so that blocks cannot learn apart, in processes of their own or "
                "side by side: train it in one process, in turn.",
                key="algorithm",
            )
        self.inner = inner

    @property
    def learns_alone(self) -> bool:
        return self.inner.learns_alone

    @property
    def bare(self) -> FeedbackLearning:
        return self.inner.bare

    def before_sweep(self, seen: Pass) -> None:
        self.inner.before_sweep(seen)

    def learn(self, seen: Pass, block: int) -> Tensor:
        return self.inner.learn(seen, block)

    def after_targets(self) -> None:
        self.inner.after_targets()

    def after_sweep(self, seen: Pass, local_losses: Tensor) -> None:
        self.inner.after_sweep(seen, local_losses)

    def between_steps(self, step: int, losses: Tensor) -> None:
        self.inner.between_steps(step, losses)

    @property
    def plan(self) -> Hashable:
        return self.inner.plan

    def held_by_a_graph(self) -> Hashable:
        return self.inner.held_by_a_graph()

    def parameters_for_the_user(self) -> list[nn.Parameter]:
        return self.inner.parameters_for_the_user()

    def learned(self, block: int) -> list[Tensor]:
        return self.inner.learned(block)

    def takes_narrow_types(self, block: int) -> bool:
        return self.inner.takes_narrow_types(block)

    def explain(self, block: int) -> str:
        return self.inner.explain(block)

    def states(self, blocks: Iterable[int]) -> dict[int, Any]:
        return self.inner.states(blocks)

    def load_states(self, states: Mapping[int, Any]) -> None:
        self.inner.load_states(states)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)


class SideBySide(Wrapper):
    """In a CUDA graph, the feedback of all blocks at a time: layers of one batch seldom fill a GPU by themselves.

    Outside a graph, and where two blocks change the same tensors, blocks learn in turn.
    """

    def __init__(self, inner: FeedbackLearning) -> None:
        super().__init__(inner)
        self._losses: dict[int, Tensor] = {}

    def before_sweep(self, seen: Pass) -> None:
        self.inner.before_sweep(seen)
        self._losses = {}
        if is_recorded(seen.x) and isinstance(seen, StoredPass) and self.are_apart:
            # Started in the order of the sweep: noise is drawn in the same one.
            works = {block: partial(self.inner.learn, seen, block) for block in reversed(self.network.fed_numbers)}
            self._losses = side_by_side(works)

    def learn(self, seen: Pass, block: int) -> Tensor:
        return self._losses.pop(block) if block in self._losses else self.inner.learn(seen, block)

    @property
    def are_apart(self) -> bool:
        """Whether no two blocks change the same tensors while they learn."""
        learned = [id(each) for block in self.network.fed_numbers for each in self.learned(block)]
        return len(set(learned)) == len(learned)


def is_recorded(x: Tensor) -> bool:
    """Whether work on this tensor's device is being recorded into a CUDA graph."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def side_by_side(works: Mapping[Key, Callable[[], Tensor]]) -> dict[Key, Tensor]:
    """Start each work on a stream of its own, and have the current stream wait for all.

    Outside a graph it would gain nothing: there the host cannot launch kernels as fast as one stream runs them.
    """
    current, results = torch.cuda.current_stream(), {}
    streams = [_stream(current.device, number) for number in range(len(works))]
    for stream, (key, work) in zip(streams, works.items(), strict=True):
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            results[key] = work()
    for stream in streams:
        current.wait_stream(stream)
    return results


@cache
def _stream(device: torch.device, number: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
