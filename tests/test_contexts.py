"""A noisy pass reuses what the clean pass on the same batch fixed: statistics and masks; not pooling indices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from targetprop import FIXED_DTP, Learner, PairedNetwork, rule_of
from targetprop.layers.base import Context, Graph
from targetprop.layers.sequence import feedback_of


def encode(layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    return rule_of(layer).run(layer, x, clean)


def statistics(norm: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in norm.buffers()]


NORMS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.BatchNorm2d(3), (6, 3, 4, 5)),
    (nn.BatchNorm2d(3, affine=False), (6, 3, 4, 5)),
    (nn.BatchNorm2d(3, track_running_stats=False), (6, 3, 4, 5)),
    (nn.BatchNorm2d(3, momentum=None, eps=0.1), (6, 3, 4, 5)),
    (nn.BatchNorm1d(3), (6, 3)),
    (nn.BatchNorm1d(3), (6, 3, 7)),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("norm", "shape"), NORMS, ids=str)
def test_noisy_pass_through_batch_norm_is_frozen(norm: nn.Module, shape: tuple[int, ...], training: bool) -> None:
    norm.double().train(training)
    for parameter in norm.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.5)
    x = 3 * torch.randn(shape, dtype=torch.float64) + 1
    eps = torch.randn_like(x)
    y, context = encode(norm, x)
    torch.testing.assert_close(y, norm(x))
    before = statistics(norm)
    same, _ = encode(norm, x, context)
    noisy, _ = encode(norm, x + eps, context)
    assert all(torch.equal(a, b) for a, b in zip(statistics(norm), before, strict=True))
    torch.testing.assert_close(same, y)
    # Frozen, the layer is affine in each sample, so that a perturbation's effect is its own, and linear.
    twice, _ = encode(norm, x + 2 * eps, context)
    torch.testing.assert_close(twice - y, 2 * (noisy - y))
    alone, _ = encode(norm, torch.cat([x[:1] + eps[:1], x[1:]]), context)
    torch.testing.assert_close(alone, torch.cat([noisy[:1], y[1:]]))


def test_clean_pass_through_batch_norm_updates_the_running_statistics_once() -> None:
    norm, reference = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    x = torch.randn(6, 3, 4, 5)
    encode(norm, x)
    reference(x)
    assert all(torch.equal(a, b) for a, b in zip(statistics(norm), statistics(reference), strict=True))


def test_local_gradient_reaches_batch_norm_and_the_layer_below_it_as_in_torch() -> None:
    block = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    parameters = list(block.parameters())
    expected = torch.autograd.grad((block(x) - y).square().sum(), parameters)
    actual = torch.autograd.grad((encode(block, x)[0] - y).square().sum(), parameters)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("inplace", [True, False])
def test_dropout_mask_is_shared_by_noisy_passes_and_the_feedback(inplace: bool) -> None:
    dropout = nn.Dropout(0.5, inplace=inplace)
    x = torch.rand(20, 30) + 1
    original = x.clone()
    y, mask = encode(dropout, x)
    assert torch.equal(x, original)
    assert 0.3 < (y == 0).float().mean().item() < 0.7
    assert torch.equal(y[y != 0], 2 * x[y != 0])
    noisy, again = encode(dropout, x + 1, mask)
    assert torch.equal(again, mask)
    assert torch.equal(noisy == 0, y == 0)
    assert torch.equal(feedback_of(dropout).decode(x, mask), y)
    assert not torch.equal(encode(dropout, x)[0], y)


def test_dropout_is_the_identity_in_evaluation() -> None:
    dropout, x = nn.Dropout(0.5).eval(), torch.randn(2, 3)
    y, mask = encode(dropout, x)
    assert torch.equal(y, x)
    assert torch.equal(feedback_of(dropout).decode(x, mask), x)


def test_noisy_pass_through_pooling_selects_anew() -> None:
    pool, x = nn.MaxPool2d(2), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    _, clean = encode(pool, x)
    y, context = encode(pool, -x, clean)
    assert y.item() == -1
    assert context[0].item() == 0


def test_noisy_pass_without_noise_equals_the_clean_one_through_a_whole_block() -> None:
    block = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ELU(), nn.Dropout(0.3)), nn.MaxPool2d(2), nn.Flatten()
    ).double()
    x = torch.randn(5, 2, 6, 6, dtype=torch.float64)
    y, context = encode(block, x)
    same, _ = encode(block, x, context)
    torch.testing.assert_close(same, y)


def test_sequential_with_a_forward_of_its_own_is_run_as_such() -> None:
    class Residual(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return x + super().forward(x)

    block, x = Residual(nn.Linear(3, 3)), torch.randn(2, 3)
    y, context = encode(block, x)
    assert torch.equal(y, block(x))
    assert context == (3,)
    block, x = Residual(nn.Tanh()), torch.randn(2, 3)
    y, context = encode(block, x)
    assert torch.equal(y, block(x))
    assert isinstance(context, Graph)
    delta = torch.randn(2, 3)
    torch.testing.assert_close(context.vjp(delta), delta * (2 - x.tanh().square()))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ELU, nn.LeakyReLU])
def test_inplace_activations_do_not_alter_the_trace(activation: type[nn.Module]) -> None:
    def network(inplace: bool) -> PairedNetwork:
        torch.manual_seed(0)
        act = [activation(inplace=inplace) for _ in range(4)]
        return PairedNetwork.of(
            nn.Sequential(
                nn.Sequential(nn.Linear(4, 5), act[0]),
                nn.Sequential(act[1], nn.Linear(5, 5), act[2]),
                nn.Sequential(nn.Linear(5, 3), nn.Identity(), act[3]),
            )
        )

    plain, inplace = network(False), network(True)
    x = torch.randn(6, 4)
    expected, traces = plain.trace(x), inplace.trace(x)
    for pair, want, got in zip(inplace.trained, expected[1:], traces[1:], strict=True):
        pair.decode(got.y, got.context)
        pair.encode(got.x, got.context)
        assert torch.equal(got.x, want.x)
        assert torch.equal(got.y, want.y)
    for network_ in (plain, inplace):
        learner = Learner(network_, FIXED_DTP)
        learner.backward(learner(x).square().sum(1))
    for want_p, got_p in zip(plain.forward_parameters(), inplace.forward_parameters(), strict=True):
        assert want_p.grad is not None
        assert got_p.grad is not None
        torch.testing.assert_close(got_p.grad, want_p.grad)


def test_a_noisy_pass_keeps_the_slopes_of_the_clean_one() -> None:
    """Linear feedback is the same map in noisy passes, which L-DRL compares with the clean one."""
    for activation in (nn.ELU(), nn.Tanh(), nn.GELU(), nn.ReLU(), nn.LeakyReLU()):
        x, delta = torch.randn(4, 5), torch.randn(4, 5)
        _, clean = encode(activation, x)
        y, context = encode(activation, x + 1, clean)
        assert torch.equal(y, activation(x + 1))
        linear = feedback_of(activation, "linear")
        assert torch.equal(linear.decode(delta, context), linear.decode(delta, clean))


def test_noisy_passes_keep_the_jacobian_of_layers_that_only_autograd_knows() -> None:
    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.square()

    x, delta = torch.randn(4, 5), torch.randn(4, 5)
    _, clean = encode(Squared(), x)
    y, context = encode(Squared(), x + 1, clean)
    assert torch.equal(y, (x + 1).square())
    torch.testing.assert_close(feedback_of(Squared(), "linear").decode(delta, context), 2 * x * delta)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(5), (6, 5)),
        (nn.BatchNorm2d(3), (6, 3, 4, 4)),
        (nn.Dropout(0.5), (6, 5)),
        (nn.MaxPool2d(2), (6, 3, 4, 4)),
        (nn.Tanh(), (6, 5)),
    ],
    ids=str,
)
def test_a_noisy_pass_is_the_same_beside_a_hook_that_only_watches(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Statistics and masks are the clean ones, pooling indices its own, and nothing is left behind in buffers."""
    found = []
    for watched in (False, True):
        each = copy.deepcopy(layer).double()
        if watched:
            each.register_forward_hook(lambda module, inputs, y: None)
        torch.manual_seed(1)
        x, eps = torch.randn(2, *shape, dtype=torch.float64)
        y, clean = encode(each, x)
        noisy, context = encode(each, x + eps, clean)
        back = feedback_of(each, "linear").decode(torch.ones_like(y), context)
        found.append([y.detach(), noisy.detach(), back, *each.buffers()])
    torch.testing.assert_close(found[1], found[0])
