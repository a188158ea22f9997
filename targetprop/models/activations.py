"""Activations by name."""

from __future__ import annotations

from torch import nn

from targetprop.utils.errors import unknown

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "identity": nn.Identity,
}


def activation_layer(name: str) -> nn.Module:
    """A new activation layer.

    Raises:
        UserError: `name` is not among `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise unknown("network.hparams.activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()
