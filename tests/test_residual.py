"""Residual blocks: the pair is the whole block, its skip inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import (
    AMORTISED_DTP,
    DELTA_MIRROR,
    DTP,
    KOLEN_POLLACK,
    VANILLA_DTP,
    Algorithm,
    DifferenceTargets,
    FeedbackLayer,
    Fixed,
    LayerRule,
    Learner,
    OptimizerSpec,
    Pair,
    PairedNetwork,
    Residual,
    UserError,
    explain,
    register,
    rule_of,
)
from targetprop.execution.recompute import recomputed
from targetprop.layers.base import Style
from targetprop.layers.maps import MapFeedback
from targetprop.layers.residual import ResidualFeedback
from targetprop.layers.sequence import feedback_of
from targetprop.local import add_gradients, local_loss
from targetprop.measure.alignment import angle, backprop_gradients, block_gradients, feedback_angles
from targetprop.measure.genuineness import nonlinearity
from targetprop.models import resnet
from targetprop.network.passes import StoredPass
from targetprop.noise import GaussianNoise, NoiseKey

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
    "norm elu": lambda: net(True, "elu"),
    "dense": dense,
}


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *IMAGE, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def with_forward_weights(model: nn.Sequential, style: Style, beta: float) -> Learner:
    """A learner in float64 whose feedback weights are the forward ones."""
    learner = Learner(model.double(), Algorithm(DifferenceTargets(beta), Fixed(style=style)))
    for pair in learner.network.trained:
        assert pair.feedback is not None
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
    assert learner.update_scale is not None
    updates = block_gradients(learner.network)
    return [
        float((u / learner.update_scale - g).norm() / g.norm()) for u, g in zip(updates, gradients, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_with_forward_weights_linear_feedback_is_the_transposed_jacobian_at_any_beta(name: str, training: bool) -> None:
    """Through inner slopes, masks, and batch norm, by statistics of the batch (which move with it) or running ones."""
    learner = with_forward_weights(NETWORKS[name](), "linear", beta=0.7)
    x, y = batch()
    for module in learner.network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.1, 0.3)  # type: ignore[arg-type]
            module.train(training)
    assert max(distances(learner, x.double(), y)) < 1e-12


@pytest.mark.parametrize("name", ["plain elu", "norm elu", "dense"])
def test_matched_feedback_is_the_transposed_jacobian_as_beta_goes_to_zero(name: str) -> None:
    learner = with_forward_weights(NETWORKS[name](), "matched", beta=1e-4)
    x, y = batch()
    assert max(distances(learner, x.double(), y)) < 1e-4


@pytest.mark.parametrize("name", ["plain elu", "norm elu", "dense"])
def test_activations_within_branches_have_targets_of_their_own(name: str) -> None:
    """Or the blocks that have them would carry a linear function of what comes down."""
    learner = Learner(NETWORKS[name](), AMORTISED_DTP)
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    numbers = nonlinearity(learner.network, learner.algorithm.targets, x, lambda output: F.cross_entropy(output, y))
    assert numbers is not None
    assert min(map(float, numbers[:-2])) > 0.003
    assert float(numbers[-1]) < 1e-12


@pytest.mark.parametrize("algorithm", [DTP, DTP.with_numbers(style="linear", gradient="autograd"), VANILLA_DTP])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_loss_trains_all_feedback_and_all_forward_weights(name: str, algorithm: Algorithm) -> None:
    few = algorithm.with_numbers(feedback_training_iterations=2, b_optim=OptimizerSpec(lr=1e-4))
    learner = Learner(NETWORKS[name](), few)
    before = [p.clone() for p in learner.network.feedback_parameters()]
    x, y = batch()
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert bool(step.feedback_losses.isfinite().all())
    for old, new in zip(before, learner.network.feedback_parameters(), strict=True):
        assert new.dim() == 1 or not torch.equal(old, new)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in learner.network.forward_parameters())


def feedback_and_rule(layer: Residual, style: Style = "published") -> tuple[ResidualFeedback, LayerRule[Residual]]:
    feedback = feedback_of(layer, style)
    assert isinstance(feedback, ResidualFeedback)
    return feedback, rule_of(layer)


def map_of(feedback: nn.Module) -> nn.Module:
    """The layer that holds the weights of a map's feedback."""
    assert isinstance(feedback, MapFeedback)
    return feedback.map


@pytest.mark.parametrize("style", ["published", "adjoint"])
def test_feedback_runs_the_branches_backwards_and_adds_up(style: Style) -> None:
    elu = nn.ELU()
    body = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), elu, nn.Conv2d(3, 4, 1))
    skip = nn.Conv2d(2, 4, 1)
    layer = Residual(body, skip)
    feedback, rule = feedback_and_rule(layer, style)
    x = torch.randn(5, 2, 6, 6)
    y, context = rule.run(layer, x)
    torch.testing.assert_close(y, body(x) + skip(x))
    first, of_norm, _, last = feedback.body
    (of_skip,) = feedback.skip
    below = of_norm.decode(elu(map_of(last)(y)), context[0].layers[1])
    expected = map_of(first)(below) + map_of(of_skip)(y)
    torch.testing.assert_close(feedback.decode(y, context), expected)
    assert not feedback.is_linear
    assert feedback_of(layer, "linear").is_linear


