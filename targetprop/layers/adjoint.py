"""The transposed Jacobian of layers without weights of their own in it, on the clean pass: J^T delta.

An error at a layer's output becomes the error at its input. What the layer's `encode` kept is all that this needs.
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor, nn

from targetprop.layers.encoding import Context, NormContext, encode
from targetprop.layers.shape import Reshape, is_hooked, pair_of
from targetprop.network.blocks import overlaps


@singledispatch
def adjoint(layer: nn.Module, delta: Tensor, context: Context) -> Tensor:
    """J^T delta: (batch, *output) to (batch, *input), with the context of the clean pass.

    Raises:
        NotImplementedError: no rule is known for this type of layer.
    """
    raise NotImplementedError(f"{type(layer).__name__} has no adjoint.")


def has_adjoint(layer: nn.Module) -> bool:
    """Whether `adjoint` tells all that this layer does: it has no hooks, and its very type is known."""
    return type(layer) in adjoint.registry and not is_hooked(layer)


@encode.register(nn.ELU)
@encode.register(nn.LeakyReLU)
def _(layer: nn.ELU | nn.LeakyReLU, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    y = layer(x)
    return y, (y if _rises(layer) else x).detach() if clean is None else clean


def _rises(layer: nn.ELU | nn.LeakyReLU) -> bool:
    """Whether y tells on which side of zero x was."""
    return (layer.alpha if isinstance(layer, nn.ELU) else layer.negative_slope) >= 0


@encode.register(nn.ReLU)
@encode.register(nn.Tanh)
def _(layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    y = layer(x)
    return y, y.detach() if clean is None else clean


@encode.register
def _(layer: nn.GELU, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    return layer(x), x.detach() if clean is None else clean


# The backward functions of autograd, called by name: one pass over memory, no graph.


@adjoint.register
def _(layer: nn.ELU, delta: Tensor, context: Context) -> Tensor:
    return torch.ops.aten.elu_backward(delta, layer.alpha, 1, 1, _rises(layer), context)


@adjoint.register
def _(layer: nn.Tanh, delta: Tensor, context: Context) -> Tensor:
    return torch.ops.aten.tanh_backward(delta, context)


@adjoint.register
def _(layer: nn.LeakyReLU, delta: Tensor, context: Context) -> Tensor:
    return torch.where(context > 0, delta, delta * layer.negative_slope)


@adjoint.register
def _(layer: nn.ReLU, delta: Tensor, context: Context) -> Tensor:
    return torch.ops.aten.threshold_backward(delta, context, 0)


@adjoint.register
def _(layer: nn.GELU, delta: Tensor, context: Context) -> Tensor:
    return torch.ops.aten.gelu_backward(delta, context, approximate=layer.approximate)


@adjoint.register(nn.BatchNorm1d)
@adjoint.register(nn.BatchNorm2d)
def _(layer: nn.BatchNorm2d, delta: Tensor, context: NormContext) -> Tensor:
    return norm_backward(layer, delta, context)[0]  # the statistics of a batch move with every sample


@adjoint.register
def _(layer: nn.Dropout, delta: Tensor, context: Context) -> Tensor:
    return delta * context


@adjoint.register
def _(layer: nn.Identity, delta: Tensor, context: Context) -> Tensor:
    return delta


@adjoint.register(nn.Flatten)
@adjoint.register(nn.Unflatten)
@adjoint.register(Reshape)
def _(layer: nn.Module, delta: Tensor, context: Context) -> Tensor:
    return delta.reshape(len(delta), *context)


@adjoint.register(nn.MaxPool2d)
@adjoint.register(nn.AdaptiveMaxPool2d)
def _(layer: nn.MaxPool2d | nn.AdaptiveMaxPool2d, delta: Tensor, context: Context) -> Tensor:
    # Each value goes to the position of its maximum; where windows overlap they may share one, and values add up.
    indices, shape = context
    if isinstance(layer, nn.MaxPool2d) and not overlaps(layer):
        return torch.ops.aten.max_unpool2d(delta, indices, shape[-2:])
    in_order = (
        torch.channels_last if delta.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    )
    x = torch.empty(len(delta), *shape, dtype=delta.dtype, device=delta.device, memory_format=in_order)  # for its shape
    if isinstance(layer, nn.AdaptiveMaxPool2d):
        return torch.ops.aten.adaptive_max_pool2d_backward(delta, x, indices)
    return torch.ops.aten.max_pool2d_with_indices_backward(
        delta, x, pair_of(layer.kernel_size), pair_of(layer.stride), pair_of(layer.padding), pair_of(layer.dilation),
        layer.ceil_mode, indices,
    )  # fmt: skip


@adjoint.register(nn.AvgPool2d)
@adjoint.register(nn.AdaptiveAvgPool2d)
def _(layer: nn.Module, delta: Tensor, context: Context) -> Tensor:
    anywhere = delta.new_zeros(len(delta), *context)  # pooling is linear: its adjoint is the same at any point
    pullback = torch.func.vjp(layer, anywhere)[1]
    return pullback(delta)[0]


def norm_backward(
    layer: nn.BatchNorm1d | nn.BatchNorm2d, delta: Tensor, context: NormContext
) -> tuple[Tensor, Tensor, Tensor]:
    """J^T delta of a batch norm, and the gradients of <delta, y> for its weight and bias, (channels,)."""
    variance = context.rstd.pow(-2) - layer.eps
    weight = None if layer.weight is None else layer.weight.detach()
    delta = delta.to(context.x.dtype)
    return torch.ops.aten.native_batch_norm_backward(
        delta, context.x, weight, context.mean, variance, context.mean, context.rstd, context.of_batch,
        layer.eps, (True, True, True),
    )  # fmt: skip
