"""Iterated feedback learning of a network: K_n updates of a pair on every batch, each by a loss on fresh noise."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from targetprop.algorithms import Recipe, per_block
from targetprop.feedback.rules import Draw
from targetprop.feedback.updates import feedback_update, mean_update
from targetprop.network.network import PairedNetwork, Trace
from targetprop.noise import Kind, NoiseKey, NoiseSource
from targetprop.utils.precision import wide

Average = Callable[[Sequence[Tensor]], None]
"""Replaces tensors by their mean over all processes that train the same pair on batches of their own."""


class Iterated:
    """The feedback of all pairs of a network that learn by the loss of a recipe. Pairs are counted from 0.

    Args:
        others: pairs that learn by another rule.

    Attributes:
        optimizers: of each pair that learns here.
        sigmas: standard deviation of the noise, of every pair with feedback.

    Raises:
        UserError: a list in the recipe that does not fit the blocks.
    """

    def __init__(self, network: PairedNetwork, recipe: Recipe, others: Container[int] = ()) -> None:
        self.network = network
        self.recipe = recipe
        blocks = [pair.name for pair in network.trained]
        key = "feedback_training_iterations"
        self.sigmas = dict(enumerate(per_block("noise", recipe.noise, blocks), start=1))
        self._counts = dict(enumerate(map(int, per_block(key, recipe.feedback_training_iterations, blocks)), start=1))
        rates = dict(enumerate(per_block("b_optim.lr", recipe.b_optim.lr, blocks), start=1))
        self.optimizers: dict[int, torch.optim.Optimizer] = {}
        for number, pair in enumerate(network.trained, start=1):
            learned = [p for p in pair.feedback_parameters() if p.requires_grad]
            if learned and recipe.feedback_loss is not None and self._counts[number] and number not in others:
                self.optimizers[number] = recipe.b_optim.build(learned, rates[number])

    def learn(self, number: int, trace: Trace, noise: NoiseSource, step: int, average: Average) -> Tensor:
        """All updates of a pair on one batch; returns their mean loss, zero if there are none."""
        total = trace.x.new_zeros((), dtype=wide(trace.x.dtype))
        for loss in self.updates(number, trace, noise, step, average):
            total += loss
        return total / max(1, self._counts[number])

    @torch.enable_grad()
    def updates(
        self, number: int, trace: Trace, noise: NoiseSource, step: int, average: Average | None = None
    ) -> Iterator[Tensor]:
        """Update a pair's feedback on one batch, time after time, and yield the loss of each update.

        Args:
            trace: the pair's part of the pass on the clean batch, detached.
            step: of the training, for the noise.
        """
        pair, optimizer = self.network.pairs[number], self.optimizers.get(number)
        sigma, samples = self.sigmas[number], self.recipe.noise_samples
        update = feedback_update(self.recipe, pair, trace, sigma) if optimizer is not None else None
        if update is None or optimizer is None:
            return

        def drawing(iteration: int) -> Draw:
            def draw(kind: Kind, like: Tensor) -> Tensor:
                return noise(NoiseKey(step, number, iteration, kind), like).mul_(sigma)

            return draw

        parameters = pair.feedback_parameters()
        for iteration in range(self._counts[number]):
            draws = [drawing(iteration * samples + sample) for sample in range(samples)]
            loss = mean_update(update, parameters, draws)
            if average is not None:
                average([p.grad for p in parameters if p.grad is not None])
            optimizer.step()
            yield loss
        optimizer.zero_grad()

    def move(self) -> None:
        """After the network has gone to another device or type: the optimisers' state follows."""
        for optimizer in self.optimizers.values():
            optimizer.load_state_dict(optimizer.state_dict())

    def forget(self) -> None:
        """Drop the optimisers' state."""
        for optimizer in self.optimizers.values():
            optimizer.state.clear()

    def states(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """The state of these pairs' optimisers; none of those that have none."""
        return {number: self.optimizers[number].state_dict() for number in numbers if number in self.optimizers}

    def load_states(self, states: Mapping[int, dict[str, Any]]) -> None:
        """Go on from `states`."""
        for number, state in states.items():
            if number in self.optimizers:
                self.optimizers[number].load_state_dict(deepcopy(state))  # which would take over the tensors themselves
