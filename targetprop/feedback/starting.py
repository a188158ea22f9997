"""How feedback weights start that are to stay as they are: one setting, in the words of the published code.

Shibuya et al., "Fixed-Weight Difference Target Propagation", 2023, https://arxiv.org/abs/2212.10352.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from targetprop.layers.halves import HalvesFeedback
from targetprop.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork


def _identity(weight: Tensor) -> None:
    """Ones on the diagonal of a matrix, of whatever shape; of a kernel, on that of its middle."""
    if weight.dim() == 2:
        nn.init.eye_(weight)
    else:
        nn.init.dirac_(weight)


def _uniform(weight: Tensor) -> None:
    nn.init.uniform_(weight, -1, 1)


KINDS: Mapping[str, Callable[[Tensor], object]] = {
    "uniform": _uniform,
    "gaussian": nn.init.normal_,
    "orthogonal": nn.init.orthogonal_,
    "eye": _identity,
    "constant": nn.init.ones_,
}
"""Each with a scale of one."""
FORM = re.compile(r"([a-z]+)-(\d+(?:\.\d+)?)(?:-sparse-(\d+(?:\.\d+)?))?")
EXPECTED = (
    "KIND-K, weights times 10^-K, or KIND-K-sparse-SHARE, with that share of every row at zero, such as 'uniform-1' or "
    f"'gaussian-2-sparse-0.5', KIND one of {', '.join(KINDS)}"
)


@dataclass(frozen=True)
class Start:
    """How the weights of a feedback start.

    Args:
        kind: one of `KINDS`: uniform in [-1, 1], standard normal, orthogonal, the rectangular identity, or all ones.
        exponent: K of 10^-K, by which they are multiplied.
        sparse: share of zeros in each row. Which these are is drawn for the first row, and moves on by one from row to
            row.
    """

    kind: str
    exponent: float
    sparse: float = 0.0

    @classmethod
    def of(cls, text: object) -> Start:
        """By its name: "KIND-K" or "KIND-K-sparse-SHARE".

        What the published code calls plain "uniform" is "uniform-3", or "uniform-2" for weights that learn; its plain
        "gaussian" is "gaussian-3", its "same" is "gaussian-1.30103".

        Raises:
            UserError: no such name, or a share above 1.
        """
        match = FORM.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise UserError(f"expected {EXPECTED}; got {text!r}", key="init")
        kind, exponent, sparse = match.groups(default="0")
        if kind not in KINDS:
            raise unknown("init", kind, KINDS)
        if float(sparse) > 1:
            raise UserError(f"expected a share of zeros of 1 or less, got {sparse} in {text!r}", key="init")
        return cls(kind, float(exponent), float(sparse))

    @torch.no_grad()
    def set(self, weight: Tensor) -> None:
        """Set a feedback weight V, (inputs, units) or a kernel, drawing from torch's own generator."""
        made = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)  # in torch's own memory order
        KINDS[self.kind](made)
        made.mul_(10**-self.exponent)
        if self.sparse:
            made.mul_(_mask(made.shape, self.sparse, made.device).to(made.dtype))
        weight.copy_(made)


def _mask(shape: torch.Size, share: float, device: torch.device) -> Tensor:
    """Ones, and in every row the share of zeros."""
    columns = shape[1:].numel()
    zeros = torch.randperm(columns, device=device) < int(columns * share)
    steps = torch.arange(columns, device=device) - torch.arange(shape[0], device=device)[:, None]
    return ~zeros[steps % columns].view(shape)


def set_all(network: PairedNetwork, start: Start) -> None:
    """Set the feedback weights of all blocks.

    Raises:
        UserError: feedback that is not in two halves.
    """
    for pair in network.trained:
        if not isinstance(pair.feedback, HalvesFeedback):
            raise UserError(
                f"the feedback of block {pair.name} is not in two halves, as the algorithm needs it: give the "
                "Sequential itself, and targets of targetprop/targets/halves.py.",
                key="network",
            )
    for pair in network.trained:
        assert isinstance(pair.feedback, HalvesFeedback)
        for each in pair.feedback.maps():
            start.set(each.weight)
