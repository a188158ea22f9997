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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.layers.maps import LinearMap

Context = Any
"""What a rule keeps of one pass of its layer; its type is the rule's own business."""
Style = Literal["published", "matched", "linear", "lee", "map"]
STYLES: Mapping[Style, str] = {
    "published": "an activation's feedback is the same activation again",
    "matched": "an activation's feedback has, at every y, the slope that the transposed Jacobian needs",
    "linear": "an activation's feedback multiplies y by the activation's slope on the clean batch",
    "lee": "g = act(V y + c): the activation comes after the map, because the block's input is an activation's output",
    "map": "an activation has no part in the feedback: the map alone",
}
"""Styles of feedback layers, and what they are.

The published feedback of an activation has, at y = act(u), the slope act'(y); the transposed Jacobian of the block
needs act'(u): 1 + y for ELU below zero (the published one has e^y), 1 - y^2 for tanh. "matched" and "linear" have it;
"linear" multiplies, "matched" is the nonlinear function with that slope. "lee" (Lee et al. 2015) and "map" are for the
reconstruction loss, which looks for an inverse.
"""
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
    """The feedback of one layer, from its output space back to its input space; its weights are its own."""

    @property
    def is_linear(self) -> bool:
        """Whether `decode` is known to be linear in y, for any context."""
        return False

    @abstractmethod
    def decode(self, y: Tensor, context: Context) -> Tensor:
        """Carry y (batch, *output shape of the layer) to (batch, *input shape), with the context of a pass."""


