"""What every way to learn feedback has in common: a rule, which is a value, and its state, which learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from targetprop.properties import Needs
from targetprop.utils.errors import UserError, is_number, require, unknown
from targetprop.utils.precision import wide

if TYPE_CHECKING:
    from targetprop.layers.base import Style
    from targetprop.network.network import PairedNetwork
    from targetprop.network.passes import Pass, Scope

Average = Callable[[Sequence[Tensor]], None]
"""Replaces tensors by their mean over all processes that train the same block on batches of their own."""


class FeedbackRule(ABC):
    """A way to learn feedback. A value: a frozen dataclass with its own numbers.

    Attributes:
        style: of the feedback layers that it trains.
        styles: those that it can train.
    """

    style: Style
    styles: ClassVar[frozenset[Style]]

    @property
    @abstractmethod
    def scope(self) -> Scope:
        """How far it looks: at one block, or further."""

    @property
    def needs(self) -> Needs:
        """What it needs beside each block's own activity."""
        return Needs()

    @abstractmethod
    def start(self, network: PairedNetwork) -> FeedbackLearning:
        """Begin to learn the feedback of a network; may set its feedback weights.

        Raises:
            UserError: numbers that do not fit the blocks, or a block whose feedback the rule cannot learn. The network
                is then as it was.
        """

    def check_style(self) -> None:
        """Raise `UserError` if the style is not one of those that the rule can train."""
        if not isinstance(self.style, str) or self.style not in self.styles:
            raise unknown("style", self.style, self.styles)


