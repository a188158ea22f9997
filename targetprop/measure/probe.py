"""What measures look at: a learner and a batch, of which nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from targetprop.network.passes import StoredPass
from targetprop.noise import GaussianNoise
from targetprop.targets.base import OutputSignal, TargetRule
from targetprop.targets.layerwise import LayerwiseTargets
from targetprop.utils.errors import UserError, is_number, require, require_whole

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.pair import Pair, Trace
    from targetprop.trainable import Trainable

MOST = 128
"""Samples that measures of single blocks look at: more would tell the same, and in float64 take long."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(output, labels) -> one value per sample, or their mean."""


class InapplicableError(UserError):
    """What a measure asks for is not there in this learner."""


class RandomState:
    """That of torch at one moment, on the CPU and, if it is another one, on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._states = [torch.get_rng_state()]
        if device.type == "cuda":
            self._states.append(torch.cuda.get_rng_state(device))

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within it, what is drawn is what was drawn then; afterwards all is as it was before."""
        with torch.random.fork_rng([self._device] if len(self._states) > 1 else []):
            torch.set_rng_state(self._states[0])
            if len(self._states) > 1:
                torch.cuda.set_rng_state(self._states[1], self._device)
            yield


@dataclass(frozen=True)
class Clean:
    """A pass on a copy of the network, in float64.

    Attributes:
        signal: what a target rule is told of its output.
        random: the state in which each block began, from 0.
    """

    network: PairedNetwork
    seen: StoredPass
    signal: OutputSignal
    random: Mapping[int, RandomState]

    def trace(self, block: int) -> Trace:
        """A block's part of the pass, without a graph."""
        return self.seen.trace(block).detach()

    def encode(self, block: int, x: Tensor) -> Tensor:
        """F(x) of a block, with the masks and the statistics of this pass held fixed."""
        y, _ = self.network.pairs[block].encode(x, self.trace(block).context)
        return y

    def anew(self, block: int, x: Tensor) -> Tensor:
        """F(x) of a block as a pass of its own would have it: with the same masks, and with the statistics of x."""
        with self.random[block].again():
            y, _ = self.network.pairs[block].encode(x)
        return y

    def differences(self, targets: TargetRule) -> dict[int, Tensor]:
        """t^n - s^n of every block, by the feedback as it stands."""
        self.seen.at_map.clear()  # it may be of other differences
        with torch.no_grad():
            return dict(targets.sweep(self.seen, self.signal))


