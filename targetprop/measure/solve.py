"""Linear systems of which only products are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor


def conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """v with A v = right, for a symmetric positive definite A: relative residual 1e-10, or as far as one comes.

    Args:
        product: A v for a v of the shape of `right`, in float64.
    """

    def on_host(v: Any) -> Any:
        moved = torch.from_numpy(v).to(right.device).view_as(right)
        return product(moved).detach().flatten().cpu().numpy()

    operator = LinearOperator((right.numel(), right.numel()), matvec=on_host, dtype=float)
    found, _ = cg(operator, right.detach().flatten().cpu().numpy(), rtol=1e-10, maxiter=iterations)
    return torch.from_numpy(found).to(right.device).view_as(right)
