"""Feedback in two halves (Shibuya et al. 2023): how it is built, how its weights start, what its rules do with it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import (
    ALGORITHMS,
    FW_DTP,
    ITP,
    SHIBUYA_DRL,
    SHIBUYA_DTP,
    Algorithm,
    CorrectedTargets,
    DifferenceTargets,
    FixedWeights,
    Identity,
    Learner,
    Needs,
    Pair,
    PairedNetwork,
    Standardize,
    TopDown,
    UncorrectedTargets,
    UserError,
    explain,
)
from targetprop.data import digits
from targetprop.feedback.starting import KINDS, Start
from targetprop.layers.halves import HalvesFeedback
from targetprop.measure.alignment import angle, backprop_gradients, block_gradients
from targetprop.models import mlp, simple_vgg
from targetprop.network.blocks import cut

NAMES = ["fw_dtp", "itp", "shibuya_tp", "shibuya_dtp", "shibuya_drl", "shibuya_l_drl"]
LEARN = NAMES[2:]


def halves(pair: Pair) -> HalvesFeedback:
    assert isinstance(pair.feedback, HalvesFeedback)
    return pair.feedback


def network(norm: bool = False) -> nn.Sequential:
    """Three blocks of other activations each, wider and narrower in turn."""
    standardize = [Standardize()] if norm else []
    hidden = [nn.Linear(6, 9), nn.Tanh(), *standardize, nn.Linear(9, 4), nn.ELU(), *standardize]
    return nn.Sequential(*hidden, nn.Linear(4, 5))


def batch(samples: int = 7) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, 6).double(), torch.randint(5, (samples,))


def step(learner: Learner, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and targets of every block."""
    made = learner.backward(F.cross_entropy(learner(x), y), keep=True)
    return made.outputs, made.targets


@pytest.mark.parametrize("norm", [False, True])
def test_targets_by_their_equations(norm: bool) -> None:
    x, y = batch()
    learner = Learner(network(norm), FW_DTP.with_numbers(init="gaussian-0", beta=0.6)).double()
    outputs, targets = step(learner, x, y)
    weights = [learner.network.pairs[n].weights()[0][1].t() for n in (1, 2)]  # V (inputs, units)

    def standardized(v: Tensor) -> Tensor:
        return (v - v.mean(0)) / (v.std(0, unbiased=True) + 1e-12) if norm else v

    for number, act in ((2, F.elu), (1, torch.tanh)):
        v = weights[number - 1]
        there, clean = (standardized(act(each @ v.t())) for each in (targets[number], outputs[number]))
        expected = standardized(there + outputs[number - 1] - clean)
        torch.testing.assert_close(targets[number - 1], expected, rtol=1e-12, atol=1e-12)


def test_without_a_correction_targets_are_what_comes_down() -> None:
    x, y = batch()
    learner = Learner(network(), Algorithm(UncorrectedTargets(), FixedWeights("gaussian-0"))).double()
    _, targets = step(learner, x, y)
    for number, act in ((2, F.elu), (1, torch.tanh)):
        v = learner.network.pairs[number].weights()[0][1].t()
        torch.testing.assert_close(targets[number - 1], act(targets[number] @ v.t()), rtol=1e-12, atol=1e-12)


def test_itp_pads_and_cuts() -> None:
    x, y = batch()
    outputs, targets = step(Learner(network(), ITP).double(), x, y)
    differences = [target - output for target, output in zip(targets, outputs, strict=True)]
    torch.testing.assert_close(differences[1], differences[2][:, :4])  # 5 units cut to 4
    torch.testing.assert_close(differences[0], F.pad(differences[1], (0, 5)))  # 4 padded to 9


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_every_network_has_such_feedback(name: str) -> None:
    learner = Learner(simple_vgg((3, 8, 8), 4, (5, 6), "tanh"), name)
    for number, pair in learner.network.fed.items():
        assert all(p.dim() > 1 for p in pair.feedback_parameters())  # no bias, though forward layers have one
        trace = learner.network.trace(torch.randn(3, 3, 8, 8))[number]
        back = pair.decode(10 * torch.randn_like(trace.y), trace.context)
        assert back.shape == trace.x.shape
        if name != "itp":
            assert float(back.abs().max()) <= 1  # the tanh of the block below comes last


@pytest.mark.parametrize("name", ["fw_dtp", "itp"])
def test_fixed_weights_stay(name: str) -> None:
    x, y = batch()
    learner = Learner(network(), name).double()
    before = [p.clone() for p in learner.network.feedback_parameters()]
    step(learner, x, y)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.network.feedback_parameters(), strict=True))
    assert explain(learner)[1].endswith("feedback stays as it is, the rule trains none")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fw_dtp", Needs()),
        ("itp", Needs()),
        ("shibuya_tp", Needs(noisy_phase=True)),
        ("shibuya_dtp", Needs(noisy_phase=True)),
        ("shibuya_l_drl", Needs(noisy_phase=True)),
        ("shibuya_drl", Needs(noisy_phase=True, passes=2)),
    ],
)
def test_what_they_need(name: str, expected: Needs) -> None:
    assert ALGORITHMS[name].needs == expected
    source = ALGORITHMS[name].source
    assert source is not None
    assert str(source) == (
        "Shibuya et al., “Fixed-Weight Difference Target Propagation”, 2023, https://arxiv.org/abs/2212.10352"
    )