def test_a_skip_without_layers_passes_on_what_comes_down() -> None:
    layer = Residual(nn.Linear(4, 4))
    feedback, rule = feedback_and_rule(layer, "linear")
    (of_body,) = feedback.body
    nn.init.zeros_(map_of(of_body).get_parameter("weight"))
    y, context = rule.run(layer, torch.randn(3, 4))
    assert torch.equal(feedback.decode(y, context), y)
    assert [p.shape for p in feedback.parameters()] == [(4, 4)]


def test_a_noisy_pass_has_the_clean_statistics_slopes_and_masks() -> None:
    body = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Dropout(0.5))
    skip = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    layer = Residual(body, skip).double()
    x, eps = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    rule = rule_of(layer)
    y, context = rule.run(layer, x)
    running = [buffer.clone() for buffer in layer.buffers()]
    noisy, _ = rule.run(layer, x + eps, context)
    twice, _ = rule.run(layer, x + 2 * eps, context)
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


@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_batch_already_aligns_mirrored_feedback_and_updates(name: str) -> None:
    learner = Learner(NETWORKS[name](), DELTA_MIRROR.with_numbers(beta=0.01))
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


def test_mirrored_feedback_follows_with_a_little_noise_a_batch_and_forward_weights_at_rest() -> None:
    learner = Learner(net(), DELTA_MIRROR)
    learner.steps = 1  # after the first batch, whose noise is plenty
    x, y = batch(64)
    left = [learner.backward(F.cross_entropy(learner(x), y)).feedback_losses for _ in range(150)]
    assert float(left[0][:-1].min()) > 0.3
    assert float(left[-1].max()) < 0.01
    assert max(float(a) for pair in learner.network.trained for a in feedback_angles(pair)) < 5


def test_maps_of_a_block_have_noise_of_their_own() -> None:
    learner = Learner(net(), DELTA_MIRROR)
    learner.steps = 1
    keys: list[NoiseKey] = []
    draw = learner.noise

    def recorded(key: NoiseKey, like: Tensor) -> Tensor:
        keys.append(key)
        return draw(key, like)

    learner.noise = recorded
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    assert len(keys) == len(set(keys)) == 2 * (2 + 3 + 2 + 1)


def test_by_kolen_pollack_every_map_takes_its_own_update() -> None:
    learner = Learner(net(), KOLEN_POLLACK)
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    for pair in learner.network.trained:
        for each in pair.maps:
            gradient = each.layer.weight.grad
            assert isinstance(gradient, Tensor)
            torch.testing.assert_close(each.map.weight.grad, gradient if gradient.dim() > 2 else gradient.t())


def test_a_run_can_be_resumed() -> None:
    def steps(learner: Learner, count: int) -> None:
        optimizer = torch.optim.SGD(learner.network.forward_parameters(), lr=0.05)
        x, y = batch()
        for _ in range(count):
            learner.backward(F.cross_entropy(learner(x), y))
            optimizer.step()
            optimizer.zero_grad()

    whole, first, resumed = (Learner(net(), DELTA_MIRROR, seed=3) for _ in range(3))
    steps(whole, 5)
    steps(first, 3)
    resumed.load_state_dict(first.state_dict())
    steps(resumed, 2)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_recomputed_activations_give_the_same_step() -> None:
    x, y = batch()
    kept, anew = Learner(net(norm=False), DELTA_MIRROR), recomputed(Learner(net(norm=False), DELTA_MIRROR))
    for learner in (kept, anew):
        learner.backward(F.cross_entropy(learner(x), y))
    for ours, theirs in zip(anew.parameters(), kept.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, cast(Tensor, theirs.grad))


def test_explain_says_what_a_residual_pair_does() -> None:
    lines = [line.split(": ", 1)[1] for line in explain(Learner(net(), DELTA_MIRROR))]
    assert lines[1:] == [
        "delta mirror, each of its 2 linear maps by itself",
        "delta mirror, each of its 3 linear maps by itself",
        "delta mirror, each of its 2 linear maps by itself",
        "delta mirror",
    ]
    by_loss = explain(Learner(net(), DTP.with_numbers(style="linear")))
    assert by_loss[2] == "Block 3 (Residual, ReLU): autograd, because the feedback of Residual has 3 linear maps"


def test_frozen_maps_stay_and_the_others_learn() -> None:
    network = PairedNetwork.of(net(), "linear")
    kept, learned = (each.map.weight for each in network.pairs[1].maps)
    kept.requires_grad_(False)
    before = kept.clone(), learned.clone()
    learner = Learner(network, DELTA_MIRROR)
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    assert torch.equal(before[0], kept)
    assert not torch.equal(before[1], learned)


