"""What is known of a type of layer: one `LayerRule`, registered once, in the file of its family.

A rule runs the layer forward and keeps what is needed later of that pass, its *context*: pooling indices, shapes,
statistics, masks. It carries an error back through the layer on that pass, and it makes the layer's feedback. The
context is passed on explicitly and never stored in a module; shapes in it are per sample, without the batch dimension.

A layer of your own gets a rule in four lines. This one is linear, so its feedback is its transposed Jacobian:

>>> @register(Swap)
... class SwapRule(LayerRule[Swap]):
...     def vjp(self, layer, delta, context):
...         return delta.flip(1)

A noisy pass is given the context of the clean pass on the same batch (`clean`): batch norm then uses the clean
statistics, dropout the clean mask. Pooling indices are always those of the pass itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.layers.linear_map import LinearMap

Context = Any
"""What a rule keeps of one pass of its layer; its type is the rule's own business."""
Style = Literal["published", "adjoint", "matched", "gained", "linear", "lee", "range", "map"]
STYLES: Mapping[Style, str] = {
    "published": "as in the published L-DRL code: the same activation again, un-pooling that overwrites, averages that "
    "are copied, a batch norm of its own that learns",
    "adjoint": "an activation's feedback is the same activation again; all else without weights is its transposed "
    "Jacobian on the clean batch",
    "matched": "an activation's feedback has, at every y, the slope that the transposed Jacobian needs",
    "gained": "an activation's feedback is the same activation again, times a gain for each channel",
    "linear": "an activation's feedback multiplies y by the activation's slope on the clean batch",
    "lee": "g = act(V y + c): the activation comes after the map, because the block's input is an activation's output",
    "range": "g = act(V y + c), with the activation of the block below, in whose range the block's input lies: of an "
    "output block, too",
    "map": "an activation has no part in the feedback: the map alone",
}
"""Styles of feedback layers, and what they are.

"published" is what the code of Ernoult et al. 2022 does (https://github.com/ernoult/scalingDTP), layer by layer, and
where that code knows no such layer the transposed Jacobian; feedback weights have a bias where the layer has one. The
transposed Jacobian differs from it where windows of pooling overlap, where pooling averages, and for normalisation:
"adjoint" has it there, too.

The published feedback of an activation has, at y = act(u), the slope act'(y); the transposed Jacobian of the block
needs act'(u): 1 + y for ELU below zero (the published one has e^y), 1 - y^2 for tanh. "matched" and "linear" have it;
"linear" multiplies, "matched" is the nonlinear function with that slope, where there is one, and "gained" has it in the
mean over a channel. "lee" (Lee et al. 2015), "range" (Meulemans et al. 2020) and "map" are for losses that look for an
inverse.
"""
CARRYING: frozenset[Style] = frozenset({"matched", "gained", "linear"})
"""Styles that carry a difference down along the clean pass: an activation's feedback is evaluated at its own output in
that pass and at that output plus the difference (in "linear", its slope is taken there); layers that are linear given
the batch's masks, indices and statistics are their transposed Jacobians.
"""
WITH_JACOBIANS: frozenset[Style] = CARRYING | {"adjoint"}
"""Styles in which normalisation, and a layer of which nothing is known, have their transposed Jacobian."""
L = TypeVar("L", bound=nn.Module)


@dataclass(frozen=True)
class Facts:
    """What the rest of the code may rely on.

    Attributes:
        linear: whether the layer is a linear map without weights, once the batch's masks are fixed.
        reshapes: whether it only moves units about.
        commutes_with_max_pool: whether it is strictly increasing and maps zero to zero.
        keeps_sums: whether J^T delta has the same sum over each channel as delta.
        varies: whether two passes over one batch differ, or leave something behind (masks, running statistics).
        dims: number of dimensions of its input, that of the batch included; None where several fit.
    """

    linear: bool = False
    reshapes: bool = False
    commutes_with_max_pool: bool = False
    keeps_sums: bool = False
    varies: bool = False
    dims: int | None = None