class LayerRule(Generic[L]):
    """All that is known of a type of layer; `vjp` is enough for one without weights.

    Attributes:
        any_memory_order: whether the layer takes 4-d tensors with channels last, too. One that does not is given
            contiguous ones.
        runs_layers: whether all it does is to run layers with rules of their own; hooks on all modules run with those.
    """

    any_memory_order = False
    runs_layers = False

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A registered rule is copied and pickled by its type: it may hold functions without a name."""
        kind = next((kind for kind, rule in _RULES.items() if rule is self), None)
        return super().__reduce_ex__(protocol) if kind is None else (registered, (kind,))

    def bound(self, layer: L) -> LayerRule[L]:
        """The rule for this very layer; containers analyse what is in them here, once."""
        return self

    def hooked(self, layer: L) -> LayerRule[Any]:
        """The rule for this very layer if hooks run with it."""
        return Opaque(self)

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
    def is_linear(self) -> bool:
        return True

    def decode(self, y: Tensor, context: Context) -> Tensor:
        if isinstance(context, Graph):  # the layer has been hooked since
            return context.vjp(y)
        layer, rule = self._layer
        return rule.vjp(layer, y, context)


class IgnoredFeedback(FeedbackLayer):
    """Feedback of a layer that the feedback path leaves out."""

    @property
    def is_linear(self) -> bool:
        return True

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return y


@dataclass(frozen=True)
class Graph:
    """The context of a layer that only autograd can differentiate: one pass of it, from x to y."""

    x: Tensor
    y: Tensor

    def vjp(self, delta: Tensor) -> Tensor:
        """J^T delta on this pass."""
        if not self.y.requires_grad:
            return torch.zeros_like(self.x)
        (below,) = torch.autograd.grad(
            self.y, self.x, delta, retain_graph=True, create_graph=delta.requires_grad, materialize_grads=True
        )  # delta may come from feedback weights that learn
        return below


class Opaque(LayerRule[nn.Module]):
    """The rule of a layer of which nothing is known: it is run as it is, and differentiated by autograd.

    Args:
        known: the rule of its type, if something that the rule does not see runs with the layer (a hook, say).
    """

    def __init__(self, known: LayerRule[Any] | None = None) -> None:
        self.known = known

    def facts(self, layer: nn.Module) -> Facts:
        known = Facts() if self.known is None else self.known.facts(layer)
        varies = known.varies or (self.known is None and bool(list(layer.buffers())))
        return Facts(reshapes=known.reshapes, varies=varies, dims=known.dims)

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x.clone(memory_format=torch.contiguous_format))  # which it may change in place

    def run(self, layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        if has_matrix(layer):
            return self.apply(layer, x), x.shape[1:]
        if clean is not None:
            return self.apply(layer, x), clean
        with torch.enable_grad():
            start = x if x.requires_grad else x.detach().requires_grad_()
            y = self.apply(layer, start)
        return y if torch.is_grad_enabled() else y.detach(), Graph(start, y)

    @property
    def knows_its_gradients(self) -> bool:
        return False

    def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
        if self.known is not None:
            return self.known.feedback(layer, style)
        if style == "linear" and not has_matrix(layer):
            return AdjointFeedback(layer, self)
        name = type(layer).__name__
        known = ", ".join(sorted(kind.__name__ for kind in _RULES))
        raise UserError(
            f"layer {name} has no feedback, because what it computes is not known. Layers with one: {known}. Use one "
            f"of these, or say with @targetprop.register({name}) how an error goes back through it."
        )


_RULES: dict[type[nn.Module], LayerRule[Any]] = {}
R = TypeVar("R", bound=type[LayerRule[Any]])


def register(*types: type[nn.Module]) -> Callable[[R], R]:
    """Register a class of rules for these types of layers, and for subclasses that compute nothing else."""

    def add(rule: R) -> R:
        add_rule(rule(), *types)
        return rule

    return add


def add_rule(rule: LayerRule[Any], *types: type[nn.Module]) -> None:
    """Register a rule for these types of layers."""
    _RULES.update(dict.fromkeys(types, rule))
    _known_type.cache_clear()


def registered(kind: type[nn.Module]) -> LayerRule[Any]:
    """The rule registered for this very type."""
    return _RULES[kind]


def rule_of(layer: nn.Module) -> LayerRule[Any]:
    """The rule that tells all that this layer does; `Opaque` where there is none."""
    known = _known_type(type(layer))
    if known is None or "forward" in vars(layer):
        return Opaque()
    rule = _RULES[known]
    return rule.hooked(layer) if is_hooked(layer, rule.runs_layers) else rule.bound(layer)


@cache
def _known_type(kind: type[nn.Module]) -> type[nn.Module] | None:
    """The registered type whose rule holds for `kind`: itself, or a parent that it only adds to."""
    for parent in kind.__mro__:
        if parent in _RULES:
            return parent
        if not _only_adds(parent):
            return None
    return None


ABOUT_ITSELF = {"__init__", "__repr__", "extra_repr", "reset_parameters", "_reset_parameters", "__constants__"}
"""What a subclass may have of its own and still compute what its parent does."""


def _only_adds(kind: type) -> bool:
    """Whether a class has only methods that its parents lack: nothing that they call can be another one."""
    parents = kind.__mro__[1:]
    for name, value in vars(kind).items():
        inherited = any(name in vars(parent) for parent in parents)
        about = name in ABOUT_ITSELF or (name.startswith("__") and not callable(value))
        if not about and (inherited or isinstance(value, property)):
            return False
    return "__getattr__" not in vars(kind) and "__getattribute__" not in vars(kind)


def is_hooked(layer: nn.Module, itself_alone: bool = False) -> bool:
    """Whether code that its type does not tell of runs with it: hooks, also those by which torch prunes weights.

    Args:
        itself_alone: leave out hooks that are on all modules.
    """
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return True
    if torch_module._has_any_global_hook() and not itself_alone:
        return True
    own = layer._parameters.values()
    return any(p is not None and (p._backward_hooks or p._post_accumulate_grad_hooks) for p in own)


def has_matrix(layer: nn.Module) -> bool:
    """Whether it holds a matrix or kernel; the vectors of normalisation layers are none."""
    return any(parameter.dim() > 1 for parameter in layer.parameters())


def not_in_place(layer: nn.Module) -> None:
    """Have a layer write to memory of its own: in place it would write over activations that are still needed."""
    if getattr(layer, "inplace", False):
        setattr(layer, "inplace", False)  # noqa: B010


def sizes(value: int | tuple[int, ...] | None, dims: int) -> tuple[int, ...]:
    """A setting, one number for each of so many spatial dimensions, that may have been given as one number."""
    assert value is not None
    return (value,) * dims if isinstance(value, int) else tuple(value)
