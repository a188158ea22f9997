"""The feedback twin of a layer: a map from the layer's output space back to its input space.

Twins follow the published L-DRL code base (Ernoult et al. 2022): a block `convolution, activation, pooling` has the
twin `un-pool, activation, transposed convolution`: layers in reverse, the same activation again, linear maps
with feedback weights of their own, and the adjoint of every linear layer without weights.

Give a layer of your own a twin:

>>> @register_twin(Swap)
... class SwapTwin(Twin):
...     def decode(self, y, context):
...         return y.flip(1)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.cut import overlaps
from targetprop.encoding import Context
from targetprop.errors import UserError
from targetprop.layers import Reshape, pair_of


class Twin(nn.Module, ABC):
    """Feedback twin of one layer. It is built from the layer, whose shapes it takes; its weights are its own."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()

    @abstractmethod
    def decode(self, y: Tensor, context: Context) -> Tensor:
        """Carry y (batch, *output shape of the layer) to (batch, *input shape), by the context of `encode`."""


TwinFactory = Callable[[nn.Module], Twin]

STYLES: Mapping[str, str] = {
    "published": "an activation's twin is the same activation again",
    "matched": "an activation's twin has, at every y, the slope that the transposed Jacobian needs",
    "linear": "an activation's twin is its slope on the clean batch, times y",
}
"""Styles of twins, and what they are (`activation_twins.py` has all but the published ones)."""

_FACTORIES: dict[str, dict[type[nn.Module], TwinFactory]] = {style: {} for style in STYLES}
_T = TypeVar("_T", bound=Callable[..., Twin])


def register_twin(*layers: type[nn.Module], style: str = "published") -> Callable[[_T], _T]:
    """Register a `Twin` class, or a function layer -> Twin, for these layer types and their subclasses.

    Args:
        style: one of `STYLES`; those but "published" take the published twin of a layer that they have none for.
    """

    def register(factory: _T) -> _T:
        _FACTORIES[style].update(dict.fromkeys(layers, factory))
        return factory

    return register


def twin_of(layer: nn.Module, style: str = "published") -> Twin:
    """A new feedback twin for `layer`, in one of the `STYLES`.

    Raises:
        UserError: no twin is known for this type of layer, or for this setting of it.
    """
    if getattr(layer, "inplace", False):  # it would write over activations that the rules still read
        setattr(layer, "inplace", False)  # noqa: B010
    for kind in type(layer).__mro__:
        for factories in (_FACTORIES[style], _FACTORIES["published"]):
            if kind in factories:
                return factories[kind](layer)
    if isinstance(layer, nn.Sequential):
        return ChainTwin(layer, style)
    name = type(layer).__name__
    known = ", ".join(sorted(kind.__name__ for kind in _FACTORIES["published"]))
    raise UserError(
        f"Layer {name} has no feedback twin. Layers with one: {known}. "
        f"Use one of these, or give {name} a twin with @targetprop.register_twin({name})."
    )


class ChainTwin(Twin):
    """Twin of layers in sequence: the twins of the layers, in reverse."""

    def __init__(self, layer: nn.Sequential, style: str) -> None:
        super().__init__(layer)
        if type(layer).forward is not nn.Sequential.forward:
            name = type(layer).__name__
            raise UserError(f"{name} is a Sequential with a forward of its own: register a twin for {name}.")
        self.twins = nn.ModuleList(twin_of(child, style) for child in layer)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        for twin, part in zip(reversed(self.twins), reversed(context), strict=True):
            assert isinstance(twin, Twin)
            y = twin.decode(y, part)
        return y


