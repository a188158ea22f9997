"""Residual blocks: the pair is the whole block, its skip inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import (
    AMORTISED_DTP,
    DTP,
    VANILLA_DTP,
    Learner,
    OptimizerSpec,
    Pair,
    PairedNetwork,
    Recipe,
    Residual,
    Trace,
    UserError,
    encode,
    explain,
    twin_of,
)
from targetprop.feedback.rules import add_local_gradients, local_loss
from targetprop.measure.alignment import angle, backprop_gradients, block_gradients, feedback_angles
from targetprop.models import resnet

IMAGE, CLASSES = (3, 8, 8), 5


def net(norm: bool = True, activation: str = "relu") -> nn.Sequential:
    """Three residual blocks: one with an identity for a skip, one with a projection, one with an identity again."""
    torch.manual_seed(0)
    return resnet(IMAGE, CLASSES, (4, 6), (1, 2), norm, activation)


def dense() -> nn.Sequential:
    """Residual blocks of a user's own: branches of several kinds, with activations before their maps and after."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Sequential(nn.BatchNorm1d(7), nn.Tanh()), nn.Linear(7, 7), nn.Dropout(0.2), nn.Linear(7, 7))
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 7), nn.LeakyReLU(),
        Residual(body), nn.Unflatten(1, (7, 1)), nn.Flatten(),
        Residual(nn.Linear(7, 9), nn.Linear(7, 9)), nn.ELU(),
        Residual(nn.Linear(9, 9)), nn.Tanh(),
        nn.Linear(9, CLASSES),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "norm": lambda: net(True),
    "plain": lambda: net(False),
    "plain elu": lambda: net(False, "elu"),
    "norm gelu": lambda: net(True, "gelu"),
    "dense": dense,
}


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *IMAGE, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def with_forward_weights(model: nn.Sequential, recipe: Recipe) -> Learner:
    """A learner in float64 whose feedback weights are the forward ones."""
    learner = Learner(model.double(), recipe)
    for pair in learner.network.trained:
        assert pair.twin is not None
        with torch.no_grad():
            for forward, feedback in pair.weights():
                feedback.copy_(forward)
    return learner


def distances(learner: Learner, x: Tensor, y: Tensor) -> list[float]:
    """Of the update over beta from backprop's gradient, relative to it, block by block."""
    torch.manual_seed(2)  # the same masks in both
    loss = F.cross_entropy(learner(x), y)
    learner.backward(loss)
    torch.manual_seed(2)
    gradients = backprop_gradients(learner.network, x, y, F.cross_entropy)
    updates = block_gradients(learner.network)
    return [
        float((u / learner.recipe.beta - g).norm() / g.norm()) for u, g in zip(updates, gradients, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_with_forward_weights_linear_twins_are_transposed_jacobians_at_any_beta(name: str, training: bool) -> None:
    """Through inner slopes, masks, and batch norm, by statistics of the batch (which move with it) or running ones."""
    learner = with_forward_weights(NETWORKS[name](), replace(DTP, twin="linear", feedback_loss=None, beta=0.7))
    x, y = batch()
    for module in learner.network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.1, 0.3)  # type: ignore[arg-type]
            module.train(training)
    assert max(distances(learner, x.double(), y)) < 1e-12


@pytest.mark.parametrize("name", NETWORKS)
def test_matched_twins_are_transposed_jacobians_as_beta_goes_to_zero(name: str) -> None:
    learner = with_forward_weights(NETWORKS[name](), replace(DTP, twin="matched", feedback_loss=None, beta=1e-4))
    x, y = batch()
    assert max(distances(learner, x.double(), y)) < 1e-4


@pytest.mark.parametrize("recipe", [DTP, replace(DTP, twin="linear", feedback="textbook"), VANILLA_DTP])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_loss_trains_all_feedback_and_all_forward_weights(name: str, recipe: Recipe) -> None:
    learner = Learner(NETWORKS[name](), replace(recipe, feedback_training_iterations=2, b_optim=OptimizerSpec(lr=1e-4)))
    before = [p.clone() for p in learner.network.feedback_parameters()]
    x, y = batch()
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert bool(step.feedback_losses.isfinite().all())
    for old, new in zip(before, learner.network.feedback_parameters(), strict=True):
        assert new.dim() == 1 or not torch.equal(old, new)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in learner.network.forward_parameters())


