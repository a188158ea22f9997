"""What is known of each type of layer: a file for each family. Importing this package registers all of them."""

from targetprop.layers import (
    activation,
    computed,
    conv,
    dropout,
    embedding,
    fixed,
    graph,
    linear,
    norm,
    operation,
    pool,
    residual,
    sequence,
    shape,
    standardize,
)

__all__ = [
    "activation",
    "computed",
    "conv",
    "dropout",
    "embedding",
    "fixed",
    "graph",
    "linear",
    "norm",
    "operation",
    "pool",
    "residual",
    "sequence",
    "shape",
    "standardize",
]
