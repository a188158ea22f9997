"""How near updates come to Gauss-Newton's, and to those of Gauss-Newton targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vjp

from targetprop import local
from targetprop.measure.alignment import block_gradients, block_parameters, compared, places
from targetprop.measure.probe import Clean, InapplicableError, Probe, by_block, check_numbers, in_float64
from targetprop.measure.solve import conjugate_gradients

ROWS = 16
"""Rows of a network's Jacobian that are computed in one pass."""


def gauss_newton(probe: Probe, damping: float = 1e-2, iterations: int = 50) -> dict[str, float]:
    """Of each block's update d and its damped Gauss-Newton update u = (G + damping I)^-1 g:

    - `gauss_newton_angle`: of d and u, degrees;
    - `gauss_newton_ratio`: ||d|| / (c ||u||), with c the learner's `update_scale` (beta, or 1);
    - `gauss_newton_residual`: ||(G + damping I) u - g|| / ||g||, how far u is from solved.

    G = mean over the batch of J^T H J is the generalised Gauss-Newton matrix of this block's parameters alone, with J
    the Jacobian of one sample's output for them, H the Hessian of its loss for the output, g the gradient of the mean
    loss. For one sample, squared errors, a linear network and no damping u is the update of Gauss-Newton targets, but
    for its length (Meulemans et al. 2020, https://arxiv.org/abs/2006.14331).

    Schraudolph, "Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent", 2002,
    https://doi.org/10.1162/08997660260028683. Costs, for each block, up to `iterations` of conjugate gradients, each of
    about four passes of the batch in float64.

    Args:
        damping: what is added to all eigenvalues of G; without it there are many solutions, of which the smallest is
            come near.
        iterations: of conjugate gradients, at most.
    """
    check_numbers(damping=damping, iterations=iterations)
    if not probe.is_alone:
        raise InapplicableError("processes that train on batches of their own know no Gauss-Newton update of them all.")
    found = gauss_newton_updates(probe, damping, iterations)
    residuals = {n: each.residual for n, each in enumerate(found)}
    return compared(probe, [each.update for each in found], "gauss_newton_angle", "gauss_newton_ratio") | by_block(
        "gauss_newton_residual", residuals
    )


def gauss_newton_targets(probe: Probe, damping: float = 0.0) -> dict[str, float]:
    """Of each block's update d and the update u that it has with Gauss-Newton targets (GNT):

    - `gnt_angle`: of d and u, degrees;
    - `gnt_ratio`: ||d|| / (c ||u||), with c the learner's `update_scale` (beta, or 1).

    t^n = s^n - J^T (J J^T + damping I)^-1 e, with J the Jacobian of one sample's output for s^n and e the gradient of
    its loss for the output; without damping, t^n = s^n - pinv(J) e. The update is the gradient of
    1/2 ||F^n(s^{n-1}) - t^n||^2, as that of any target.

    Meulemans et al., "A Theoretical Framework for Target Propagation", 2020, https://arxiv.org/abs/2006.14331. Costs
    for each block one backward pass for each unit of the output, and holds its Jacobian: batch x outputs x units.

    Args:
        damping: what is added to all eigenvalues of J J^T.
    """
    check_numbers(damping=damping)
    updates = gauss_newton_target_updates(probe, damping)
    probe.average(updates)
    return compared(probe, updates, "gnt_angle", "gnt_ratio")


class Solution(NamedTuple):
    """An update, flat, and its residual relative to the right side of its equation."""

    update: Tensor
    residual: float


def gauss_newton_updates(probe: Probe, damping: float, iterations: int) -> list[Solution]:
    """(G + damping I)^-1 g of each block, in float64."""
    return [_solved(_system(probe, names, damping), iterations) for names in block_parameters(probe.network)]


def gauss_newton_target_updates(probe: Probe, damping: float) -> list[Tensor]:
    """Each block's gradient of its local loss to its Gauss-Newton target, flat, in float64."""
    clean, updates = probe.whole, []
    for block in range(len(probe.network.pairs)):
        probe.network.zero_grad()
        with torch.no_grad():
            local.add_gradients(clean.seen, block, gauss_newton_difference(clean, block, damping))
        updates.append(block_gradients(probe.network)[block])
    probe.network.zero_grad()
    return updates


def gauss_newton_difference(clean: Clean, block: int, damping: float = 0.0) -> Tensor:
    """t^n - s^n of Gauss-Newton targets, (batch, *output of the block); the block is counted from 0."""
    error = clean.signal.gradient.flatten(1)
    y = clean.trace(block).y
    if block == len(clean.network.pairs) - 1:
        return (-error / (1 + damping)).view_as(y)
    jacobian = output_jacobian(clean, block)
    if damping:
        gram = jacobian @ jacobian.mT
        gram.diagonal(dim1=1, dim2=2).add_(damping)
        down = torch.einsum("bku,bk->bu", jacobian, torch.linalg.solve(gram, error))
    else:
        down = torch.einsum("buk,bk->bu", torch.linalg.pinv(jacobian), error)
    return -down.view_as(y)


def output_jacobian(clean: Clean, block: int) -> Tensor:
    """Each sample's Jacobian of the network's output for the output of a block, (batch, outputs, units).

    Statistics and masks of the batch are held fixed, so that samples do not meet.
    """
    with torch.enable_grad():
        s = clean.trace(block).y.requires_grad_()
        output = clean.seen.output_for(s, block + 1).flatten(1)
    units = torch.eye(output.shape[1], dtype=output.dtype, device=output.device)
    rows = [
        torch.autograd.grad(
            output, s, chunk[:, None].expand(-1, *output.shape), is_grads_batched=True, retain_graph=True
        )[0]
        for chunk in units.split(ROWS)
    ]
    return torch.cat(rows).transpose(0, 1).flatten(2)


class _System(NamedTuple):
    """(G + damping I) v, and g."""

    product: Callable[[Tensor], Tensor]
    right: Tensor


def _system(probe: Probe, names: list[str], damping: float) -> _System:
    """Of the parameters of these names, flattened into one vector."""
    own = [probe.network.get_parameter(name) for name in names]
    others = {name: p.detach() for name, p in places(probe.network) if not any(p is each for each in own)}
    shapes = [each.shape for each in own]
    x = in_float64(probe.x)

    def output_of(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        values = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        with probe.random.again():
            return functional_call(probe.network, {**others, **values}, (x,), tie_weights=False)

    at = torch.cat([each.detach().flatten() for each in own])
    output, back = vjp(output_of, at)[:2]

    def product(v: Tensor) -> Tensor:
        moved = jvp(output_of, (at,), (v,))[1]
        curved = jvp(grad(probe.loss_of), (output,), (moved,))[1]
        return back(curved)[0].detach() + damping * v

    return _System(product, back(grad(probe.loss_of)(output))[0].detach())


def _solved(system: _System, iterations: int) -> Solution:
    right = system.right
    update = conjugate_gradients(system.product, right, iterations)
    return Solution(update, float((system.product(update) - right).norm() / right.norm()))
