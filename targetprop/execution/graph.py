"""A whole training step as a CUDA graph: recorded once, then replayed with one call instead of hundreds.

On a fast GPU the kernels of a step are over before the host has launched them. A graph holds kernels and addresses,
nothing that the host does in between, so what the host decides stays outside:

- Noise: generators are keyed and seeded on the host. Here one generator, which the graph knows, is seeded before every
  step (`StepNoise`). Steps that run eagerly use it as well, so that a resumed run, which records anew, repeats.
- The plan of a delta mirror changes now and then, and with it the shapes in a step: a graph for each plan,
  and for each shape of a batch. The first step of a plan runs eagerly; it is a step of the training like any other,
  and has libraries load what they need, which they may not while a graph is recorded.
- The very first step brings the feedback up by many updates: it runs eagerly, too.
- `Learner.finish`, the one place where a step may wait for the device, follows a replay.
- The optimiser: it and its schedule are yours. Feedback that learns by a loss has optimisers of its own, which are part
  of the step: a graph holds their numbers and the places of their momentum, so there is another graph for other ones.
- Gradients: a graph writes into its own ones. They are handed over after a replay, whether or not `.grad` was set to
  None, and added to what is there, as `Learner.backward` does.

Weights, feedback weights and running statistics change in place, inside the graph.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from targetprop.execution.schedule import SideBySide, Wrapper
from targetprop.learner import Learner
from targetprop.noise import GaussianNoise, StepNoise
from targetprop.step import Step
from targetprop.utils.errors import UserError
from targetprop.utils.precision import Autocast

KEPT = 8
"""Graphs that are kept; the one that was used longest ago goes first."""


@dataclass(frozen=True)
class Outcome:
    """What a step computed.

    Attributes:
        output: of the network; valid until the next step.
        loss, step: the loss, and what `Learner.backward` returns.
        gradients: of the parameters that got one; valid until the next step.
    """

    output: Tensor
    loss: Tensor
    step: Step
    gradients: dict[nn.Parameter, Tensor]


class Graph(Protocol):
    """Work that is recorded once and replayed."""

    def record(self, work: Callable[[], Outcome], generator: torch.Generator) -> Outcome:
        """Record work that draws from the generator; every replay fills the tensors of its outcome anew."""

    def replay(self) -> None:
        """Do the work."""


class CudaGraph:
    """A `torch.cuda.CUDAGraph`. Those of one pool share their memory: no two of them may be of use at a time."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._graph = torch.cuda.CUDAGraph()

    def record(self, work: Callable[[], Outcome], generator: torch.Generator) -> Outcome:
        """Nothing is computed yet."""
        self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph, pool=self._pool):
            return work()

    def replay(self) -> None:
        """One launch."""
        self._graph.replay()


@dataclass(frozen=True)
class Recording:
    """A graph, the batch that it reads and the outcome that it writes."""

    graph: Graph
    batch: tuple[Tensor, ...]
    outcome: Outcome


