"""A stand-in for CUDA graphs on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from targetprop.execution.graph import Outcome

aten = torch.ops.aten
WAITING = (
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten._unique2.default,
    aten.equal.default,
)  # fmt: skip
"""Operations for whose result, or its shape, the host waits."""


class Tape:
    """What a CUDA graph is, on a CPU: the operations of a step by their tensors, replayed without the code around them.

    Recording computes, which a CUDA graph does not: tensors that the work changed in place are put back.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def record(self, work: Callable[[], Outcome], generator: torch.Generator) -> Outcome:
        before: dict[int, tuple[Tensor, Tensor]] = {}
        calls = self.calls

        class Recorder(TorchDispatchMode):
            def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                assert function not in WAITING, f"{function} waits for the device"
                kwargs = kwargs or {}
                # Batch norm changes its running statistics, and its schema does not say so.
                if function._schema.is_mutable or "batch_norm" in function.name():
                    for changed in tree_leaves((args, kwargs)):
                        if isinstance(changed, Tensor):
                            before.setdefault(changed.data_ptr(), (changed, changed.detach().clone()))
                result = function(*args, **kwargs)
                calls.append((function, args, kwargs, result))
                return result

        with Recorder():
            outcome = work()
        for changed, value in before.values():
            changed.detach().copy_(value)
        return outcome

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad(), torch.autocast("cpu", enabled=False):  # conversions are among the recorded calls
            self._call_again()

    def _call_again(self) -> None:
        for function, args, kwargs, results in self.calls:
            again = function(*args, **kwargs)
            if any(argument.alias_info is not None for argument in function._schema.returns):
                continue  # in place, or a view
            for result, value in zip(tree_leaves(results), tree_leaves(again), strict=True):
                if isinstance(result, Tensor):
                    result.copy_(value)


class Tapes(list[Tape]):
    """Makes tapes, and knows them all."""

    def __call__(self) -> Tape:
        self.append(Tape())
        return self[-1]
