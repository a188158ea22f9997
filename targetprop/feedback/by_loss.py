"""Feedback that learns by a loss: K_n updates of a block on every batch, each on fresh noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from targetprop.feedback.base import FeedbackLearning, FeedbackRule, OptimizerSpec, each_of, per_block
from targetprop.feedback.closed_form import l_drl_gradient
from targetprop.feedback.following import fits
from targetprop.feedback.losses import FeedbackLoss, NetworkLoss, l_drl
from targetprop.layers.base import STYLES, Style
from targetprop.noise import Draw, NoiseOf
from targetprop.properties import Needs
from targetprop.utils.errors import UserError, is_number, prefixed, require, require_whole, unknown
from targetprop.utils.precision import wide

if TYPE_CHECKING:
    from targetprop.network.linear_feedback import LinearPart
    from targetprop.network.network import PairedNetwork
    from targetprop.network.pair import Pair, Trace
    from targetprop.network.passes import Pass, Scope

Update = Callable[[Draw], Tensor]
"""Sets `.grad` of a feedback's weights for the noise that it draws, and returns the loss (a scalar)."""
Gradient = Literal["closed_form", "autograd"]


@dataclass(frozen=True)
class ByLoss(FeedbackRule):
    """Feedback learns by gradient steps on a loss. Numbers are spelt as in the published configurations.

    Numbers per block are one number for all blocks with feedback, or a list with one for each, in forward order.

    Args:
        loss: what the feedback is trained on (`feedback/losses.py`).
        feedback_training_iterations: updates a batch, per block.
        noise: standard deviation of input and output noise, per block.
        noise_samples: samples of noise that the gradient of an update is averaged over.
        b_optim: the feedback optimiser; each block has one of its own.
        init_symmetric_weights: whether feedback weights start as the transposed forward weights.
        gradient: "closed_form" computes the gradient of L-DRL without autograd where the feedback has a linear part;
            "autograd" computes the same gradient as published code does, slowly.
        style: of the feedback layers.

    Raises:
        UserError: a value that does not fit.
    """

    loss: FeedbackLoss = field(default=l_drl, metadata={"is_number": False})
    feedback_training_iterations: int | Sequence[int] = 20
    noise: float | Sequence[float] = 0.1
    noise_samples: int = 1
    b_optim: OptimizerSpec = field(default_factory=lambda: OptimizerSpec(lr=0.1, momentum=0.9))
    init_symmetric_weights: bool = False
    gradient: Gradient = "closed_form"
    style: Style = "published"
    styles: ClassVar[frozenset[Style]] = frozenset(STYLES) - {"gained"}  # a loss finds such a gain by itself

    def __post_init__(self) -> None:
        require(callable(self.loss), "loss", "a function, as those of feedback/losses.py", self.loss)
        require_whole("noise_samples", self.noise_samples, least=1)
        symmetric = self.init_symmetric_weights
        require(isinstance(symmetric, bool), "init_symmetric_weights", "true or false", symmetric)
        if self.gradient not in ("closed_form", "autograd"):
            raise unknown("gradient", self.gradient, ("closed_form", "autograd"))
        for sigma in each_of(self.noise):
            require(is_number(sigma) and sigma > 0, "noise", "numbers above 0", self.noise)
        for count in each_of(self.feedback_training_iterations):
            require_whole("feedback_training_iterations", count, least=0)
        require(isinstance(self.b_optim, OptimizerSpec), "b_optim", "an OptimizerSpec", self.b_optim)
        self.check_style()

    @property
    def scope(self) -> Scope:
        return "network" if isinstance(self.loss, NetworkLoss) else "block"

    @property
    def needs(self) -> Needs:
        return Needs(noisy_phase=True, passes=2 if isinstance(self.loss, NetworkLoss) else 1)

    def start(self, network: PairedNetwork) -> ByLossLearning:
        learning = ByLossLearning(network, self)
        if self.init_symmetric_weights:
            network.make_symmetric()
        return learning


