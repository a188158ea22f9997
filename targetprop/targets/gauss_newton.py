"""Gauss-Newton targets: what direct feedback would carry if it inverted the network on every sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from targetprop.properties import Needs
from targetprop.targets.base import OutputSignal, output_difference
from targetprop.targets.from_output import FromOutput
from targetprop.utils.errors import is_number, require
from targetprop.utils.precision import wide

if TYPE_CHECKING:
    from targetprop.network.pair import Pair, Trace
    from targetprop.network.passes import Pass


@dataclass(frozen=True)
class GaussNewtonTargets(FromOutput):
    """t^n = s^n + J^T (J J^T + damping)^-1 (t^N - s^N), with the Jacobian J = ds^N/ds^n of each sample.

    Undamped it is the pseudo-inverse of J: to first order the least change of s^n by which the output hits its target,
    a Gauss-Newton step. Meulemans et al., "A Theoretical Framework for Target Propagation", 2020,
    https://arxiv.org/abs/2006.14331. It reads all forward weights, and costs a backward pass for each unit of the
    output: a yardstick, no rule that a brain or a chip could follow.

    Args:
        damping: added to the diagonal of J J^T, that of the output block, J = 1, included.
    """

    damping: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(is_number(self.damping) and self.damping >= 0, "damping", "a number, 0 or more", self.damping)

    @property
    def needs(self) -> Needs:
        return super().needs | Needs(frozenset({"weights"}))

    def needs_feedback(self, block: int, blocks: int) -> bool:
        return False

    def sweep(self, seen: Pass, output: OutputSignal) -> Iterator[tuple[int, Tensor]]:
        difference = output_difference(output.gradient, self.beta).flatten(1)
        last, rows = len(seen.network.pairs) - 1, identity_rows(seen.output)
        yield last, (difference / (1 + self.damping)).view_as(seen.output)
        for block in range(last, 0, -1):
            trace = seen.trace(block).detach()
            rows = pulled_back(rows, seen.network.pairs[block], trace)
            yield block - 1, damped_inverse(rows, difference, self.damping).view_as(trace.x)


def identity_rows(y: Tensor) -> Tensor:
    """The Jacobian of an output y (batch, ...) with respect to itself, row by row: (units, batch, ...)."""
    rows = torch.eye(y[0].numel(), dtype=y.dtype, device=y.device)
    return rows[:, None].expand(-1, len(y), -1).reshape(-1, *y.shape)


def pulled_back(rows: Tensor, pair: Pair, trace: Trace) -> Tensor:
    """Rows of the Jacobian with respect to a block's output, (units, batch, ...), to those with respect to its input.

    Masks and statistics are those of the clean pass, so that samples do not depend on each other.
    """
    with torch.enable_grad():
        pullback = torch.func.vjp(lambda x: pair.encode(x, trace.context)[0], trace.x)[1]
        return torch.func.vmap(pullback)(rows)[0]


def damped_inverse(rows: Tensor, difference: Tensor, damping: float) -> Tensor:
    """J^T (J J^T + damping)^-1 d for each sample; without damping J's pseudo-inverse times d.

    Args:
        rows: J, (units, batch, ...).
        difference: d, (batch, units).

    Returns:
        (batch, inputs), the dimensions behind the batch made one.
    """
    with torch.autocast(rows.device.type, enabled=False):  # an inverse needs all digits that there are
        jacobian = rows.flatten(2).transpose(0, 1).to(wide(rows.dtype))  # (batch, units, inputs)
        column = difference[..., None].to(jacobian.dtype)
        if not bool(jacobian.isfinite().all()):  # of which there is no inverse: what diverged is to be seen as such
            return torch.full_like(jacobian[:, 0], torch.nan)
        if damping == 0:
            return (torch.linalg.pinv(jacobian) @ column).squeeze(-1)
        units = torch.eye(jacobian.shape[1], dtype=jacobian.dtype, device=jacobian.device)
        solved = torch.linalg.solve(jacobian @ jacobian.mT + damping * units, column)
        return (jacobian.mT @ solved).squeeze(-1)