class FeedbackLearning(ABC):
    """The feedback of a network while it learns. Blocks are counted from 0.

    Attributes:
        network: whose feedback learns.
        scope: of the algorithm that it belongs to.
        average: set where several processes train the same blocks on other batches.
    """

    def __init__(self, network: PairedNetwork) -> None:
        self.network = network
        self.scope: Scope = "block"
        self.average: Average | None = None

    @property
    def bare(self) -> FeedbackLearning:
        """This, without the wrappers that execute it in another way."""
        return self

    @property
    def optimizers(self) -> Mapping[int, torch.optim.Optimizer]:
        """The optimiser of each block whose feedback has one."""
        return {}

    def before_sweep(self, seen: Pass) -> None:  # noqa: B027 - most rules have nothing to do
        """Before the first block of a step learns."""

    @property
    def learns_alone(self) -> bool:
        """Whether the feedback can learn on batches on which nothing else does."""
        return True

    @abstractmethod
    def learn(self, seen: Pass, block: int) -> Tensor:
        """All updates of a block's feedback on this batch; returns their mean loss, a scalar (0 without a loss).

        It is called before the block's target goes on. A rule whose targets come down by the feedback as it was takes
        its gradients here and its steps in `after_targets`; it needs the scope "network".
        """

    def after_targets(self) -> None:  # noqa: B027
        """When all targets of a batch are formed, and every block's `learn` was called."""

    @staticmethod
    def no_loss(seen: Pass, block: int) -> Tensor:
        """What `learn` returns where there is no loss."""
        x = seen.trace(block).x
        return x.new_zeros((), dtype=wide(x.dtype))

    def after_sweep(self, seen: Pass, local_losses: Tensor) -> None:  # noqa: B027
        """After every block has its forward gradients.

        Args:
            local_losses: (blocks,), as the step will report them; a wrapper may average them over processes, in place.
        """

    def between_steps(self, step: int, losses: Tensor) -> None:  # noqa: B027
        """After a step, on the host: the one place that may wait for the device.

        Args:
            step: number of the step, from 0.
            losses: what `learn` returned for the blocks with feedback, in forward order.
        """

    @property
    def plan(self) -> Hashable:
        """By what one step differs from another, but for numbers on the device: for each there is a graph."""
        return ()

    def held_by_a_graph(self) -> Hashable:
        """Numbers and places of state that a recorded step would hold.

        Raises:
            UserError: a step of this learning cannot be recorded.
        """
        return ()

    def parameters_for_the_user(self) -> list[nn.Parameter]:
        """Feedback weights that the user's own optimiser must train."""
        return []

    def learned(self, block: int) -> list[Tensor]:
        """What learning a block's feedback may change: its weights, and buffers that noisy passes may change."""
        pair = self.network.pairs[block]
        return [*pair.feedback_parameters(), *pair.buffers()]

    def takes_narrow_types(self, block: int) -> bool:
        """Whether a block's feedback can learn where activations are bfloat16."""
        return True

    @abstractmethod
    def explain(self, block: int) -> str:
        """In words, how a block's feedback learns, and why so."""

    def use_own_numbers(self) -> None:  # noqa: B027
        """Have the rule's rates and other numbers take effect where a state brought those of another one."""

    def states(self, blocks: Iterable[int]) -> dict[int, Any]:
        """State that belongs to one of these blocks each, for blocks that have some."""
        return {}

    def load_states(self, states: Mapping[int, Any]) -> None:  # noqa: B027
        """Take over what `states` returned, perhaps in another process."""

    def state_dict(self) -> dict[str, Any]:
        """All state beside the weights."""
        return {"blocks": self.states(self.network.fed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.load_states(state["blocks"])


TRAINED = "block with trained feedback"

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


ADAPTIVE = ("adam", "adamw", "rmsprop")
TAKEN_BY: Mapping[str, Sequence[str]] = {
    "dampening": ("sgd",),
    "betas": ("adam", "adamw"),
    "eps": ADAPTIVE,
    "amsgrad": ("adam", "adamw"),
    "alpha": ("rmsprop",),
    "centered": ("rmsprop",),
    "fused": ("sgd", "adam", "adamw"),
}
"""Types that have an option of which the others know nothing."""


@dataclass(frozen=True, repr=False)
class OptimizerSpec:
    """An optimiser as a value, with the options of torch's but for those that would have it do something else: to
    maximise, to be differentiated, or to be part of a graph.

    Args:
        type: one of `OPTIMIZERS`.
        lr: learning rate; one number for all blocks, or one for each block (for the feedback: with feedback).
        momentum: for sgd and rmsprop.
        weight_decay: coefficient of the L2 penalty (decoupled for adamw).
        nesterov: for sgd with momentum, whether it looks ahead (Nesterov's momentum).
        betas: for adam and adamw, the two rates at which their means forget; None for torch's.
        eps: for all but sgd, what is added to the root of the mean square; one number, or one for each block as of
            `lr`; None for torch's.
        dampening: for sgd with momentum, the share of a new gradient that its momentum leaves out.
        amsgrad: for adam and adamw, whether the largest mean square so far counts.
        alpha: for rmsprop, the rate at which its mean square forgets; None for torch's.
        centered: for rmsprop, whether the variance of a gradient counts in place of its mean square.
        foreach: whether all weights are updated at once; None for torch's choice.
        fused: for all but rmsprop, whether an update is one kernel; None for torch's choice.

    Raises:
        UserError: a value that is no such number.
    """

    type: str = "sgd"
    lr: float | Sequence[float] = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    betas: Sequence[float] | None = None
    eps: float | Sequence[float] | None = None
    dampening: float = 0.0
    amsgrad: bool = False
    alpha: float | None = None
    centered: bool = False
    foreach: bool | None = None
    fused: bool | None = None

    def __repr__(self) -> str:
        """Type, rate, and whatever else is not as it is by itself."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        usual = {each.name: each.default for each in fields(self) if each.name not in ("type", "lr")}
        kept = [f"{name}={value!r}" for name, value in given.items() if name not in usual or value != usual[name]]
        return f"OptimizerSpec({', '.join(kept)})"

    def __post_init__(self) -> None:
        if not isinstance(self.type, str) or self.type not in OPTIMIZERS:
            raise unknown("type", self.type, OPTIMIZERS)
        rates = each_of(self.lr)
        fit = len(rates) > 0 and all(is_number(each) and each >= 0 for each in rates)
        require(fit, "lr", "numbers, 0 or more", self.lr)
        for key in ("momentum", "weight_decay"):
            value = getattr(self, key)
            require(is_number(value) and value >= 0, key, "a number, 0 or more", value)
        require(self.momentum < 1, "momentum", "a number in [0, 1)", self.momentum)
        if self.momentum and self.type not in ("sgd", "rmsprop"):
            raise UserError(f"{self.type} has none, set momentum=0; got {self.momentum}.", key="momentum")
        require(isinstance(self.nesterov, bool), "nesterov", "true or false", self.nesterov)
        if self.nesterov and not (self.type == "sgd" and self.momentum):
            raise UserError("only sgd with momentum looks ahead; set it to false.", key="nesterov")
        for key, types in TAKEN_BY.items():
            value = getattr(self, key)
            if self.type not in types and value is not None and value is not False and value != 0:
                raise UserError(f"{self.type} has none, leave it out; got {value}.", key=key)
        self._check_numbers()
        self._check_switches()

    def _check_numbers(self) -> None:
        if self.betas is not None:
            fit = isinstance(self.betas, Sequence) and len(self.betas) == 2
            fit = fit and all(is_number(each) and 0 <= each < 1 for each in self.betas)
            require(fit, "betas", "two numbers in [0, 1)", self.betas)
        own = [1.0] if self.eps is None else each_of(self.eps)
        fit = len(own) > 0 and all(is_number(each) and each > 0 for each in own)
        require(fit, "eps", "numbers above 0", self.eps)
        fit = is_number(self.dampening) and 0 <= self.dampening <= 1
        require(fit, "dampening", "a number in [0, 1]", self.dampening)
        if self.dampening and (self.nesterov or not self.momentum):
            raise UserError("only momentum that does not look ahead is damped; set it to 0.", key="dampening")
        fit = self.alpha is None or (is_number(self.alpha) and 0 <= self.alpha < 1)
        require(fit, "alpha", "a number in [0, 1), or null", self.alpha)

    def _check_switches(self) -> None:
        for key in ("amsgrad", "centered"):
            require(isinstance(getattr(self, key), bool), key, "true or false", getattr(self, key))
        for key in ("foreach", "fused"):
            value = getattr(self, key)
            require(value is None or isinstance(value, bool), key, "true, false or null", value)
        if self.foreach and self.fused:
            raise UserError("an update is fused or for each weight alike, not both; set it to null.", key="fused")

    def of_each(self, blocks: Sequence[str], which: str = TRAINED) -> list[OptimizerSpec]:
        """This one for each of the named blocks, with its own of the numbers that are per block.

        Args:
            which: what blocks these are, for messages.

        Raises:
            UserError: a list that does not fit the blocks.
        """
        rates = per_block("lr", self.lr, blocks, which)
        eps = [None] * len(blocks) if self.eps is None else per_block("eps", self.eps, blocks, which)
        return [replace(self, lr=rate, eps=each) for rate, each in zip(rates, eps, strict=True)]

    def build(self, parameters: Iterable[Tensor], lr: float | None = None) -> torch.optim.Optimizer:
        """The torch optimiser, with `lr` in place of its own rate if given (the rate of one block)."""
        return OPTIMIZERS[self.type](parameters, **self._options(lr))

    def build_by_block(self, blocks: Mapping[str, Sequence[Tensor]]) -> torch.optim.Optimizer:
        """One torch optimiser of parameters by the name of their block, with a group for each.

        Raises:
            UserError: a list that does not fit the blocks.
        """
        each = self.of_each(list(blocks), "block")
        groups = [{"params": own, **spec._options()} for own, spec in zip(blocks.values(), each, strict=True)]
        return OPTIMIZERS[self.type](groups, **each[0]._options())

    @property
    def is_by_block(self) -> bool:
        """Whether a number of it is a list, for each block one."""
        return isinstance(self.lr, Sequence) or isinstance(self.eps, Sequence)

    def _options(self, lr: float | None = None) -> dict[str, Any]:
        options: dict[str, Any] = {"lr": self.lr if lr is None else lr, "weight_decay": self.weight_decay}
        if self.type in ("sgd", "rmsprop"):
            options["momentum"] = self.momentum
        options |= {key: True for key in ("nesterov", "amsgrad", "centered") if getattr(self, key)}
        options |= {"dampening": self.dampening} if self.dampening else {}
        options |= {} if self.betas is None else {"betas": tuple(self.betas)}
        own = {key: getattr(self, key) for key in ("eps", "alpha", "foreach", "fused")}
        return options | {key: value for key, value in own.items() if value is not None}

    def set_numbers(self, optimizer: torch.optim.Optimizer, lr: float | None = None) -> None:
        """Give an optimiser of this type, whose numbers came with a state, those of this one; the state stays.

        One with a group for each block gets the numbers of each.
        """
        groups = optimizer.param_groups
        each = self.of_each([str(number) for number in range(len(groups))]) if self.is_by_block else [self]
        for group, spec in zip(groups, each * (len(groups) // len(each)), strict=True):
            own = group["params"]
            (numbers,) = spec.build(own, lr).param_groups
            group.clear()  # what a schedule keeps there, too
            group.update({**numbers, "params": own})


def each_of(value: float | Sequence[float]) -> Sequence[float]:
    """The numbers of a setting that may be one number for all blocks."""
    return value if isinstance(value, Sequence) else [value]


def per_block(key: str, value: float | Sequence[float], blocks: Sequence[str], which: str = TRAINED) -> list[float]:
    """One value for each of the named blocks: a number stands for all of them, a list must fit exactly.

    Args:
        which: what blocks these are, for messages.

    Raises:
        UserError: a list of another length; names the key and the blocks.
    """
    if not isinstance(value, Sequence):
        return [value] * len(blocks)
    if len(value) != len(blocks):
        raise UserError(
            f"expected {len(blocks)} values, one for each {which} "
            f"({'; '.join(blocks)}), or one number for all; got {len(value)}: {list(value)}.",
            key=key,
        )
    return list(value)