BUILDS: dict[str, Callable[[], nn.Sequential]] = {
    "two in a block": lambda: nn.Sequential(Residual(nn.Linear(4, 4)), nn.Tanh(), Residual(nn.Linear(4, 4))),
    "behind an activation": lambda: nn.Sequential(nn.Tanh(), Residual(nn.Linear(4, 4))),
    "nested": lambda: nn.Sequential(Residual(nn.Sequential(nn.Linear(4, 4), Residual(nn.Linear(4, 4))))),
}


@pytest.mark.parametrize("name", BUILDS)
def test_blocks_of_another_build_learn_by_the_loss(name: str) -> None:
    learner = Learner(nn.Sequential(nn.Linear(6, 4), BUILDS[name](), nn.Linear(4, 3)), DTP)
    assert ": autograd" in explain(learner)[1]
    before = [p.clone() for p in learner.network.pairs[1].feedback_parameters()]
    learner.backward(F.cross_entropy(learner(torch.randn(9, 6)), torch.randint(3, (9,))))
    after = learner.network.pairs[1].feedback_parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True) if a.dim() > 1)


@pytest.mark.parametrize("algorithm", [DELTA_MIRROR, KOLEN_POLLACK], ids=["delta mirror", "Kolen-Pollack"])
def test_residuals_within_branches_are_refused_by_the_rules_for_single_maps(algorithm: Algorithm) -> None:
    model = nn.Sequential(nn.Linear(6, 4), BUILDS["nested"](), nn.Linear(4, 3))
    with pytest.raises(UserError, match=r"block 2 \(Residual\): .* use another rule, such as 'dtp'"):
        Learner(model, algorithm)


@pytest.mark.parametrize("name", ["two in a block", "behind an activation"])
def test_a_mirror_learns_every_map_of_blocks_of_another_build(name: str) -> None:
    learner = Learner(nn.Sequential(nn.Linear(6, 4), BUILDS[name](), nn.Linear(4, 3)), DELTA_MIRROR)
    learner.backward(F.cross_entropy(learner(torch.randn(32, 6)), torch.randint(3, (32,))))
    angles = [float(each) for pair in learner.network.trained for each in feedback_angles(pair)]
    assert len(angles) == (3 if name == "two in a block" else 2)
    assert max(angles) < 5


class Half(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


def test_a_residual_with_a_forward_of_its_own_is_traced_or_has_a_rule_of_its_own() -> None:
    model = nn.Sequential(Half(nn.Linear(4, 4)), nn.Linear(4, 4))
    x = torch.randn(3, 4)
    torch.testing.assert_close(PairedNetwork.of(model).trace(x)[-1].y, model(x))
    traced = PairedNetwork.of(nn.Sequential(nn.Linear(4, 4), Half(nn.Linear(4, 4))))
    assert [len(pair.maps) for pair in traced.pairs] == [0, 1]  # what its forward does, not what a Residual's does

    class OwnHalf(Half):
        pass

    class HalfFeedback(FeedbackLayer):
        def __init__(self, inner: FeedbackLayer) -> None:
            super().__init__()
            self.inner = inner

        def decode(self, y: Tensor, context: object) -> Tensor:
            return self.inner.decode(y / 2, context)

    @register(OwnHalf)
    class HalfRule(LayerRule[OwnHalf]):
        def feedback(self, layer: OwnHalf, style: Style) -> FeedbackLayer:
            return HalfFeedback(feedback_of(layer.body[0], style))

    learner = Learner(nn.Sequential(nn.Linear(4, 4), OwnHalf(nn.Linear(4, 4))), DTP)
    learner.backward(F.cross_entropy(learner(x), torch.randint(4, (3,))))
    assert all(p.grad is not None for p in learner.network.forward_parameters())


@pytest.mark.parametrize("branch", ["body", "skip"])
def test_a_hook_on_a_whole_branch_is_refused_by_name(branch: str) -> None:
    layer = Residual(nn.Linear(4, 4), nn.Linear(4, 4))
    layer.get_submodule(branch).register_forward_hook(lambda module, inputs, y: 2 * y)
    with pytest.raises(UserError, match="hook"):
        Learner(nn.Sequential(nn.Linear(4, 4), layer))


def test_in_place_activations_within_branches_are_made_harmless() -> None:
    body = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6))
    network = PairedNetwork.of(nn.Sequential(Residual(body), Residual(body), nn.Linear(6, 3)))
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_the_forward_update_is_the_gradient_of_the_local_loss() -> None:
    pair = Pair(nn.Sequential(Residual(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Tanh()), None)
    x, difference = torch.randn(5, 4), torch.randn(5, 4)
    seen = StoredPass(PairedNetwork([pair]), x, GaussianNoise(0), 0)
    trace = seen.trace(0)
    loss = local_loss(pair.block(x) - (trace.y + difference).detach())
    expected = torch.autograd.grad(loss, list(pair.block.parameters()))
    add_gradients(seen, 0, difference)
    torch.testing.assert_close([p.grad for p in pair.block.parameters()], list(expected))
