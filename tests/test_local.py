"""The forward update without autograd gives autograd's gradients, in every kind of block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

from targetprop import LayerRule, Pair, PairedNetwork, Pass, Trace, rule_of
from targetprop.layers.base import Context
from targetprop.local import add_gradients, local_loss
from targetprop.noise import GaussianNoise

BLOCKS: dict[str, Callable[[], nn.Sequential]] = {
    "pool first": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.ELU(0.7)),
    "norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.GELU("tanh"), nn.Dropout(0.3)),
    "plain norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4, affine=False), nn.ReLU()),
    "norm of the batch": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4, track_running_stats=False), nn.ELU()
    ),
    "overlap": lambda: nn.Sequential(nn.Conv2d(3, 6, 2, groups=3, dilation=2), nn.Tanh(), nn.MaxPool2d(3, 2)),
    "average": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Flatten()),
    "adaptive": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(2), nn.GELU(), nn.AdaptiveAvgPool2d(1)),
    "before": lambda: nn.Sequential(nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5)),
    "pooled units": lambda: nn.Sequential(nn.Linear(8, 6), nn.MaxPool2d(2), nn.ELU()),
    "pools": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(5), nn.BatchNorm2d(4), nn.ELU(), nn.MaxPool2d(3, 1, 1)
    ),
    "sequence": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 5), nn.ReLU()),
}


class Seen(Pass):
    """A pass through a network of one pair, of which there is this trace."""

    def __init__(self, pair: Pair, trace: Trace) -> None:
        super().__init__(PairedNetwork([pair]), trace.x, GaussianNoise(0), 0)
        self.output = trace.y
        self.of_pair = trace

    def trace(self, block: int) -> Trace:
        assert block == 0
        return self.of_pair

    def release(self, block: int) -> None:
        pass


def passed(pair: Pair, x: Tensor) -> Seen:
    return Seen(pair, Trace(x, *pair.encode(x), pair.chain))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_are_autograds(name: str, training: bool) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name]().double().train(training)
    if not training:
        for layer in block:
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer.track_running_stats:
                torch.nn.init.uniform_(layer.running_mean)  # type: ignore[arg-type]
                torch.nn.init.uniform_(layer.running_var, 1, 2)  # type: ignore[arg-type]
    pair = Pair(block, None)
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    y, context = pair.encode(x)
    difference = torch.randn_like(y)
    expected = torch.autograd.grad((y - (y + difference).detach()).square().sum() / 12, list(block.parameters()))
    for times in (1, 2):  # the second time is added to the first
        add_gradients(Seen(pair, Trace(x, y.detach(), context, pair.chain)), 0, difference)
        for parameter, gradient in zip(block.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, times * gradient, rtol=1e-9, atol=1e-12)
    assert pair.chain is not None


def test_the_error_at_the_map_is_that_of_the_layers_above() -> None:
    block = BLOCKS["pool first"]().double()
    pair = Pair(block, None)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    at_map = block[0](x).detach().requires_grad_()
    y = block[2](block[1](at_map))
    delta = torch.randn_like(y)
    seen = Seen(pair, passed(pair, x).trace(0).detach())
    add_gradients(seen, 0, delta)
    torch.testing.assert_close(seen.at_map[0], torch.autograd.grad(y, at_map, delta)[0])


def test_frozen_parameters_get_no_gradient() -> None:
    block = BLOCKS["norm"]()
    block[0].weight.requires_grad_(False)
    block[1].bias.requires_grad_(False)
    pair = Pair(block, None)
    x = torch.randn(6, 3, 8, 8)
    trace = passed(pair, x).trace(0).detach()
    add_gradients(Seen(pair, trace), 0, torch.ones_like(trace.y))
    assert [name for name, p in block.named_parameters() if p.grad is not None] == ["1.weight"]


@pytest.mark.parametrize("activation", [nn.LeakyReLU(-0.3), nn.ELU(-0.3), nn.LeakyReLU(0.0), nn.ELU(0.0)], ids=str)
def test_activations_that_do_not_rise_have_their_slope(activation: nn.Module) -> None:
    block = nn.Sequential(nn.Linear(5, 4), activation).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    pair = Pair(block, None)
    trace = passed(pair, x).trace(0)
    delta = torch.randn_like(trace.y)
    expected = torch.autograd.grad(trace.y, list(block.parameters()), -delta / 6)
    assert pair.chain is not None
    add_gradients(Seen(pair, trace.detach()), 0, delta)
    torch.testing.assert_close([p.grad for p in block.parameters()], list(expected))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_gradients_have_the_memory_order_of_their_parameters(order: torch.memory_format) -> None:
    """Fused optimisers take that for granted, and would step along the wrong entries."""
    conv = nn.Conv2d(64, 4, 3)
    x = torch.randn(2, 64, 5, 5).contiguous(memory_format=torch.channels_last)
    pair = Pair(nn.Sequential(conv), None)
    seen = Seen(pair, passed(pair, x).trace(0).detach())
    conv.weight.data = conv.weight.data.contiguous(memory_format=order)
    add_gradients(seen, 0, torch.randn_like(seen.output))
    assert conv.weight.grad is not None
    assert conv.weight.is_contiguous(memory_format=order)
    assert conv.weight.grad.stride() == conv.weight.stride()


def test_norms_hold_no_graph_to_their_weights() -> None:
    norm = nn.BatchNorm1d(4)
    rule = rule_of(norm)
    y, context = rule.run(norm, torch.randn(6, 4))
    assert not rule.vjp(norm, torch.ones_like(y), context).requires_grad


def hooked(kind: str) -> nn.Sequential:
    block = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    linear, tanh = block
    if kind == "pruned":
        nn.utils.prune.random_unstructured(linear, "weight", 0.5)
    elif kind == "weight norm":
        nn.utils.weight_norm(linear)
    elif kind == "parametrization":
        nn.utils.parametrizations.weight_norm(linear)
    elif kind == "forward hook":
        tanh.register_forward_hook(lambda module, inputs, y: 3 * y)
    elif kind == "pre-hook":
        linear.register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))
    elif kind == "backward hook":
        tanh.register_full_backward_hook(lambda module, inputs, outputs: (2 * outputs[0],))  # type: ignore[index]
    elif kind == "parameter hook":
        assert isinstance(linear.bias, nn.Parameter)
        linear.bias.register_hook(lambda gradient: 2 * gradient)
    return block


KINDS = ("pruned", "weight norm", "parametrization", "forward hook", "pre-hook", "backward hook", "parameter hook")


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("kind", KINDS)
def test_layers_with_hooks_take_autograd(kind: str) -> None:
    block = hooked(kind)
    x = torch.randn(5, 4)
    y = block(x)
    difference = torch.randn(5, 4)
    y.backward(-difference / 5)
    expected = [p.grad.clone() for p in block.parameters() if p.grad is not None]
    assert len(expected) == len(list(block.parameters()))
    block.zero_grad()
    pair = Pair(block, None)
    assert pair.chain is None
    add_gradients(passed(pair, x), 0, difference)
    torch.testing.assert_close([p.grad for p in block.parameters()], expected)


def test_a_pair_with_an_encode_of_its_own_takes_autograd() -> None:
    class Twice(Pair):
        def encode(self, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
            return super().encode(2 * x, clean)

    assert Twice(nn.Sequential(nn.Linear(4, 4)), None).chain is None


def test_known_blocks_keep_no_graph() -> None:
    blocks = nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.Sequential(nn.Linear(5, 3), Doubled())
    network = PairedNetwork(Pair(block, None) for block in blocks)
    assert [trace.y.requires_grad for trace in network.trace(torch.randn(2, 4))] == [False, True]


def test_what_becomes_of_a_block_later_counts_from_the_next_pass_on() -> None:
    pair, x = Pair(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), None), torch.randn(2, 4)
    network = PairedNetwork([pair])

    def chain() -> tuple[nn.Module, ...] | None:
        return None if pair.chain is None else pair.chain.rule.layers

    assert chain() == tuple(pair.block.children())
    pair.block.register_module("0", nn.Linear(4, 4))
    (trace,) = network.trace(x)
    assert chain() == tuple(pair.block.children())
    torch.testing.assert_close(trace.y, pair.block(x))
    handle = next(pair.block.children()).register_forward_hook(lambda module, inputs, y: 3 * y)
    (trace,) = network.trace(x)
    assert chain() is None
    torch.testing.assert_close(trace.y, pair.block(x))
    handle.remove()
    network.refresh()
    assert chain() is not None


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Falling(nn.Tanh):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


@pytest.mark.parametrize(
    "block",
    [
        nn.Sequential(nn.Linear(4, 4), Falling()),
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
        nn.Sequential(nn.Linear(4, 4), Doubled()),
        nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)),
        nn.Linear(4, 4),
    ],
    ids=str,
)
def test_other_blocks_take_autograd(block: nn.Module) -> None:
    pair = Pair(block, None)
    assert pair.chain is None
    seen = passed(pair, torch.randn(5, 4))
    difference = torch.randn(5, 4)
    expected = torch.autograd.grad(seen.output, list(block.parameters()), -difference / 5, retain_graph=True)
    add_gradients(seen, 0, difference)
    assert seen.at_map == {}
    torch.testing.assert_close([p.grad for p in block.parameters()], list(expected))
    assert local_loss(difference).item() == pytest.approx(float(difference.square().sum()) / 10)


def test_a_layer_of_which_nothing_is_known_carries_errors_by_autograd_and_a_rule_without_a_way_back_says_so() -> None:
    rule, delta = rule_of(Doubled()), torch.randn(2, 3)
    context = rule.run(Doubled(), torch.randn(2, 3))[1]
    assert not rule.knows_its_gradients
    assert not LayerRule[Doubled]().knows_its_gradients
    assert torch.equal(context.vjp(delta), 2 * delta)
    with pytest.raises(NotImplementedError, match="LayerRule has no vjp"):
        LayerRule[Doubled]().vjp(Doubled(), torch.ones(1), None)
