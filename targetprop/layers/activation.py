"""Activations. Those that act on every unit by itself are one line each, their slope.

The slopes are the backward functions of autograd, called by name: one pass over memory, and no graph.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from targetprop.layers.activation_feedback import (
    ActivationFeedback,
    AgainFeedback,
    GainedFeedback,
    Matched,
    MatchedFeedback,
    TurningFeedback,
)
from targetprop.layers.base import (
    AdjointFeedback,
    Context,
    Facts,
    FeedbackLayer,
    IgnoredFeedback,
    LayerRule,
    Style,
    add_rule,
    register,
)
from targetprop.utils.errors import UserError

aten = torch.ops.aten
Slope = Callable[[Any, Tensor, Tensor], Tensor]
"""(layer, delta, what the rule keeps) -> delta times the slope of the activation."""


class Elementwise(LayerRule[nn.Module]):
    """The rule of an activation.

    Args:
        slope: what backprop does with an error.
        keeps: whether the slope is a function of the activation's input or of its output; by settings of the layer,
            if it depends on them.
        matched: the feedback of the style "matched", where there is one.
        is_matched: whether there is one with the settings of this layer.
        commutes_with_max_pool: whether the layer is strictly increasing and maps zero to zero.
        turns: whether it falls to one minimum and rises from there, with a slope of one in the end: then there is a
            feedback of the style "matched" all the same (`turning.py`).
    """

    any_memory_order = True

    def __init__(
        self,
        slope: Slope,
        keeps: Literal["input", "output"] | Callable[[Any], Literal["input", "output"]],
        matched: Matched | None = None,
        is_matched: Callable[[Any], bool] = lambda layer: True,
        commutes_with_max_pool: Callable[[Any], bool] = lambda layer: False,
        turns: bool = False,
    ) -> None:
        self.slope = slope
        self.keeps = keeps
        self.matched = matched
        self.is_matched = is_matched
        self.commutes = commutes_with_max_pool
        self.turns = turns

    def facts(self, layer: nn.Module) -> Facts:
        return Facts(commutes_with_max_pool=self.commutes(layer))

    def run(self, layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        y = layer(x)
        if clean is not None:
            return y, clean
        return y, self.kept(layer, x, y).detach()

    def vjp(self, layer: nn.Module, delta: Tensor, context: Context) -> Tensor:
        return self.slope(layer, delta, context)

    def again(self, layer: nn.Module) -> FeedbackLayer:
        return ActivationFeedback(layer)

    def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
        if style in ("published", "adjoint", "lee"):
            return ActivationFeedback(layer)
        if style in ("map", "range"):
            return IgnoredFeedback()
        if style == "matched" and self.matched is not None and self.is_matched(layer):
            return MatchedFeedback(layer, self, self.matched)
        if style == "matched" and self.turns:
            return TurningFeedback(layer, self)
        return AdjointFeedback(layer, self) if style == "linear" else GainedFeedback(layer, self)

    def output(self, layer: nn.Module, kept: Tensor) -> Tensor:
        """What the activation put out in the pass of which this was kept."""
        keeps = self.keeps if isinstance(self.keeps, str) else self.keeps(layer)
        return kept if keeps == "output" else layer.forward(kept)

    def kept(self, layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """What is kept of a pass from x to y."""
        keeps = self.keeps if isinstance(self.keeps, str) else self.keeps(layer)
        return y if keeps == "output" else x


def register_elementwise(
    *types: type[nn.Module],
    slope: Slope,
    keeps: Literal["input", "output"] | Callable[[Any], Literal["input", "output"]],
    matched: Matched | None = None,
    is_matched: Callable[[Any], bool] = lambda layer: True,
    commutes_with_max_pool: Callable[[Any], bool] = lambda layer: False,
    turns: bool = False,
) -> None:
    """Register activations, with the arguments of `Elementwise`.

    >>> register_elementwise(nn.SiLU, slope=lambda layer, delta, x: aten.silu_backward(delta, x), keeps="input")
    """
    add_rule(Elementwise(slope, keeps, matched, is_matched, commutes_with_max_pool, turns), *types)


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
"""Of `nn.SELU` (Klambauer et al., "Self-Normalizing Neural Networks", 2017, https://arxiv.org/abs/1706.02515)."""
ACCURATE = 20.0
"""Threshold of a softplus from which cutting its exponential off is lost in rounding: e^-20 is 2e-9."""


def _matched_elu(layer: nn.ELU, y: Tensor) -> Tensor:
    """The slope alpha + y (below zero) integrated: y above zero, alpha y + y^2 / 2 down to y = -alpha."""
    y = y.clamp_min(-layer.alpha)
    below = y.clamp_max(0)
    if layer.alpha != 1:
        y = torch.add(y, below, alpha=layer.alpha - 1)
    return torch.addcmul(y, below, below, value=0.5)  # in as few passes over memory as there can be


def _matched_celu(layer: nn.CELU, y: Tensor) -> Tensor:
    """The slope 1 + y / alpha (below zero) integrated, down to y = -alpha."""
    below = y.clamp_min(-layer.alpha)
    return torch.where(y > 0, y, below * (1 + below / (2 * layer.alpha)))


def _matched_selu(layer: nn.SELU, y: Tensor) -> Tensor:
    """The slope scale above zero, scale alpha + y below, integrated, down to y = -scale alpha."""
    lowest = SELU_SCALE * SELU_ALPHA
    below = y.clamp_min(-lowest)
    return torch.where(y > 0, SELU_SCALE * y, below * (lowest + below / 2))


def _matched_tanh(layer: nn.Tanh, y: Tensor) -> Tensor:
    """The slope 1 - y^2 integrated: y - y^3 / 3, constant beyond |y| = 1, which tanh does not reach."""
    inside = y.clamp(-1, 1)
    return inside - inside**3 / 3


def _matched_sigmoid(layer: nn.Sigmoid, y: Tensor) -> Tensor:
    """The slope y (1 - y) integrated: y^2 / 2 - y^3 / 3, constant outside of [0, 1]."""
    inside = y.clamp(0, 1)
    return inside**2 * (0.5 - inside / 3)


def _matched_softplus(layer: nn.Softplus, y: Tensor) -> Tensor:
    """The slope 1 - e^(-beta y) integrated: y + e^(-beta y) / beta, constant below zero, which softplus never is."""
    above = y.clamp_min(0)
    return above + torch.exp(-layer.beta * above) / layer.beta


def _matched_log_sigmoid(layer: nn.LogSigmoid, y: Tensor) -> Tensor:
    """The slope 1 - e^y integrated: y - e^y, constant above zero, which the logarithm never is."""
    below = y.clamp_max(0)
    return below - below.exp()


def _matched_softsign(layer: nn.Softsign, y: Tensor) -> Tensor:
    """The slope (1 - |y|)^2 integrated: y - y |y| + y^3 / 3, constant beyond |y| = 1, which softsign does not reach."""
    inside = y.clamp(-1, 1)
    return inside - inside * inside.abs() + inside**3 / 3


def _elu_slope(layer: nn.ELU, delta: Tensor, kept: Tensor) -> Tensor:
    return aten.elu_backward(delta, layer.alpha, 1, 1, layer.alpha >= 0, kept)


def _celu_slope(layer: nn.CELU, delta: Tensor, kept: Tensor) -> Tensor:
    return aten.elu_backward(delta, layer.alpha, 1, 1 / layer.alpha, layer.alpha > 0, kept)


register_elementwise(
    nn.ELU,
    slope=_elu_slope,
    keeps=lambda layer: "output" if layer.alpha >= 0 else "input",  # does y tell on which side of zero x was?
    matched=_matched_elu,
    is_matched=lambda layer: layer.alpha > 0,
    commutes_with_max_pool=lambda layer: layer.alpha > 0,
)
register_elementwise(
    nn.CELU,
    slope=_celu_slope,
    keeps=lambda layer: "output" if layer.alpha > 0 else "input",
    matched=_matched_celu,
    is_matched=lambda layer: layer.alpha > 0,
    commutes_with_max_pool=lambda layer: layer.alpha > 0,
)
register_elementwise(
    nn.SELU,
    slope=lambda layer, delta, y: aten.elu_backward(delta, SELU_ALPHA, SELU_SCALE, 1, True, y),
    keeps="output",
    matched=_matched_selu,
    commutes_with_max_pool=lambda layer: True,
)
register_elementwise(
    nn.LeakyReLU,
    slope=lambda layer, delta, kept: torch.where(kept > 0, delta, delta * layer.negative_slope),
    keeps=lambda layer: "output" if layer.negative_slope >= 0 else "input",
    matched=lambda layer, y: torch.nn.functional.leaky_relu(y, layer.negative_slope),
    is_matched=lambda layer: layer.negative_slope > 0,  # y has the sign of x
    commutes_with_max_pool=lambda layer: layer.negative_slope > 0,
)
register_elementwise(
    nn.Tanh,
    slope=lambda layer, delta, y: aten.tanh_backward(delta, y),
    keeps="output",
    matched=_matched_tanh,
    commutes_with_max_pool=lambda layer: True,
)
register_elementwise(
    nn.Softsign,
    slope=lambda layer, delta, x: delta / (1 + x.abs()).square(),
    keeps="input",
    matched=_matched_softsign,
    commutes_with_max_pool=lambda layer: True,
)
register_elementwise(
    nn.Sigmoid,
    slope=lambda layer, delta, y: aten.sigmoid_backward(delta, y),
    keeps="output",
    matched=_matched_sigmoid,
)
register_elementwise(
    nn.LogSigmoid,
    slope=lambda layer, delta, x: delta * torch.sigmoid(-x),
    keeps="input",
    matched=_matched_log_sigmoid,
)
register_elementwise(
    nn.Softplus,
    slope=lambda layer, delta, x: aten.softplus_backward(delta, x, layer.beta, layer.threshold),
    keeps="input",
    matched=_matched_softplus,
    is_matched=lambda layer: layer.beta > 0 and layer.threshold >= ACCURATE,  # else y does not tell which side it is on
)
register_elementwise(nn.ReLU, slope=lambda layer, delta, y: aten.threshold_backward(delta, y, 0), keeps="output")
register_elementwise(
    nn.Hardtanh,
    nn.ReLU6,
    slope=lambda layer, delta, y: aten.hardtanh_backward(delta, y, layer.min_val, layer.max_val),
    keeps="output",
)
register_elementwise(nn.Hardsigmoid, slope=lambda layer, delta, x: aten.hardsigmoid_backward(delta, x), keeps="input")
register_elementwise(nn.Hardswish, slope=lambda layer, delta, x: aten.hardswish_backward(delta, x), keeps="input")
register_elementwise(nn.Mish, slope=lambda layer, delta, x: aten.mish_backward(delta, x), keeps="input", turns=True)
register_elementwise(
    nn.GELU,
    slope=lambda layer, delta, x: aten.gelu_backward(delta, x, approximate=layer.approximate),
    keeps="input",
    turns=True,
)
register_elementwise(nn.SiLU, slope=lambda layer, delta, x: aten.silu_backward(delta, x), keeps="input", turns=True)


class ActivationRule(LayerRule[nn.Module]):
    """The rule of an activation with more to it than a slope: in the published style the same activation again."""

    any_memory_order = True

    @abstractmethod
    def output(self, layer: nn.Module, kept: Context) -> Tensor:
        """What the activation put out in the pass of which this was kept."""

    def again(self, layer: nn.Module) -> FeedbackLayer:
        return ActivationFeedback(layer)

    def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
        if style in ("published", "adjoint", "lee"):
            return ActivationFeedback(layer)
        if style in ("map", "range"):
            return IgnoredFeedback()
        return AdjointFeedback(layer, self) if style == "linear" else AgainFeedback(layer, self)


@register(nn.PReLU)
class PReLURule(ActivationRule):
    """Slopes below zero that are learned, one for all channels (dimension 1) or one for each; the context is x.

    He et al., "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852.
    """

    def run(self, layer: nn.PReLU, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:  # type: ignore[override]
        return layer(x), x.detach() if clean is None else clean

    def output(self, layer: nn.PReLU, kept: Tensor) -> Tensor:  # type: ignore[override]
        return layer.forward(kept)

    def vjp(self, layer: nn.PReLU, delta: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        return self.gradients(layer, delta, context)[0]

    def gradients(  # type: ignore[override]
        self, layer: nn.PReLU, delta: Tensor, context: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        each = layer.weight.detach().to(context.dtype)
        if context.dim() > 1:
            each = each.view(-1, *[1] * (context.dim() - 2))
        below, of_weight = aten._prelu_kernel_backward(delta.to(context.dtype), context, each)
        own = of_weight.sum(dtype=layer.weight.dtype).view(1)
        if len(layer.weight) > 1:
            own = of_weight.transpose(0, 1).flatten(1).sum(1, dtype=layer.weight.dtype)
        return below, {"weight": own}

    def feedback(self, layer: nn.PReLU, style: Style) -> FeedbackLayer:  # type: ignore[override]
        if style == "lee" and len(layer.weight) > 1:
            raise UserError(
                "PReLU with a slope for each channel cannot follow the map in the style 'lee', whose channels are "
                "those of the block below: use one slope, or another style."
            )
        return super().feedback(layer, style)


class SoftmaxContext(NamedTuple):
    """A softmax in one pass: its output, the dimension it sums over, and the type of its input."""

    y: Tensor
    dim: int
    dtype: torch.dtype


class SoftmaxRule(ActivationRule):
    """Softmax and its logarithm.

    Args:
        backward: of autograd, (delta, y, dim, dtype) -> J^T delta.
    """

    def __init__(self, backward: Callable[[Tensor, Tensor, int, torch.dtype], Tensor]) -> None:
        self.backward = backward

    def run(self, layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        y = layer(x)
        return y, SoftmaxContext(y.detach(), _softmax_dim(layer, x), x.dtype) if clean is None else clean

    def output(self, layer: nn.Module, kept: SoftmaxContext) -> Tensor:
        return kept.y

    def vjp(self, layer: nn.Module, delta: Tensor, context: SoftmaxContext) -> Tensor:
        y = context.y
        return self.backward(delta.to(y.dtype), y, context.dim, y.dtype).to(context.dtype)


def _softmax_dim(layer: nn.Module, x: Tensor) -> int:
    if isinstance(layer, nn.Softmax2d):
        return -3
    dim = layer.dim
    if isinstance(dim, int):
        return dim
    return 0 if x.dim() in (0, 1, 3) else 1  # as torch does without one, and warns


add_rule(SoftmaxRule(aten._softmax_backward_data), nn.Softmax, nn.Softmax2d)
add_rule(SoftmaxRule(aten._log_softmax_backward_data), nn.LogSoftmax)
