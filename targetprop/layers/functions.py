"""Functions that are layers under another name: `F.relu(x)` is `nn.ReLU()`, `x @ w` a Linear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Builder = Callable[..., nn.Module | None]
"""Of the arguments behind the first one -> the layer, or None where there is none for them."""


def _without_place(kind: Callable[..., nn.Module]) -> Builder:
    def build(*args: Any, inplace: bool = False, **kwargs: Any) -> nn.Module:
        return kind(*args, **kwargs)

    return build


def _max_pool(kind: Callable[..., nn.Module]) -> Builder:
    def build(
        kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> nn.Module | None:  # fmt: skip
        made = kind(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        return None if return_indices else made

    return build


def _adaptive_max_pool(kind: Callable[..., nn.Module]) -> Builder:
    return lambda output_size, return_indices=False: None if return_indices else kind(output_size)


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module | None:
    return nn.Flatten(start_dim, end_dim) if start_dim > 0 else None


ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "elu": nn.ELU, "selu": nn.SELU, "celu": nn.CELU, "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish, "hardswish": nn.Hardswish, "hardsigmoid": nn.Hardsigmoid,
    "hardtanh": nn.Hardtanh, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "softsign": nn.Softsign,
    "logsigmoid": nn.LogSigmoid,
}  # fmt: skip
"""By the name of the function, which is that of the tensor's method, too; both take arguments in the same order."""


def _builders() -> dict[Any, Builder]:
    found: dict[Any, Builder] = {}
    for name, kind in ACTIVATIONS.items():
        for function in (name, getattr(F, name, None), getattr(torch, name, None), getattr(torch.special, name, None)):
            if function is not None:
                found[function] = _without_place(kind)
    found[torch.special.expit] = nn.Sigmoid
    for dims in (1, 2, 3):
        found[getattr(F, f"max_pool{dims}d")] = _max_pool(getattr(nn, f"MaxPool{dims}d"))
        found[getattr(F, f"avg_pool{dims}d")] = getattr(nn, f"AvgPool{dims}d")
        found[getattr(F, f"adaptive_avg_pool{dims}d")] = getattr(nn, f"AdaptiveAvgPool{dims}d")
        found[getattr(F, f"adaptive_max_pool{dims}d")] = _adaptive_max_pool(getattr(nn, f"AdaptiveMaxPool{dims}d"))
    found.update(dict.fromkeys((torch.flatten, "flatten"), _flatten))
    return found


BUILDERS = _builders()
"""By function, or by name of a tensor's method."""
DROPOUTS: Mapping[Any, type[nn.Module]] = {
    F.dropout: nn.Dropout, torch.dropout: nn.Dropout, F.dropout1d: nn.Dropout1d, F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
}  # fmt: skip
RANDOM = {*DROPOUTS, F.alpha_dropout, F.feature_alpha_dropout, F.rrelu, F.gumbel_softmax, torch.bernoulli, torch.normal,
          torch.rand_like, torch.randn_like, torch.rand, torch.randn, "bernoulli"}  # fmt: skip
"""Functions that draw random numbers."""
RESHAPING = {
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "movedim", "swapaxes", "squeeze",
    "unsqueeze", "contiguous", "swapdims", "moveaxis",
}  # fmt: skip
"""Names of functions of one tensor that only move units about."""
LINEAR = RESHAPING | {
    "mean", "sum", "getitem", "pad", "roll", "narrow", "select", "expand", "repeat", "repeat_interleave", "flip",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "neg", "clone", "index_select", "fold", "unfold",
}  # fmt: skip
"""Names of functions of one tensor that are linear whatever their other arguments are."""
VIEWING = RESHAPING | {
    "getitem",
    "narrow",
    "select",
    "expand",
    "expand_as",
    "view_as",
    "chunk",
    "split",
    "unbind",
    "detach",
}
"""Names of functions whose result may look at the memory of what they are given."""
BLIND = {
    "gt", "lt", "ge", "le", "eq", "ne", "isclose", "isnan", "isinf", "isfinite", "logical_not", "logical_and",
    "logical_or", "invert", "argmax", "argmin", "argsort", "nonzero", "bucketize", "searchsorted", "one_hot", "sign",
    "floor", "ceil", "round", "trunc", "detach", "bool", "long", "int", "any", "all", "multinomial", "bincount",
    "histc", "equal",
}  # fmt: skip
"""Names of functions that no error comes back through."""
SUMS = {"add", "sub", "cat", "concat", "concatenate", "stack", "hstack", "vstack"}
"""Names of functions of several tensors that are linear in all of them together."""
STRICT = {"view", "view_as", "as_strided"}
"""Names of functions that refuse memory in another order."""
SEVERAL = {
    "chunk", "split", "unbind", "tensor_split", "topk", "sort", "meshgrid", "broadcast_tensors", "var_mean", "std_mean",
    "split_with_sizes", "hsplit", "vsplit", "dsplit", "aminmax", "unique", "kthvalue", "mode",
}  # fmt: skip
"""Names of functions with several outputs."""
SIZES = {
    "size", "shape", "dim", "ndim", "ndimension", "device", "dtype", "numel", "nelement", "is_cuda",
    "is_floating_point", "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full",
    "new_empty", "new_tensor",
}  # fmt: skip
"""Names of what a tensor tells without its values, and of what is made by that alone."""
CONTRACTIONS = {
    "linear", "matmul", "mm", "bmm", "einsum", "tensordot", "addmm", "baddbmm", "bilinear", "mv", "addmv",
    "chain_matmul", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "inner",
    "dot", "vdot", "multi_head_attention_forward", "multi_dot", "kron", "outer", "rnn_tanh", "lstm", "gru",
    "scaled_dot_product_attention",
}  # fmt: skip
"""Names of functions that sum products over several units: with parameters for factors they are linear maps."""


def name_of(function: Any) -> str:
    """What a function, or a tensor's method, is called."""
    if isinstance(function, str):
        return function
    if function in BUILDERS:  # torch chooses between two functions of one name here, and knows neither by it
        return next((f"max_pool{n}d" for n in (1, 2, 3) if function is getattr(F, f"max_pool{n}d")), function.__name__)
    return str(getattr(function, "__name__", function))


def layer_of(function: Any, training: tuple[Any, ...], evaluation: tuple[Any, ...]) -> nn.Module | None:
    """The layer that a function of one tensor is.

    Args:
        training, evaluation: in either mode, the arguments behind the tensor, and those by name.
    """
    args, kwargs = training
    if function in DROPOUTS:
        return _dropout(DROPOUTS[function], training, evaluation)
    if function not in BUILDERS or training != evaluation:
        return None
    try:
        return BUILDERS[function](*args, **kwargs)
    except TypeError:  # arguments that the layer does not have
        return None


def _dropout(kind: type[nn.Module], training: tuple[Any, ...], evaluation: tuple[Any, ...]) -> nn.Module | None:
    """Dropout that follows the mode; None where it does not."""

    def bound(p: float = 0.5, training: bool = True, inplace: bool = False) -> tuple[float, bool]:
        return p, training

    def rates(given: tuple[Any, ...]) -> float:
        args, kwargs = given
        if "train" in kwargs:
            kwargs = {**{k: v for k, v in kwargs.items() if k != "train"}, "training": kwargs["train"]}
        p, on = bound(*args, **kwargs)
        return p if on else 0.0

    trained, evaluated = rates(training), rates(evaluation)
    return kind(trained) if evaluated == 0 else None
