"""Learner: target propagation where `loss.backward()` stood, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from targetprop import local
from targetprop.algorithms import named
from targetprop.algorithms.base import Algorithm
from targetprop.algorithms.dtp import DTP
from targetprop.hook import Asked, Hook
from targetprop.network.description import described
from targetprop.network.network import PairedNetwork
from targetprop.network.passes import Pass, StoredPass
from targetprop.noise import GaussianNoise, NoiseSource
from targetprop.properties import Needs
from targetprop.step import Record, Step, refuse_lost_gradient, sample_gradients
from targetprop.targets.base import OutputSignal
from targetprop.utils.compiled import uncompiled
from targetprop.utils.errors import UserError, require
from targetprop.utils.inputs import Unchanged, check_batch, refuse_replicas
from targetprop.utils.packed import unpacked
from targetprop.utils.precision import Autocast, wide

FORMAT = 2
"""Of a learner's state."""


class Learner(nn.Module):
    """Trains a network by target propagation.

    >>> learner = Learner(network, "dtp")
    >>> loss = F.cross_entropy(learner(x), y)
    >>> learner.backward(loss)

    Its `state_dict` holds all that a later run needs to go on: weights, state of the feedback learning and the step
    count. The forward optimiser is yours.

    Args:
        network: any module whose forward takes one batch and can be traced, or a list of layers, cut into blocks as
            `PairedNetwork.of` says; or a PairedNetwork.
        algorithm: an `Algorithm`, or the name of one in `ALGORITHMS`.
        seed: of the noise.
        noise: another source of standard-normal noise.
        input_shape: of one sample, such as (3, 32, 32): only needed where feedback leads straight from the output to
            hidden blocks, and the first layer does not tell it.
        blocks: names of modules within the network, behind the output of each of which a block ends.

    Attributes:
        learning: the feedback while it learns; `targetprop.execution` wraps it to execute it in other ways.
        keep_pass: makes the `Pass` that a forward call keeps for `backward`.
        hook: trains where `loss.backward()` is called, as `targetprop.loops.hooked` has it; None refuses that.

    Raises:
        UserError: what is given is no such network or algorithm, a layer has no feedback, or a list among the
            algorithm's numbers does not fit the blocks.
    """

    def __init__(
        self,
        network: nn.Module | Sequence[nn.Module],
        algorithm: Algorithm | str = DTP,
        *,
        seed: int = 0,
        noise: NoiseSource | None = None,
        input_shape: Sequence[int] | None = None,
        blocks: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(algorithm, str):
            algorithm = named(algorithm)
        require(isinstance(algorithm, Algorithm), "algorithm", "an Algorithm or the name of one", algorithm)
        self.network = _paired(network, algorithm, input_shape, blocks)
        self.algorithm = algorithm
        self.noise = noise or GaussianNoise(seed)
        self.steps = 0
        self.learning = algorithm.feedback.start(self.network)
        self.learning.scope = algorithm.scope
        self.keep_pass: Callable[[PairedNetwork, Tensor, NoiseSource, int], Pass] = StoredPass
        self.hook: Hook | None = None
        self._call: _Call | None = None
        self._leaf: _Leaf | None = None
        self._earlier: _Leaf | None = None

    @property
    def update_scale(self) -> float | None:
        """What its gradients are times those of backprop, about; None where there is nothing to compare."""
        return self.algorithm.targets.update_scale

    @property
    def needs(self) -> Needs:
        """What its algorithm needs beside each block's own activity."""
        return self.algorithm.needs

    def optimizer_parameters(self) -> list[nn.Parameter]:
        """What your optimiser trains, each once: the forward parameters, and feedback weights that follow them."""
        both = self.network.forward_parameters() + self.learning.parameters_for_the_user()
        return list({id(p): p for p in both}.values())

    def own_optimizers(self) -> Iterable[torch.optim.Optimizer]:
        """Those of the feedback."""
        return self.learning.bare.optimizers.values()

    def use_own_numbers(self) -> None:
        """Have the algorithm's rates and other numbers take effect where a state brought those of another one."""
        self.learning.bare.use_own_numbers()

    def forward(self, x: Tensor) -> Tensor:
        """Network output for x (batch, ...); in training mode also what `backward` needs.

        Under autocast to bfloat16 the output is float32, as the loss should be, and `backward` works as this pass did.

        Raises:
            UserError: x is no batch that the network takes, autocast to a type that the feedback cannot learn in, or a
                gradient of the last output went elsewhere than through `backward`.
        """
        if not (self.training and torch.is_grad_enabled()):
            return self.network(x)
        return self._forward_in_training(x)

    @uncompiled
    def _forward_in_training(self, x: Tensor) -> Tensor:
        self._check(x)
        autocast = self._sound_autocast(x.device)
        seen = self._see(x, autocast)
        x = seen.x
        output = seen.output if autocast.dtype is None else seen.output.to(wide(seen.output.dtype))
        call = _Call(seen, autocast, Unchanged(x, self.network.parameters_as_analysed()))
        if self.hook is not None:
            return self.hook.hand_out(self, call, x, output.detach())
        output = output.detach().requires_grad_()
        self._call, self._earlier = call, self._leaf
        self._leaf = _Leaf(output, output.register_post_accumulate_grad_hook(refuse_lost_gradient))
        return output.clone()  # which the caller may change in place

    def _check(self, x: Tensor) -> None:
        """Raise `UserError` if x is no batch for the network, or the learner a copy for one of several devices."""
        refuse_replicas(self)
        check_batch(x, self.network.dims, self.network.forward_parameters())

    def _see(self, x: Tensor, autocast: Autocast) -> Pass:
        """A pass on a batch that has been checked, to learn from."""
        x = x.clone() if x.is_inference() else x  # of which torch does not count the changes
        with autocast.again():
            seen = self.keep_pass(self.network, x, self.noise, self.steps)
        if len(seen.output) != len(x):
            raise UserError(f"the network gives {len(seen.output)} outputs for a batch of {len(x)}.", key="network")
        return seen

    @uncompiled
    def learn_feedback(self, x: Tensor) -> Tensor:
        """Train the feedback alone on a batch x (batch, ...), of which no labels are needed; in training mode.

        Forward weights and their `.grad` stay as they are; running statistics follow the batch, as in any pass. This is
        a step with noise of its own, and a state holds it. Published experiments do so for whole epochs, before and
        between those of training.

        Returns:
            The feedback loss of each block with feedback, as in `Step`.

        Raises:
            UserError: the learner is in evaluation mode, x is no batch that the network takes, or the rule's feedback
                does not learn by itself.
        """
        if not self.training:
            raise UserError("set the learner to training mode first.", key="learn_feedback")
        if not self.learning.learns_alone:
            name = type(self.algorithm.feedback).__name__
            raise UserError(f"there is nothing to learn: the feedback rule is {name}.", key="learn_feedback")
        self._check(x)
        autocast, losses = self._sound_autocast(x.device), {}
        with torch.enable_grad():  # by which layers without a rule carry errors down
            seen = self._see(x.detach(), autocast)
        with autocast.again(), torch.no_grad():
            self.learning.before_sweep(seen)
            for block in reversed(self.network.fed_numbers):
                losses[block] = self.learning.learn(seen, block)
            self.learning.after_targets()
        learned = [losses[block] for block in self.network.fed_numbers]
        result = torch.stack(learned) if learned else x.new_zeros(0)
        self.learning.between_steps(self.steps, result)
        self.steps += 1
        return result

    @uncompiled
    def backward(
        self,
        loss: Tensor,
        *,
        labels: Tensor | None = None,
        loss_of: Callable[[Tensor], Tensor] | None = None,
        keep: bool = False,
    ) -> Step:
        """Train the feedback on this batch, then add every block's local gradient to the `.grad` of its parameters.

        The gradients approximate `update_scale` times those of `loss.backward()`; a forward optimiser may follow.

        Args:
            loss: computed from the output of the latest call: one value per sample (batch,), or their mean.
                Parameters of its own (a temperature, a penalty) get the gradients that `loss.backward()` gives.
            labels: of the batch, (batch,), for target rules that use them.
            loss_of: the loss as a function of the output, for target rules that evaluate it again.
            keep: whether to keep outputs and targets in the Step; else they are let go on the way down.

        Raises:
            UserError: there was no forward pass in training mode since the last `backward`, the loss is of another, or
                the batch or a weight has changed since.
        """
        if self.hook is not None:
            return self.hook.go_back(loss, Asked(labels, loss_of, keep))
        step = self.compute(loss, labels=labels, loss_of=loss_of, keep=keep)
        self.finish(step)
        return step

    def compute(
        self,
        loss: Tensor,
        *,
        labels: Tensor | None = None,
        loss_of: Callable[[Tensor], Tensor] | None = None,
        keep: bool = False,
    ) -> Step:
        """What `backward` does on the device: from the second step on it waits for nothing."""
        call, leaf, earlier = self._call, self._leaf, self._earlier
        if call is None or leaf is None:
            raise UserError(
                "call the learner on a batch first, in training mode and with gradients on.", key="backward"
            )
        self._call = self._leaf = self._earlier = None
        call.unchanged.check(self.network.parameters_as_analysed())
        for each in (leaf, earlier):
            if each is not None:
                each.watch.remove()
        x = call.seen.x
        # The loss may depend on what made x, too, in whose graph the gradient for x has yet to go back.
        gradient = sample_gradients(loss, leaf.output, retain_graph=x.grad_fn is not None)
        if earlier is not None and earlier.output.grad is not None:
            raise UserError(
                "the loss depends on an earlier call, too: give each call its own, or make the learner a "
                "targetprop.hooked(learner), of which a loss may depend on several.",
                key="backward",
            )
        step = self._sweep(call, OutputSignal(gradient, labels, loss_of), keep)
        if x.requires_grad:
            torch.autograd.backward(x, call.seen.input_gradient)
        return step

    def train_on(self, call: _Call, gradient: Tensor, asked: Asked, share: float) -> tuple[Step, Tensor | None]:
        """What `backward` does once the gradient at the output has come, for the hook (see `targetprop.hook`)."""
        call.unchanged.check(self.network.parameters_as_analysed())
        call.seen.step = self.steps  # other calls may have been trained on since
        step = self._sweep(call, OutputSignal(gradient, asked.labels, asked.loss_of), asked.keep, share)
        self.finish(step)
        return step, call.seen.input_gradient if call.seen.x.requires_grad else None

    def finish(self, step: Step) -> None:
        """What `backward` does on the host after `compute`."""
        self.learning.between_steps(self.steps, step.feedback_losses)
        self.steps += 1

    @property
    def plan(self) -> Hashable:
        """By what `compute` differs from step to step, but for numbers on the device."""
        return self.learning.plan

    def _sweep(self, call: _Call, output: OutputSignal, keep: bool, share: float = 1.0) -> Step:
        """The sweep of a call, as its forward pass was executed."""
        with call.autocast.again(), torch.no_grad():
            return self._sweep_down(call.seen, output, keep, share)

    def _sweep_down(self, seen: Pass, output: OutputSignal, keep: bool, share: float) -> Step:
        """From the output down: a block's feedback learns, its weights get their gradient, its target goes on."""
        record, blocks = Record(keep, len(seen.x)), len(self.network.pairs)
        self.learning.before_sweep(seen)
        for block, difference in self.algorithm.targets.sweep(seen, output):
            if self.algorithm.scope == "block":
                seen.release(block + 1)  # nothing looks at the block above any more
            if block in self.network.fed_numbers:
                record.feedback_losses[block] = self.learning.learn(seen, block)
            record.add(block, seen.trace(block).y.detach(), difference)
            local.add_gradients(seen, block, difference, share * self.algorithm.targets.weight(block, blocks))
        self.learning.after_targets()
        step = record.step(blocks, self.network.fed_numbers, seen.x)
        self.learning.after_sweep(seen, step.local_losses)
        return step

    def _sound_autocast(self, device: torch.device) -> Autocast:
        """The autocast that stands, if this network can learn under it."""
        autocast = Autocast.current(device)
        for number, pair in self.network.fed.items() if autocast.dtype is not None else ():
            if not (self.learning.takes_narrow_types(number) and pair.carries_differences):
                raise UserError(
                    f"the feedback of block {pair.name} needs differences of nearly equal numbers, which bfloat16 does "
                    "not hold: use the algorithm 'amortised_dtp', or train without autocast, in float32.",
                    key="autocast",
                )
        return autocast

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: they wait for no `backward`, whose graph belongs to the original."""
        return {**vars(self), "_call": None, "_leaf": None, "_earlier": None}

    @property
    def _rule(self) -> str:
        """What a state must have in common with the learner that takes it over."""
        targets, feedback = type(self.algorithm.targets).__name__, type(self.algorithm.feedback).__name__
        return f"{targets} and {feedback}, feedback in the style {self.network.style!r}"

    def get_extra_state(self) -> dict[str, Any]:
        """Step count and state of the feedback learning, beside the weights in `state_dict`."""
        return {
            "format": FORMAT,
            "steps": self.steps,
            "rule": self._rule,
            "blocks": len(self.network.pairs),
            "feedback": self.learning.state_dict(),
        }

    def set_extra_state(self, state: dict[str, Any] | Tensor) -> None:
        if isinstance(state, Tensor):  # see `targetprop.loops.state_in_tensors`
            state = unpacked(state)
        if state.get("format") != FORMAT:
            raise UserError("the state was written by another edition of targetprop, and cannot be read: train anew.")
        if state["blocks"] != len(self.network.pairs):
            raise UserError(
                f"the state is of a network with {state['blocks']} blocks, this one has {len(self.network.pairs)}."
            )
        if state["rule"] != self._rule:
            raise UserError(f"the state is of {state['rule']}; this learner is of {self._rule}.")
        self.steps = state["steps"]
        self.learning.load_state_dict(state["feedback"])


@dataclass(frozen=True)
class _Leaf:
    """What the output that a caller gets is a copy of, and the hook that refuses a gradient by another way."""

    output: Tensor
    watch: RemovableHandle


@dataclass(frozen=True)
class _Call:
    """What a forward call keeps for its `backward`."""

    seen: Pass
    autocast: Autocast
    unchanged: Unchanged


def explain(learner: Learner, *, layers: bool = False) -> list[str]:
    """For each block, how its feedback learns, and why so.

    Args:
        layers: whether to list the layers of each block, too: what each is run on, and what its feedback is. What is
            evaluated "at the target" makes target propagation of it; all else is linear in what comes down.
    """
    lines = []
    inside = described(learner.network)
    for number, pair in enumerate(learner.network.pairs):
        fed = number in learner.network.fed_numbers
        how = learner.learning.explain(number) if fed else "no feedback"
        lines.append(f"Block {pair.name}: {how}")
        lines += [f"    {each}" for each in inside[number] if layers]
    return lines


def _paired(
    network: Any, algorithm: Algorithm, input_shape: Sequence[int] | None, blocks: Sequence[str] | None
) -> PairedNetwork:
    rule, targets = algorithm.feedback, algorithm.targets
    if isinstance(network, PairedNetwork):
        require(blocks is None, "blocks", "none of a PairedNetwork, which is cut already", blocks)
        needed = [n for n in range(len(network.pairs)) if targets.needs_feedback(n, len(network.pairs))]
        if network.style not in ("own", rule.style) or network.fed_numbers != needed:
            raise UserError(
                f"its feedback is in the style {network.style!r} on blocks {_numbers(network.fed_numbers)}, and the "
                f"algorithm needs {rule.style!r} on {_numbers(needed)}: give the Sequential itself.",
                key="network",
            )
        return network
    if isinstance(network, (list, tuple, nn.ModuleList)):
        for position, each in enumerate(network):
            require(isinstance(each, nn.Module), f"network[{position}]", "a layer", each)
        network = nn.Sequential(*network)
    if not isinstance(network, nn.Module) or isinstance(network, Learner):
        raise UserError(
            f"expected an nn.Module, or layers in sequence as a list, got {type(network).__name__}.", key="network"
        )
    return PairedNetwork.of(network, rule.style, targets.feedback_layer, input_shape=input_shape, blocks=blocks)


def _numbers(blocks: Sequence[int]) -> str:
    return ", ".join(str(block + 1) for block in blocks) or "none"
