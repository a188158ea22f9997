"""How near target propagation comes to backprop: angles and norms of updates and of feedback weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.pair import Pair


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
    return [angle(weight, twin_weight) for weight, twin_weight in pair.weights()]


def feedback_distances(pair: Pair) -> list[Tensor]:
    """||V - W^T|| / ||W|| of every linear layer's weights and those of its feedback twin; as `feedback_angles`."""
    return [norm_ratio(twin_weight - weight, weight) for weight, twin_weight in pair.weights()]