class LinearMapTwin(Twin):
    """A twin with feedback weights: one linear map V and a bias c, G(y) = V y + c."""

    map: nn.Linear | nn.ConvTranspose2d

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self._affine(y, context, self.map.bias)

    def apply_map(self, y: Tensor, context: Context) -> Tensor:
        """V y, without the bias."""
        return self._affine(y, context, None)

    @abstractmethod
    def _affine(self, y: Tensor, context: Context, bias: Tensor | None) -> Tensor: ...

    @abstractmethod
    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of <x, V y> for V, in its weight's shape; x (batch, *input), y (batch, *layer output)."""

    @abstractmethod
    def respond(self, x: Tensor, weight: Tensor) -> Tensor:
        """V^T x for a weight of V's shape: (batch, *input) to (batch, *layer output)."""

    @abstractmethod
    def unit_power(self, weight: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norms of weight and response for each unit of the layer's output, to broadcast over the weight."""


@register_twin(nn.Linear)
class LinearTwin(LinearMapTwin):
    """y V^T + c, with V (in, out) and c (in,) of its own. Initialised as `nn.Linear`."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self.map = nn.Linear(layer.out_features, layer.in_features)

    def _affine(self, y: Tensor, context: Context, bias: Tensor | None) -> Tensor:
        return F.linear(y, self.map.weight, bias)

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        return x.flatten(0, -2).t() @ y.flatten(0, -2)

    def respond(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight

    def unit_power(self, weight: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
        return weight.square().sum(0), response.flatten(0, -2).square().sum(0)


@register_twin(nn.Conv2d)
class ConvTwin(LinearMapTwin):
    """Transposed convolution with a kernel of its own (out, in / groups, height, width), shaped as the layer's.

    Initialised as `nn.ConvTranspose2d`. Stride, padding, dilation and groups are the layer's; the output has
    exactly the size of the layer's input, whatever rows a stride left over.
    """

    map: nn.ConvTranspose2d

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        if layer.padding_mode != "zeros":
            raise UserError(f"Conv2d: padding_mode={layer.padding_mode!r} has no feedback twin; use 'zeros'.")
        leading, self.trailing = _padding(layer)
        self.map = nn.ConvTranspose2d(
            layer.out_channels,
            layer.in_channels,
            pair_of(layer.kernel_size),
            pair_of(layer.stride),
            padding=leading,
            groups=layer.groups,
            dilation=pair_of(layer.dilation),
        )

    def _affine(self, y: Tensor, context: Context, bias: Tensor | None) -> Tensor:
        conv, size = self.map, context[-2:]
        leading = pair_of(conv.padding)
        reached = [
            (rows - 1) * conv.stride[i] - 2 * leading[i] + conv.dilation[i] * (conv.kernel_size[i] - 1) + 1
            for i, rows in enumerate(y.shape[-2:])
        ]
        # Positive: rows that the stride never reached. Negative: padding="same" of an even kernel, whose
        # odd row of padding lies at the end only; it is cut off.
        missing = [max(0, size[i] - reached[i]) for i in range(2)]
        x = F.conv_transpose2d(y, conv.weight, bias, conv.stride, leading, missing, conv.groups, conv.dilation)
        return x[..., : size[0], : size[1]]

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.trailing[1], 0, self.trailing[0])) if any(self.trailing) else x

    def respond(self, x: Tensor, weight: Tensor) -> Tensor:
        conv = self.map
        return F.conv2d(
            self._padded(x), weight, None, conv.stride, pair_of(conv.padding), conv.dilation, conv.groups
        )  # fmt: skip

    def unit_power(self, weight: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
        power = response.square().sum((0, 2, 3)).view(-1, 1, 1, 1)
        return weight.square().sum((1, 2, 3), keepdim=True), power

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        conv = self.map
        x = self._padded(x)
        return torch.ops.aten.convolution_backward(
            y, x, conv.weight, None, conv.stride, pair_of(conv.padding), conv.dilation, False, (0, 0), conv.groups,
            (False, True, False),
        )[1]  # fmt: skip


def _padding(layer: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of padding on each side, and how many more at the end (`same` puts an odd one there)."""
    if layer.padding == "valid":
        return (0, 0), (0, 0)
    if layer.padding == "same":
        height, width = (d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return (height // 2, width // 2), (height % 2, width % 2)
    return pair_of(layer.padding), (0, 0)


@register_twin(nn.ELU, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU)
class ActivationTwin(Twin):
    """The same activation again."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.activation = layer

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self.activation(y)


@register_twin(nn.Identity, nn.BatchNorm1d, nn.BatchNorm2d)
class IdentityTwin(Twin):
    """Twin of layers that the feedback path ignores."""

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return y


@register_twin(nn.Dropout)
class DropoutTwin(Twin):
    """The mask of the clean pass again: units that were silent receive no target difference."""

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return y * context


@register_twin(nn.Flatten, nn.Unflatten, Reshape)
class ReshapeTwin(Twin):
    """Back to the shape of the layer's input."""

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return y.reshape(len(y), *context)


@register_twin(nn.MaxPool2d, nn.AdaptiveMaxPool2d)
class MaxUnpoolTwin(Twin):
    """Un-pooling: each value goes to the position of its maximum, zeros elsewhere.

    Values of overlapping windows with one common maximum are added, so that this is the exact adjoint.
    """

    def __init__(self, layer: nn.MaxPool2d | nn.AdaptiveMaxPool2d) -> None:
        super().__init__(layer)
        self.overlapping = not isinstance(layer, nn.MaxPool2d) or overlaps(layer)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        indices, shape = context
        if not self.overlapping:
            return torch.ops.aten.max_unpool2d(y, indices, shape[-2:])
        x = y.new_zeros(*y.shape[:2], shape[-2] * shape[-1])
        return x.scatter_add(2, indices.flatten(2), y.flatten(2)).unflatten(2, shape[-2:])


@register_twin(nn.AvgPool2d, nn.AdaptiveAvgPool2d)
class AvgUnpoolTwin(Twin):
    """The adjoint of average pooling."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.pool = layer

    def decode(self, y: Tensor, context: Context) -> Tensor:
        anywhere = y.new_zeros(y.shape[0], *context)  # pooling is linear: its adjoint is the same at any point
        pullback = torch.func.vjp(self.pool, anywhere)[1]
        return pullback(y)[0]