class GraphedStep:
    """Forward pass, loss and `Learner.backward` in one call; an optimiser may follow.

    >>> step = GraphedStep(learner, F.cross_entropy)
    >>> loss = step(x, y).loss
    >>> optimizer.step()

    The learner's weights must stay where they are (no `.to()`), and what is frozen, or in evaluation mode, must stay
    so; after a change call `forget`.

    Args:
        learner: in training mode, on a GPU; an optimiser of feedback must be SGD, all of whose work is on the device.
        loss: of the output and the rest of the batch; as for `Learner.backward`. If it has parameters, an nn.Module.
        graph: makes a graph; None makes those of CUDA.

    Attributes:
        recordings: by what a graph is for; None for what ran eagerly so far.

    Raises:
        UserError: a learner whose step cannot be a graph.
    """

    def __init__(
        self, learner: Learner, loss: Callable[..., Tensor], *, graph: Callable[[], Graph] | None = None
    ) -> None:
        if not isinstance(learner, Learner):
            raise UserError(f"graphs are of a Learner's steps, got {type(learner).__name__}.", key="cuda_graph")
        if isinstance(learner.learning, Wrapper) and not isinstance(learner.learning, SideBySide):
            raise UserError("processes exchange feedback within a step, and a graph cannot.", key="cuda_graph")
        if learner.hook is not None:
            raise UserError("a hooked learner trains in loss.backward(), and a graph by itself.", key="cuda_graph")
        learner.learning.held_by_a_graph()
        if not isinstance(learner.noise, GaussianNoise):
            raise UserError("a graph draws its noise itself; give the learner a seed, but no noise.", key="cuda_graph")
        if learner.algorithm.scope == "block":
            learner.learning = SideBySide(learner.learning.bare)
        self.learner = learner
        self.loss = loss
        self._learning = learner.learning
        self._seed = learner.noise.seed
        self._graph = graph
        self._noise: StepNoise | None = None
        self.recordings: OrderedDict[Hashable, Recording | None] = OrderedDict()  # None: ran eagerly so far
        self._lent: dict[nn.Parameter, Tensor] = {}

    def __call__(self, *batch: Tensor) -> Outcome:
        """A step on a batch (x, ...): `run`, then `hand_over`."""
        outcome = self.run(*batch)
        self.hand_over(outcome)
        return outcome

    def run(self, *batch: Tensor) -> Outcome:
        """The same, but leave the parameters' `.grad` as it is."""
        if self.learner.learning is not self._learning:
            raise UserError("the learner is executed in another way by now, which a graph cannot.", key="cuda_graph")
        noise, key, first = self._noise_on(batch[0].device), self._key(batch), self.learner.steps == 0
        self._take_back()
        recording = self.recordings.get(key)
        if recording is None and key in self.recordings:
            recording = self._record(batch, noise)
        noise.start(self.learner.steps)
        if recording is None:
            outcome = self._work(batch, noise)
        else:
            for recorded, given in zip(recording.batch, batch, strict=True):
                recorded.copy_(given)
            recording.graph.replay()
            outcome = _kept(recording.outcome)
        if not first and key == self._key(batch):  # else the step made momentum, which a graph's steps find made
            self._remember(key, recording)
        self.learner.finish(outcome.step)
        return outcome

    def hand_over(self, outcome: Outcome) -> None:
        """Add the gradients of the latest step to the parameters' `.grad`."""
        for parameter, gradient in outcome.gradients.items():
            if parameter.grad is None:
                parameter.grad = self._lent[parameter] = gradient
            else:
                parameter.grad.add_(gradient)

    def forget(self) -> None:
        """Drop all graphs, and record anew."""
        self.recordings.clear()

    def _take_back(self) -> None:
        """A graph is about to write where `.grad` may still be: whoever wants to add to it gets a copy."""
        for parameter, gradient in self._lent.items():
            if parameter.grad is gradient:
                parameter.grad = gradient.clone()
        self._lent.clear()

    def _noise_on(self, device: torch.device) -> StepNoise:
        if self._graph is None and device.type != "cuda":
            raise UserError(f"only a GPU has graphs; the batch is on the {device}.", key="cuda_graph")
        if self._noise is None or self._noise.generator.device != device:
            self._noise = StepNoise(self._seed, device)
        return self._noise

    def _key(self, batch: tuple[Tensor, ...]) -> Hashable:
        """What a graph is for."""
        tensors = tuple((each.shape, each.dtype, each.device) for each in batch)
        held = self.learner.learning.held_by_a_graph()
        return tensors, Autocast.current(batch[0].device), self.learner.plan, held

    def _remember(self, key: Hashable, recording: Recording | None) -> None:
        self.recordings[key] = recording
        self.recordings.move_to_end(key)
        while len(self.recordings) > KEPT:
            self.recordings.popitem(last=False)

    def _record(self, batch: tuple[Tensor, ...], noise: StepNoise) -> Recording:
        if self._graph is None:
            self._graph = partial(CudaGraph, torch.cuda.graph_pool_handle())
        own, graph = tuple(each.clone() for each in batch), self._graph()
        return Recording(graph, own, graph.record(lambda: self._work(own, noise), noise.generator))

    def _work(self, batch: tuple[Tensor, ...], noise: StepNoise) -> Outcome:
        """All that a graph holds; it finds no gradients and leaves none, so that those that it makes are its own."""
        learner, parameters = self.learner, self._parameters()
        gradients, source = [parameter.grad for parameter in parameters], learner.noise
        for parameter in parameters:
            parameter.grad = None
        learner.noise = noise
        try:
            with Autocast.current(batch[0].device).again():
                output = learner(batch[0])
                loss = self.loss(output, *batch[1:])
            labels = batch[1] if len(batch) > 1 and not batch[1].is_floating_point() else None  # else numbers to be met
            step = learner.compute(loss, labels=labels, loss_of=lambda output: self.loss(output, *batch[1:]))
            made = {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}
            return Outcome(output.detach(), loss.detach(), step, made)
        finally:
            learner.noise = source
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient

    def _parameters(self) -> list[nn.Parameter]:
        own = self.loss.parameters() if isinstance(self.loss, nn.Module) else ()
        return [*self.learner.parameters(), *own]


def _kept(outcome: Outcome) -> Outcome:
    """The outcome with losses of its own, for those who keep them beyond the next step."""
    step = outcome.step
    own = replace(
        step,
        feedback_losses=step.feedback_losses.clone(),
        local_losses=step.local_losses.clone(),
        activities=step.activities.clone(),
    )
    return replace(outcome, loss=outcome.loss.clone(), step=own)
