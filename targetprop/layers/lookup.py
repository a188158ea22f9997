"""The rule of a layer: that of its type, unless the layer is not what its type says."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm

from targetprop.layers.base import (
    RULES,
    WITH_JACOBIANS,
    AdjointFeedback,
    Altered,
    Context,
    Facts,
    FeedbackLayer,
    Graph,
    LayerRule,
    Style,
)
from targetprop.utils.errors import UserError

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Where torch keeps the hooks of a module."""


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
        return Facts(reshapes=known.reshapes, varies=known.varies or iterates, dims=known.dims)

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        keeps_order = self.known is not None and self.known.any_memory_order
        order = torch.preserve_format if keeps_order else torch.contiguous_format
        return layer(x.clone(memory_format=order))  # which it may change in place

    def run(self, layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        if has_matrix(layer):
            return self._run_matrix(layer, x)
        if self.known is None and clean is not None:
            return self.apply(layer, x), clean
        with torch.enable_grad():
            start = x if x.requires_grad else x.detach().requires_grad_()
            y, known = self._run_known(layer, start, None if clean is None else clean.known)
        result = y if torch.is_grad_enabled() else y.detach()
        is_as_clean = clean is not None and known is clean.known
        return result, clean if is_as_clean else Graph(start, y, known)

    def _run_known(self, layer: nn.Module, x: Tensor, clean: Context) -> tuple[Tensor, Context]:
        """The layer as the rule of its type runs it, within its hooks: noisy passes keep clean statistics and masks."""
        if self.known is None:
            return self.apply(layer, x), None
        known, contexts = self.known, list[Context]()

        def forward(x: Tensor) -> Tensor:
            with _in_place_of(layer, {name: OrderedDict() for name in HOOKS}):
                y, context = known.run(layer, x, clean)
            contexts.append(context)
            return y

        with _in_place_of(layer, {"forward": forward}):
            y = self.apply(layer, x)
        return y, contexts[0]

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

    def again(self, layer: nn.Module) -> FeedbackLayer | None:
        return None if self.known is None else self.known.again(layer)

    def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
        name = type(layer).__name__
        if self.known is not None and self.known.is_container:
            raise UserError(f"a hook on {name} as a whole is not seen: hook the layers in it instead.")
        if self.known is not None and (style not in ("matched", "gained") or has_matrix(layer)):
            return self.known.feedback(layer, style)
        if style in WITH_JACOBIANS and not has_matrix(layer):
            return AdjointFeedback(layer, self)
        known = ", ".join(sorted(kind.__name__ for kind in RULES))
        raise UserError(
            f"layer {name} has no feedback, because what it computes is not known. Layers with one: {known}. Use one "
            f"of these, or say with @targetprop.register({name}) how an error goes back through it."
        )


@contextmanager
def _in_place_of(layer: nn.Module, others: Mapping[str, Any]) -> Iterator[None]:
    """The layer with other attributes of its own, and without a forward of its own unless that is among them."""
    own = vars(layer)
    before = {name: own[name] for name in ("forward", *others) if name in own}
    own.pop("forward", None)
    own.update(others)
    try:
        yield
    finally:
        for name in others:
            del own[name]
        own.update(before)


def _agree(y: Tensor, alone: Tensor) -> bool:
    """Whether two runs of one layer are one: kernels that are chosen by trial may round in other ways."""
    tolerance = 1e-3 * float(alone.abs().nan_to_num().max()) if alone.numel() else 0.0
    return y.shape == alone.shape and torch.allclose(y, alone, rtol=0, atol=tolerance, equal_nan=True)


def rule_of(layer: nn.Module) -> LayerRule[Any]:
    """The rule that tells all that this layer does; `Opaque` where there is none."""
    rule = _rule_of_type(layer)
    if rule is None:
        return Opaque(is_altered=_is_of_known_type(layer))
    hooked = is_hooked(layer, itself_alone=rule.is_container)
    if hooked:
        rule.check_hooked(layer)
    bound = rule.bound(layer)
    return Opaque(bound) if hooked or _has_weights_made_elsewhere(layer) else bound


def _rule_of_type(layer: nn.Module) -> LayerRule[Any] | None:
    """The rule of its type, if the layer computes what its type does, for weights of whatever origin."""
    kind = _own_type(layer)
    known = _known_type(kind)
    return None if known is None or _is_patched(layer, kind) else RULES[known]


def _is_of_known_type(layer: nn.Module) -> bool:
    return _known_type(_own_type(layer)) is not None


def _own_type(layer: nn.Module) -> type[Any]:
    """Its type, without the class that torch puts over that of a parametrized layer."""
    return type(layer).__bases__[0] if parametrize.is_parametrized(layer) else type(layer)


def _known_type(kind: type[Any]) -> type[nn.Module] | None:
    """As `_search`, which is remembered until rules are added."""
    return _search(kind, len(RULES))  # type: ignore[arg-type]


@cache
def _search(kind: type[Any], rules: int) -> type[nn.Module] | None:
    """The registered type whose rule holds for `kind`: itself, or a parent that it only adds to."""
    known = next((parent for parent in kind.__mro__ if parent in RULES), None)
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
    """Whether it holds a matrix or kernel; the gains of normalisation layers, of whatever shape, are none."""
    rule = _rule_of_type(layer)
    if rule is not None and rule.has_gains_only:
        return False
    own = any(p is not None and p.dim() > 1 for p in layer._parameters.values())
    return own or any(map(has_matrix, layer.children()))


def layers_in(block: nn.Module) -> list[nn.Module]:
    """The layers of a block that have none in them with rules of their own."""
    rule = rule_of(block)
    known = rule.known if isinstance(rule, Opaque) else rule
    if isinstance(block, nn.ModuleList) or (known is not None and known.is_container):
        return [each for child in block.children() for each in layers_in(child)]
    return [block]


def not_in_place(layer: nn.Module) -> None:
    """Have a layer write to memory of its own: in place it would write over activations that are still needed."""
    if getattr(layer, "inplace", False):
        setattr(layer, "inplace", False)  # noqa: B010
