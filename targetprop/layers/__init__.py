"""What is known of each type of layer: a file for each family. Importing this package registers all of them."""

from targetprop.layers import (
    activation,
    conv,
    dropout,
    fixed,
    linear,
    norm,
    pool,
    residual,
    sequence,
    shape,
    standardize,
)

__all__ = [
    "activation",
    "conv",
    "dropout",
    "fixed",
    "linear",
    "norm",
    "pool",
    "residual",
    "sequence",
    "shape",
    "standardize",
]
