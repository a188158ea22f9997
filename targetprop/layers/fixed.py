"""Layers with nothing to learn: patches whitened by statistics of images, a factor, and some of the units."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.base import Context, Facts, LayerRule, register


class Whitening(nn.Module):
    """A convolution to uncorrelated features of unit variance, each with both signs: 2 channels size^2 of them.

    Its kernels are the principal components of the patches of some images, over their standard deviations. They are no
    parameters: no optimiser and no feedback knows of them, and a network's first block may begin with it. Until `fit`
    has seen images they are random.

    Args:
        channels: of the images.
        size: of a patch, in pixels.
        epsilon: added to the variances.
    """

    weight: Tensor

    def __init__(self, channels: int, size: int, epsilon: float = 5e-4) -> None:
        super().__init__()
        self.epsilon = epsilon
        count = channels * size**2
        self.register_buffer("weight", torch.randn(2 * count, channels, size, size) / count**0.5)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take over the statistics of these images, (batch, channels, height, width)."""
        size = self.weight.shape[-1]
        patches = F.unfold(images, size).transpose(1, 2).flatten(0, 1).double()
        variances, components = torch.linalg.eigh(torch.cov(patches.T))
        signs = components.gather(0, components.abs().argmax(0, keepdim=True)).sign()  # which are anyone's choice
        kernels = (components * signs / (variances + self.epsilon).sqrt()).T.flip(0).view(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([kernels, -kernels]))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, size={self.weight.shape[-1]}, epsilon={self.epsilon:g}"


@register(Whitening)
class WhiteningRule(LayerRule[Whitening]):
    """The way back is a transposed convolution, to an input of the same size as any with a stride of one."""

    any_memory_order = True

    def facts(self, layer: Whitening) -> Facts:
        return Facts(linear=True, dims=4)

    def vjp(self, layer: Whitening, delta: Tensor, context: Context) -> Tensor:
        return F.conv_transpose2d(delta, layer.weight.to(delta.dtype))


class Scale(nn.Module):
    """x times a fixed factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x

    def extra_repr(self) -> str:
        return f"{self.factor:g}"


@register(Scale)
class ScaleRule(LayerRule[Scale]):
    """The way back is the same factor."""

    any_memory_order = True

    def facts(self, layer: Scale) -> Facts:
        return Facts(linear=True)

    def vjp(self, layer: Scale, delta: Tensor, context: Context) -> Tensor:
        return layer.factor * delta


class FirstUnits(nn.Module):
    """The first `count` units of (batch, units)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.count]

    def extra_repr(self) -> str:
        return f"{self.count}"


@register(FirstUnits)
class FirstUnitsRule(LayerRule[FirstUnits]):
    """The way back gives the other units nothing."""

    any_memory_order = True

    def facts(self, layer: FirstUnits) -> Facts:
        return Facts(linear=True, dims=2)

    def vjp(self, layer: FirstUnits, delta: Tensor, context: Context) -> Tensor:
        return F.pad(delta, (0, context[0] - layer.count))
