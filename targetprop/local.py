"""The forward update: every block learns to hit its own target, with nothing but its own input and output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from targetprop.utils.precision import wide

if TYPE_CHECKING:
    from targetprop.network.pair import Chain, Trace
    from targetprop.network.passes import Pass


def local_loss(difference: Tensor, samples: int | None = None) -> Tensor:
    """1/2 ||t^n - s^n||^2, summed over units, mean over the batch.

    Args:
        samples: in the batch, where the difference does not begin with its dimension.

    Ernoult et al., "Towards Scaling Difference Target Propagation by Learning Backprop Targets", 2022,
    https://arxiv.org/abs/2201.13415.
    """
    if difference.dtype != wide(difference.dtype):
        power = torch.linalg.vector_norm(difference, dtype=wide(difference.dtype)).square()
    else:
        channels_last = difference.dim() == 4 and difference.is_contiguous(memory_format=torch.channels_last)
        flat = (difference.permute(0, 2, 3, 1) if channels_last else difference).flatten()  # without a copy
        power = torch.dot(flat, flat)  # which autocast leaves alone
    return power / (2 * (samples or len(difference)))


def add_gradients(seen: Pass, block: int, difference: Tensor, weight: float = 1.0) -> None:
    """Add the gradients of a block's local loss, its target held fixed, to the `.grad` of the block's parameters.

    By the rules of its layers where they are known, else by autograd; if the network's input asks for a gradient, the
    first block leaves it at its trace's x.

    Args:
        difference: t^n - s^n, in the shape of the block's output, which need not begin with the batch.
        weight: of the local loss.
    """
    trace, scale = seen.trace(block), -weight / len(seen.x)
    if trace.chain is not None and not trace.y.requires_grad:
        seen.at_map[block] = _add_by_rules(trace.chain, trace, difference, scale)
    elif trace.y.requires_grad:
        # The graph is kept, since layers without a rule carry errors down by it, too; it goes with the trace.
        torch.autograd.backward(trace.y, scale * difference, retain_graph=True)


def _add_by_rules(chain: Chain, trace: Trace, delta: Tensor, scale: float) -> Tensor:
    """Add the gradients of scale <delta, F(x)>; returns J^T delta down to the output of the map, not scaled."""
    rule, position = chain.rule, chain.position
    summed = delta  # has the same sums over a channel's positions as delta, and fewer of them
    for i in range(len(rule.layers) - 1, position, -1):
        layer = rule.layers[i]
        delta, own = rule.rules[i].gradients(layer, delta, trace.context[i])
        for name, gradient in own.items():
            _add(layer._parameters[name], gradient, scale)
        facts = rule.rules[i].facts(layer)
        if not (facts.keeps_sums and facts.dims == chain.map.channel_dims):
            summed = delta
    layer = rule.layers[position]
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    if weight is not None and weight.requires_grad:
        x = rule.run_before(position, trace.x, trace.context)
        _add(weight, chain.map.correlate(x, delta), scale)
    if bias is not None and bias.requires_grad:
        _add(bias, chain.map.rows(summed).sum(1, dtype=bias.dtype).flatten(), scale)
    return delta


def _add(parameter: Tensor | None, gradient: Tensor, scale: float) -> None:
    if parameter is None or not parameter.requires_grad:
        return
    if parameter.grad is None:
        # In the memory order of the parameter, as autograd gives it: fused optimisers rely on that.
        parameter.grad = torch.mul(gradient, scale, out=torch.empty_like(parameter, requires_grad=False))
    else:
        parameter.grad.add_(gradient, alpha=scale)