class FeedbackLayer(nn.Module, ABC):
    """The feedback of one layer, from its output space back to its input space; its weights are its own.

    Attributes:
        is_activation: whether it is an activation again, which comes last in the style "lee".
        at_target: whether it is a nonlinear function that is evaluated at the target, or at a target of its own along
            the clean pass: what makes target propagation of it.
    """

    is_activation = False
    at_target = False

    @property
    def role(self) -> str:
        """In words, what it is."""
        return "feedback of its own"

    @property
    def is_linear(self) -> bool:
        """Whether `decode` is known to be linear in y, for any context."""
        return False

    @property
    def is_affine(self) -> bool:
        """Whether `decode` is known to be linear in y but for a constant."""
        return self.is_linear

    @property
    def carries(self) -> bool:
        """Whether `carry` works: it is affine, or knows from the context where on the clean pass it stands."""
        return self.is_affine

    def carry(self, difference: Tensor, context: Context) -> Tensor:
        """G(y + difference) - G(y), for the y of the pass of this context; of affine feedback the same for any y."""
        return self.decode(difference, context)

    def weights(self, layer: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Forward weight W and transposed feedback weight V^T of every linear map, in one shape; detached views."""
        return iter(())

    @abstractmethod
    def decode(self, y: Tensor, context: Context) -> Tensor:
        """Carry y (batch, *output shape of the layer) to (batch, *input shape), with the context of a pass."""


class LayerRule(Generic[L]):
    """All that is known of a type of layer; `vjp` is enough for one without weights.

    Attributes:
        any_memory_order: whether the layer takes 4-d tensors with channels last, too. One that does not is given
            contiguous ones.
        has_gains_only: whether its parameters, of whatever shape, are one for each unit: no matrix, no kernel.
        keeps_dims: whether its output has as many dimensions as its input, unless its facts say that it reshapes.
        is_container: whether all it does is to run layers with rules of their own, and its own context is theirs; hooks
            on all modules run with those.
    """

    any_memory_order = False
    has_gains_only = False
    keeps_dims = True
    is_container = False

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A registered rule is copied and pickled by its type: it may hold functions without a name."""
        kind = next((kind for kind, rule in RULES.items() if rule is self), None)
        return super().__reduce_ex__(protocol) if kind is None else (registered, (kind,))

    def bound(self, layer: L) -> LayerRule[L]:
        """The rule for this very layer; containers analyse what is in them here, once."""
        return self

    def check_hooked(self, layer: L) -> None:
        """Raise `UserError` where hooks on the layer itself would not be seen."""

    def facts(self, layer: L) -> Facts:
        """What may be relied on for this layer with its settings."""
        return Facts()

    def linear_map(self, layer: L) -> LinearMap | None:
        """The layer as a linear map of its weights; None of layers without a matrix or kernel."""
        return None

    def apply(self, layer: L, x: Tensor) -> Tensor:
        """Output (batch, ...) for x (batch, ...), nothing kept."""
        return layer(x if self.any_memory_order else x.contiguous())

    def run(self, layer: L, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        """Output for x (batch, ...) and the context of this pass.

        Args:
            clean: the context of the clean pass on the same batch, if this pass is a noisy one.
        """
        return self.apply(layer, x), x.shape[1:]

    def vjp(self, layer: L, delta: Tensor, context: Context) -> Tensor:
        """J^T delta on the pass of this context: (batch, *output) to (batch, *input)."""
        raise NotImplementedError(f"{type(self).__name__} has no vjp.")

    def gradients(self, layer: L, delta: Tensor, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """J^T delta, and the gradients of <delta, y> for the layer's own parameters by name, summed over the batch."""
        return self.vjp(layer, delta, context), {}

    def again(self, layer: L) -> FeedbackLayer | None:
        """An activation again, as feedback that needs no context; None of other layers."""
        return None

    @property
    def knows_its_gradients(self) -> bool:
        """Whether `gradients` tells all that autograd would."""
        return type(self).vjp is not LayerRule.vjp

    def feedback(self, layer: L, style: Style) -> FeedbackLayer:
        """A new feedback layer in this style; unless a rule says otherwise, the layer's transposed Jacobian.

        Raises:
            UserError: there is none for this layer, or for this setting of it.
        """
        return AdjointFeedback(layer, self)


class AdjointFeedback(FeedbackLayer):
    """A layer's transposed Jacobian on the clean batch: un-pooling, the clean mask, the slope of an activation."""

    def __init__(self, layer: nn.Module, rule: LayerRule[Any]) -> None:
        super().__init__()
        self._layer = (layer, rule)  # in a tuple, so that it is no submodule: the layer's parameters are the block's

    @property
    def role(self) -> str:
        layer, rule = self._layer
        return "its transpose" if rule.facts(layer).linear else "its transposed Jacobian on the clean batch"

    @property
    def is_linear(self) -> bool:
        return True

    def decode(self, y: Tensor, context: Context) -> Tensor:
        if isinstance(context, Graph):  # the layer has been hooked since
            return context.vjp(y)
        layer, rule = self._layer
        return rule.vjp(layer, y, context)


class UnweightedFeedback(FeedbackLayer):
    """Feedback without weights that is linear, and not the layer's transposed Jacobian.

    Args:
        function: of (y, the context that the layer's rule keeps).
    """

    def __init__(self, function: Callable[[Tensor, Context], Tensor]) -> None:
        super().__init__()
        self._function = function

    @property
    def role(self) -> str:
        return "a linear function, not its transpose"

    @property
    def is_linear(self) -> bool:
        return True

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self._function(y, context.known if isinstance(context, Graph) else context)


class IgnoredFeedback(FeedbackLayer):
    """Feedback of a layer that the feedback path leaves out."""

    @property
    def role(self) -> str:
        return "left out"

    @property
    def is_linear(self) -> bool:
        return True

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return y


@dataclass(frozen=True)
class Graph:
    """The context of a layer that only autograd can differentiate: one pass of it, from x to y.

    Attributes:
        known: the context that the rule of its type kept of this pass, if there is one.
    """

    x: Tensor
    y: Tensor
    known: Context = None

    def vjp(self, delta: Tensor) -> Tensor:
        """J^T delta on this pass."""
        if not self.y.requires_grad:
            return torch.zeros_like(self.x)
        (below,) = torch.autograd.grad(
            self.y, self.x, delta, retain_graph=True, create_graph=delta.requires_grad, materialize_grads=True
        )  # delta may come from feedback weights that learn
        return below


class LinearByAutograd(LayerRule[nn.Module]):
    """The rule of a layer without weights that is linear, or linear and a constant: its transpose is everywhere one."""

    any_memory_order = True

    def facts(self, layer: nn.Module) -> Facts:
        return Facts(linear=True)

    def vjp(self, layer: nn.Module, delta: Tensor, context: Context) -> Tensor:
        return transpose(layer, delta, context)


def transpose(function: Callable[[Tensor], Tensor], y: Tensor, shape: torch.Size) -> Tensor:
    """The transpose of a linear function: y (batch, *output) to (batch, *shape)."""
    pullback = torch.func.vjp(function, y.new_zeros(len(y), *shape))[1]
    return pullback(y)[0]


class Altered(tuple[int, ...]):
    """The context of a matrix or kernel that a hook makes into something else: the shape of its input.

    Attributes:
        name: of the layer's type.
    """

    name: str

    @classmethod
    def of(cls, layer: nn.Module, shape: torch.Size) -> Altered:
        """For this layer, which saw inputs of this shape."""
        altered = cls(shape)
        altered.name = type(layer).__name__
        return altered

    def refuse(self) -> UserError:
        """What to say where the feedback of the matrix is asked for."""
        return UserError(
            f"a hook on {self.name}, or a method put into it, changes what it computes, and the feedback of its "
            "weights would not know: put that into a layer of its own."
        )


RULES: dict[type[nn.Module], LayerRule[Any]] = {}
"""By type of layer; `register` adds to them."""
R = TypeVar("R", bound=type[LayerRule[Any]])


def register(*types: type[nn.Module]) -> Callable[[R], R]:
    """Register a class of rules for these types of layers, and for subclasses that compute nothing else."""

    def add(rule: R) -> R:
        add_rule(rule(), *types)
        return rule

    return add


def add_rule(rule: LayerRule[Any], *types: type[nn.Module]) -> None:
    """Register a rule for these types of layers."""
    RULES.update(dict.fromkeys(types, rule))


def registered(kind: type[nn.Module]) -> LayerRule[Any]:
    """The rule registered for this very type."""
    return RULES[kind]


def sizes(value: int | tuple[int, ...] | None, dims: int) -> tuple[int, ...]:
    """A setting of a layer, one number for each spatial dimension, that may have been given as one number."""
    assert value is not None
    return (value,) * dims if isinstance(value, int) else tuple(value)