class BlockNumbers(NamedTuple):
    """What one block has of the numbers of a rule."""

    iterations: int
    sigma: float
    optim: OptimizerSpec


class ByLossLearning(FeedbackLearning):
    """The feedback of a network by one `ByLoss`."""

    def __init__(self, network: PairedNetwork, rule: ByLoss) -> None:
        super().__init__(network)
        self.rule = rule
        names = [pair.name for pair in network.trained]
        key = "feedback_training_iterations"
        counts = map(int, per_block(key, rule.feedback_training_iterations, names))
        sigmas = per_block("noise", rule.noise, names)
        with prefixed("b_optim"):
            optims = rule.b_optim.of_each(names)
        each = map(BlockNumbers, counts, sigmas, optims)
        self.numbers = dict(zip(network.fed, each, strict=True))
        self._optimizers: dict[int, torch.optim.Optimizer] = {}
        self._loaded: dict[int, Any] = {}  # states of optimisers that are not made yet

    @property
    def optimizers(self) -> dict[int, torch.optim.Optimizer]:
        """The optimiser of each block whose feedback has updates to make."""
        return {block: made for block in self.network.fed if (made := self.optimizer(block)) is not None}

    def optimizer(self, block: int) -> torch.optim.Optimizer | None:
        """The optimiser of a block; it follows its parameters to another device, or to others in their place."""
        parameters = self.network.pairs[block].feedback_parameters()
        if not parameters or not self.numbers[block].iterations:
            return None
        made = self._optimizers.get(block)
        if made is None or not fits(made, parameters):
            state = self._loaded.pop(block, None) if made is None else made.state_dict()
            made = self._optimizers[block] = self.numbers[block].optim.build(parameters)
            if state is not None:
                made.load_state_dict(deepcopy(state))  # which would take over the tensors themselves
        return made

    def use_own_numbers(self) -> None:
        for block, made in self.optimizers.items():
            self.numbers[block].optim.set_numbers(made)

    def learn(self, seen: Pass, block: int) -> Tensor:
        trace = seen.trace(block)
        total = trace.x.new_zeros((), dtype=wide(trace.x.dtype))
        for loss in self.updates(seen, block):
            total += loss
        return total / max(1, self.numbers[block].iterations)

    @torch.enable_grad()
    def updates(self, seen: Pass, block: int) -> Iterator[Tensor]:
        """Update a block's feedback on one batch, time after time, and yield the loss of each update."""
        optimizer = self.optimizer(block)
        if optimizer is None or not self._learns(block):
            return
        update, parameters = self._update(seen, block), self.network.pairs[block].feedback_parameters()
        for iteration in range(self.numbers[block].iterations):
            loss = self._set_gradients(update, parameters, seen, block, iteration)
            optimizer.step()
            yield loss
        optimizer.zero_grad()

    def _learns(self, block: int) -> bool:
        return any(p.requires_grad for p in self.network.pairs[block].feedback_parameters())

    def _set_gradients(
        self, update: Update, parameters: Sequence[nn.Parameter], seen: Pass, block: int, iteration: int
    ) -> Tensor:
        """Set the `.grad` of a feedback's parameters for one update, the mean over its noise; returns the loss."""
        samples = self.rule.noise_samples
        draws = [
            NoiseOf(seen.noise, seen.step, block, iteration * samples + sample, self.numbers[block].sigma)
            for sample in range(samples)
        ]
        loss = _mean_update(update, parameters, draws)
        if self.average is not None:
            self.average([p.grad for p in parameters if p.grad is not None])
        return loss

    def _update(self, seen: Pass, block: int) -> Update:
        pair = self.network.pairs[block]
        loss = self.rule.loss
        if isinstance(loss, NetworkLoss):
            return _by_autograd(lambda draw: loss(seen, block, draw), pair)
        trace = seen.trace(block).detach()
        if pair.linear is not None and self._has_closed_form:
            return _by_closed_form(pair, pair.linear, trace)
        return _by_autograd(lambda draw: loss(pair, trace, draw), pair)

    @property
    def _has_closed_form(self) -> bool:
        return self.rule.loss is l_drl and self.rule.gradient == "closed_form"

    def held_by_a_graph(self) -> tuple[Any, ...]:
        optimizers = list(self.optimizers.values())
        for optimizer in optimizers:
            if not isinstance(optimizer, torch.optim.SGD):
                raise UserError(
                    f"the feedback optimiser {type(optimizer).__name__} counts its steps on the host, and a CUDA graph "
                    "cannot hold that: use sgd, or train without graphs.",
                    key="b_optim.type",
                )
        return tuple(_held(optimizer) for optimizer in optimizers)

    def takes_narrow_types(self, block: int) -> bool:
        return self.optimizer(block) is None  # a loss compares nearly equal numbers

    def explain(self, block: int) -> str:
        pair = self.network.pairs[block]
        if not any(p.requires_grad for p in pair.feedback_parameters()):
            return "feedback stays as it is, its weights are frozen"
        if not self._has_closed_form:
            asked = self.rule.loss is l_drl
            return (
                "autograd, because the rule asks for it" if asked else "autograd, because its loss has no closed form"
            )
        return "closed form" if pair.linear is not None else f"autograd, because {pair.not_linear}"

    def states(self, blocks: Iterable[int]) -> dict[int, Any]:
        made = {block: each.state_dict() for block, each in self._optimizers.items()}
        return {block: state for block in blocks if (state := {**self._loaded, **made}.get(block)) is not None}

    def load_states(self, states: Mapping[int, Any]) -> None:
        for block, state in states.items():
            if block in self.numbers:
                self._optimizers.pop(block, None)
                self._loaded[block] = deepcopy(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizers.clear()
        self._loaded.clear()
        super().load_state_dict(state)


def _mean_update(update: Update, parameters: Sequence[nn.Parameter], draws: Sequence[Draw]) -> Tensor:
    """Set the `.grad` of a feedback's parameters to the mean over several draws of noise; returns the mean loss."""
    loss = update(draws[0])
    if len(draws) == 1:
        return loss
    learned = [p for p in parameters if p.grad is not None]
    gradients = [cast(Tensor, p.grad) for p in learned]
    for draw in draws[1:]:
        loss = loss + update(draw)
        for total, parameter in zip(gradients, learned, strict=True):
            total.add_(cast(Tensor, parameter.grad))
    for total, parameter in zip(gradients, learned, strict=True):
        parameter.grad = total.div_(len(draws))
    return loss / len(draws)


def _by_closed_form(pair: Pair, part: LinearPart, trace: Trace) -> Update:
    clean = part.features(trace.y, trace.context)
    weight, bias = part.map.weight, part.map.bias

    def update(draw: Draw) -> Tensor:
        gradient, loss = l_drl_gradient(pair, part, trace, clean, draw)
        if weight.requires_grad:
            weight.grad = gradient
        if bias is not None and bias.requires_grad:
            bias.grad = torch.zeros_like(bias)
        return loss

    return update


def _by_autograd(loss_of: Callable[[Draw], Tensor], pair: Pair) -> Update:
    parameters = [p for p in pair.feedback_parameters() if p.requires_grad]

    def update(draw: Draw) -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        loss = loss_of(draw)
        if loss.dim() or not loss.requires_grad:
            depends = "" if loss.requires_grad else " that does not depend on them"
            shape = tuple(loss.shape)
            raise UserError(f"expected a scalar of the feedback's weights, got the shape {shape}{depends}.", key="loss")
        torch.autograd.backward(loss, inputs=parameters)
        for parameter in parameters:  # one that cancels has a gradient all the same: weight decay is for it, too
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        return loss.detach()

    return update


def _held(optimizer: torch.optim.Optimizer) -> tuple[Any, ...]:
    """What a graph holds of an optimiser: its numbers, and where its state is."""
    numbers = [item for group in optimizer.param_groups for item in group.items() if item[0] != "params"]
    states = [each for state in optimizer.state.values() for each in state.values()]
    return tuple(numbers), tuple(each.data_ptr() for each in states if isinstance(each, Tensor))
