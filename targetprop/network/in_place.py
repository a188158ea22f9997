"""Functions that write over their input, in a traced graph."""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, fx, nn

from targetprop.layers.functions import SIZES, VIEWING, name_of
from targetprop.network.words import WAYS_OUT, own_name
from targetprop.utils.errors import UserError

IN_PLACE: dict[Any, Any] = {
    getattr(operator, f"i{name}"): getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "pow", "matmul", "and_", "or_")
    if hasattr(operator, f"i{name}")
} | {operator.iand: operator.and_, operator.ior: operator.or_}
"""Operators that write over their first operand, and those that do not."""


def out_of_place(graph: fx.Graph, root: nn.Module) -> None:
    """Have functions that write over their input give a new tensor, which all that comes later looks at.

    Raises:
        UserError: a module writes over what is still looked at.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not (node.args and isinstance(node.args[0], fx.Node)) or not _writes(node, root):
            continue
        given, later = node.args[0], [user for user in node.args[0].users if order[user] > order[node]]
        if any(order[user] > order[node] for each in _views(given) for user in each.users):
            raise UserError(
                f"{name_of(node.target)} in {node.meta['within'] or 'its forward'} writes over memory that another "
                "tensor looks at, too, which is used again later: let it make a new tensor.",
                key="network",
            )
        if node.op == "call_module" and later:
            raise UserError(
                f"{own_name(node.target)} writes over a tensor that is used again later: set inplace=False.",
                key="network",
            )
        for user in [] if _is_number(given) else later:
            user.replace_input_with(given, node)
        if node.op == "call_method":
            node.target = node.target.removesuffix("_")
            if not hasattr(Tensor, node.target):
                raise UserError(f"a tensor's {node.target}_ cannot be traced: {WAYS_OUT}.", key="network")
        elif node.op == "call_function":
            node.target = IN_PLACE.get(node.target, node.target)
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}


def _views(node: fx.Node) -> list[fx.Node]:
    """Other nodes that may look at the same memory: what it is a view of, and what are views of either."""
    base = node
    while name_of(base.target) in VIEWING and isinstance(base.args[0], fx.Node):
        base = base.args[0]
    found, waiting = [base], [base]
    while waiting:
        new = [user for user in waiting.pop().users if name_of(user.target) in VIEWING]
        found, waiting = found + new, waiting + new
    return [each for each in found if each is not node and not _is_number(each)]


def _is_number(node: fx.Node) -> bool:
    """Whether it is a size, or computed of sizes."""
    inputs = node.all_input_nodes
    return is_size(node) or (node.op == "call_function" and bool(inputs) and all(map(_is_number, inputs)))


def is_size(node: fx.Node) -> bool:
    """Whether it is what a tensor tells without its values."""
    if node.op == "call_method":
        return str(node.target) in SIZES
    if node.target is getattr:
        return str(node.args[1]) in SIZES
    return node.op == "call_function" and (node.target is len or name_of(node.target) in SIZES)


def _writes(node: fx.Node, root: nn.Module) -> bool:
    name = str(node.target)
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(name), "inplace", False))
    if node.op == "call_method":
        return name.endswith("_") and not name.startswith("__")
    return node.op == "call_function" and (node.target in IN_PLACE or bool(node.kwargs.get("inplace")))