class Probe:
    """A learner and a batch, as measures look at them; nothing of the learner changes, nor any random stream.

    What several measures need is computed once. Feedback is looked at as it stands. The update is the one that a step
    on this batch makes, feedback learning included: of a copy of the learner, or what is in `.grad`.

    >>> probe = Probe(learner, x, y, F.cross_entropy)
    >>> reach(probe)

    Args:
        learner: what is trained.
        x, y: a batch, (batch, ...), and what the loss is told of it.
        loss: (output, y) -> one value per sample (batch,), or their mean.
        is_after_backward: whether the `.grad` of the forward parameters is the update on this very batch.
        random: the state in which the step on this batch began, for masks of dropout; by default, the present one.
        average: replaces tensors by their means over processes that measure on batches of their own.
    """

    def __init__(
        self,
        learner: Trainable,
        x: Tensor,
        y: Tensor,
        loss: Loss,
        *,
        is_after_backward: bool = False,
        random: RandomState | None = None,
        average: Callable[[Sequence[Tensor]], None] | None = None,
    ) -> None:
        self.learner = learner
        self.x, self.y, self.loss = x, y, loss
        self.random = random or RandomState(x.device)
        self.is_alone = average is None
        self._average = average
        self._is_after_backward = is_after_backward

    def loss_of(self, output: Tensor) -> Tensor:
        """Mean loss of the first samples of the batch, as many as there are outputs."""
        return self.loss(output, self.y[: len(output)]).mean()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the processes that measure."""
        if self._average is not None:
            self._average(tensors)

    @property
    def targets(self) -> TargetRule:
        """The rule by which targets come down.

        Raises:
            InapplicableError: there is none.
        """
        targets = getattr(getattr(self.learner, "algorithm", None), "targets", None)
        if not isinstance(targets, TargetRule):
            raise InapplicableError(f"{type(self.learner).__name__} forms no targets.")
        return targets

    @property
    def layerwise(self) -> LayerwiseTargets:
        """The same, of a rule by which they come down from block to block.

        Raises:
            InapplicableError: they do not.
        """
        targets = self.targets
        if not isinstance(targets, LayerwiseTargets):
            raise InapplicableError(f"targets of {type(targets).__name__} do not come down from block to block.")
        return targets

    @property
    def fed(self) -> Mapping[int, Pair]:
        """The blocks, from 0, of a copy in float64 whose feedback leads from their output to their input.

        Raises:
            InapplicableError: there are none.
        """
        _ = self.layerwise
        if not self.network.fed:
            raise InapplicableError("no block has feedback.")
        return self.network.fed

    @cached_property
    def updates(self) -> list[list[Tensor]]:
        """The `.grad` of every parameter of every block after a step on this batch, zeros where there is none."""
        if self._is_after_backward:
            return _gradients(self.learner.network)
        learner = self.copied()
        learner.network.zero_grad()
        with self.random.again(), torch.enable_grad():
            learner.backward(self.loss_of(learner(self.x)), labels=self.y, loss_of=self.loss_of)
        return _gradients(learner.network)

    def copied(self) -> Trainable:
        """A copy of the learner, ready for a step."""
        learner = deepcopy(self.learner)
        if isinstance(learner, nn.Module) and not learner.training:
            learner.train()
        return learner

    @cached_property
    def network(self) -> PairedNetwork:
        """A copy of the network, in float64, that has no running statistics to keep."""
        network = deepcopy(self.learner.network).double()
        for each in network.modules():
            if each.training and getattr(each, "running_mean", None) is not None:
                vars(each)["_buffers"].update(dict.fromkeys(("running_mean", "running_var", "num_batches_tracked")))
        return network

    @cached_property
    def whole(self) -> Clean:
        """A pass of the whole batch."""
        return self._pass(len(self.x))

    @cached_property
    def few(self) -> Clean:
        """A pass of its first samples, at most `MOST`."""
        return self.whole if len(self.x) <= MOST else self._pass(MOST)

    def _pass(self, samples: int) -> Clean:
        x = in_float64(self.x[:samples])
        with self.random.again(), torch.enable_grad(), _noted(self.network) as random:
            seen = StoredPass(self.network, x, GaussianNoise(0), 0)
            output = seen.output.requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss_of(output), output)
        seen.output = seen.output.detach()
        return Clean(self.network, seen, OutputSignal(gradient * samples, self.y[:samples], self.loss_of), random)


@contextmanager
def _noted(network: PairedNetwork) -> Iterator[dict[int, RandomState]]:
    """Within it, the random state is noted in which each block of a pass begins."""
    states: dict[int, RandomState] = {}

    def noting(number: int, trace: Callable[[Tensor], Trace]) -> Callable[[Tensor], Trace]:
        def noted(x: Tensor) -> Trace:
            states[number] = RandomState(x.device)
            return trace(x)

        return noted

    for number, pair in enumerate(network.pairs):
        vars(pair)["trace"] = noting(number, pair.trace)
    try:
        yield states
    finally:
        for pair in network.pairs:
            del vars(pair)["trace"]


def in_float64(x: Tensor) -> Tensor:
    """A batch of numbers in float64; one of indices as it is."""
    return x.double() if x.is_floating_point() else x


def _gradients(network: PairedNetwork) -> list[list[Tensor]]:
    return [
        [torch.zeros_like(p) if p.grad is None else p.grad for p in pair.block.parameters()] for pair in network.pairs
    ]


def draws(like: Tensor, count: int, seed: int = 0) -> Iterator[Tensor]:
    """Standard-normal noise of the shape of a tensor, so many times, of a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randn(like.shape, dtype=like.dtype, generator=generator).to(like.device)


WHOLE = ("probes", "iterations", "repeats")
"""Numbers of measures that count something."""


def check_numbers(**numbers: object) -> None:
    """Refuse numbers of a measure that are no such numbers.

    Raises:
        UserError: one of them, by its name.
    """
    for name, given in numbers.items():
        if name in WHOLE:
            require_whole(name, given, least=1)
        elif name == "damping":
            require(is_number(given) and given >= 0, name, "a number, 0 or more", given)
        else:
            require(is_number(given) and given > 0, name, "a number above 0", given)


def root_of_ratio(power: Tensor) -> Tensor:
    """||a|| / ||b|| of the squares of both, (2,); nan where b is zero."""
    return torch.where(power[1] > 0, (power[0] / power[1]).sqrt(), torch.nan)


def by_block(name: str, values: Mapping[int, Tensor | float]) -> dict[str, float]:
    """Values of blocks, numbered from 0, as they are logged: `name/block{n}`, from 1."""
    return {f"{name}/block{number + 1}": float(values[number]) for number in sorted(values)}