def test_published_twins_run_the_branches_backwards_and_add_up() -> None:
    body = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ELU(), nn.Conv2d(3, 4, 1))
    skip = nn.Conv2d(2, 4, 1)
    layer = Residual(body, skip)
    twin = twin_of(layer)
    x = torch.randn(5, 2, 6, 6)
    y, context = encode(layer, x)
    torch.testing.assert_close(y, body(x) + skip(x))
    first, _, elu, last = twin.body.twins
    expected = first.map(elu.activation(last.map(y))) + twin.skip.twins[0].map(y)
    torch.testing.assert_close(twin.decode(y, context), expected)
    assert not twin.is_linear
    assert twin_of(layer, "linear").is_linear


def test_a_skip_without_layers_passes_on_what_comes_down() -> None:
    layer = Residual(nn.Linear(4, 4))
    twin = twin_of(layer, "linear")
    torch.nn.init.zeros_(twin.body.twins[0].map.weight)
    y, context = encode(layer, torch.randn(3, 4))
    assert torch.equal(twin.decode(y, context), y)
    assert [p.shape for p in twin.parameters()] == [(4, 4)]


def test_a_noisy_pass_has_the_clean_statistics_slopes_and_masks() -> None:
    body = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Dropout(0.5))
    skip = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    layer = Residual(body, skip).double()
    x, eps = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    y, context = encode(layer, x)
    running = [buffer.clone() for buffer in layer.buffers()]
    noisy, _ = encode(layer, x + eps, context)
    twice, _ = encode(layer, x + 2 * eps, context)
    torch.testing.assert_close(twice - y, 2 * (noisy - y))  # affine: nothing but x has moved
    assert all(torch.equal(a, b) for a, b in zip(running, layer.buffers(), strict=True))


def test_the_context_holds_the_clean_input_of_every_map() -> None:
    pair = PairedNetwork.of(net(), "linear").pairs[2]
    assert isinstance(pair.block, nn.Sequential)
    seen: list[Tensor] = []
    for layer in pair.block[0].modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda module, inputs, y: seen.append(inputs[0]))
    x = torch.randn(5, 4, 8, 8)
    _, context = pair.encode(x)
    assert len(pair.maps) == len(seen) == 3
    for each, expected in zip(pair.maps, seen, strict=True):
        found = each.map_input(x, context)
        assert torch.equal(found, expected)
        assert not found.requires_grad


