"""The Learner stands where `loss.backward()` stood."""

from __future__ import annotations

import copy
import io
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import (
    DELTA_MIRROR,
    DTP,
    FIXED_DTP,
    TP,
    VANILLA_DTP,
    Algorithm,
    ByLoss,
    DifferenceTargets,
    Fixed,
    Learner,
    OptimizerSpec,
    Pair,
    PairedNetwork,
    Trace,
    UserError,
)
from targetprop.execution.recompute import recomputed
from targetprop.feedback.by_loss import ByLossLearning
from targetprop.feedback.losses import l_drl
from targetprop.noise import Draw, NoiseKey

FAST = DTP.with_numbers(feedback_training_iterations=[2, 3])


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ELU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 2), nn.BatchNorm2d(5), nn.ELU(), nn.Flatten(), nn.Linear(20, 3),
    ).double()  # fmt: skip


def batch(step: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (6,), generator=generator)


def train(learner: Learner, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x, y = batch(step)
        optimizer.zero_grad()
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()


def sgd(learner: Learner) -> torch.optim.Optimizer:
    return torch.optim.SGD(learner.network.forward_parameters(), lr=0.1, momentum=0.9)


def optimizers(learner: Learner) -> dict[int, torch.optim.Optimizer]:
    """Of feedback that learns by a loss."""
    assert isinstance(learner.learning, ByLossLearning)
    return learner.learning.optimizers


def gradients(learner: Learner) -> list[Tensor]:
    return [p.grad.clone() for p in learner.network.forward_parameters() if p.grad is not None]


def assert_bitwise_equal(first: nn.Module, second: nn.Module) -> None:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


@pytest.mark.parametrize("algorithm", [DTP, VANILLA_DTP, TP, FIXED_DTP])
def test_step_gives_every_block_a_gradient_a_target_and_its_losses(algorithm: Algorithm) -> None:
    learns = isinstance(algorithm.feedback, ByLoss)
    learner = Learner(model(), algorithm.with_numbers(feedback_training_iterations=2) if learns else algorithm)
    x, y = batch()
    logits = learner(x)
    step = learner.backward(F.cross_entropy(logits, y), keep=True)
    assert len(gradients(learner)) == len(learner.network.forward_parameters())
    assert all(bool(g.isfinite().all()) for g in gradients(learner))
    assert [t.shape for t in step.targets] == [y.shape for y in step.outputs]
    assert step.feedback_losses.shape == (2,)
    assert bool((step.feedback_losses != 0).all()) == learns
    expected = [(y - t).square().sum() / 12 for y, t in zip(step.outputs, step.targets, strict=True)]
    torch.testing.assert_close(step.local_losses, torch.stack(expected))
    tensors = [step.feedback_losses, step.local_losses, *step.targets, *step.outputs, step.activities]
    assert not any(t.requires_grad for t in tensors)
    assert learner.steps == 1


def test_backward_adds_to_the_gradients() -> None:
    once, twice = Learner(model(), FAST), Learner(model(), FAST)
    x, y = batch()
    once.backward(F.cross_entropy(once(x), y))
    expected = gradients(once)
    for p in twice.network.forward_parameters():
        p.grad = torch.ones_like(p)
    twice.backward(F.cross_entropy(twice(x), y))
    torch.testing.assert_close(gradients(twice), [1 + g for g in expected])


def test_mean_loss_and_loss_per_sample_give_the_same_gradients() -> None:
    x, y = batch()
    reductions = ("mean", "none")
    learners = [Learner(model(), FAST) for _ in reductions]
    for learner, reduction in zip(learners, reductions, strict=True):
        learner.backward(F.cross_entropy(learner(x), y, reduction=reduction))
    torch.testing.assert_close(gradients(learners[0]), gradients(learners[1]))


def test_any_loss_will_do() -> None:
    learner = Learner(model(), FAST)
    x, y = batch()
    output = learner(x)
    step = learner.backward((output - F.one_hot(y, 3)).square().sum(1), keep=True)
    assert learner.update_scale is not None
    expected = output - learner.update_scale * 2 * (output - F.one_hot(y, 3))
    torch.testing.assert_close(step.targets[-1], expected.detach())


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("feedback", ["sgd", "adam", "adamw", "rmsprop"])
def test_any_optimizer_trains_forward_and_feedback_weights(
    optimizer: Callable[..., torch.optim.Optimizer], feedback: str
) -> None:
    learner = Learner(model(), FAST.with_numbers(b_optim=OptimizerSpec(feedback, lr=0.01)))
    before = copy.deepcopy(learner)
    train(learner, optimizer(learner.network.forward_parameters(), lr=0.01), range(2))
    for now, then in zip(learner.parameters(), before.parameters(), strict=True):
        assert bool(now.isfinite().all())
        assert now.dim() == 1 or not torch.equal(now, then)


def test_learns_a_task_it_can_represent() -> None:
    torch.manual_seed(0)
    learner = Learner(
        nn.Sequential(nn.Linear(8, 16), nn.ELU(), nn.Linear(16, 16), nn.ELU(), nn.Linear(16, 3)),
        DTP.with_numbers(b_optim=OptimizerSpec(lr=0.05, momentum=0.9), feedback_training_iterations=5),
    )
    x = torch.randn(64, 8)
    y = (x @ torch.randn(8, 3)).argmax(1)
    optimizer = torch.optim.SGD(learner.network.forward_parameters(), lr=0.2, momentum=0.9)
    first = F.cross_entropy(learner.network(x), y).item()
    for _ in range(60):
        optimizer.zero_grad()
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()
    assert F.cross_entropy(learner.network(x), y).item() < 0.25 * first


def test_backward_without_forward_is_refused() -> None:
    learner = Learner(model(), FAST)
    with pytest.raises(UserError, match="backward: call the learner on a batch first"):
        learner.backward(torch.tensor(1.0))


def test_second_backward_is_refused() -> None:
    learner = Learner(model(), FAST)
    x, y = batch()
    loss = F.cross_entropy(learner(x), y)
    learner.backward(loss)
    with pytest.raises(UserError, match="backward: call the learner on a batch first"):
        learner.backward(loss)


@pytest.mark.parametrize("mode", ["eval", "no_grad"])
def test_nothing_is_recorded_in_evaluation(mode: str) -> None:
    learner = Learner(model(), FAST).train(mode != "eval")
    x, y = batch()
    with torch.set_grad_enabled(mode != "no_grad"):
        logits = learner(x)
    with pytest.raises(UserError, match="in training mode and with gradients on"):
        learner.backward(F.cross_entropy(logits.detach().requires_grad_(), y))


def test_evaluation_is_the_network() -> None:
    net = model()
    learner = Learner(net, FAST).eval()
    x, _ = batch()
    assert torch.equal(learner(x), net(x))


@pytest.mark.parametrize("of", ["an earlier output", "no output"])
def test_loss_of_another_output_is_refused(of: str) -> None:
    learner = Learner(model(), FAST)
    x, _ = batch()
    loss = learner(x).sum(1) if of == "an earlier output" else torch.ones(6)
    learner(x)
    with pytest.raises(UserError, match="must be computed from the output of the latest call"):
        learner.backward(loss)


def saved_and_loaded(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("feedback", [OptimizerSpec(lr=0.05, momentum=0.9), OptimizerSpec("adam", lr=0.01)])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(feedback: OptimizerSpec) -> None:
    algorithm = FAST.with_numbers(b_optim=feedback)
    learner = Learner(model(), algorithm, seed=5)
    optimizer = sgd(learner)
    train(learner, optimizer, range(3))
    state = saved_and_loaded(learner.state_dict())
    optimizer_state = saved_and_loaded(optimizer.state_dict())
    train(learner, optimizer, range(3, 6))

    resumed = Learner(model(), algorithm, seed=5)
    resumed.load_state_dict(state)
    again = sgd(resumed)
    again.load_state_dict(optimizer_state)
    assert resumed.steps == 3
    train(resumed, again, range(3, 6))
    assert_bitwise_equal(resumed, learner)


def test_state_without_the_feedback_optimizers_would_not_do() -> None:
    """The test above can fail: weights and step count alone do not repeat the run."""
    learner = Learner(model(), FAST)
    train(learner, sgd(learner), range(2))
    fresh = Learner(model(), FAST)
    fresh.network.load_state_dict(learner.network.state_dict())
    fresh.steps = learner.steps
    for each in (learner, fresh):
        x, y = batch(2)
        each.backward(F.cross_entropy(each(x), y))
    with pytest.raises(AssertionError):
        assert_bitwise_equal(fresh, learner)


def test_copied_learner_goes_on_alike() -> None:
    learner = Learner(model(), FAST)
    train(learner, sgd(learner), range(1))
    twin = copy.deepcopy(learner)
    for each in (learner, twin):
        train(each, sgd(each), range(1, 3))
    assert_bitwise_equal(twin, learner)


def test_frozen_forward_parameters_stay() -> None:
    learner = Learner(model(), FAST)
    block = learner.network.pairs[1].block
    block.requires_grad_(False)
    before = copy.deepcopy(learner)
    train(learner, sgd(learner), range(2))
    for pair, old in zip(learner.network.pairs, before.network.pairs, strict=True):
        for now, then in zip(pair.block.parameters(), old.block.parameters(), strict=True):
            if pair.block is block:
                assert torch.equal(now, then)
            elif now.dim() > 1:
                assert not torch.equal(now, then)
    assert not torch.equal(learner.network.feedback_parameters()[0], before.network.feedback_parameters()[0])


def test_network_frozen_throughout_trains_its_feedback_only() -> None:
    learner = Learner(model(), FAST)
    for p in learner.network.forward_parameters():
        p.requires_grad_(False)
    x, y = batch()
    before = [p.detach().clone() for p in learner.network.feedback_parameters()]
    learner.backward(F.cross_entropy(learner(x), y))
    assert gradients(learner) == []
    after = learner.network.feedback_parameters()
    assert not torch.equal(after[0], before[0])


def test_frozen_feedback_stays() -> None:
    learner = Learner(model(), FAST)
    frozen, learned = learner.network.trained
    for p in frozen.feedback_parameters():
        p.requires_grad_(False)
    before = copy.deepcopy(learner)
    train(learner, sgd(learner), range(1))
    assert torch.equal(frozen.feedback_parameters()[0], before.network.trained[0].feedback_parameters()[0])
    assert not torch.equal(learned.feedback_parameters()[0], before.network.trained[1].feedback_parameters()[0])


def test_feedback_training_leaves_forward_weights_and_statistics_alone() -> None:
    net = model()
    learner = Learner(net, FAST.with_numbers(feedback_training_iterations=5))
    reference = copy.deepcopy(net)
    x, y = batch()
    reference(x)
    learner.backward(F.cross_entropy(learner(x), y))
    assert_bitwise_equal(net, reference)


def test_feedback_loss_reaches_the_feedback_only() -> None:
    """Even one that leaves its graph to the forward block."""

    def loss(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
        y, context = pair.encode(trace.x, trace.context)
        return pair.decode(y, context).square().sum()

    x, y = batch()
    learner = Learner(model(), Algorithm(DifferenceTargets(), ByLoss(loss, feedback_training_iterations=[2, 3])))
    learner.backward(F.cross_entropy(learner(x), y))
    trained = Learner(copy.deepcopy(learner.network), Algorithm(DifferenceTargets(), Fixed()))  # learns no further
    trained.zero_grad()
    trained.backward(F.cross_entropy(trained(x), y))
    torch.testing.assert_close(gradients(trained), gradients(learner))


def test_feedback_loss_is_reported_as_the_mean_over_iterations() -> None:
    losses: list[Tensor] = []

    def recorded(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
        losses.append(l_drl(pair, trace, draw))
        return losses[-1]

    learner = Learner(model(), Algorithm(DifferenceTargets(), ByLoss(recorded, feedback_training_iterations=[2, 3])))
    x, y = batch()
    step = learner.backward(F.cross_entropy(learner(x), y))
    second, first = torch.stack(losses).detach().split([3, 2])  # from the output down
    torch.testing.assert_close(step.feedback_losses, torch.stack([first.mean(), second.mean()]))


def test_forward_gradients_do_not_reach_the_feedback() -> None:
    learner = Learner(model(), FIXED_DTP)
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    assert all(p.grad is None for p in learner.network.feedback_parameters())


def test_global_random_state_is_not_touched_by_a_step() -> None:
    learner = Learner(model(), FAST)
    x, y = batch()
    before = torch.get_rng_state()
    learner.backward(F.cross_entropy(learner(x), y))
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_asked_for_by_step_block_and_iteration() -> None:
    keys: list[NoiseKey] = []

    def recorded(key: NoiseKey, like: Tensor) -> Tensor:
        keys.append(key)
        return torch.ones_like(like)

    learner = Learner(model(), FAST, noise=recorded)
    train(learner, sgd(learner), range(2))
    assert keys == [
        NoiseKey(step, block, iteration, kind)
        for step in range(2)
        for block, iterations in ((2, 3), (1, 2))  # from the output down
        for iteration in range(iterations)
        for kind in ("input", "output")
    ]


def test_iterations_of_zero_leave_that_feedback_alone() -> None:
    learner = Learner(model(), DTP.with_numbers(feedback_training_iterations=[0, 2]))
    before = copy.deepcopy(learner)
    x, y = batch()
    step = learner.backward(F.cross_entropy(learner(x), y))
    changed = [
        not torch.equal(new.feedback_parameters()[0], old.feedback_parameters()[0])
        for new, old in zip(learner.network.trained, before.network.trained, strict=True)
    ]
    assert changed == [False, True]
    assert step.feedback_losses[0] == 0
    assert optimizers(learner).keys() == {2}


def test_a_refused_learner_leaves_the_network_as_it_was() -> None:
    network = PairedNetwork.of(model())
    before = copy.deepcopy(network)
    with pytest.raises(UserError, match=r"^noise"):
        Learner(network, DTP.with_numbers(noise=[0.1] * 9, init_symmetric_weights=True))
    assert_bitwise_equal(network, before)


def test_a_state_without_momentum_leaves_none() -> None:
    algorithm = FAST.with_numbers(b_optim=OptimizerSpec(momentum=0.9))
    learner, fresh = (
        Learner(model(), algorithm),
        Learner(model(), algorithm.with_numbers(feedback_training_iterations=0)),
    )
    train(learner, sgd(learner), range(1))
    learner.load_state_dict(fresh.state_dict())
    assert not any(optimizer.state for optimizer in optimizers(learner).values())


def test_rates_belong_to_their_blocks() -> None:
    learner = Learner(model(), FAST.with_numbers(b_optim=OptimizerSpec(lr=[0.0, 0.1])))
    before = copy.deepcopy(learner)
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    first, second = (pair.feedback_parameters()[0] for pair in learner.network.trained)
    assert torch.equal(first, before.network.trained[0].feedback_parameters()[0])
    assert not torch.equal(second, before.network.trained[1].feedback_parameters()[0])


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        ("noise", DTP.with_numbers(noise=[0.1])),
        ("feedback_training_iterations", DTP.with_numbers(feedback_training_iterations=[1, 2, 3])),
        ("b_optim.lr", DTP.with_numbers(b_optim=OptimizerSpec(lr=[0.1]))),
    ],
)
def test_list_of_another_length_is_refused_with_key_and_blocks(key: str, algorithm: Algorithm) -> None:
    with pytest.raises(UserError) as refusal:
        Learner(model(), algorithm)
    message = str(refusal.value)
    assert message.startswith(f"{key}: expected 2 values, one for each block with trained feedback")
    assert "2 (Conv2d, BatchNorm2d, ELU)" in message
    assert "3 (Flatten, Linear)" in message


def test_network_of_one_block_follows_backprop() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    learner = Learner(PairedNetwork.of(net), DTP)
    x, y = batch()
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert step.feedback_losses.shape == (0,)
    assert learner.update_scale is not None
    expected = torch.autograd.grad(learner.update_scale * F.cross_entropy(net(x), y), list(net.parameters()))
    torch.testing.assert_close(gradients(learner), list(expected))


def test_parameters_of_the_loss_get_their_own_gradients() -> None:
    temperature = torch.ones((), requires_grad=True)
    learner = Learner(nn.Sequential(nn.Linear(4, 5), nn.ELU(), nn.Linear(5, 3)))
    x, y = torch.randn(6, 4), torch.randint(3, (6,))
    logits = learner(x)
    expected = torch.autograd.grad(F.cross_entropy(logits.detach() * temperature, y), temperature)[0]
    learner.backward(F.cross_entropy(logits * temperature, y))
    assert temperature.grad is not None
    torch.testing.assert_close(temperature.grad, expected)


def test_losses_that_would_be_misread_are_refused() -> None:
    learner = Learner(nn.Sequential(nn.Linear(4, 5), nn.ELU(), nn.Linear(5, 3)))
    x, y = torch.randn(6, 4), torch.randint(3, (6,))
    with pytest.raises(UserError, match="6 samples"):
        learner.backward(F.cross_entropy(learner(x), y).reshape(1))
    first = F.cross_entropy(learner(x), y)
    with pytest.raises(UserError, match="earlier call"):
        learner.backward(first + F.cross_entropy(learner(x), y))


def test_no_feedback_gradient_is_left_for_an_optimiser_to_find() -> None:
    learner = Learner(nn.Sequential(nn.Linear(4, 5), nn.ELU(), nn.Linear(5, 3)))
    learner.backward(F.cross_entropy(learner(torch.randn(6, 4)), torch.randint(3, (6,))))
    assert all(parameter.grad is None for parameter in learner.network.feedback_parameters())


def test_state_of_another_depth_is_refused() -> None:
    shallow = Learner(nn.Sequential(nn.Linear(4, 5), nn.ELU(), nn.Linear(5, 3)))
    deep = Learner(nn.Sequential(nn.Linear(4, 5), nn.ELU(), nn.Linear(5, 5), nn.ELU(), nn.Linear(5, 3)))
    with pytest.raises(UserError, match="2 blocks, this one has 3"):
        deep.load_state_dict(shallow.state_dict(), strict=False)


def test_unknown_layers_keep_their_memory_order() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(len(x), -1)

    net = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), Flat()), nn.Linear(8, 3))
    learner = Learner(net)
    x = torch.randn(6, 1, 4, 4)
    learner.backward(F.cross_entropy(learner(x), torch.randint(3, (6,))))
    assert net(x).shape == (6, 3)


