"""The forward update without autograd gives autograd's gradients, in every kind of block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from targetprop import Pair, Trace
from targetprop.adjoint import adjoint
from targetprop.encoding import encode
from targetprop.forward_part import forward_part
from targetprop.rules import add_local_gradients, local_loss

BLOCKS: dict[str, Callable[[], nn.Sequential]] = {
    "pool first": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.ELU(0.7)),
    "norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.GELU("tanh"), nn.Dropout(0.3)),
    "plain norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4, affine=False), nn.ReLU()),
    "overlap": lambda: nn.Sequential(nn.Conv2d(3, 6, 2, groups=3, dilation=2), nn.Tanh(), nn.MaxPool2d(3, 2)),
    "average": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Flatten()),
    "adaptive": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(2), nn.GELU(), nn.AdaptiveAvgPool2d(1)),
    "before": lambda: nn.Sequential(nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5)),
    "sequence": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 5), nn.ReLU()),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_are_autograds(name: str, training: bool) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name]().double().train(training)
    if not training:
        for layer in block:
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                torch.nn.init.uniform_(layer.running_mean)  # type: ignore[arg-type]
                torch.nn.init.uniform_(layer.running_var, 1, 2)  # type: ignore[arg-type]
    pair = Pair(block, None)
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    y, context = pair.encode(x)
    difference = torch.randn_like(y)
    expected = torch.autograd.grad((y - (y + difference).detach()).square().sum() / 12, list(block.parameters()))
    for times in (1, 2):  # the second time is added to the first
        add_local_gradients(pair, Trace(x, y.detach(), context), difference)
        for parameter, gradient in zip(block.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, times * gradient, rtol=1e-9, atol=1e-12)
    assert pair.forward_part is not None


def test_the_error_at_the_map_is_that_of_the_layers_above() -> None:
    block = BLOCKS["pool first"]().double()
    part = forward_part(block)
    assert part is not None
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    at_map = block[0](x).detach().requires_grad_()
    y = block[2](block[1](at_map))
    delta = torch.randn_like(y)
    found = part.add_gradients(x, encode(block, x)[1], delta, 1.0)
    torch.testing.assert_close(found, torch.autograd.grad(y, at_map, delta)[0])


def test_frozen_parameters_get_no_gradient() -> None:
    block = BLOCKS["norm"]()
    block[0].weight.requires_grad_(False)
    block[1].bias.requires_grad_(False)
    pair = Pair(block, None)
    x = torch.randn(6, 3, 8, 8)
    trace = Trace(x, *pair.encode(x)).detach()
    add_local_gradients(pair, trace, torch.ones_like(trace.y))
    assert [name for name, p in block.named_parameters() if p.grad is not None] == ["1.weight"]


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize(
    "block",
    [
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
        nn.Sequential(nn.Linear(4, 4), Doubled()),
        nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)),
        nn.Linear(4, 4),
    ],
    ids=str,
)
def test_other_blocks_take_autograd(block: nn.Module) -> None:
    pair = Pair(block, None)
    assert pair.forward_part is None
    x = torch.randn(5, 4)
    trace = Trace(x, *pair.encode(x))
    difference = torch.randn(5, 4)
    assert add_local_gradients(pair, trace, difference) is None
    assert all(p.grad is not None for p in block.parameters())
    assert local_loss(difference).item() == pytest.approx(float(difference.square().sum()) / 10)


def test_a_layer_without_adjoint_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Doubled has no adjoint"):
        adjoint(Doubled(), torch.ones(1), None)
