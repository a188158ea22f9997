"""Whether targets can be reached: by the block above, and by the activation itself; whether feedback is an inverse."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from targetprop.layers.activation import Elementwise
from targetprop.layers.base import CARRYING
from targetprop.layers.lookup import rule_of
from targetprop.layers.pool import AveragePoolRule, OfMaxima
from targetprop.layers.sequence import leaves
from targetprop.measure.probe import Probe, by_block, check_numbers, draws, root_of_ratio

FAR = 1e12
"""An activation that is here where it was at the root of it is bounded."""
SETTLED = 1e-5
"""What it may still change in between."""


def reach(probe: Probe) -> dict[str, float]:
    """Of each block's target t^n, over the samples of a batch together (at most 128):

    - `reach`: ||F^n(t^{n-1}) - t^n|| / ||s^n - t^n||, from the second block on. Zero if the block reaches its target
      once that below is reached; one if it comes no nearer than it is;
    - `out_of_range`: share of the units of t^n that the block's activation does not reach, whatever its input. Only of
      blocks that end in an activation which acts on every unit by itself and is bounded, above or below; pooling
      and reshaping may follow it.

    The premise of target propagation is that a block which is nearer to its target brings all above nearer to theirs:
    Lee et al. 2015, https://arxiv.org/abs/1412.7525. Costs about two passes of the samples in float64.
    """
    clean = probe.few
    differences = clean.differences(probe.targets)
    missed: dict[int, Tensor] = {}
    outside: dict[int, Tensor] = {}
    for block, pair in enumerate(probe.network.pairs):
        trace = clean.trace(block)
        target = trace.y + differences[block]
        if block:
            with torch.no_grad():
                reached = clean.encode(block, trace.x + differences[block - 1])
            power = torch.stack([(reached - target).square().sum(), differences[block].square().sum()])
            probe.average([power])
            missed[block] = root_of_ratio(power)
        if (bounds := output_range(pair.block)) is not None:
            low, high = bounds
            outside[block] = ((target < low) | (target > high)).to(target.dtype).mean()
            probe.average([outside[block]])
    return by_block("reach", missed) | by_block("out_of_range", outside)


def output_range(block: nn.Module) -> tuple[float, float] | None:
    """The least and the largest value that a block can put out; None where neither is known.

    It is that of the activation which comes last, pooling and reshaping apart.
    """
    for layer in reversed(leaves(block)):
        rule = rule_of(layer)
        if isinstance(rule, Elementwise):
            bounds = activation_range(layer)
            return None if bounds == (-math.inf, math.inf) else bounds
        if isinstance(rule, AveragePoolRule) and getattr(layer, "padding", 0) not in (0, (0, 0), (0,), (0, 0, 0)):
            return None  # zeros go into its means
        if not (rule.facts(layer).reshapes or isinstance(rule, OfMaxima | AveragePoolRule)):
            return None
    return None


def activation_range(layer: nn.Module) -> tuple[float, float]:
    """The least and the largest value of an activation, by evaluating it; infinite where it grows beyond all bounds."""
    far, near = math.sqrt(FAR), torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    with torch.no_grad():
        values = layer.forward(torch.cat([near, near.new_tensor([-FAR, -far, FAR, far])]))
    outermost, before = values[-4:].view(2, 2).unbind(1)
    falls, rises = bool((outermost < before - SETTLED).any()), bool((outermost > before + SETTLED).any())
    return -math.inf if falls else float(values.min()), math.inf if rises else float(values.max())


def reconstruction(probe: Probe, sigma: float = 0.1) -> dict[str, float]:
    """Of each block with feedback, over the samples of a batch together (at most 128):

    - `reconstruction`: ||G(F(s)) - s|| / ||s||, with s the block's input. Not of feedback that is only there to carry
      differences down (styles "matched", "gained", "linear");
    - `difference_reconstruction`: ||G(F(s + eps)) - G(F(s)) - eps|| / ||eps||, with eps ~ N(0, sigma^2): what is left
      of it once the difference correction of DTP is made.

    Lee et al. 2015, https://arxiv.org/abs/1412.7525; Meulemans et al. 2020, difference
    reconstruction loss, https://arxiv.org/abs/2006.14331. Both are zero for an inverse, and one for no feedback. Costs
    two passes of the samples through block and feedback in float64.

    Args:
        sigma: of the noise.
    """
    check_numbers(sigma=sigma)
    clean = probe.few
    plain: dict[int, Tensor] = {}
    of_differences: dict[int, Tensor] = {}
    for block, pair in probe.fed.items():
        trace = clean.trace(block)
        (eps,) = draws(trace.x, 1)
        eps = sigma * eps
        with torch.no_grad():
            moved = clean.encode(block, trace.x + eps) - trace.y
            of_differences[block] = _relative(probe, pair.decode_difference(trace.y, moved, trace.context) - eps, eps)
            if probe.network.style not in CARRYING:
                plain[block] = _relative(probe, pair.decode(trace.y, trace.context) - trace.x, trace.x)
    return by_block("reconstruction", plain) | by_block("difference_reconstruction", of_differences)


def _relative(probe: Probe, a: Tensor, b: Tensor) -> Tensor:
    """||a|| / ||b|| over the batches of all processes."""
    power = torch.stack([a.square().sum(), b.square().sum()])
    probe.average([power])
    return root_of_ratio(power)
