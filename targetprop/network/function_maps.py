"""Functions of parameters that are linear maps, as layers: `F.linear(x, w)`, `x @ w`, `F.conv2d(x, w)`."""

from __future__ import annotations

import operator
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from targetprop.layers.computed import on_meta, with_weights
from targetprop.layers.functions import CONTRACTIONS, name_of
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.network.tracing import Traced

CONVOLUTIONS: Mapping[Any, type[nn.Module]] = {F.conv1d: nn.Conv1d, F.conv2d: nn.Conv2d, F.conv3d: nn.Conv3d}
PRODUCTS = (torch.matmul, torch.mm, operator.matmul, "matmul", "mm", "__matmul__")


def map_layer(traced: Traced, node: fx.Node, with_parameters: Container[fx.Node]) -> nn.Module | None:
    """The layer that a function of a tensor on the way and of parameters is; None of other functions.

    Args:
        with_parameters: nodes that parameters alone make.

    Raises:
        UserError: it is a linear map by parameters, but of no known kind.
    """
    name = name_of(node.target)
    factors = [each for each in node.all_input_nodes if each in with_parameters]
    if name not in CONTRACTIONS or name == "scaled_dot_product_attention" or not factors:
        return None
    if node.target is F.linear:
        return _linear(traced, *_bound(node, "weight", "bias"))
    if node.target in PRODUCTS and len(node.args) == 2 and node.args[1] in factors:
        return _product(traced, node, factors[0])
    if node.target in CONVOLUTIONS:
        return _convolution(traced, node)
    raise refused(node)


def refused(node: fx.Node) -> UserError:
    """What to say of a map of no known kind."""
    within = node.meta.get("within") or "its forward"
    return UserError(
        f"{name_of(node.target)} of a parameter, in {within}, is a linear map that would need feedback weights, and "
        "only F.linear(x, w), x @ w and F.conv1d to 3d(x, w) are known as such: write it as one of these.",
        key="network",
    )


def _linear(traced: Traced, weight: Any, bias: Any = None) -> nn.Module:
    shape = traced.shape(weight)
    return with_weights(
        on_meta(nn.Linear, shape[1], shape[0]), traced.form(weight), None if bias is None else traced.form(bias)
    )


def _product(traced: Traced, node: fx.Node, factor: fx.Node) -> nn.Module:
    shape = traced.shape(factor)
    if len(shape) != 2:
        raise refused(node)
    return with_weights(on_meta(nn.Linear, *shape), traced.form(factor, transposed=True), None)


def _convolution(traced: Traced, node: fx.Node) -> nn.Module:
    weight, bias, stride, padding, dilation, groups = _bound(
        node, "weight", ("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)
    )
    shape = traced.shape(weight)
    layer = on_meta(
        CONVOLUTIONS[node.target], shape[1] * groups, shape[0], tuple(shape[2:]), stride, padding, dilation, groups
    )
    return with_weights(layer, traced.form(weight), None if bias is None else traced.form(bias))


def _bound(node: fx.Node, *names: str | tuple[str, Any]) -> list[Any]:
    """The arguments behind the first by these names, with their defaults, which else is None."""
    pairs = [each if isinstance(each, tuple) else (each, None) for each in names]
    given = list(node.args[1:])
    return given + [node.kwargs.get(name, default) for name, default in pairs[len(given) :]]
