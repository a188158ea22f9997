"""Linear layers whose weights are computed from parameters: transposed, sliced, standardised, tied in part.

Their feedback has weights V of its own for the whole of what is computed; it learns from how the layer responds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from targetprop.layers.base import RULES, Context, Facts, FeedbackLayer, LayerRule, Style, register
from targetprop.layers.operation import Line, Program


class _Computed(nn.Module):
    """What the layers here have in common.

    Attributes:
        weight_form, bias_form: they compute weight and bias; None without a bias.
    """

    weight_form: Program
    bias_form: Program | None

    @property
    def weight(self) -> Tensor:
        """The weight as it is now."""
        w: Tensor = self.weight_form()
        return w

    @property
    def bias(self) -> Tensor | None:
        """The bias as it is now."""
        return None if self.bias_form is None else self.bias_form()


class ComputedLinear(_Computed, nn.Linear):  # type: ignore[misc, override]
    """A Linear with a computed weight."""


class ComputedConv1d(_Computed, nn.Conv1d):  # type: ignore[override]
    """A Conv1d with a computed kernel."""


class ComputedConv2d(_Computed, nn.Conv2d):  # type: ignore[override]
    """A Conv2d with a computed kernel."""


class ComputedConv3d(_Computed, nn.Conv3d):  # type: ignore[override]
    """A Conv3d with a computed kernel."""


COMPUTED: dict[type[nn.Module], type[_Computed]] = {
    nn.Linear: ComputedLinear, nn.Conv1d: ComputedConv1d, nn.Conv2d: ComputedConv2d, nn.Conv3d: ComputedConv3d,
}  # fmt: skip


@register(*COMPUTED.values())
class ComputedRule(LayerRule[nn.Module]):
    """That of the layer with parameters of its own, but that its map is not known."""

    any_memory_order = True

    def facts(self, layer: nn.Module) -> Facts:
        return _ordinary(layer).facts(layer)

    def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
        return _ordinary(layer).feedback(layer, style)

    def run(self, layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        return layer(x), x.shape[1:]


def _ordinary(layer: nn.Module) -> LayerRule[Any]:
    return RULES[next(kind for kind in COMPUTED if isinstance(layer, kind))]


def with_weights(layer: nn.Module, weight: nn.Parameter | Program, bias: Any) -> nn.Module:
    """The layer, made on the meta device, with these in place of its own.

    Args:
        weight: a parameter, which the layer then shares, or what computes it.
        bias: likewise, or None.
    """
    if isinstance(weight, nn.Parameter) and (bias is None or isinstance(bias, nn.Parameter)):
        layer._parameters.update(weight=weight, bias=bias)
        return layer
    layer._parameters.clear()
    layer.__class__ = COMPUTED[type(layer)]  # as torch does for parametrized layers
    setattr(layer, "weight_form", _form(weight))  # noqa: B010
    setattr(layer, "bias_form", None if bias is None else _form(bias))  # noqa: B010
    return layer


def _form(value: nn.Parameter | Program) -> Program:
    if isinstance(value, Program):
        return value
    return Program([Line("tensor", "value")], {"value": value})


def on_meta(kind: type[Any], *args: Any, **kwargs: Any) -> nn.Module:
    """A layer whose own weights are to be replaced."""
    made: nn.Module = kind(*args, **kwargs, device=torch.device("meta"))
    return made
