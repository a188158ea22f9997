"""What torch.compile is to leave alone, and what it has hidden."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import nn

from targetprop.utils.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which runs as it is where its caller is compiled.

    A training step has no graph of autograd from end to end, hooks its output and looks at weights' counts of changes:
    what the compiler makes of that is another step. `torch.compiler.disable` by itself imports the compiler, which
    takes seconds: here only a caller that is compiled does.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return run


def refuse_compiled(network: nn.Module) -> None:
    """Refuse a network of which a part was compiled as a whole, so that its layers are hidden.

    Raises:
        UserError: names the part, and what to do.
    """
    for name, each in network.named_modules():
        if type(each).__name__ == "OptimizedModule" or hasattr(vars(each).get("forward"), "_torchdynamo_orig_callable"):
            where = f" as its layer {name!r}" if name else ""
            raise UserError(
                f"expected a module whose forward can be traced, got a compiled one{where}: the learner must see every "
                "layer; give what was compiled, as it was before.",
                key="network",
            )
