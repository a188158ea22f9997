"""Every layer with several settings, and an input for each: what the tests of this folder run through."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import Algorithm, DifferenceTargets, Fixed, Learner, UserError
from targetprop.layers.fixed import Scale, Whitening
from targetprop.layers.standardize import Standardize

Make = Callable[[], nn.Module]
Case = tuple[Make, tuple[int, ...]]
IMAGES = {1: (4, 7), 2: (4, 7, 6), 3: (4, 4, 3, 5)}
"""Inputs by spatial dimensions, (channels, *size); without symmetry between the dimensions."""
EXACT = Algorithm(DifferenceTargets(beta=0.5), Fixed(init_symmetric_weights=True, style="linear"))
"""Feedback that is the transposed Jacobian: gradients are beta times those of backprop, in every block."""


def made(kind: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Make:
    """A layer with these settings, in float64, with parameters off their starting values."""

    def make() -> nn.Module:
        layer = kind(*args, **kwargs).double()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        return layer

    return make


# Of CELU torch rounds 1 / alpha to float32 on the way back: a power of two, then.
ACTIVATIONS: list[Make] = [
    made(nn.ELU, 0.7), made(nn.ELU, -0.5), made(nn.CELU), made(nn.CELU, 0.5), made(nn.CELU, -0.5), made(nn.SELU),
    made(nn.LeakyReLU, 0.3), made(nn.LeakyReLU, -0.3), made(nn.ReLU), made(nn.Tanh), made(nn.Softsign),
    made(nn.Sigmoid), made(nn.LogSigmoid), made(nn.Softplus), made(nn.Softplus, 2.0, 0.7), made(nn.Hardtanh, -0.4, 0.8),
    made(nn.ReLU6), made(nn.Hardsigmoid), made(nn.Hardswish), made(nn.Mish), made(nn.GELU), made(nn.GELU, "tanh"),
    made(nn.SiLU), made(nn.PReLU), made(nn.PReLU, 4), made(nn.Softmax, 1), made(nn.Softmax, -1), made(nn.LogSoftmax, 1),
]  # fmt: skip


def running(norm: Make) -> Make:
    """The norm in evaluation mode, with running statistics of its own."""

    def make() -> nn.Module:
        layer = norm()
        for name, buffer in layer.named_buffers():
            if name in ("running_mean", "running_var"):
                buffer.uniform_(0.5, 1.5)
        return layer.eval()

    return make


def norms() -> list[Case]:
    cases: list[Case] = []
    for dims, shape in IMAGES.items():
        instance, batch = getattr(nn, f"InstanceNorm{dims}d"), getattr(nn, f"BatchNorm{dims}d")
        for affine, track in itertools.product((True, False), repeat=2):
            cases.append((made(instance, 4, affine=affine, track_running_stats=track), shape))
        tracking = made(instance, 4, affine=True, track_running_stats=True)
        cases += [(running(tracking), shape), (running(made(batch, 4)), shape)]
        cases += [(made(batch, 4), shape), (made(batch, 4, affine=False, track_running_stats=False), shape)]
        cases += [(made(nn.GroupNorm, 2, 4), shape), (made(nn.GroupNorm, 1, 4, affine=False), shape)]
        cases += [(made(nn.LayerNorm, shape), shape), (made(nn.LayerNorm, shape[-1:], bias=False), shape)]
        cases.append((made(Standardize), shape))
        cases += [(made(nn.RMSNorm, shape), shape), (made(nn.RMSNorm, shape[-1:], eps=1e-3), shape)]
    cases.append((made(nn.RMSNorm, 4, elementwise_affine=False), (3, 4)))
    return [*cases, (made(nn.LayerNorm, 4, elementwise_affine=False), (3, 4)), (made(nn.GroupNorm, 2, 4), (4,))]


def convolutions() -> list[Case]:
    cases: list[Case] = []
    for dims, shape in IMAGES.items():
        conv, transposed = getattr(nn, f"Conv{dims}d"), getattr(nn, f"ConvTranspose{dims}d")
        cases += [
            (made(conv, 4, 6, 3, stride=2, padding=1, groups=2), shape),
            (made(conv, 4, 3, 2, padding="same", dilation=1, bias=False), shape),
            (made(conv, 4, 3, 2, padding=2, dilation=2, stride=3), shape),
            (made(transposed, 4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), shape),
            (made(transposed, 4, 3, 2, dilation=2, bias=False), shape),
            (made(transposed, 4, 3, 2, stride=1, padding=2, dilation=3, output_padding=2), shape),
        ]
        for mode in ("reflect", "replicate", "circular"):
            cases += [
                (made(conv, 4, 6, 3, stride=2, padding=2, groups=2, padding_mode=mode), shape),
                (made(conv, 4, 3, 2, padding="same", padding_mode=mode, bias=False), shape),
            ]
    return [*cases, (made(nn.Conv2d, 4, 3, (3, 1), padding=(0, 2), padding_mode="circular"), IMAGES[2])]


def pools() -> list[Case]:
    cases: list[Case] = []
    for dims, shape in IMAGES.items():
        most, mean = getattr(nn, f"MaxPool{dims}d"), getattr(nn, f"AvgPool{dims}d")
        cases += [(made(most, 2), shape), (made(most, 3, stride=2, padding=1, ceil_mode=True), shape)]
        cases += [(made(most, 2, stride=1, dilation=2), shape), (made(mean, 2), shape)]
        cases += [(made(mean, 3, 2, 1, ceil_mode=True, count_include_pad=False), shape)]
        for size in (1, 3):
            cases += [(made(getattr(nn, f"Adaptive{kind}Pool{dims}d"), size), shape) for kind in ("Max", "Avg")]
    return cases


def shapes() -> list[Case]:
    cases: list[Case] = []
    for dims, shape in IMAGES.items():
        around = tuple(range(1, 2 * dims + 1)) if dims < 3 else (1, 2, 3, 1, 1, 2)
        cases += [(made(getattr(nn, f"{kind}Pad{dims}d"), around), shape) for kind in ("Zero", "Replication")]
        cases += [(made(getattr(nn, f"{kind}Pad{dims}d"), (1, 2) * dims), shape) for kind in ("Reflection", "Circular")]
        cases += [(made(getattr(nn, f"ConstantPad{dims}d"), (1, -2) * dims, 1.5), shape)]
        modes = {1: "linear", 2: "bilinear", 3: "trilinear"}
        cases += [
            (made(nn.Upsample, scale_factor=2.5), shape),
            (made(nn.Upsample, scale_factor=2, mode=modes[dims]), shape),
        ]
        cases += [(made(nn.Upsample, (9,) * dims, mode=modes[dims], align_corners=True), shape)]
    cases += [(made(nn.Upsample, scale_factor=1.5, mode="bicubic"), IMAGES[2]), (made(nn.PixelShuffle, 2), IMAGES[2])]
    cases += [(made(nn.PixelUnshuffle, 2), (4, 6, 4)), (made(nn.ChannelShuffle, 2), IMAGES[2])]
    cases += [
        (made(nn.Flatten, 1, 2), IMAGES[2]),
        (made(nn.Unflatten, 1, (2, 2)), IMAGES[2]),
        (made(nn.Identity), (3,)),
        (made(Scale, 0.3), (3,)),
        (made(Whitening, 4, 2), IMAGES[2]),
    ]
    return cases


def dropouts() -> list[Case]:
    kinds = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
    cases: list[Case] = [(made(kind, 0.4), IMAGES[dims]) for dims, kind in kinds.items()]
    return [*cases, (made(nn.Dropout, 0.4), IMAGES[1]), (running(made(nn.Dropout2d, 0.4)), IMAGES[2])]


ALL: list[Case] = [
    *((make, IMAGES[2]) for make in ACTIVATIONS), *norms(), *convolutions(), *pools(), *shapes(), *dropouts(),
]  # fmt: skip


def name_of(case: Any) -> str:
    """How a test calls a case."""
    return repr(case[0]()) + "x".join(map(str, case[1])) if isinstance(case, tuple) else repr(case())


def sample(shape: tuple[int, ...], count: int = 5) -> Tensor:
    """A batch in float64."""
    return torch.randn(count, *shape, dtype=torch.float64)


def network(layer: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
    """The layer between others, so that its block has a block below it and one above."""
    channels = shape[0]
    if len(shape) > 1:
        first: nn.Module = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(shape) - 1](channels, channels, 1)
        second = type(first)(channels, channels, 1)
    else:
        first, second = nn.Linear(channels, channels), nn.Linear(channels, channels)
    with torch.no_grad():
        training = layer.training
        units = layer.double().eval()(sample(shape)).flatten(1).shape[1]
        layer.train(training)
    # one number for each sample above it, so that errors stay unequal for softmax and norms
    return nn.Sequential(first, nn.Tanh(), second, layer, nn.Flatten(), nn.Linear(units, 3)).double()


def backprop(model: nn.Sequential, x: Tensor, y: Tensor) -> list[Tensor]:
    """Its gradients of the cross-entropy for every parameter."""
    return list(torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()), materialize_grads=True))


def assert_oracle(model: nn.Sequential, learner: Learner, x: Tensor, tolerance: float = 1e-8) -> None:
    """The learner's gradients are beta times those of backprop, for every parameter of the model."""
    y = torch.arange(len(x)) % 3
    torch.manual_seed(7)
    expected = backprop(model, x, y)
    for parameter in model.parameters():
        parameter.grad = None
    torch.manual_seed(7)
    learner.backward(F.cross_entropy(learner(x), y))
    for (name, parameter), wanted in zip(model.named_parameters(), expected, strict=True):
        found = torch.zeros_like(wanted) if parameter.grad is None else parameter.grad
        scale = max(float(wanted.norm()), 1e-4)
        assert float((found - 0.5 * wanted).norm()) <= tolerance * scale, name


def exact_or_refused(model: nn.Sequential, x: Tensor, name: str, tolerance: float = 1e-8) -> bool:
    """Whether it was trained exactly; a refusal must name the layer."""
    try:
        assert_oracle(model, Learner(model, EXACT), x, tolerance)
    except UserError as refusal:
        if name not in str(refusal):
            raise
        return False
    return True
