"""Run a layer forward and keep what its feedback twin needs: pooling indices, shapes, statistics, masks.

This is the *context* of a layer, passed explicitly from `encode` to `Twin.decode`, never stored in a module.
It describes one pass over one batch. Shapes in it are per sample, without the batch dimension.

A noisy pass is given the context of the clean pass on the same batch (`clean`): batch norm then uses the clean
statistics, dropout the clean mask. Pooling indices are always those of the pass itself.

>>> y, context = encode(layer, x)
>>> noisy_y, noisy_context = encode(layer, x + eps, context)
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.utils.precision import wide

Context = Any


class NormContext(NamedTuple):
    """What a batch norm did in one pass: y = gain (x - mean) + bias, per channel.

    Attributes:
        x: its input.
        mean, rstd, gain: the statistics it used, (channels,): mean, reciprocal standard deviation, rstd times weight.
        of_batch: whether they are those of the batch.
    """

    x: Tensor
    mean: Tensor
    rstd: Tensor
    gain: Tensor
    of_batch: bool


@singledispatch
def encode(layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    """Output of `layer` at x (batch, ...) and its context; the rule for any layer without one of its own.

    The context is the per-sample shape of x. Add a rule for a layer of yours with `@encode.register`.
    """
    return layer(x), x.shape[1:]


@encode.register
def _(layer: nn.Sequential, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    if type(layer).forward is not nn.Sequential.forward:  # not a plain sequence: its own rule is its forward
        return layer(x), x.shape[1:]
    contexts = []
    for i, child in enumerate(layer):
        x, context = encode(child, x, None if clean is None else clean[i])
        contexts.append(context)
    return x, tuple(contexts)


@encode.register
def _(layer: nn.MaxPool2d, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    y, indices = F.max_pool2d(
        x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
    )
    return y, (indices, x.shape[1:])


@encode.register
def _(layer: nn.AdaptiveMaxPool2d, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    size: Any = layer.output_size  # torch's types disagree about None
    y, indices = F.adaptive_max_pool2d(x, size, return_indices=True)
    return y, (indices, x.shape[1:])


@encode.register(nn.BatchNorm1d)
@encode.register(nn.BatchNorm2d)
def _(layer: nn.BatchNorm2d, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    if clean is not None:
        shape = [-1, *[1] * (x.dim() - 2)]
        shift = -clean.mean * clean.gain if layer.bias is None else layer.bias.detach() - clean.mean * clean.gain
        return x * clean.gain.view(shape) + shift.view(shape), clean
    y = layer(x)
    running, variance = layer.running_mean, layer.running_var
    of_batch = layer.training or running is None or variance is None
    if not of_batch and running is not None and variance is not None:
        mean, rstd = running, torch.rsqrt(variance + layer.eps)
    else:  # by the layer's own kernel, which is several times faster than var_mean
        wider = x.detach().to(_statistics_type(layer, x))
        _, mean, rstd = torch.native_batch_norm(wider, None, None, None, None, True, 0.0, layer.eps)
    gain = rstd if layer.weight is None else rstd * layer.weight.detach()
    return y, NormContext(x.detach(), mean, rstd, gain, of_batch)


def _statistics_type(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> torch.dtype:
    """Of a batch norm that sees x: its weights' type, which under autocast is wider than that of x."""
    own = layer.running_mean if layer.weight is None else layer.weight
    return wide(x.dtype) if own is None else own.dtype


@encode.register
def _(layer: nn.Dropout, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    mask = F.dropout(torch.ones_like(x), layer.p, layer.training) if clean is None else clean
    return x * mask, mask
