"""Rules that are no sweep of targets: a rule is a value, and has a learner that stands where a `Learner` does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from targetprop.hook import Asked, Hook
from targetprop.step import Step, refuse_lost_gradient, sample_gradients
from targetprop.utils.compiled import uncompiled
from targetprop.utils.errors import UserError, no_such, require
from targetprop.utils.inputs import Unchanged, check_batch, refuse_replicas
from targetprop.utils.precision import Autocast, wide

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from targetprop.learners.dense import Activity
    from targetprop.network.network import PairedNetwork
    from targetprop.properties import Needs, Source
    from targetprop.trainable import Trainable

R = TypeVar("R", bound="LearnerRule")


@dataclass(frozen=True)
class LearnerRule(ABC):
    """A rule that is no sweep of targets. A value: a frozen dataclass with its own numbers.

    Attributes:
        source: where it was published.
        needs: what it needs beside each block's own activity.
    """

    source: ClassVar[Source]
    needs: ClassVar[Needs]

    @abstractmethod
    def start(self, network: nn.Sequential, *, seed: int = 0) -> Trainable:
        """A learner of a network by this rule; its feedback weights are drawn by torch's generator.

        Args:
            seed: of its noise, if it draws some.

        Raises:
            UserError: a network that the rule is not known for.
        """

    @property
    def numbers(self) -> dict[str, Any]:
        """All settings, by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def with_numbers(self: R, **numbers: Any) -> R:
        """The same rule with other numbers.

        Raises:
            UserError: a number that it does not have, or a value that does not fit.
        """
        for name in numbers:
            if name not in self.numbers:
                raise no_such(name, self.numbers)
        return replace(self, **numbers)


@dataclass(frozen=True)
class _Call:
    """What a forward call keeps for its `backward`."""

    seen: Any
    autocast: Autocast
    unchanged: Unchanged


@dataclass(frozen=True)
class _Leaf:
    """What the output that a caller gets is a copy of, and the hook that refuses a gradient by another way."""

    output: Tensor
    watch: RemovableHandle


class LocalLearner(nn.Module, ABC):
    """What learners that are no sweep have in common: a forward pass that keeps what `backward` needs, and its checks.

    Args:
        network: with the feedback weights that the rule needs.

    Attributes:
        update_scale: None, since there is nothing that updates are a multiple of.
        takes_narrow_types: whether it can learn where activations are bfloat16.
        hook: as of a `Learner`.
    """

    update_scale = None
    needs: Needs
    takes_narrow_types: ClassVar[bool] = True

    def __init__(self, network: PairedNetwork) -> None:
        super().__init__()
        self.network = network
        self.hook: Hook | None = None
        self._call: _Call | None = None
        self._leaf: _Leaf | None = None

    def optimizer_parameters(self) -> list[nn.Parameter]:
        """What your optimiser trains."""
        return self.network.forward_parameters()

    def own_optimizers(self) -> Iterable[torch.optim.Optimizer]:
        """Those that are not yours; where nothing else is said, there are none."""
        return ()

    def use_own_numbers(self) -> None:
        """Have numbers take effect where a state brought those of another rule; where nothing else is said, none do."""

    def forward(self, x: Tensor) -> Tensor:
        """Network output for x (batch, ...); in training mode also what `backward` needs.

        Raises:
            UserError: x is no batch that the network takes, or asks for a gradient, which there is none of.
        """
        if not (self.training and torch.is_grad_enabled()):
            return self.network(x)
        return self._forward_in_training(x)

    @uncompiled
    def _forward_in_training(self, x: Tensor) -> Tensor:
        refuse_replicas(self)
        check_batch(x, self.network.dims, self.network.forward_parameters())
        if x.requires_grad:
            raise UserError("this rule sends no error to its input: give it x.detach().", key="input")
        autocast = Autocast.current(x.device)
        if autocast.dtype is not None and not self.takes_narrow_types:
            raise UserError(
                "this rule needs differences of nearly equal numbers, which bfloat16 does not hold: train without "
                "autocast, in float32.",
                key="autocast",
            )
        with autocast.again():
            seen, made = self.see(x)
        output = made.detach().to(wide(made.dtype))
        call = _Call(seen, autocast, Unchanged(x, self.network.parameters_as_analysed()))
        if self.hook is not None:
            return self.hook.hand_out(self, call, x, output)
        output.requires_grad_()
        self._leaf = _Leaf(output, output.register_post_accumulate_grad_hook(refuse_lost_gradient))
        self._call = call
        return output.clone()  # which the caller may change in place

    @uncompiled
    def backward(
        self,
        loss: Tensor,
        *,
        labels: Tensor | None = None,
        loss_of: Callable[[Tensor], Tensor] | None = None,
        keep: bool = False,
    ) -> Step:
        """As `Learner.backward`.

        Raises:
            UserError: there was no forward pass in training mode since the last `backward`, the loss is of another, or
                the batch or a weight has changed since.
        """
        if self.hook is not None:
            return self.hook.go_back(loss, Asked(labels, loss_of, keep))
        call, leaf = self._call, self._leaf
        self._call = self._leaf = None
        if call is None or leaf is None:
            raise UserError(
                "call the learner on a batch first, in training mode and with gradients on.", key="backward"
            )
        call.unchanged.check(self.network.parameters_as_analysed())
        leaf.watch.remove()
        error = sample_gradients(loss, leaf.output)
        with call.autocast.again():
            return self.learn(call.seen, error, labels, keep)

    def train_on(self, call: _Call, gradient: Tensor, asked: Asked, share: float) -> tuple[Step, None]:
        """What `backward` does once the gradient at the output has come, for the hook (see `targetprop.hook`).

        Raises:
            UserError: a share, which not every such rule can multiply its gradients by.
        """
        require(share == 1, "share", f"1 of {type(self).__name__}, whose gradients add up over backward calls", share)
        call.unchanged.check(self.network.parameters_as_analysed())
        with call.autocast.again(), torch.enable_grad():
            return self.learn(call.seen, gradient, asked.labels, asked.keep), None

    @abstractmethod
    def see(self, x: Tensor) -> tuple[Any, Tensor]:
        """What `learn` needs of a batch x (batch, ...), and the network's output."""

    @abstractmethod
    def learn(self, seen: Any, error: Tensor, labels: Tensor | None, keep: bool) -> Step:
        """Add the gradients of this batch.

        Args:
            seen: what `see` gave.
            error: dL/ds^N of each sample's own loss, (batch, ...).
            labels: (batch,), if the caller gave them.
            keep: whether the Step is to hold outputs and targets.
        """

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: they wait for no `backward`, whose graph belongs to the original."""
        return {**vars(self), "_call": None, "_leaf": None}


def add(parameter: Tensor | None, gradient: Tensor) -> None:
    """Add to the `.grad` of a parameter, if it has one and is not frozen."""
    if parameter is None or not parameter.requires_grad:
        return
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(gradient)
    else:
        parameter.grad.add_(gradient)


def mean_outputs(seen: Sequence[Activity]) -> Tensor:
    """Of each block, (blocks,)."""
    return torch.stack([each.h.detach().mean(dtype=wide(each.h.dtype)) for each in seen])
