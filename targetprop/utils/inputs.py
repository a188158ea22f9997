"""What a training step may be given, and whether it is still the same when the step goes on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import is_
from typing import Any
from weakref import finalize, ref

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from targetprop.utils.errors import UserError


def check_batch(x: Any, dims: int | None, parameters: Sequence[nn.Parameter]) -> None:
    """Refuse what is no batch for a network.

    Args:
        dims: number of dimensions that the network needs, that of the batch included; None if several fit.
        parameters: of the network.

    Raises:
        UserError: x is no tensor, has no sample or no batch dimension, or weights are of half precision or have no
            values.
    """
    if any(p.is_meta for p in parameters):
        raise UserError(
            "the weights are on the device 'meta', without values: before training, put them on another one by "
            "learner.to_empty(device=...), and load a state.",
            key="network",
        )
    if not isinstance(x, Tensor):
        raise UserError(f"expected a tensor (batch, ...), got {type(x).__name__}.", key="input")
    is_vector = x.dim() == 1 and x.is_floating_point()  # whole numbers may be indices for an embedding
    if x.dim() == 0 or is_vector or x.dim() + 1 == dims:
        missing = "" if dims is None else f" of {dims} dimensions"
        raise UserError(
            f"expected a batch{missing}, (batch, ...), got the shape {tuple(x.shape)}: of a single sample give "
            "x.unsqueeze(0).",
            key="input",
        )
    if len(x) == 0:
        raise UserError(f"expected at least one sample, got an empty batch, {tuple(x.shape)}.", key="input")
    narrow = next((p.dtype for p in parameters if p.is_floating_point() and p.dtype.itemsize < 4), None)
    if narrow is not None:
        raise UserError(
            f"the weights are {narrow}, in which feedback cannot learn: keep them in float32 (network.float()), and "
            "use torch.autocast with bfloat16 for speed.",
            key="network",
        )


def refuse_replicas(module: nn.Module) -> None:
    """Refuse to be trained by one of torch's wrappers, which average the gradients of a backward pass of their own.

    Raises:
        UserError: `module` is called within DistributedDataParallel, or is a replica of DataParallel.
    """
    wrapped = getattr(DistributedDataParallel, "_active_ddp_module", None) is not None
    if wrapped or getattr(module, "_is_replica", False):
        raise UserError(
            "DistributedDataParallel and DataParallel average gradients that autograd makes, which those of a learner "
            "are not, and their processes would train apart: use targetprop.execution.parallel.distribute(learner, "
            "Grid.of_world(rows)).",
            key="network",
        )


class Unchanged:
    """Notices whether what a pass has read was written to or exchanged since, by torch's own count of changes in place.

    Fused optimisers, and those that write to `.data`, change weights without being counted: it watches their steps.

    Args:
        x: the batch.
        parameters: of the network.
    """

    def __init__(self, x: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        self._x, self._batch = x, _version(x)
        self._parameters, self._weights = parameters, [_written(p) for p in parameters]
        self._stepped = False
        self._watch = register_optimizer_step_post_hook(partial(_note_step, ref(self)))
        finalize(self, self._watch.remove).atexit = False

    def note_step(self, optimizer: Optimizer) -> None:
        """An optimiser has made a step."""
        taken = {id(p) for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        self._stepped |= any(id(p) in taken for p in self._parameters)

    def check(self, parameters: Sequence[nn.Parameter]) -> None:
        """Refuse to go on with another batch or other weights.

        Args:
            parameters: of the network, as they are now.

        Raises:
            UserError: one of them has changed since.
        """
        self._watch.remove()
        if _version(self._x) != self._batch:
            raise UserError(
                "the batch was changed in place since the forward pass, and its gradients are lost: go back before you "
                "change it, or give the learner a copy.",
                key="backward",
            )
        same = len(parameters) == len(self._parameters) and all(map(is_, parameters, self._parameters))
        if self._stepped or not same or [_written(p) for p in parameters] != self._weights:
            raise UserError(
                "a weight was changed since the forward pass, and the gradients of the pass are lost: call backward "
                "before the optimiser steps, or call the learner again.",
                key="backward",
            )


def _note_step(unchanged: ref[Unchanged], optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if (waiting := unchanged()) is not None:
        waiting.note_step(optimizer)


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def _written(parameter: nn.Parameter) -> tuple[int | None, int]:
    """What changes with its values: the count, and its place, since `.data = ` (so does `.to`) is not counted."""
    return _version(parameter), parameter.data_ptr()
