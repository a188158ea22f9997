"""With every layer in a network: feedback that is transposed gives beta times backprop, and every algorithm trains."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from layer_cases import ALL, EXACT, Case, assert_oracle, convolutions, made, name_of, network, sample
from noise_helpers import Drawn
from torch import nn

from targetprop import Learner, PairedNetwork, Residual, rule_of
from targetprop.feedback.closed_form import l_drl_gradient
from targetprop.feedback.losses import l_drl
from targetprop.measure.alignment import feedback_angles
from targetprop.noise import Draw, Kind

CONVOLUTIONS = convolutions()


@pytest.mark.parametrize("case", ALL, ids=name_of)
def test_transposed_feedback_gives_beta_times_backprop(case: Case) -> None:
    make, shape = case
    model = network(make(), shape)
    assert_oracle(model, Learner(model, EXACT), sample(shape))


@pytest.mark.parametrize("case", ALL, ids=name_of)
@pytest.mark.parametrize("algorithm", ["dtp", "delta_mirror", "lee_dtp"])
def test_every_algorithm_trains_every_layer(case: Case, algorithm: str) -> None:
    make, shape = case
    layer = make().float() if not (isinstance(make(), nn.PReLU) and algorithm == "lee_dtp") else nn.PReLU()
    model = network(layer, shape).float()
    learner = Learner(model, algorithm)
    if algorithm == "dtp":
        learner = Learner(model, learner.algorithm.with_numbers(feedback_training_iterations=2))
    step = learner.backward(F.cross_entropy(learner(sample(shape).float()), torch.arange(5) % 3))
    assert bool(step.feedback_losses.isfinite().all())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@pytest.mark.parametrize("activation", [nn.ELU, nn.Tanh])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=name_of)
def test_closed_form_is_the_gradient_of_autograd(case: Case, activation: type[nn.Module]) -> None:
    make, shape = case
    pair = PairedNetwork.of(network(nn.Sequential(make(), activation()), shape)).pairs[2]
    part, x = pair.linear, sample(shape)
    assert part is not None
    drawn: dict[Kind, torch.Tensor] = {}

    def draw(kind: Kind, like: torch.Tensor) -> torch.Tensor:
        return drawn.setdefault(kind, 0.3 * torch.randn_like(like))

    noise: Draw = Drawn(draw, 0.3)
    trace = PairedNetwork([pair]).trace(x)[0].detach()
    slow_loss = l_drl(pair, trace, noise)
    (slow,) = torch.autograd.grad(slow_loss, part.map.weight)
    fast, loss = l_drl_gradient(pair, part, trace, part.features(trace.y, trace.context), noise)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9 * float(slow.norm()))
    torch.testing.assert_close(loss, slow_loss.detach())


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=name_of)
def test_the_first_batch_aligns_the_feedback_of_every_kind_of_map(case: Case) -> None:
    make, shape = case
    learner = Learner(network(nn.Sequential(make(), nn.ELU()), shape), "delta_mirror")
    learner.backward(F.cross_entropy(learner(sample(shape)), torch.arange(5) % 3))
    angles = [float(each) for pair in learner.network.trained for each in feedback_angles(pair)]
    assert len(angles) == 3
    assert max(angles) < 1


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=name_of)
def test_a_map_is_a_product_with_patches(case: Case) -> None:
    make, shape = case
    layer, x = make(), sample(shape, 3)
    found = rule_of(layer).linear_map(layer)
    assert found is not None
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    y = layer(x) - layer(torch.zeros_like(x))
    assert torch.equal(found.from_matrix(found.matrix(weight)), weight)
    torch.testing.assert_close(found.patches(x) @ found.matrix(weight).mT, found.rows(y))
    delta = torch.randn_like(y)
    expected = torch.autograd.grad((y * delta).sum(), weight)[0]
    torch.testing.assert_close(found.correlate(x, delta), expected)


class Halved(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), -1).div(2).view(x.shape)


class HalvedInOrder(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(len(x), -1).div(2).view(x.shape)  # takes no channels last


def image_network(own: nn.Module) -> nn.Sequential:
    """A 4-d network with a layer of most families, and one layer of a user's own."""
    body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular"), nn.GroupNorm(2, 6), nn.PReLU(6))
    return nn.Sequential(
        nn.ReflectionPad2d(1), nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.Mish(),
        nn.Conv2d(6, 6, 3, stride=2, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), nn.CELU(),
        nn.Dropout2d(0.2), Residual(body), nn.Softsign(), own,
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), nn.LayerNorm((4, 8, 8)), nn.SELU(),
        nn.MaxPool2d(3, 1), nn.PixelUnshuffle(2), nn.Conv2d(16, 4, 1), nn.Hardswish(), nn.Upsample(scale_factor=2),
        nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.Linear(36, 3),
    )  # fmt: skip


@pytest.mark.parametrize("algorithm", ["delta_mirror", "kolen_pollack"])
def test_channels_last_networks_train_and_one_layer_of_a_users_own_changes_no_order(algorithm: str) -> None:
    model = image_network(HalvedInOrder())
    learner = Learner(model, algorithm)
    x = torch.randn(6, 3, 8, 8)
    learner.backward(F.cross_entropy(learner(x), torch.arange(6) % 3))
    kernels = [p for p in learner.network.feedback_parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert len(kernels) >= 3
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_a_network_of_all_families_is_exact() -> None:
    model = image_network(Halved()).double()
    assert_oracle(model, Learner(model, EXACT), sample((3, 8, 8), 6))


@pytest.mark.parametrize(
    "layer",
    [
        made(nn.PReLU), made(nn.Softmax, 1), made(nn.Softplus), made(nn.Sigmoid), made(nn.LayerNorm, (4, 7, 6)),
        made(nn.GroupNorm, 2, 4), made(nn.InstanceNorm2d, 4, affine=True, track_running_stats=True),
        made(nn.BatchNorm2d, 4), made(nn.ConvTranspose2d, 4, 4, 3, 2), made(nn.Dropout2d),
        made(nn.Upsample, scale_factor=2), made(nn.Conv2d, 4, 4, 3, padding=1, padding_mode="replicate"),
        made(nn.MaxPool2d, 2),
        made(nn.ReflectionPad2d, 1),
    ],
    ids=lambda make: type(make()).__name__,
)  # fmt: skip
def test_common_layers_train_under_autocast(layer: object) -> None:
    assert callable(layer)
    model = network(layer(), (4, 7, 6)).float()
    learner = Learner(model, "delta_mirror")
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(learner(torch.randn(5, 4, 7, 6)), torch.arange(5) % 3)
    learner.backward(loss)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_gains_of_a_norm_are_no_matrix_whatever_their_shape() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm((2, 4, 4)), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    assert len(PairedNetwork.of(model).pairs) == 2
