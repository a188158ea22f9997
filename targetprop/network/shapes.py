"""The blocks of a network before they have feedback, and the shapes of what they put out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

import torch
from torch import Tensor, nn

from targetprop.layers.lookup import rule_of
from targetprop.layers.operation import LookAtBatch
from targetprop.utils.errors import UserError, require, require_whole


class Blocks(Sequence[nn.Sequential]):
    """The blocks of a network in forward order, of which feedback is made.

    Args:
        input_shape: of one sample; None where it is not known, or follows from the first layer (a Linear's features).

    Attributes:
        common: modules that the feedback of several blocks has in common, by name: who needs one first puts it here.

    Raises:
        UserError: this is no shape.
    """

    def __init__(self, blocks: Sequence[nn.Sequential], input_shape: Sequence[int] | None = None) -> None:
        self._blocks = tuple(blocks)
        if input_shape is not None:
            fits = isinstance(input_shape, Sequence) and not isinstance(input_shape, str)
            require(fits, "input_shape", "the shape of one sample, such as (3, 32, 32)", input_shape)
            for size in input_shape:
                require_whole("input_shape", size, least=1)
        self._input_shape = input_shape
        self.common: dict[str, nn.Module] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[nn.Sequential]:
        return iter(self._blocks)

    @overload
    def __getitem__(self, number: int) -> nn.Sequential: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[nn.Sequential]: ...
    def __getitem__(self, number: int | slice) -> nn.Sequential | Sequence[nn.Sequential]:
        return self._blocks[number]

    def output_shape(self, number: int) -> torch.Size:
        """The shape of one sample's output of a block, the block counted from 0 (or -1: of the network).

        Found by a pass of tensors without memory: nothing is computed, and nothing changes.

        Raises:
            UserError: the shape of the input is not known, does not fit, or a layer needs values to tell its output's.
        """
        return self._output_shapes[number]

    @cached_property
    def _output_shapes(self) -> list[torch.Size]:
        dtype = input_type(nn.ModuleList(self))
        x = batch = torch.empty(2, *self._known_input_shape, dtype=dtype, device="meta")
        shapes = []
        for number, block in enumerate(self, 1):
            try:
                x = _without_memory(block, x, batch)
            except Exception as error:  # whatever a layer raises that gets what it does not expect
                reason = " ".join(str(error).split()).partition(". ")[0]
                raise UserError(
                    f"block {number} cannot be run on an input of shape {tuple(self._known_input_shape)} to find the "
                    f"sizes of its feedback: {reason}",
                    key="input_shape",
                ) from error
            shapes.append(x.shape[1:])
        return shapes

    @property
    def _known_input_shape(self) -> Sequence[int]:
        if self._input_shape is not None:
            return self._input_shape
        for layer in self[0]:
            if isinstance(layer, nn.Linear):
                return (layer.in_features,)
            if not (isinstance(layer, nn.Flatten) or rule_of(layer).facts(layer).linear):
                break
        raise UserError(
            "feedback straight from the output needs to know the sizes of all blocks' outputs: give the shape of one "
            "sample of the network's input, such as input_shape=(3, 32, 32).",
            key="input_shape",
        )


def input_type(network: nn.Module) -> torch.dtype:
    """Of what a network takes: whole numbers where its first layer with parameters is an Embedding."""
    first = next((layer for layer in network.modules() if layer._parameters), None)
    if first is None:
        return torch.get_default_dtype()
    return torch.long if isinstance(first, nn.Embedding) else next(first.parameters()).dtype


def _without_memory(block: nn.Sequential, x: Tensor, batch: Tensor) -> Tensor:
    """What a copy of the block, with weights and statistics on the meta device, puts out for a tensor there.

    Args:
        batch: of the network, for layers that look at it.
    """
    made: dict[int, object] = {}  # in place of each tensor, which is not copied
    for each in (*block.parameters(), *block.buffers()):
        empty = torch.empty_like(each, device="meta", requires_grad=False)
        made[id(each)] = nn.Parameter(empty, each.requires_grad) if isinstance(each, nn.Parameter) else empty
    copied = copy.deepcopy(block, made)
    for layer in copied.modules():
        if isinstance(layer, LookAtBatch):
            layer.batch.x = batch
    with torch.no_grad():
        y: Tensor = copied(x)
    return y
