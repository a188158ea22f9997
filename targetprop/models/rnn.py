"""Recurrent networks, unrolled over the whole sequence."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from targetprop.utils.errors import require, require_whole, unknown


class Recurrence(nn.Module):
    """States h_t = F(x_t, h_{t-1}) of sequences, with h_0 = 0 and the same weights at every step.

    Args:
        read: makes numbers of inputs: an embedding of tokens; nothing of vectors.
        time: steps of every sequence.
        features: numbers of an input.
        width: of the state.
        every: whether the states of all steps are given, (batch, time, width), or the last one, (batch, width).
        gates: vectors of `width` that a step is made from.
    """

    gates: int = 1

    def __init__(self, read: nn.Module, time: int, features: int, width: int, every: bool) -> None:
        super().__init__()
        self.read, self.time, self.width, self.every = read, time, width, every
        self.input = nn.Linear(features, self.gates * width)
        self.recurrent = nn.Linear(width, self.gates * width, bias=False)
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.zeros_(self.input.bias)
        for gate in self.recurrent.weight.detach().chunk(self.gates):
            nn.init.orthogonal_(gate)

    @abstractmethod
    def step(self, driven: Tensor, state: Tensor) -> Tensor:
        """h_t, (batch, width), from the `input` layer's part of it and from h_{t-1}."""

    def states(self, x: Tensor) -> list[Tensor]:
        """h_1 to h_T of sequences (batch, time, ...)."""
        driven = self.input(self.read(x))
        states = [torch.zeros_like(driven[:, 0, : self.width])]
        for t in range(self.time):
            states.append(self.step(driven[:, t], states[-1]))
        return states[1:]

    def forward(self, x: Tensor) -> Tensor:
        """States of sequences (batch, time, ...): of all steps, or of the last one."""
        states = self.states(x)
        return torch.stack(states, 1) if self.every else states[-1]


class Elman(Recurrence):
    """h_t = tanh(W x_t + U h_{t-1} + b) (Elman, "Finding Structure in Time", 1990)."""

    def step(self, driven: Tensor, state: Tensor) -> Tensor:
        """h_t."""
        return torch.tanh(driven + self.recurrent(state))


class Gated(Recurrence):
    """Gated recurrent units (Cho et al. 2014, https://arxiv.org/abs/1406.1078), the reset behind the recurrent map.

    r, z = sigmoid(W x_t + U h_{t-1} + b), n = tanh(W_n x_t + b_n + r U_n h_{t-1}), h_t = (1 - z) n + z h_{t-1}.
    """

    gates = 3

    def step(self, driven: Tensor, state: Tensor) -> Tensor:
        """h_t."""
        width, recurrent = self.width, self.recurrent(state)
        both = torch.sigmoid(driven[:, : 2 * width] + recurrent[:, : 2 * width])
        reset, update = both[:, :width], both[:, width:]
        new = torch.tanh(driven[:, 2 * width :] + reset * recurrent[:, 2 * width :])
        return new + update * (state - new)


CELLS: Mapping[str, type[Recurrence]] = {"elman": Elman, "gru": Gated}


def rnn(
    image_shape: Sequence[int],
    num_classes: int,
    width: int = 100,
    cell: str = "elman",
    vocabulary: int | None = None,
    places: int | None = None,
) -> nn.Sequential:
    """A recurrent layer, and a linear layer of its last state, or of that of every step where every step has a label.

    Args:
        image_shape: (time, features) of sequences of vectors, or (time,) of tokens.
        num_classes: size of the output.
        width: of the state.
        cell: "elman": tanh units; "gru": gated ones.
        vocabulary: how many different tokens there are; None where inputs are vectors.
        places: how many labels an example has, one for every step; None if it has one.

    Raises:
        UserError: no such sizes or cell, or no sequences.
    """
    tokens = vocabulary is not None
    expected = "sequences, (time, features) or (time,) of tokens"
    require(len(image_shape) == (1 if tokens else 2), "image_shape", expected, tuple(image_shape))
    require_whole("width", width, least=1)
    if cell not in CELLS:
        raise unknown("cell", cell, CELLS)
    read: nn.Module = nn.Embedding(vocabulary, width) if vocabulary is not None else nn.Identity()
    features = width if tokens else image_shape[1]
    made = CELLS[cell](read, image_shape[0], features, width, places is not None)
    return nn.Sequential(OrderedDict(recurrence=made, head=nn.Linear(width, num_classes)))
