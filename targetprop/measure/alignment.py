"""How near target propagation comes to backprop: angles and norms of updates and of feedback weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from targetprop.measure.probe import InapplicableError, Probe, by_block

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.pair import Pair


def backprop(probe: Probe) -> dict[str, float]:
    """Of each block's update d and backprop's gradient g = dL/dtheta on the same batch, weights and masks:

    - `angle`: arccos(<d, g> / (||d|| ||g||)), degrees;
    - `norm_ratio`: ||d|| / (c ||g||), with c the learner's `update_scale` (beta, or 1).

    Ernoult et al. 2022, https://arxiv.org/abs/2201.13415. Costs one step of backprop.
    """
    if probe.learner.update_scale is None:
        raise InapplicableError(f"updates of {type(probe.learner).__name__} are not made to be like backprop's.")
    with probe.random.again():
        gradients = backprop_gradients(probe.learner.network, probe.x, probe.y, probe.loss)
    probe.average(gradients)
    return compared(probe, gradients, "angle", "norm_ratio")


def compared(probe: Probe, others: Sequence[Tensor], angle_name: str, ratio_name: str) -> dict[str, float]:
    """Angle of each block's update to another one, flat, and the ratio of their norms without the learner's scale."""
    updates = [torch.cat([each.flatten() for each in block]) for block in probe.updates]
    pairs = [(update.to(other.dtype), other) for update, other in zip(updates, others, strict=True)]
    scale = probe.learner.update_scale or 1.0
    angles = {n: angle(*pair) for n, pair in enumerate(pairs)}
    ratios = {n: float(norm_ratio(*pair)) / scale for n, pair in enumerate(pairs)}
    return by_block(angle_name, angles) | by_block(ratio_name, ratios)


def feedback_weights(probe: Probe) -> dict[str, float]:
    """Of a block's forward weights W and its feedback weights V, means over the block's linear layers:

    - `feedback_angle`: of V and W^T, degrees;
    - `feedback_distance`: ||V - W^T|| / ||W||, without a unit.

    Ernoult et al. 2022, https://arxiv.org/abs/2201.13415. Costs one look at the weights.
    """
    pairs = {n: pair for n, pair in enumerate(probe.learner.network.pairs) if pair.weights()}
    if not pairs:
        raise InapplicableError("no feedback has weights of the shape of forward weights.")
    angles = {n: torch.stack(feedback_angles(pair)).mean() for n, pair in pairs.items()}
    distances = {n: torch.stack(feedback_distances(pair)).mean() for n, pair in pairs.items()}
    return by_block("feedback_angle", angles) | by_block("feedback_distance", distances)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between two flattened tensors in degrees; nan if one is zero."""
    a, b = a.flatten().double(), b.flatten().double()  # float32 would tell no angle below .02 degrees from zero
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


def block_parameters(network: PairedNetwork) -> list[list[str]]:
    """Names of each block's parameters within the network."""
    return [
        [f"pairs.{n}.block.{name}" for name, _ in pair.block.named_parameters()] for n, pair in enumerate(network.pairs)
    ]


def backprop_gradients(
    network: PairedNetwork, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """Backprop's gradient of loss(network(x), y) for each block's parameters, flattened into one vector a block.

    Parameters, their `.grad`, and buffers (running statistics) stay as they are.
    """
    leaves = {p: p.detach().requires_grad_() for p in network.parameters()}
    instead = {name: leaves[p] for name, p in places(network)}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.enable_grad():
        output = functional_call(network, {**instead, **buffers}, (x,), tie_weights=False)
        value = loss(output, y).mean()
    blocks = [[leaves[p] for p in pair.block.parameters()] for pair in network.pairs]
    gradients = iter(torch.autograd.grad(value, [p for block in blocks for p in block], materialize_grads=True))
    return [torch.cat([next(gradients).flatten() for _ in block]) for block in blocks]


def places(network: PairedNetwork) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter by its name in each module that has it; of a module that stands in several places, the first.

    In the same module `functional_call` must not put another tensor twice, or it would leave the first one there.
    """
    for prefix, module in network.named_modules():
        yield from module.named_parameters(prefix, recurse=False)


def feedback_angles(pair: Pair) -> list[Tensor]:
    """Angle between the weights of every linear layer and of its feedback twin, in degrees.

    Empty for the first block, and for layers whose twin has no weights of the same shape.
    """
    return [angle(weight, twin_weight) for weight, twin_weight in pair.weights()]


def feedback_distances(pair: Pair) -> list[Tensor]:
    """||V - W^T|| / ||W|| of every linear layer's weights and those of its feedback twin; as `feedback_angles`."""
    return [norm_ratio(twin_weight - weight, weight) for weight, twin_weight in pair.weights()]