def test_a_subclass_of_an_activation_is_not_moved_behind_the_pooling() -> None:
    class Falling(nn.Tanh):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    net = nn.Sequential(nn.Conv2d(1, 2, 3), Falling(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3))
    x = torch.randn(6, 1, 4, 4)
    torch.testing.assert_close(Learner(net).eval()(x), net(x))


def test_activations_are_let_go_on_the_way_down() -> None:
    seen: list[weakref.ref[Tensor]] = []

    @dataclass(frozen=True)
    class Watching(DifferenceTargets):
        def carry(self, pair: Pair, trace: Trace, difference: Tensor, at_map: Tensor | None = None) -> Tensor:
            assert all(above() is None for above in seen)
            seen.append(weakref.ref(trace.y))
            return super().carry(pair, trace, difference, at_map)

    learner = Learner(model(), Algorithm(Watching(), FAST.feedback))
    x, y = batch()
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert len(seen) == 2
    assert step.outputs == step.targets == []


@pytest.mark.parametrize("algorithm", [DTP.with_numbers(feedback_training_iterations=2), DELTA_MIRROR])
def test_recomputing_activations_changes_nothing(algorithm: Algorithm) -> None:
    def plain() -> nn.Sequential:
        torch.manual_seed(0)
        two_maps = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 7))  # trained by autograd
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.ELU(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(4, 2, 2), nn.GELU(), nn.Flatten()),
            nn.Sequential(nn.Linear(8, 8), nn.ReLU()),
            two_maps,
            nn.Linear(7, 3),
        )

    learners = [Learner(plain(), algorithm), recomputed(Learner(plain(), algorithm))]
    for _ in range(2):
        x, y = torch.randn(12, 1, 8, 8), torch.randint(3, (12,))
        for learner in learners:
            learner.backward(F.cross_entropy(learner(x), y))
    assert all(torch.equal(a, b) for a, b in zip(*map(gradients, learners), strict=True))
    states = [learner.network.state_dict() for learner in learners]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_recomputing_is_refused_where_a_second_pass_differs() -> None:
    with pytest.raises(UserError, match=r"BatchNorm2d .* the same activations twice"):
        recomputed(Learner(model()))
    with pytest.raises(UserError, match=r"Dropout .* the same activations twice"):
        recomputed(Learner(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(), nn.Flatten(), nn.Linear(4, 3))))


@pytest.mark.parametrize("optimizer", [OptimizerSpec(momentum=0.9), OptimizerSpec("adam")])
def test_feedback_optimisers_move_with_the_learner(optimizer: OptimizerSpec) -> None:
    learner = Learner(model(), FAST.with_numbers(b_optim=optimizer))
    train(learner, sgd(learner), range(1))
    learner.float()
    moved = optimizers(learner)[1]
    buffers = [value for state in moved.state.values() for value in state.values() if value.dim()]
    assert buffers
    assert {buffer.dtype for buffer in buffers} == {torch.float32}
