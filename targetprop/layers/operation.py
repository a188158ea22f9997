"""Functions of tensors as layers: a sum, a product, a reshape, attention; whatever a forward does between its layers.

An `Operation` computes one function of one or several tensors. It has no feedback weights: an error goes back through
its transposed Jacobian on the clean pass, found by autograd within just this function. What a function needs beside
tensors on the way (constants, positional embeddings, masks, sizes) is computed within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.node import map_aggregate
from torch.nn.attention import SDPBackend, sdpa_kernel

from targetprop.layers.base import Context, Facts, LayerRule, register

Given = Tensor | tuple[Tensor, ...]
"""What an operation is run on: one tensor, or as many as it has operands."""
Carried = Tensor | tuple[Tensor | None, ...]
"""What comes down to each of them."""
NOTHING_KNOWN = Facts()


class LookAtBatch(nn.Module):
    """Gives the batch that the network is run on: no target comes down to it, so any block may look at it.

    Attributes:
        batch: where whoever runs the network puts it.
    """

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch

    def forward(self) -> Tensor:
        assert self.batch.x is not None
        return self.batch.x


class Batch:
    """Where a network puts the batch that it is run on, before it is run."""

    x: Tensor | None = None

    def __getstate__(self) -> dict[str, Tensor]:
        return {}  # copies are run on batches of their own


@dataclass(frozen=True)
class Ref:
    """In a line of a program: what came before by this number, operands first."""

    number: int


@dataclass(frozen=True)
class Line:
    """One step of a program.

    Attributes:
        kind: whether the target is a function, the name of a tensor's method, or that of a module or a tensor that
            the program holds.
        args, kwargs: what it is called with, with a `Ref` for each value from before.
    """

    kind: Literal["function", "method", "module", "tensor"]
    target: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class Program(nn.Module):
    """Functions of tensors in turn; the last line gives the result.

    Args:
        lines: what is computed.
        held: by name the modules, parameters and other tensors that it names; those of its owner, not copies.
    """

    def __init__(self, lines: Sequence[Line], held: Mapping[str, nn.Module | Tensor]) -> None:
        super().__init__()
        self.lines = tuple(lines)
        for name, each in held.items():
            if isinstance(each, nn.Module):
                self.add_module(name, each)
            elif isinstance(each, nn.Parameter):
                self.register_parameter(name, each)
            else:
                self.register_buffer(name, each, persistent=False)

    def forward(self, *operands: Tensor) -> Tensor:
        values: list[Any] = list(operands)

        def value(each: Any) -> Any:
            return values[each.number] if isinstance(each, Ref) else each

        for line in self.lines:
            args, kwargs = map_aggregate((line.args, dict(line.kwargs)), value)
            values.append(self._run(line, args, kwargs))
        result: Tensor = values[-1]
        return result

    def _run(self, line: Line, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if line.kind == "function":
            return line.target(*args, **kwargs)
        if line.kind == "method":
            return getattr(args[0], line.target)(*args[1:], **kwargs)
        held = getattr(self, line.target)
        return held(*args, **kwargs) if line.kind == "module" else held

    @property
    def targets(self) -> list[Any]:
        """The functions, and names of methods, that it calls."""
        return [line.target for line in self.lines if line.kind in ("function", "method")]


class Operation(nn.Module):
    """A function of tensors.

    Args:
        title: what it is called.
        training: computes it, of (*operands).
        evaluation: the same in evaluation mode, if that differs.
        operands: how many tensors it is a function of.
        facts: of a function of one tensor, what may be relied on.
        any_memory_order: whether it takes 4-d tensors with channels last, too.
    """

    def __init__(
        self,
        title: str,
        training: Program,
        evaluation: Program | None = None,
        *,
        operands: int = 1,
        facts: Facts = NOTHING_KNOWN,
        any_memory_order: bool = True,
    ) -> None:
        super().__init__()
        self.title = title
        self.in_training, self.in_evaluation = training, evaluation
        self.operands = operands
        self.known = facts
        self.any_memory_order = any_memory_order

    def forward(self, *operands: Tensor) -> Tensor:
        form = self.in_training if self.training or self.in_evaluation is None else self.in_evaluation
        y: Tensor = form(*operands)
        return y

    def extra_repr(self) -> str:
        return self.title


class OperationContext(NamedTuple):
    """One pass of an operation, from its operands to its output."""

    operands: tuple[Tensor, ...]
    y: Tensor

    def vjps(self, delta: Tensor) -> tuple[Tensor | None, ...]:
        """J^T delta on this pass, for every operand; None for one of which the output only took the size."""
        wanted = [each for each in self.operands if each.requires_grad]
        found = iter(self._gradients(wanted, delta) if wanted and self.y.requires_grad else [None] * len(wanted))
        return tuple(next(found) if each.requires_grad else None for each in self.operands)

    def _gradients(self, wanted: Sequence[Tensor], delta: Tensor) -> Sequence[Tensor | None]:
        return torch.autograd.grad(
            self.y, wanted, delta.to(self.y.dtype), retain_graph=True, create_graph=delta.requires_grad,
            allow_unused=True,
        )  # fmt: skip


@register(Operation)
class OperationRule(LayerRule[Operation]):
    """Run within a graph of its own, or within that of its block; the context is an `OperationContext`.

    Of an operation with several operands, x is the tuple of them, and so is J^T delta.
    """

    has_gains_only = True  # parameters within it are added, or multiply unit by unit
    keeps_dims = False

    def __init__(self, any_memory_order: bool = True, knows_its_gradients: bool = False) -> None:
        self.any_memory_order = any_memory_order
        self._knows_its_gradients = knows_its_gradients

    def bound(self, layer: Operation) -> OperationRule:
        return OperationRule(layer.any_memory_order, not any(True for _ in layer.parameters()))

    def facts(self, layer: Operation) -> Facts:
        return layer.known

    def apply(self, layer: Operation, x: Given) -> Tensor:
        y: Tensor = layer(*self._ordered(x))
        return y

    def run(self, layer: Operation, x: Given, clean: Context = None) -> tuple[Tensor, Context]:
        given = self._ordered(x)
        if clean is not None:
            return layer(*given), clean
        with torch.enable_grad():
            operands = tuple(map(_differentiable, given))
            y: Tensor = layer(*operands)
        context = OperationContext(operands, y)
        return (y if torch.is_grad_enabled() else y.detach()), context

    def vjp(self, layer: Operation, delta: Tensor, context: OperationContext) -> Carried:  # type: ignore[override]
        if delta.requires_grad and not layer.known.varies:
            context = _differentiable_twice(layer, context)
        below = context.vjps(delta)
        if layer.operands > 1:
            return below
        return torch.zeros_like(context.operands[0]) if below[0] is None else below[0]

    @property
    def knows_its_gradients(self) -> bool:
        return self._knows_its_gradients

    def _ordered(self, x: Given) -> tuple[Tensor, ...]:
        given = x if isinstance(x, tuple) else (x,)
        return given if self.any_memory_order else tuple(each.contiguous() for each in given)


@register(LookAtBatch)
class LookAtBatchRule(LayerRule[LookAtBatch]):
    """Nothing goes down, and there is nothing that it is run on."""

    any_memory_order = True
    has_gains_only = True

    def apply(self, layer: LookAtBatch, x: Given) -> Tensor:
        y: Tensor = layer()
        return y


def _differentiable(x: Tensor) -> Tensor:
    """x within the graph of its block, or as the beginning of one; a view, since other operands may follow from x."""
    if not (x.is_floating_point() or x.is_complex()):
        return x
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def _differentiable_twice(layer: Operation, context: OperationContext) -> OperationContext:
    """The same pass, where attention is fused, by a kernel whose way back can be differentiated.

    Feedback weights that learn by autograd, further up, need that; they may not need it of dropout, whose kernel can.
    """
    if F.scaled_dot_product_attention not in layer.in_training.targets:
        return context
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        operands = tuple(_differentiable(each.detach()) for each in context.operands)
        return OperationContext(operands, layer(*operands))
