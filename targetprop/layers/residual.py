"""Residual: y = body(x) + skip(x), its feedback twin, and the linear maps in it, each of which can learn by itself.

A block is a Residual and the layers behind it, such as the last activation of a ResNet's block (He et al. 2016); its
pair is the whole block, with the skip inside. The twin sends y back through the twins of both branches and adds up:

    G(y) = B(y) + S(y)

with feedback weights of its own for every convolution; a skip without layers is its own twin. In the published style
the twins of the branches are the published ones. In the styles "linear" and "matched" they are the transposed
Jacobians of the branches on the clean batch: slopes of the inner activations, adjoints of the batch norms, and the
maps without bias, so that G is linear. (A "matched" twin integrates an activation's slope over that activation, which
inside a branch is not what comes down.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from targetprop.layers.encoding import Context, encode
from targetprop.layers.twins import STYLES, ChainTwin, LinearMapTwin, Twin, register_twin
from targetprop.network.blocks import leaves
from targetprop.network.linear_feedback import LINEAR_WITHOUT_WEIGHTS, FeedbackMap
from targetprop.utils.errors import UserError


class Residual(nn.Module):
    """body(x) + skip(x). Put the activation that follows the sum behind it.

    >>> body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    >>> block = nn.Sequential(Residual(body), nn.ReLU())

    Args:
        body: layers in sequence.
        skip: what stands beside them, a layer or layers in sequence; None passes x on as it is.
    """

    def __init__(self, body: nn.Module, skip: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(*leaves(body))
        self.skip = nn.Sequential(*([] if skip is None else leaves(skip)))

    @property
    def branches(self) -> tuple[nn.Sequential, nn.Sequential]:
        """The body and the skip."""
        return self.body, self.skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class BranchContext(NamedTuple):
    """One branch in one pass.

    Attributes:
        layers: the context of each layer.
        inputs: the input of each layer with a matrix or kernel, None of the others; detached.
    """

    layers: tuple[Context, ...]
    inputs: tuple[Tensor | None, ...]


@encode.register
def _(layer: Residual, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    if type(layer).forward is not Residual.forward:  # its own rule is its forward, as for a Sequential
        return layer(x), x.shape[1:]
    (body, body_context), (skip, skip_context) = (
        _encode_branch(branch, x, None if clean is None else clean[i]) for i, branch in enumerate(layer.branches)
    )
    return body + skip, (body_context, skip_context)


def _encode_branch(branch: nn.Sequential, x: Tensor, clean: BranchContext | None) -> tuple[Tensor, BranchContext]:
    contexts, inputs = [], []
    for i, layer in enumerate(branch):
        inputs.append(x.detach() if any(p.dim() > 1 for p in layer.parameters()) else None)
        x, context = encode(layer, x, None if clean is None else clean.layers[i])
        contexts.append(context)
    return x, BranchContext(tuple(contexts), tuple(inputs))


class ResidualTwin(Twin):
    """The sum of the twins of both branches."""

    def __init__(self, layer: Residual, style: str) -> None:
        super().__init__(layer)
        if type(layer).forward is not Residual.forward:
            name = type(layer).__name__
            raise UserError(f"{name} is a Residual with a forward of its own: register a twin for {name}.")
        style = "published" if style == "published" else "linear"
        self.body, self.skip = (ChainTwin(branch, style) for branch in layer.branches)
        if style == "linear":
            for twin in self.modules():
                if isinstance(twin, LinearMapTwin):
                    twin.map.bias = None

    @property
    def branches(self) -> tuple[ChainTwin, ChainTwin]:
        """The twins of the body and of the skip."""
        return self.body, self.skip

    @property
    def is_linear(self) -> bool:
        return self.body.is_linear and self.skip.is_linear

    def decode(self, y: Tensor, context: Context) -> Tensor:
        body, skip = (twin.decode(y, each.layers) for twin, each in zip(self.branches, context, strict=True))
        return body + skip


for _style in STYLES:
    register_twin(Residual, style=_style)(partial(ResidualTwin, style=_style))


@dataclass(frozen=True)
class BranchMap:
    """A linear map within a Residual.

    Attributes:
        layer, map: the layer, and the twin that holds its V.
        position: of the Residual in its block.
        branch, index: of the layer in the Residual: which branch, and where in it.
    """

    layer: nn.Module
    map: LinearMapTwin
    position: int
    branch: int
    index: int

    def map_input(self, x: Tensor, context: Context) -> Tensor:
        """The input of the map in the pass of this context."""
        return context[self.position][self.branch].inputs[self.index]


def branch_maps(block: nn.Module, twin: Twin | None) -> tuple[FeedbackMap, ...]:
    """The linear maps of a block whose one layer with weights is a Residual of known maps; none of any other block."""
    if not isinstance(block, nn.Sequential) or not isinstance(twin, ChainTwin):
        return ()
    layers = tuple(block)
    learned = [i for i, each in enumerate(twin.twins) if _has_weights(each)]
    if len(learned) != 1 or not all(isinstance(each, LINEAR_WITHOUT_WEIGHTS) for each in layers[: learned[0]]):
        return ()
    (position,) = learned
    layer, part = layers[position], twin.twins[position]
    if not isinstance(layer, Residual) or not isinstance(part, ResidualTwin):
        return ()
    maps = []
    for number, (branch, chain) in enumerate(zip(layer.branches, part.branches, strict=True)):
        for index, each in enumerate(chain.twins):
            if isinstance(each, LinearMapTwin):
                maps.append(BranchMap(branch[index], each, position, number, index))
            elif _has_weights(each):
                return ()
    return tuple(maps)


def _has_weights(twin: nn.Module) -> bool:
    return any(True for _ in twin.parameters())
