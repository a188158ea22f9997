"""Activations by name."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import activation

from targetprop.utils.errors import unknown

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "celu": nn.CELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def activation_layer(name: str) -> nn.Module:
    """A new activation layer.

    Args:
        name: one of `ACTIVATIONS`, or that of a class among torch's activations: "Softsign".

    Raises:
        UserError: there is none of that name.
    """
    if name in activation.__all__:
        made: nn.Module = getattr(activation, name)()
        return made
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()