@pytest.mark.parametrize("style", ["linear", "matched"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_batch_already_aligns_amortised_feedback_and_updates(name: str, style: str) -> None:
    learner = Learner(NETWORKS[name](), replace(AMORTISED_DTP, twin=style, beta=0.01))
    x, y = batch(32)
    torch.manual_seed(2)
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert float(step.feedback_losses.max()) < 0.02
    found = [[float(each) for each in feedback_angles(pair)] for pair in learner.network.trained]
    assert [len(angles) for angles in found] == ([2, 2, 1, 1] if name == "dense" else [2, 3, 2, 1])
    assert max(each for angles in found for each in angles) < 5
    torch.manual_seed(2)
    gradients = backprop_gradients(learner.network, x, y, F.cross_entropy)
    for update, gradient in zip(block_gradients(learner.network), gradients, strict=True):
        assert float(angle(update, gradient)) < 8


def test_amortised_feedback_follows_with_a_little_noise_a_batch_and_forward_weights_at_rest() -> None:
    learner = Learner(net(), AMORTISED_DTP)
    learner.steps = 1  # after the first batch, whose noise is plenty
    x, y = batch(64)
    left = [learner.backward(F.cross_entropy(learner(x), y)).feedback_losses for _ in range(150)]
    assert float(left[0][:-1].min()) > 0.3
    assert float(left[-1].max()) < 0.01
    assert max(float(a) for pair in learner.network.trained for a in feedback_angles(pair)) < 5


def test_maps_of_a_block_have_noise_of_their_own() -> None:
    learner = Learner(net(), AMORTISED_DTP)
    learner.steps = 1
    keys = []
    draw = learner.noise

    def recorded(key: object, like: Tensor) -> Tensor:
        keys.append(key)
        return draw(key, like)  # type: ignore[arg-type]

    learner.noise = recorded
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    assert len(keys) == len(set(keys)) == 2 * (2 + 3 + 2 + 1)


def test_by_kolen_pollack_every_map_takes_its_own_update() -> None:
    learner = Learner(net(), Recipe(feedback="kolen_pollack", twin="linear"))
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    for pair in learner.network.trained:
        for each in pair.maps:
            gradient = each.layer.weight.grad
            assert isinstance(gradient, Tensor)
            torch.testing.assert_close(each.map.map.weight.grad, gradient if gradient.dim() > 2 else gradient.t())


def test_a_run_can_be_resumed() -> None:
    def steps(learner: Learner, count: int) -> None:
        optimizer = torch.optim.SGD(learner.network.forward_parameters(), lr=0.05)
        x, y = batch()
        for _ in range(count):
            learner.backward(F.cross_entropy(learner(x), y))
            optimizer.step()
            optimizer.zero_grad()

    whole, first, resumed = (Learner(net(), AMORTISED_DTP, seed=3) for _ in range(3))
    steps(whole, 5)
    steps(first, 3)
    resumed.load_state_dict(first.state_dict())
    steps(resumed, 2)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_recomputed_activations_give_the_same_step() -> None:
    x, y = batch()
    kept, recomputed = (Learner(net(norm=False), AMORTISED_DTP, recompute=recompute) for recompute in (False, True))
    for learner in (kept, recomputed):
        learner.backward(F.cross_entropy(learner(x), y))
    for ours, theirs in zip(recomputed.parameters(), kept.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def test_explain_says_what_a_residual_pair_does() -> None:
    network = PairedNetwork.of(net(), "linear")
    lines = [line.split(": ", 1)[1] for line in explain(network, AMORTISED_DTP)]
    assert lines[1:] == [
        "amortised, each of its 2 linear maps by itself",
        "amortised, each of its 3 linear maps by itself",
        "amortised, each of its 2 linear maps by itself",
        "amortised",
    ]
    assert (
        explain(network, DTP)[2] == "Block 3 (Residual, ReLU): autograd, because the twin of Residual has 3 linear maps"
    )


def test_frozen_maps_stay_and_the_others_learn() -> None:
    network = PairedNetwork.of(net(), "linear")
    kept, learned = (each.map.map.weight for each in network.pairs[1].maps)
    kept.requires_grad_(False)
    before = kept.clone(), learned.clone()
    learner = Learner(network, AMORTISED_DTP)
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    assert torch.equal(before[0], kept)
    assert not torch.equal(before[1], learned)


@pytest.mark.parametrize(
    "block",
    [
        nn.Sequential(Residual(nn.Linear(4, 4)), nn.Tanh(), Residual(nn.Linear(4, 4))),
        nn.Sequential(nn.Tanh(), Residual(nn.Linear(4, 4))),
        nn.Sequential(Residual(nn.Sequential(nn.Linear(4, 4), Residual(nn.Linear(4, 4))))),
    ],
    ids=["two in a block", "behind an activation", "nested"],
)
def test_blocks_of_another_build_learn_by_the_loss(block: nn.Sequential) -> None:
    learner = Learner(nn.Sequential(nn.Linear(6, 4), block, nn.Linear(4, 3)), AMORTISED_DTP)
    assert ": autograd" in explain(learner.network, AMORTISED_DTP)[1]
    before = [p.clone() for p in learner.network.pairs[1].feedback_parameters()]
    learner.backward(F.cross_entropy(learner(torch.randn(9, 6)), torch.randint(3, (9,))))
    after = learner.network.pairs[1].feedback_parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True) if a.dim() > 1)


def test_a_residual_with_a_forward_of_its_own_needs_a_twin_of_its_own() -> None:
    class Half(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 2

    model = nn.Sequential(Half(nn.Linear(4, 4)), nn.Linear(4, 4))
    x = torch.randn(3, 4)
    torch.testing.assert_close(PairedNetwork.of(model).trace(x)[-1].y, model(x))
    with pytest.raises(UserError, match="Half is a Residual with a forward of its own: register a twin for Half"):
        PairedNetwork.of(nn.Sequential(nn.Linear(4, 4), Half(nn.Linear(4, 4))))


def test_in_place_activations_within_branches_are_made_harmless() -> None:
    body = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6))
    network = PairedNetwork.of(nn.Sequential(Residual(body), Residual(body), nn.Linear(6, 3)))
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_the_forward_update_is_the_gradient_of_the_local_loss() -> None:
    pair = Pair(nn.Sequential(Residual(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Tanh()), None)
    x, difference = torch.randn(5, 4), torch.randn(5, 4)
    trace = Trace(x, *pair.encode(x))
    loss = local_loss(pair.block(x) - (trace.y + difference).detach())
    expected = torch.autograd.grad(loss, list(pair.block.parameters()))
    add_local_gradients(pair, trace, difference)
    torch.testing.assert_close([p.grad for p in pair.block.parameters()], list(expected))
