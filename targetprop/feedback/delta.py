"""The delta rule: feedback weights learn from the part of the response to noise that they do not predict.

The feedback map V predicts the response of the forward map W to noise at its input, and learns from the residual:

    R = W eps - V^T eps,    V += corr(eps, R) / (n + d)

W eps is the change that noise makes in the block's activity before its activation; nothing else of W is used (both
maps are linear, so where a layer is known the residual is one product with W - V^T). Forward weights move slowly, so
V keeps up with little noise a batch, and at V = W^T the residual, and with it all noise in V, is zero. For n
independent equations in d unknowns the mean squared error of V shrinks fastest, by d / (n + d) an update, with this
step, for every n. At the border of an image a tap of a kernel meets fewer units: n is counted for each tap, d is the
mean number of inputs that a unit sees.

The setting is that of weight mirrors (Akrout et al., "Deep Learning without Weight Transport", 2019,
https://arxiv.org/abs/1904.05391), whose own rule is Hebbian; the delta rule is ours.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from targetprop.network.feedback_map import FeedbackMap, response_to, where_noise_enters
from targetprop.utils.precision import wide

if TYPE_CHECKING:
    from targetprop.feedback.budget import Allocation


@torch.no_grad()
def delta_rule(
    part: FeedbackMap, white: Tensor, shaped: Tensor, allocation: Allocation, *, reads_weights: bool = True
) -> Tensor:
    """Update V from noise at the map's input.

    Forward updates lie along activations, and so does what V lags behind by: hence noise shaped like activity beside
    the white one.

    Args:
        white: isotropic noise, (rows, *input of the map where noise enters).
        shaped: random mixtures of the batch's inputs there, (mixtures, *input).
        reads_weights: whether W may be read where the layer is known, instead of being applied to the noise.

    Returns:
        ||R||^2 / ||W eps||^2 over the white noise (a scalar), the share of the response left over: zero when V is
        learned. Where W is read the power of the response is the expected one.
    """
    reads = reads_weights and part.known
    eps = torch.cat((white, shaped))
    with nullcontext() if reads else torch.autocast(eps.device.type, enabled=False):
        if not reads:
            eps = eps.to(part.map.transposed.dtype)  # bfloat16 would not hold the differences of responses
        patches = where_noise_enters(part).patches(eps)
        response = None if reads else response_to(part, eps, patches)
        residual = _residual(part, patches, response)
        count = patches.shape[1] // len(eps) * len(white)
        power = _expected_power(part, allocation) if response is None else _power(response[:, :count])
        left = residual[:, :count]
        share = _power(left) / power.clamp_min(torch.finfo(power.dtype).tiny)  # a map of zeros responds to nothing
        _learn(part, residual, patches, count, allocation.step)
    return share


def _residual(part: FeedbackMap, patches: Tensor, response: Tensor | None) -> Tensor:
    """What V does not predict of the response to the noise, (groups, rows * positions, units)."""
    found, transposed = part.map.forward_map, part.map.transposed
    if response is not None:
        return response - patches @ found.matrix(transposed).mT
    assert isinstance(part.layer.weight, Tensor)
    return patches @ found.matrix(part.layer.weight - transposed).mT


def _learn(part: FeedbackMap, residual: Tensor, patches: Tensor, count: int, step: Tensor) -> None:
    """Change V by what is left over: of `count` rows of white noise by this step, then of those of shaped noise."""
    weighted = patches[:, :count] * step  # V changes by its product with the residual
    _, units, inputs = part.map.forward_map.matrix(part.map.transposed).shape
    few = patches.shape[1] * (inputs + units) < 3 * inputs * units
    add = _add_by_rows if few else _add_by_matrices
    add(part, residual[:, :count], weighted, residual[:, count:], patches[:, count:])


# Two ways to the same change of V: by white noise, and by noise that is far from white, for which no fixed step is
# safe. For that, each unit of the output takes the step that minimises what the first change leaves of its residual.


def _add_by_rows(part: FeedbackMap, left: Tensor, weighted: Tensor, residual: Tensor, patches: Tensor) -> None:
    """For few patches beside a large V: nothing of V's size is made, and V changes in place, by one product."""
    residual = residual - (patches @ weighted.mT) @ left
    response = (patches @ patches.mT) @ residual
    power = (residual * response).sum(1, dtype=wide(response.dtype))
    residual = residual * _best_step(power, response).unsqueeze(1).to(residual.dtype)
    rows, columns = torch.cat((left, residual), 1), torch.cat((weighted, patches), 1)
    transposed, found = part.map.transposed, part.map.forward_map
    matrix = found.matrix(transposed)
    if matrix.data_ptr() == transposed.data_ptr() and matrix.dtype == rows.dtype == columns.dtype:
        matrix.baddbmm_(rows.mT, columns)
    else:  # V has another order of memory, or rows are narrower under autocast
        transposed.add_(found.from_matrix(rows.mT @ columns))


def _add_by_matrices(part: FeedbackMap, left: Tensor, weighted: Tensor, residual: Tensor, patches: Tensor) -> None:
    """For many patches: changes of V's size are made, and nothing of the size of their products."""
    transposed, found = part.map.transposed, part.map.forward_map
    change = (left.mT @ weighted).to(transposed.dtype)
    gradient = ((residual - patches @ change.mT).mT @ patches).to(transposed.dtype)
    power = torch.linalg.vector_norm(gradient, dim=2).square()
    change.addcmul_(gradient, _best_step(power, patches @ gradient.mT).unsqueeze(2))
    transposed.add_(found.from_matrix(change))


def _best_step(power: Tensor, response: Tensor) -> Tensor:
    """Of each unit, (groups, units), along the gradient of its residual's power.

    Args:
        power: of the gradient, (groups, units).
        response: of a change by the gradient to the noise, (groups, patches, units).
    """
    return power / (response.square().sum(1, dtype=power.dtype) + torch.finfo(power.dtype).tiny)


def _power(response: Tensor) -> Tensor:
    return response.square().sum(dtype=wide(response.dtype))


def _expected_power(part: FeedbackMap, allocation: Allocation) -> Tensor:
    """Of the response to the white noise, for a map whose weight is known."""
    assert isinstance(part.layer.weight, Tensor)
    return allocation.equations * torch.linalg.vector_norm(part.layer.weight).square()
