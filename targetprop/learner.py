"""Learner: target propagation where `loss.backward()` stood, in plain PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from targetprop.algorithms import DTP, Recipe
from targetprop.execution.parallel import Grid, LayerParallel
from targetprop.execution.schedule import is_recorded, side_by_side
from targetprop.feedback.budget import Amortised
from targetprop.feedback.by_loss import Iterated
from targetprop.feedback.rules import (
    add_local_gradients,
    adjoint_difference,
    local_loss,
    mirror_gradient,
    output_difference,
)
from targetprop.feedback.updates import maps_for
from targetprop.network.network import PairedNetwork, Trace
from targetprop.network.pair import Pair
from targetprop.noise import GaussianNoise, NoiseSource
from targetprop.step import Step, sample_gradients
from targetprop.utils.errors import UserError
from targetprop.utils.precision import Autocast, wide

CHANGES_WITH_EVERY_PASS = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.modules.batchnorm._NormBase)


class Learner(nn.Module):
    """Trains a network by target propagation.

    Its `state_dict` holds all that a later run needs to go on: weights, feedback optimisers and the step count.
    The forward optimiser is yours.

    Args:
        network: a Sequential, cut into blocks as `PairedNetwork.of` says, or a PairedNetwork.
        recipe: the algorithm and its numbers, for good.
        seed: of the noise.
        noise: another source of standard-normal noise.
        recompute: keep the activations of one block at a time and compute them anew from the input for each, in
            blocks / 2 times the forward passes. Results are the same, and memory does not grow with depth.

    Raises:
        UserError: a layer without feedback twin, or a list in the recipe that does not fit the blocks.
    """

    def __init__(
        self,
        network: nn.Sequential | PairedNetwork,
        recipe: Recipe = DTP,
        *,
        seed: int = 0,
        noise: NoiseSource | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(network, nn.Sequential):
            network = PairedNetwork.of(network, recipe.twin, top=recipe.output == "target")
        self.network = network
        self.recipe = recipe
        self.noise = noise or GaussianNoise(seed)
        self.steps = 0
        if recipe.feedback == "amortised" and self.network.style not in ("linear", "matched", "own"):
            raise UserError('network: feedback="amortised" needs twins in the style "linear" or "matched".')
        pairs = self.network.pairs
        amortised = {n: maps for n, pair in enumerate(pairs) if (maps := maps_for("amortised", recipe, pair))}
        self._mirrored = {n: maps for n, pair in enumerate(pairs) if (maps := maps_for("kolen_pollack", recipe, pair))}
        self.iterated = Iterated(self.network, recipe, others=amortised.keys() | self._mirrored.keys())
        self._amortised = Amortised(self.network, amortised, recipe.budget, adaptive=recipe.adaptive)
        if recompute and (changing := [m for m in self.network.modules() if isinstance(m, CHANGES_WITH_EVERY_PASS)]):
            raise UserError(f"recompute: {type(changing[0]).__name__} does not give the same activations twice.")
        if recipe.init_symmetric_weights:
            self.network.make_symmetric()
        self.recompute = recompute
        self.parallel: LayerParallel | None = None
        self._autocast: Autocast | None = None
        self._x: Tensor | None = None
        self._traces: list[Trace] = []  # none, if they are recomputed
        self._output: Tensor | None = None
        self._earlier: Tensor | None = None

    def distribute(self, grid: Grid) -> None:
        """From now on train feedback on the processes of a grid, all of which call this; their weights become equal.

        Raises:
            UserError: more columns than pairs with feedback, or noise of the user's own for several rows.
        """
        if grid.rows > 1:
            if not isinstance(self.noise, GaussianNoise):
                raise UserError("noise: a source of your own cannot be divided between the rows of a grid.")
            self.noise = self.noise.part(grid.row, grid.rows)
        self.parallel = LayerParallel(grid, len(self.network.trained))
        self.parallel.equal([*self.parameters(), *self.buffers()])

    def gather(self) -> None:
        """Bring the state of every pair's feedback optimiser here from where it is trained; all processes call this."""
        if self.parallel is None or self.parallel.owners is None:
            return
        own = self.iterated.states(self.parallel.own)
        for states in self.parallel.gather(own):
            self.iterated.load_states({number: state for number, state in states.items() if number not in own})

    def optimizer_parameters(self) -> list[nn.Parameter]:
        """What your optimiser trains: the forward parameters, by Kolen-Pollack the feedback weights, too."""
        mirrored = [each.map.map.weight for maps in self._mirrored.values() for each in maps]
        return self.network.forward_parameters() + cast(list[nn.Parameter], mirrored)

    def forward(self, x: Tensor) -> Tensor:
        """Network output for x (batch, ...); in training mode also what `backward` needs.

        Under autocast to bfloat16 the output is float32, as the loss should be, and `backward` works as this pass did.

        Raises:
            UserError: autocast to float16, or of feedback that learns from, or carries, differences too small for it.
        """
        if not (self.training and torch.is_grad_enabled()):
            return self.network(x)
        self._autocast = self._sound_autocast(x.device)
        self._earlier = self._output
        self._x = x
        with self._autocast.again():
            if self.recompute:
                self._traces = []
                with torch.no_grad():
                    y = self.network(x)
            else:
                self._traces = self.network.trace(x)
                y = self._traces[-1].y
        y = y.detach()
        self._output = (y if self._autocast.dtype is None else y.to(wide(y.dtype))).requires_grad_()
        return self._output

    def backward(self, loss: Tensor, *, keep: bool = False) -> Step:
        """Train the feedback on this batch, then add every block's local gradient to the `.grad` of its parameters.

        The gradients approximate beta times those of `loss.backward()`; a forward optimiser may follow.

        Args:
            loss: computed from the output of the latest call: one value per sample (batch,), or their mean.
                Parameters of its own (a temperature, a penalty) get the gradients that `loss.backward()` gives.
            keep: whether to keep outputs and targets in the Step; else they are let go on the way down.

        Raises:
            UserError: there was no forward pass in training mode since the last `backward`, or the loss is of another.
        """
        step = self.compute(loss, keep=keep)
        self.finish(step)
        return step

    def compute(self, loss: Tensor, *, keep: bool = False) -> Step:
        """What `backward` does on the device: from the second step on it waits for nothing, and can be recorded."""
        if self._x is None or self._output is None:
            raise UserError("backward: call the learner on a batch first, in training mode and with gradients on.")
        x, traces, output, earlier = self._x, self._traces, self._output, self._earlier
        self._x = self._output = self._earlier = None
        self._traces = []
        gradient = sample_gradients(loss, output)
        if earlier is not None and earlier.grad is not None:
            raise UserError("backward: the loss depends on an earlier call, too; give each call a backward of its own.")
        assert self._autocast is not None
        with self._autocast.again():
            step = self._descend(x, traces, output_difference(gradient, self._output_step), keep)
        if self.parallel is not None:
            self.parallel.share_gradients(self.optimizer_parameters())
            self.parallel.average([step.local_losses])
        return step

    def finish(self, step: Step) -> None:
        """What `backward` does on the host after `compute`: decide about the effort of later steps, and count."""
        self._amortised.watch(step.feedback_losses, self.steps)
        self.steps += 1

    @property
    def plan(self) -> tuple[float, ...]:
        """By what `compute` differs from step to step after the first: the efforts of amortised feedback learning."""
        return tuple(self._amortised.efforts)

    @torch.no_grad()
    def _descend(self, x: Tensor, traces: list[Trace], difference: Tensor, keep: bool) -> Step:
        """From the output down: a block's feedback learns, its forward weights get their gradient, its target goes on.

        Args:
            traces: emptied on the way, so that activations are let go.
        """
        self._amortised.begin(x, self.steps)
        published: dict[int, Tensor] = {}  # losses of feedback that has learned before the way down
        if self.parallel is not None:
            published = self._learn_in_parallel(self.parallel, x, traces)
        elif is_recorded(x) and not self.recompute and self._pairs_are_apart:
            published = self._learn_side_by_side(traces)
        feedback_losses, local_losses, activities = [], [], []
        outputs: list[Tensor] = []
        targets: list[Tensor] = []
        for number in reversed(range(len(self.network.pairs))):
            trace = self._recomputed(x, number) if self.recompute else traces.pop()
            clean, pair = trace.detach(), self.network.pairs[number]
            if self._has_feedback(number):
                learned = published[number] if published else self._learn_feedback(number, pair, clean)
                feedback_losses.append(learned)
            local_losses.append(local_loss(difference))
            activities.append(clean.y.mean(dtype=wide(clean.y.dtype)))
            if keep:
                outputs.append(clean.y)
                targets.append(clean.y + difference)
            at_map = add_local_gradients(pair, trace, difference)
            if number:
                difference = self._below(number, clean, difference, at_map)
        for maps in self._mirrored.values():  # now that weights that blocks share have all of their gradient
            for each in maps:
                mirror_gradient(each)
        losses = torch.stack(feedback_losses[::-1]) if feedback_losses else x.new_zeros(0)
        local, activity = torch.stack(local_losses[::-1]), torch.stack(activities[::-1])
        return Step(losses, local, activity, outputs[::-1], targets[::-1])

    @property
    def _output_step(self) -> float:
        """Step size at the output, where what follows the loss itself takes a whole gradient."""
        return self.recipe.beta if self.recipe.output == "target" else 1.0

    def _below(self, number: int, trace: Trace, difference: Tensor, at_map: Tensor | None) -> Tensor:
        """The difference d^{n-1} of the target below a block, counted from 0."""
        pair = self.network.pairs[number]
        if self.recipe.output == "loss" and number == len(self.network.pairs) - 1:
            return self.recipe.beta * adjoint_difference(pair, trace, difference)
        return self.recipe.targets(pair, trace, difference, at_map)

    @torch.enable_grad()
    def _recomputed(self, x: Tensor, number: int) -> Trace:
        return self.network.trace_block(x, number)

    def _learn_side_by_side(self, traces: Sequence[Trace]) -> dict[int, Tensor]:
        """The feedback of all pairs at a time, started in the order of the way down: noise is drawn in the same one."""
        pairs = dict(enumerate(self.network.trained, start=1))
        works = {n: partial(self._learn_feedback, n, pairs[n], traces[n].detach()) for n in reversed(pairs)}
        return side_by_side(works)

    @property
    def _pairs_are_apart(self) -> bool:
        """Whether no two pairs change the same tensors while they learn."""
        learned = [id(each) for pair in self.network.trained for each in _learned(pair)]
        return len(set(learned)) == len(learned)

    def _learn_in_parallel(self, parallel: LayerParallel, x: Tensor, traces: Sequence[Trace]) -> dict[int, Tensor]:
        """The feedback of this process's pairs, then that of all others; returns the losses of all."""
        trained = dict(enumerate(self.network.trained, start=1))

        def learn(number: int) -> Tensor:
            trace = self._recomputed(x, number) if self.recompute else traces[number]
            return self._learn_feedback(number, trained[number], trace.detach())

        if parallel.owners is None:
            parallel.share_out(self._seconds(x, learn) if parallel.grid.is_first else [])
        losses = {number: learn(number) for number in parallel.own}
        return parallel.publish({number: _learned(pair) for number, pair in trained.items()}, losses)

    def _seconds(self, x: Tensor, learn: Callable[[int], Tensor]) -> list[float]:
        """What each pair's feedback learning takes on this batch, tried out alone: afterwards all is as it was."""
        # Forward weights are not touched, not even by writing the same into them: autograd needs them as they were.
        learned = [each for pair in self.network.trained for each in _learned(pair)]
        before, state = [each.clone() for each in learned], deepcopy(self.get_extra_state())
        parallel, self.parallel = self.parallel, None
        self._amortised.begin(x, self.steps + 1)  # the first step is not like the others

        def once(number: int) -> float:
            start = time.perf_counter()
            float(learn(number))  # waits for the device
            return time.perf_counter() - start

        # The better of two: the first one of a kind loads code, which on a GPU takes longer than running it.
        seconds = [min(once(number), once(number)) for number in range(1, 1 + len(self.network.trained))]
        self._amortised.begin(x, self.steps)
        for each, was in zip(learned, before, strict=True):
            each.copy_(was)
        self.set_extra_state(state)
        self.parallel = parallel
        return seconds

    def _learn_feedback(self, number: int, pair: Pair, trace: Trace) -> Tensor:
        """The updates of a pair's feedback on this batch, by the rule that it learns by; returns their loss."""
        if number not in self._amortised.maps:
            return self.iterated.learn(number, trace, self.noise, self.steps, self._average)
        loss = self._amortised.learn(number, trace, self.noise)
        self._average(pair.feedback_parameters())
        return loss

    def _average(self, tensors: Sequence[Tensor]) -> None:
        if self.parallel is not None:
            self.parallel.average(tensors)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Learner:
        """What `to`, `double`, `cuda` and the like call."""
        super()._apply(fn, recurse)
        self.iterated.move()
        return self

    def _has_feedback(self, number: int) -> bool:
        """Whether this pair, counted from 0, carries a target down by its feedback."""
        return 0 < number <= len(self.network.trained)

    def _sound_autocast(self, device: torch.device) -> Autocast:
        """The autocast that stands, if this network can learn under it."""
        autocast = Autocast.current(device)
        for number, pair in enumerate(self.network.pairs if autocast.dtype is not None else ()):
            by_loss = number in self.iterated.optimizers
            if by_loss or (self._has_feedback(number) and not pair.carries_differences):
                raise UserError(
                    f"autocast: the feedback of block {pair.name} needs differences of nearly equal numbers, which "
                    "bfloat16 does not hold: set feedback.rule=amortised and feedback.twin=linear "
                    "(model=amortised_dtp), or train without autocast (trainer.precision=32-true)."
                )
        return autocast

    @property
    def _rule(self) -> str:
        """What a state must have in common with the learner that takes it over."""
        name = self.recipe.feedback if self.recipe.feedback in ("amortised", "kolen_pollack") else "by a loss"
        return f"{name}, with {self.network.style} twins"

    def get_extra_state(self) -> dict[str, Any]:
        """Step count and feedback optimisers, beside the weights in `state_dict`."""
        numbers = range(1, 1 + len(self.network.trained))
        states = self.iterated.states(numbers)
        return {
            "steps": self.steps,
            "rule": self._rule,
            "feedback_optimizers": [states.get(number) for number in numbers],
            "amortised": self._amortised.state_dict(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        saved = dict(enumerate(state["feedback_optimizers"], start=1))
        blocks, others = len(self.network.pairs), len(saved) - len(self.network.trained)
        if others:
            raise UserError(f"The state is of a network with {blocks + others} blocks, this one has {blocks}.")
        if state["rule"] != self._rule:
            raise UserError(f"The state is of feedback learning {state['rule']}, this one is {self._rule}.")
        self.steps = state["steps"]
        self._amortised.load_state_dict(state["amortised"])
        self.iterated.forget()
        self.iterated.load_states({number: each for number, each in saved.items() if each is not None})


def _learned(pair: Pair) -> list[Tensor]:
    """What feedback learning changes: the twin, and buffers that noisy passes change, if layers are the user's own."""
    return [*pair.feedback_parameters(), *pair.buffers()]