# How weights start


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (8, 6, 3, 3)])
def test_weights_start_as_they_are_called(shape: tuple[int, ...]) -> None:
    def made(text: str) -> Tensor:
        weight = torch.empty(shape, dtype=torch.float64)
        Start.of(text).set(weight)
        return weight

    uniform = made("uniform-1")
    assert 0.09 < float(uniform.abs().max()) <= 0.1
    assert float(uniform.std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.1)
    assert float(made("gaussian-2").std()) == pytest.approx(0.01, rel=0.1)
    assert torch.equal(made("constant-2"), torch.full(shape, 0.01, dtype=torch.float64))
    singular = torch.linalg.svdvals(made("orthogonal-0.5").flatten(1))
    torch.testing.assert_close(singular, torch.full_like(singular, 10**-0.5))
    eye = made("eye-1")
    middle = eye if eye.dim() == 2 else eye[:, :, 1, 1]
    torch.testing.assert_close(middle, 0.1 * torch.eye(*shape[:2], dtype=torch.float64))
    assert float(eye.sum()) == pytest.approx(0.1 * min(shape[:2]))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(40, 30), (6, 5, 2, 2)])
def test_a_share_of_every_row_is_zero_and_moves_on_from_row_to_row(shape: tuple[int, ...], share: float) -> None:
    weight = torch.empty(shape)
    Start.of(f"constant-1-sparse-{share}").set(weight)
    rows = (weight == 0).flatten(1)
    assert torch.equal(rows.sum(1), torch.full((shape[0],), int(rows.shape[1] * share)))
    for above, below in itertools.pairwise(rows):
        assert torch.equal(above.roll(1), below)
    assert torch.all(weight.flatten(1)[~rows] == 0.1)


@pytest.mark.parametrize("make", [network, lambda: simple_vgg((3, 8, 8), 4, (5, 6))], ids=["mlp", "channels last"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algorithm", [FW_DTP, SHIBUYA_DTP, SHIBUYA_DRL])
def test_the_setting_reaches_the_weights(algorithm: Algorithm, kind: str, make: Callable[[], nn.Sequential]) -> None:
    learner = Learner(make(), algorithm.with_numbers(init=f"{kind}-2-sparse-0.2"))
    for pair in learner.network.trained:
        (weight,) = pair.feedback_parameters()
        assert 0 < float(weight.detach().abs().max()) < 0.05  # and as torch draws them, up to .3


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("unifrm-1", r"^init: unknown value 'unifrm'\. Did you mean 'uniform'\? Valid: constant, eye, gaussian, .*"),
        ("uniform", r"^init: expected KIND-K, .* such as 'uniform-1' .*; got 'uniform'$"),
        ("uniform-sparse-0.5", r"^init: expected KIND-K, .*; got 'uniform-sparse-0.5'$"),
        ("uniform-1-sparse-1.5", r"^init: expected a share of zeros of 1 or less, got 1.5 in 'uniform-1-sparse-1.5'$"),
        ("uniform--1", "^init: expected KIND-K"),
        (3, r"^init: expected KIND-K, .*; got 3$"),
        (None, "^init: expected KIND-K"),
    ],
)
def test_another_start_is_answered_with_those_that_there_are(given: object, answer: str) -> None:
    for algorithm in (FW_DTP, SHIBUYA_DTP):
        with pytest.raises(UserError, match=answer) as refusal:
            algorithm.with_numbers(init=given)
        assert "\n" not in str(refusal.value)


# Feedback of another kind


@pytest.mark.parametrize("rule", [FixedWeights(), Identity(), TopDown()])
def test_feedback_that_is_not_in_two_halves_is_refused_and_left_as_it_is(rule: FixedWeights) -> None:
    paired = PairedNetwork.of(network(), rule.style)
    before = [p.clone() for p in paired.feedback_parameters()]
    with pytest.raises(UserError, match=r"^network: the feedback of block 2 .* is not in two halves"):
        Learner(paired, Algorithm(CorrectedTargets(), rule))
    with pytest.raises(UserError, match="is not in two halves"):
        Learner(network(), Algorithm(DifferenceTargets(), rule))
    assert all(torch.equal(a, b) for a, b in zip(before, paired.feedback_parameters(), strict=True))


def test_another_style_is_refused() -> None:
    with pytest.raises(UserError, match=r"style: unknown value 'published'.*Valid: lee, map"):
        CorrectedTargets().feedback_layer(cut(network()), 1, "published")


