"""How many directions activations and updates take."""

from __future__ import annotations

import torch
from torch import Tensor

from targetprop.measure.probe import Probe, by_block


def rank(probe: Probe) -> dict[str, float]:
    """Effective ranks of each block, without a unit, from 1 up to the smaller side of the matrix:

    - `activation_rank`: of its output, (batch, units), not centred;
    - `update_rank`: of the update of its weights, (outputs, inputs), mean over its matrices and kernels.

    The effective rank is exp(-sum p_k log p_k), with p_k the singular values over their sum: Roy and Vetterli, "The
    effective rank: A measure of effective dimensionality", 2007, https://ieeexplore.ieee.org/document/7098875. Costs a
    pass of the batch in float64 and the eigenvalues of a square matrix, of the smaller side, for each block.
    """
    clean = probe.whole
    activations = {n: effective_rank(clean.trace(n).y.flatten(1)) for n in range(len(probe.network.pairs))}
    updates = {
        n: torch.stack(ranks).mean()
        for n, block in enumerate(probe.updates)
        if (ranks := [effective_rank(each.flatten(1)) for each in block if each.dim() > 1])
    }
    probe.average(list(activations.values()))
    return by_block("activation_rank", activations) | by_block("update_rank", updates)


def effective_rank(matrix: Tensor) -> Tensor:
    """exp of the entropy of the singular values, as shares of their sum; 0 of a matrix of zeros."""
    matrix = matrix.double()
    gram = matrix @ matrix.mT if len(matrix) <= matrix.shape[1] else matrix.mT @ matrix
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = singular.sum()
    shares = singular / total
    return torch.where(total > 0, torch.exp(torch.special.entr(shares).sum()), 0.0)
