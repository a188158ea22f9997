"""Feedback straight from the network's output to the output space of a hidden block, past the blocks between.

Meulemans et al., "A Theoretical Framework for Target Propagation", 2020, https://arxiv.org/abs/2006.14331: direct
difference target propagation. The context of such feedback is what the block itself put out in the clean pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.base import Context, FeedbackLayer
from targetprop.utils.errors import UserError


class DirectFeedback(FeedbackLayer):
    """Q y + c, reshaped: (batch, *source) to (batch, *goal).

    Args:
        source: shape of one sample of the network's output.
        goal: shape of one sample of the block's output.
        bias: whether there is a c; it cancels in every difference.
    """

    def __init__(self, source: Sequence[int], goal: Sequence[int], *, bias: bool) -> None:
        super().__init__()
        self.source, self.goal = torch.Size(source), torch.Size(goal)
        self.map = _xavier(self.source.numel(), self.goal.numel(), bias=bias)

    @property
    def is_linear(self) -> bool:
        return self.map.bias is None

    @property
    def is_affine(self) -> bool:
        return True

    def carry(self, difference: Tensor, context: Context) -> Tensor:
        return F.linear(flat(difference, self.source), self.map.weight).view(-1, *self.goal)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self.map(flat(y, self.source)).view(-1, *self.goal)


class RandomLayer(nn.Module):
    """tanh(R u + r), with R and r drawn once, as `nn.Linear` draws them, and never trained: they are buffers."""

    weight: Tensor
    bias: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        drawn = nn.Linear(inputs, outputs)
        self.register_buffer("weight", drawn.weight.detach())
        self.register_buffer("bias", drawn.bias.detach())

    def forward(self, u: Tensor) -> Tensor:
        """(batch, inputs) to (batch, outputs)."""
        return torch.tanh(F.linear(u, self.weight, self.bias))


class HiddenLayerFeedback(FeedbackLayer):
    """g(Q z(y) + c), or g(Q [z(y), s] + c) with the block's clean output s: (batch, *source) to (batch, *goal).

    Args:
        source: shape of one sample of the network's output.
        goal: shape of one sample of the block's output s.
        hidden: z, which feedback of other blocks may share; None for y itself.
        recurrent: whether Q sees s as well.
        activation: g, the block's own activation; None for none.
    """

    def __init__(
        self,
        source: Sequence[int],
        goal: Sequence[int],
        hidden: RandomLayer | None,
        activation: FeedbackLayer | None,
        *,
        recurrent: bool = False,
    ) -> None:
        super().__init__()
        self.source, self.goal = torch.Size(source), torch.Size(goal)
        self.hidden = hidden
        self.activation = activation
        self.recurrent = recurrent
        inputs = self.source.numel() if hidden is None else len(hidden.bias)
        self.map = _xavier(inputs + self.goal.numel() * recurrent, self.goal.numel())

    def decode(self, y: Tensor, context: Context) -> Tensor:
        z = flat(y, self.source)
        z = z if self.hidden is None else self.hidden(z)
        z = torch.cat((z, context.flatten(1)), dim=1) if self.recurrent else z
        u = self.map(z).view(-1, *self.goal)
        return u if self.activation is None else self.activation.decode(u, None)


def flat(y: Tensor, source: torch.Size) -> Tensor:
    """Outputs (batch, *source) as (batch, units).

    Raises:
        UserError: they have another shape than the feedback was made for.
    """
    if y.shape[1:] != source:
        raise UserError(
            f"the feedback was made for outputs of shape {tuple(source)}, got {tuple(y.shape[1:])}: give the shape of "
            "one sample of the network's input.",
            key="input_shape",
        )
    return y.reshape(len(y), source.numel())


def _xavier(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer initialised as published: Xavier-normal, without an offset."""
    layer = nn.Linear(inputs, outputs, bias)
    nn.init.xavier_normal_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