def test_a_hook_that_puts_pooling_back_finds_the_feedback_in_that_order() -> None:
    x, y = torch.randn(3, 2, 8, 8), torch.arange(3)

    def gradients(hooked: bool) -> list[Tensor]:
        torch.manual_seed(1)
        model = simple_vgg((2, 8, 8), 3, (4, 5), "elu")
        learner = Learner(model, FW_DTP.with_numbers(init="uniform-0.5"))
        if hooked:
            for each in model.modules():
                if isinstance(each, nn.ELU):
                    each.register_forward_hook(lambda *_: None)
        learner.backward(F.cross_entropy(learner(x), y))
        return block_gradients(learner.network)

    for hooked, plain in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(hooked, plain)


# Feedback alone


@pytest.mark.parametrize("name", LEARN)
def test_feedback_alone_learns_as_in_a_step(name: str) -> None:
    x, y = batch()

    def made() -> Learner:
        torch.manual_seed(2)
        return Learner(network(), name, seed=3).double()

    whole, alone = made(), made()
    for _ in range(2):  # other noise in the second
        expected = whole.backward(F.cross_entropy(whole(x), y)).feedback_losses
        torch.testing.assert_close(alone.learn_feedback(x), expected, rtol=0, atol=0)
    assert alone.steps == whole.steps == 2
    assert all(p.grad is None for p in alone.network.forward_parameters())
    for one, other in zip(alone.network.feedback_parameters(), whole.network.feedback_parameters(), strict=True):
        assert torch.equal(one, other)


def test_feedback_alone_wants_a_batch() -> None:
    learner = Learner(network(), "shibuya_dtp")
    with pytest.raises(UserError, match=r"^input: expected a batch"):
        learner.learn_feedback(torch.randn(6))
    with pytest.raises(UserError, match=r"^input: expected at least one sample"):
        learner.learn_feedback(torch.randn(0, 6))


def test_upper_feedback_learns_first_where_the_loss_looks_further() -> None:
    """The lower block's gradient is taken with what the upper one has just learned."""
    learner = Learner(network(), SHIBUYA_DRL.with_numbers(feedback_training_iterations=3, init="gaussian-0.5"))
    order: list[int] = []
    assert hasattr(learner.learning, "optimizers")
    for block, optimizer in learner.learning.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, block=block: order.append(block))
    learner.learn_feedback(torch.randn(4, 6))
    assert order == [2, 1, 2, 1, 2, 1]


# The property that the paper studies


def alignment(pair: Pair, x: Tensor) -> float:
    """trace(J_F J_g) / (||J_F|| ||J_g||), the mean over the samples of x, inputs of the block."""

    def of_sample(h: Tensor) -> float:
        y, context = pair.encode(h[None])
        forward = torch.autograd.functional.jacobian(lambda each: pair.encode(each[None])[0][0], h)
        back = torch.autograd.functional.jacobian(lambda each: pair.decode(each[None], context)[0], y[0].detach())
        return float(torch.trace(forward @ back) / (forward.norm() * back.norm()))

    return sum(map(of_sample, x)) / len(x)


def test_forward_weights_come_to_meet_fixed_feedback() -> None:
    """The paper's weak condition: trace(J_F J_g) becomes positive, and updates less than 90 degrees from backprop's.

    At the start nothing of either is there: normalised traces are within .1 of zero. After 200 steps on the digits they
    are above .1 in every block, and every block's update is within 80 degrees of backprop's.
    """
    images = digits.load().train
    x, y = ((images.pixels / 255 - 0.305) / 0.376).double(), images.labels
    learner = Learner(mlp((1, 8, 8), 10, (32, 32, 32)), FW_DTP.with_numbers(init="orthogonal-0", beta=0.5)).double()
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=0.05, momentum=0.9)

    def measured() -> tuple[list[float], list[float]]:
        inputs = [trace.x[:12] for trace in learner.network.trace(x[:12])]
        traces = [alignment(pair, inputs[number]) for number, pair in learner.network.fed.items()]
        learner.backward(F.cross_entropy(learner(x[:500]), y[:500]))
        updates, gradients = (
            block_gradients(learner.network),
            backprop_gradients(learner.network, x[:500], y[:500], F.cross_entropy),
        )
        optimizer.zero_grad()
        return traces, [float(angle(a, b)) for a, b in zip(updates, gradients, strict=True)]

    traces, angles = measured()
    assert max(map(abs, traces)) < 0.1
    assert min(angles[:-1]) > 75
    for number in range(200):
        chosen = torch.randint(len(x), (64,), generator=torch.Generator().manual_seed(number))
        learner.backward(F.cross_entropy(learner(x[chosen]), y[chosen]))
        optimizer.step()
        optimizer.zero_grad()
    traces, angles = measured()
    assert min(traces) > 0.1
    assert max(angles) < 80
