"""PairedNetwork: a feed-forward network as ordered pairs of forward blocks and feedback twins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from targetprop.encoding import Context
from targetprop.errors import UserError
from targetprop.layers import Reshape
from targetprop.pair import Pair
from targetprop.twins import twin_of


@dataclass(frozen=True)
class Trace:
    """One pair's part of a forward pass: its input x (detached), its output y, and the pass's context.

    Gradients flow from y to the block's own parameters and end there.
    """

    x: Tensor
    y: Tensor
    context: Context

    def detach(self) -> Trace:
        """The same without the graph to the block's parameters."""
        return Trace(self.x, self.y.detach(), self.context)


class PairedNetwork(nn.Module):
    """Pairs in forward order. The first one has no feedback: there is no target below it to reach."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        super().__init__()
        self.pairs: Sequence[Pair] = nn.ModuleList(pairs)  # type: ignore[assignment]
        if not self.forward_parameters():
            raise UserError("A network needs at least one block with parameters.")

    @classmethod
    def of(cls, model: nn.Sequential) -> PairedNetwork:
        """Cut a Sequential into blocks (see `cut`) and pair each with a new feedback twin.

        Raises:
            UserError: a layer above the first block has no feedback twin, or a lazy layer has no weights yet.
        """
        if any(map(is_lazy, model.parameters())):
            raise UserError("The network has lazy layers without weights: call it on one batch first.")
        pairs = []
        for number, block in enumerate(cut(model), start=1):
            name = f"{number} ({', '.join(type(layer).__name__ for layer in _leaves(block))})"
            try:
                twin = twin_of(block).to(next(block.parameters())) if number > 1 else None  # its device and type
                pairs.append(Pair(block, twin, name))
            except UserError as error:
                raise UserError(f"Block {name}: {error}") from None
        return cls(pairs)

    @property
    def trained(self) -> list[Pair]:
        """The pairs with feedback, in forward order: all but the first."""
        return list(self.pairs)[1:]

    def forward(self, x: Tensor) -> Tensor:
        """Output of the network for x (batch, ...)."""
        for pair in self.pairs:
            x = pair.block(x)
        return x

    def trace(self, x: Tensor) -> list[Trace]:
        """One forward pass, every block's input detached from the block below."""
        traces = []
        for pair in self.pairs:
            x = x.detach()
            y, context = pair.encode(x)
            traces.append(Trace(x, y, context))
            x = y
        return traces

    def forward_parameters(self) -> list[nn.Parameter]:
        """Parameters of the forward blocks."""
        return [p for pair in self.pairs for p in pair.block.parameters()]

    def feedback_parameters(self) -> list[nn.Parameter]:
        """Parameters of the feedback twins."""
        return [p for pair in self.pairs for p in pair.feedback_parameters()]


def cut(model: nn.Sequential) -> list[nn.Module]:
    """Cut a Sequential into blocks, each with one layer with weights, or one Sequential within the model.

    A Sequential within the model stays whole: its author grouped it. Other layers (activation, pooling,
    normalisation) belong to the block before them, reshaping layers to the one behind that needs the shape.

    Raises:
        UserError: the model is a Sequential with a forward of its own, so its layers are not all it does.
    """
    if type(model).forward is not nn.Sequential.forward:
        raise UserError(f"{type(model).__name__} has a forward of its own: give its layers as a plain nn.Sequential.")
    groups: list[list[nn.Module]] = [[]]
    for layer in model:
        if _has_weights(layer) and any(map(_has_weights, groups[-1])):
            end = len(groups[-1])
            while isinstance(groups[-1][end - 1], (nn.Flatten, nn.Unflatten, Reshape)):
                end -= 1
            groups[-1:] = [groups[-1][:end], groups[-1][end:]]
        groups[-1].append(layer)
    return [group[0] if len(group) == 1 else nn.Sequential(*group) for group in groups if group]


def _has_weights(layer: nn.Module) -> bool:
    return any(
        not isinstance(leaf, (nn.BatchNorm1d, nn.BatchNorm2d)) and any(True for _ in leaf.parameters())
        for leaf in _leaves(layer)
    )


def _leaves(block: nn.Module) -> list[nn.Module]:
    if isinstance(block, nn.Sequential):
        return [leaf for child in block for leaf in _leaves(child)]
    return [block]


def output_shape(block: nn.Module, shape: Sequence[int], name: str) -> torch.Size:
    """Per-sample output shape of a block for a per-sample input shape.

    Raises:
        UserError: the block cannot take such an input; names the block, the layer and the shape.
    """
    x = torch.zeros(2, *shape)
    training = block.training
    block.eval()
    for layer in _leaves(block):
        given = tuple(x.shape[1:])
        try:
            with torch.no_grad():
                x = layer(x)
        except RuntimeError as error:
            size = " x ".join(map(str, given))
            raise UserError(
                f"Block {name}: {type(layer).__name__} cannot take an input of {size}: {error}. "
                "The image may be too small for this many pooling layers."
            ) from None
    block.train(training)
    return x.shape[1:]
