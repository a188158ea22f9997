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
from typing import TypeVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.adjoint import adjoint
from targetprop.layers.encoding import Context
from targetprop.layers.maps import Convolution, Dense, LinearMap
from targetprop.layers.shape import Reshape, not_in_place
from targetprop.utils.errors import UserError


class Twin(nn.Module, ABC):
    """Feedback twin of one layer. It is built from the layer, whose shapes it takes; its weights are its own."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()

    @property
    def is_linear(self) -> bool:
        """Whether `decode` is known to be linear in y, for any context."""
        return False

    @abstractmethod
    def decode(self, y: Tensor, context: Context) -> Tensor:
        """Carry y (batch, *output shape of the layer) to (batch, *input shape), by the context of `encode`."""


TwinFactory = Callable[[nn.Module], Twin]

STYLES: Mapping[str, str] = {
    "published": "an activation's twin is the same activation again",
    "matched": "an activation's twin has, at every y, the slope that the transposed Jacobian needs",
    "linear": "an activation's twin is its slope on the clean batch, times y",
    "lee": "as published, but the activation comes last, after the map (Lee et al. 2015)",
    "map": "an activation's twin is the identity: the map alone",
}
"""Styles of twins, and what they are.

The published twin of an activation has, at y = act(u), the slope act'(y); the transposed Jacobian of the block needs
act'(u): 1 + y for ELU below zero (the published twin has e^y), 1 - y^2 for tanh. "matched" and "linear" have it.
The last two styles are for the reconstruction loss, which looks for an inverse: the activation of "lee" stands for
the one that the block's input has been through.
"""

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
    not_in_place(layer)
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
    """Twin of layers in sequence: the twins of the layers, in reverse; in the style "lee" activations come last."""

    def __init__(self, layer: nn.Sequential, style: str) -> None:
        super().__init__(layer)
        if type(layer).forward is not nn.Sequential.forward:
            name = type(layer).__name__
            raise UserError(f"{name} is a Sequential with a forward of its own: register a twin for {name}.")
        self.twins = nn.ModuleList(twin_of(child, style) for child in layer)
        self.order = list(reversed(range(len(self.twins))))
        if style == "lee":
            self.order.sort(key=lambda i: isinstance(self.twins[i], ActivationTwin))

    @property
    def is_linear(self) -> bool:
        return all(cast(Twin, twin).is_linear for twin in self.twins)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        for i in self.order:
            twin = self.twins[i]
            assert isinstance(twin, Twin)
            y = twin.decode(y, context[i])
        return y


class LinearMapTwin(Twin):
    """A twin with feedback weights: one linear map V and a bias c, G(y) = V y + c.

    Attributes:
        forward_map: the layer's map, which the twin transposes.
        map: holds V and c.
    """

    forward_map: LinearMap
    map: nn.Linear | nn.ConvTranspose2d

    @property
    def is_linear(self) -> bool:
        return self.map.bias is None

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self._affine(y, context, self.map.bias)

    def apply_map(self, y: Tensor, context: Context) -> Tensor:
        """V y, without the bias."""
        return self._affine(y, context, None)

    @abstractmethod
    def _affine(self, y: Tensor, context: Context, bias: Tensor | None) -> Tensor: ...

    @property
    @abstractmethod
    def transposed(self) -> Tensor:
        """V^T: its weight in the shape of the layer's; a view."""

    @abstractmethod
    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of <x, V y> for V, in its weight's shape; x (batch, *input), y (batch, *layer output)."""


@register_twin(nn.Linear)
class LinearTwin(LinearMapTwin):
    """y V^T + c, with V (in, out) and c (in,) of its own. Initialised as `nn.Linear`."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self.forward_map = Dense()
        self.map = nn.Linear(layer.out_features, layer.in_features)
        self.map.weight.data = self.map.weight.data.t().contiguous().t()  # in memory as the forward weight

    def _affine(self, y: Tensor, context: Context, bias: Tensor | None) -> Tensor:
        return F.linear(y, self.map.weight, bias)

    @property
    def transposed(self) -> Tensor:
        return self.map.weight.t()

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.forward_map.correlate(y, x)


@register_twin(nn.Conv2d)
class ConvTwin(LinearMapTwin):
    """Transposed convolution with a kernel of its own (out, in / groups, height, width), shaped as the layer's.

    Initialised as `nn.ConvTranspose2d`. Stride, padding, dilation and groups are the layer's; the output has
    exactly the size of the layer's input, whatever rows a stride left over.
    """

    forward_map: Convolution

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.forward_map = conv = Convolution.of(layer)
        self.map = nn.ConvTranspose2d(
            layer.out_channels,
            layer.in_channels,
            conv.kernel,
            conv.stride,
            padding=conv.padding,
            groups=conv.groups,
            dilation=conv.dilation,
        )

    def _affine(self, y: Tensor, context: Context, bias: Tensor | None) -> Tensor:
        return self.forward_map.transpose(y, self.map.weight, bias, context[-2:])

    @property
    def transposed(self) -> Tensor:
        return self.map.weight

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.forward_map.correlate(x, y)


@register_twin(nn.ELU, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU)
class ActivationTwin(Twin):
    """The same activation again."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.activation = layer

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self.activation(y)


@register_twin(nn.BatchNorm1d, nn.BatchNorm2d)
@register_twin(nn.ELU, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU, style="map")
class IdentityTwin(Twin):
    """Twin of a layer that the feedback path ignores."""

    @property
    def is_linear(self) -> bool:
        return True

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return y


@register_twin(
    nn.Identity, nn.Flatten, nn.Unflatten, Reshape, nn.Dropout,
    nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
@register_twin(
    nn.ELU, nn.Tanh, nn.LeakyReLU, nn.ReLU, nn.GELU, nn.BatchNorm1d, nn.BatchNorm2d, style="linear"
)  # fmt: skip
@register_twin(nn.ReLU, nn.GELU, nn.BatchNorm1d, nn.BatchNorm2d, style="matched")
class AdjointTwin(Twin):
    """The layer's transposed Jacobian on the clean batch: un-pooling, the clean mask, the slope of an activation."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self._layer = (layer,)  # not a submodule: the layer's parameters are the block's

    @property
    def is_linear(self) -> bool:
        return True

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return adjoint(self._layer[0], y, context)


@register_twin(nn.ELU, style="matched")
class MatchedELU(Twin):
    """The slope alpha + y (below zero) integrated: y above zero, alpha y + y^2 / 2 down to y = -alpha."""

    def __init__(self, layer: nn.ELU) -> None:
        super().__init__(layer)
        self.alpha = layer.alpha

    def decode(self, y: Tensor, context: Context) -> Tensor:
        below = y.clamp(-self.alpha, 0)
        return y.clamp_min(0) + below * (self.alpha + below / 2)


@register_twin(nn.Tanh, style="matched")
class MatchedTanh(Twin):
    """The slope 1 - y^2 integrated: y - y^3 / 3, constant beyond |y| = 1, which tanh does not reach."""

    def decode(self, y: Tensor, context: Context) -> Tensor:
        inside = y.clamp(-1, 1)
        return inside - inside**3 / 3
