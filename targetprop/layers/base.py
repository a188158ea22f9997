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

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm

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
        has_gains_only: whether its parameters, of whatever shape, are one for each unit: no matrix, no kernel.
        is_container: whether it has rules for the layers within it, and its own context is theirs.
    """

    any_memory_order = False
    has_gains_only = False
    is_container = False

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A registered rule is copied and pickled by its type: it may hold functions without a name."""
        kind = next((kind for kind, rule in _RULES.items() if rule is self), None)
        return super().__reduce_ex__(protocol) if kind is None else (registered, (kind,))

    def bound(self, layer: L) -> LayerRule[L]:
        """The rule for this very layer; containers analyse what is in them here, once."""
        return self

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
        (below,) = torch.autograd.grad(self.y, self.x, delta, retain_graph=True, materialize_grads=True)
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
            f"a hook on {self.name}, or a method put into it, changes what it computes, and the feedback of its weights "
            "would not know: put that into a layer of its own."
        )


class Opaque(LayerRule[nn.Module]):
    """The rule of a layer of which nothing is known: it is run as it is, and differentiated by autograd.

    Args:
        known: the rule of its type, if something that the rule does not see runs with the layer (a hook, say).
        is_altered: whether its matrix or kernel is made into something else; None if that shows in its first pass.
    """

    def __init__(self, known: LayerRule[Any] | None = None, is_altered: bool | None = None) -> None:
        self.known = known
        self._is_altered = is_altered

    def facts(self, layer: nn.Module) -> Facts:
        if self.known is None:
            return Facts(varies=any(True for _ in layer.buffers()))
        known = self.known.facts(layer)
        iterates = any(isinstance(hook, SpectralNorm) for hook in layer._forward_pre_hooks.values())
        return Facts(varies=known.varies or iterates, dims=known.dims)

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x.clone(memory_format=torch.contiguous_format))  # which it may change in place

    def run(self, layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        if has_matrix(layer):
            return self._run_matrix(layer, x)
        if clean is not None:
            return self.apply(layer, x), clean
        with torch.enable_grad():
            start = x if x.requires_grad else x.detach().requires_grad_()
            y = self.apply(layer, start)
        return y if torch.is_grad_enabled() else y.detach(), Graph(start, y)

    def _run_matrix(self, layer: nn.Module, x: Tensor) -> tuple[Tensor, Context]:
        if self._is_altered is not None or self.known is None or self.known.linear_map(layer) is None:
            y = self.apply(layer, x)
        else:
            with parametrize.cached():  # one weight for both
                y = self.apply(layer, x)
                with torch.no_grad():
                    alone = layer.forward(x.contiguous())
            self._is_altered = not _agree(y.detach(), alone)
        return y, Altered.of(layer, x.shape[1:]) if self._is_altered else x.shape[1:]

    @property
    def knows_its_gradients(self) -> bool:
        return False

    def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
        name = type(layer).__name__
        if self.known is not None and self.known.is_container:
            raise UserError(f"a hook on {name} as a whole is not seen: hook the layers in it instead.")
        if self.known is not None and (style != "matched" or has_matrix(layer)):
            return self.known.feedback(layer, style)
        if style in ("linear", "matched") and not has_matrix(layer):
            return AdjointFeedback(layer, self)
        known = ", ".join(sorted(kind.__name__ for kind in _RULES))
        raise UserError(
            f"layer {name} has no feedback, because what it computes is not known. Layers with one: {known}. Use one "
            f"of these, or say with @targetprop.register({name}) how an error goes back through it."
        )


def _agree(y: Tensor, alone: Tensor) -> bool:
    """Whether two runs of one layer are one: kernels that are chosen by trial may round in other ways."""
    tolerance = 1e-3 * float(alone.abs().nan_to_num().max()) if alone.numel() else 0.0
    return y.shape == alone.shape and torch.allclose(y, alone, rtol=0, atol=tolerance, equal_nan=True)


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
    rule = _rule_of_type(layer)
    if rule is None:
        return Opaque(is_altered=_known_type(_own_type(layer)) is not None)
    bound = rule.bound(layer)
    return Opaque(bound) if is_hooked(layer) or _has_weights_made_elsewhere(layer) else bound


def _rule_of_type(layer: nn.Module) -> LayerRule[Any] | None:
    """The rule of its type, if the layer computes what its type does, for weights of whatever origin."""
    kind = _own_type(layer)
    known = _known_type(kind)
    return None if known is None or _is_patched(layer, kind) else _RULES[known]


def _own_type(layer: nn.Module) -> type[Any]:
    """Its type, without the class that torch puts over that of a parametrized layer."""
    return type(layer).__bases__[0] if parametrize.is_parametrized(layer) else type(layer)


@cache
def _known_type(kind: type[Any]) -> type[nn.Module] | None:
    """The registered type whose rule holds for `kind`: itself, or a parent that it only adds to."""
    known = next((parent for parent in kind.__mro__ if parent in _RULES), None)
    if known is None:
        return None
    own = [(i, each) for i, each in enumerate(kind.__mro__) if each not in known.__mro__]
    return known if all(_only_adds(each, kind.__mro__[i + 1 :]) for i, each in own) else None


ABOUT_ITSELF = {
    "__init__", "__repr__", "extra_repr", "reset_parameters", "_reset_parameters", "state_dict", "load_state_dict",
    "_save_to_state_dict", "_load_from_state_dict", "__init_subclass__", "__class_getitem__",
}  # fmt: skip
"""What a subclass may have of its own and still compute what its parent does."""


def _only_adds(kind: type, behind: tuple[type, ...]) -> bool:
    """Whether a class has only what those behind it lack and cannot look for: nothing that they call is another."""
    for name, value in vars(kind).items():
        if name in ABOUT_ITSELF or (name.startswith("__") and not callable(value)):
            continue
        is_method = isinstance(value, staticmethod | classmethod) or inspect.isfunction(value)
        takes_attributes = hasattr(value, "__get__") and not is_method  # a property named `weight`, say
        if takes_attributes or any(name in vars(each) for each in behind):
            return False
    return True


def _is_patched(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether this very layer has other methods than its type, or its type hides the layer's parameters."""
    own = vars(layer)
    if any(name not in ABOUT_ITSELF and callable(getattr(kind, name, None)) for name in own):
        return True
    return any(hasattr(kind, name) for name in (*own["_parameters"], *own["_buffers"]))


def _has_weights_made_elsewhere(layer: nn.Module) -> bool:
    """Whether it is parametrized, or computes with tensors that are not its own parameters."""
    return parametrize.is_parametrized(layer) or any(isinstance(value, Tensor) for value in vars(layer).values())


def is_hooked(layer: nn.Module) -> bool:
    """Whether code that its type does not tell of runs with it: hooks, also those by which torch prunes weights."""
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return True
    if torch_module._has_any_global_hook():
        return True
    own = layer._parameters.values()
    return any(p is not None and (p._backward_hooks or p._post_accumulate_grad_hooks) for p in own)


def has_matrix(layer: nn.Module) -> bool:
    """Whether it holds a matrix or kernel; the gains of normalisation layers, of whatever shape, are none."""
    for module in layer.modules():
        rule = _rule_of_type(module)
        if rule is not None and rule.has_gains_only:
            continue
        if any(p is not None and p.dim() > 1 for p in module._parameters.values()):
            return True
    return False


def not_in_place(layer: nn.Module) -> None:
    """Have a layer write to memory of its own: in place it would write over activations that are still needed."""
    if getattr(layer, "inplace", False):
        setattr(layer, "inplace", False)  # noqa: B010


def sizes(value: int | tuple[int, ...] | None, dims: int) -> tuple[int, ...]:
    """A setting of a layer, one number for each spatial dimension, that may have been given as one number."""
    assert value is not None
    return (value,) * dims if isinstance(value, int) else tuple(value)
