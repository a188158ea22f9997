"""How near target propagation comes to backprop: angles and norms of updates and of feedback weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from targetprop.network import PairedNetwork
from targetprop.pair import Pair
from targetprop.residual import Residual, ResidualTwin
from targetprop.twins import ChainTwin, ConvTwin, LinearTwin, Twin


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between two flattened tensors in degrees; nan if one is zero."""
    a, b = a.flatten(), b.flatten()
    cosine = (a @ b) / (a.norm() * b.norm())
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


def norm_ratio(a: Tensor, b: Tensor) -> Tensor:
    """||a|| / ||b||."""
    return a.norm() / b.norm()


def block_gradients(network: PairedNetwork) -> list[Tensor]:
    """The `.grad` of each block's parameters, flattened into one vector a block; zeros where there is none."""
    return [
        torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in pair.block.parameters()])
        for pair in network.pairs
    ]


def backprop_gradients(
    network: PairedNetwork, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """Backprop's gradient of loss(network(x), y) for each block's parameters, flattened into one vector a block.

    Parameters, their `.grad`, and buffers (running statistics) stay as they are.
    """
    parameters = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.enable_grad():
        value = loss(functional_call(network, {**parameters, **buffers}, (x,)), y)
    names = [[f"pairs.{i}.block.{name}" for name, _ in p.block.named_parameters()] for i, p in enumerate(network.pairs)]
    flat = [parameters[name] for block in names for name in block]
    gradients = iter(torch.autograd.grad(value, flat, materialize_grads=True))
    return [torch.cat([next(gradients).flatten() for _ in block]) for block in names]


def feedback_angles(pair: Pair) -> list[Tensor]:
    """Angle between the weights of every linear layer and of its feedback twin, in degrees.

    Empty for the first block, and for layers whose twin has no weights of the same shape.
    """
    if pair.twin is None:
        return []
    return [angle(weight, twin_weight) for weight, twin_weight in _weights(pair.block, pair.twin)]


def _weights(layer: nn.Module, twin: Twin) -> Iterator[tuple[Tensor, Tensor]]:
    """Forward and feedback weights of a layer, in the forward layout."""
    if isinstance(layer, nn.Sequential) and isinstance(twin, ChainTwin):
        for child, part in zip(layer, twin.twins, strict=True):
            assert isinstance(part, Twin)
            yield from _weights(child, part)
    elif isinstance(layer, Residual) and isinstance(twin, ResidualTwin):
        for branch, chain in zip(layer.branches, twin.branches, strict=True):
            yield from _weights(branch, chain)
    elif isinstance(layer, nn.Conv2d) and isinstance(twin, ConvTwin):
        yield layer.weight.detach(), twin.map.weight.detach()
    elif isinstance(layer, nn.Linear) and isinstance(twin, LinearTwin):
        yield layer.weight.detach(), twin.map.weight.detach().t()
