"""What "A Theoretical Framework for Target Propagation" (arXiv 2006.14331) proves of its rules, and their parts."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import (
    DDTP_CONTROL,
    DDTP_LINEAR,
    DDTP_RHL,
    DRL,
    GAUSS_NEWTON,
    MEULEMANS_DFA,
    Algorithm,
    Blocks,
    Learner,
    Needs,
    OptimizerSpec,
    PairedNetwork,
    UserError,
    explain,
)
from targetprop.execution.recompute import recomputed
from targetprop.layers.direct import HiddenLayerFeedback
from targetprop.noise import NoiseKey

SIZES = (7, 6, 5, 4, 3)


class IsotropicNoise:
    """Noise whose second moment over the batch is exactly one: without error of sampling where a loss is quadratic."""

    def __call__(self, key: NoiseKey, like: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(hash((key.step, key.block)) % 2**31)
        drawn = torch.randn(like.shape, dtype=like.dtype, generator=generator)
        return torch.linalg.qr(drawn)[0] * len(like) ** 0.5


def linear_network() -> nn.Sequential:
    """Its matrices have singular values between .7 and 1.3."""
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(SIZES)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight)
        layer.weight.data.mul_(torch.linspace(0.7, 1.3, len(layer.weight))[:, None])
    return nn.Sequential(*layers).double()


def network(activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(SIZES):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1]).double()


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 4, 3), nn.ELU(), nn.Flatten(), nn.Linear(16, 3),
    ).double()  # fmt: skip


def batch(*shape: int, rows: int = 9, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, *(shape or SIZES[:1]), generator=generator, dtype=torch.float64)
    return x, torch.arange(rows) % 3


def jacobians(model: nn.Sequential, layers: int, x: Tensor) -> Tensor:
    """Of the output with respect to what comes out of the first layers, sample by sample: (batch, outputs, units)."""
    with torch.no_grad():
        s = model[:layers](x)
    each = [torch.autograd.functional.jacobian(lambda h: model[layers:](h[None])[0], one) for one in s]
    return torch.stack([one.flatten(1) for one in each])


def learned(algorithm: Algorithm, decay: float, steps: int) -> Learner:
    """A linear network whose feedback has learned to the minimum of its loss."""
    optimizer = OptimizerSpec("sgd", lr=1.0, momentum=0.5, weight_decay=decay)
    learner = Learner(linear_network(), algorithm.with_numbers(b_optim=optimizer), noise=IsotropicNoise())
    x, _ = batch()
    for _ in range(steps):
        learner.learn_feedback(x)
    return learner


@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.03])
def test_the_minimum_of_ddtp_linear_is_the_damped_pseudo_inverse_of_the_jacobian(decay: float) -> None:
    """The mean over n units puts n / 2 times the decay onto the diagonal: Q = A^T (A A^T + n decay / 2)^-1."""
    learner = learned(DDTP_LINEAR, decay, 400)
    x, _ = batch()
    for block, feedback in enumerate(pair.feedback for pair in learner.network.pairs[:-1]):
        (a, *_) = jacobians(linear_network(), block + 1, x)
        units = a.shape[1]
        wanted = a.T @ torch.linalg.inv(a @ a.T + units * decay / 2 * torch.eye(len(a), dtype=a.dtype))
        assert isinstance(feedback, nn.Module)
        q = next(feedback.parameters()).detach()
        assert float((q - wanted).norm() / wanted.norm()) < 1e-6


def test_the_minimum_of_drl_is_the_pseudo_inverse_of_the_way_up_by_all_feedback_together() -> None:
    learner = learned(DRL, 0.0, 400)
    x, _ = batch()
    down = torch.eye(SIZES[-1], dtype=torch.float64)
    for block in range(len(learner.network.pairs) - 1, 0, -1):
        (part,) = learner.network.pairs[block].maps
        assert isinstance(part.map.weight, Tensor)
        down = part.map.weight.detach() @ down
        wanted = torch.linalg.pinv(jacobians(linear_network(), block, x)[0])
        assert float((down - wanted).norm() / wanted.norm()) < 1e-6


def test_targets_by_ideal_feedback_are_gauss_newton_targets() -> None:
    """On a linear network whose matrices are pseudo-inverses, which DDTP-linear learns."""
    x, y = batch()
    direct = Learner(linear_network(), DDTP_LINEAR.with_numbers(beta=0.3))
    with torch.no_grad():
        for block, pair in enumerate(direct.network.pairs[:-1]):
            (q,) = pair.feedback_parameters()
            q.copy_(torch.linalg.pinv(jacobians(linear_network(), block + 1, x)[0]))
    newton = Learner(linear_network(), GAUSS_NEWTON.with_numbers(beta=0.3))
    one, other = (each.backward(F.cross_entropy(each(x), y), keep=True).targets for each in (direct, newton))
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("damping", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["dense", "convolutional", "foreign"])
def test_gauss_newton_targets_are_those_of_each_samples_jacobian(kind: str, damping: float) -> None:
    class Foreign(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.sin()

    model = {"dense": network, "convolutional": convolutional, "foreign": lambda: network(Foreign)}[kind]()
    x, y = batch(*((1, 8, 8) if kind == "convolutional" else ()))
    learner = Learner(model, GAUSS_NEWTON.with_numbers(beta=0.3, damping=damping))
    output = learner(x)
    step = learner.backward(F.cross_entropy(output, y), keep=True)
    error = output.detach().softmax(1) - F.one_hot(y, 3)
    cuts = {"dense": (2, 4, 6), "convolutional": (3, 5), "foreign": (2, 4, 6)}[kind]
    for layers, s, t in zip(cuts, step.outputs, step.targets, strict=False):
        j = jacobians(model, layers, x)
        gram = j @ j.mT + damping * torch.eye(3, dtype=j.dtype)
        wanted = -0.3 * j.mT @ torch.linalg.solve(gram, error[..., None])
        torch.testing.assert_close((t - s).flatten(1), wanted.squeeze(-1))
        if not damping:  # to first order the output hits its target
            torch.testing.assert_close((j @ (t - s).flatten(1)[..., None]).squeeze(-1), -0.3 * error)
    torch.testing.assert_close(step.targets[-1] - step.outputs[-1], -0.3 * error / (1 + damping))


@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_gauss_newton_targets_under_autocast_are_near_those_without(damping: float) -> None:
    model, (x, y) = network().float(), batch()
    algorithm = GAUSS_NEWTON.with_numbers(damping=damping)
    gradients = []
    for enabled in (False, True):
        learner = Learner(copy.deepcopy(model), algorithm)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = learner(x.float())
        learner.backward(F.cross_entropy(output, y))
        gradients.append(torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None]))
    exact, narrow = gradients
    assert 0 < float((narrow - exact).norm() / exact.norm()) < 0.2


@pytest.mark.parametrize("algorithm", ["drl", "ddtp_linear", "ddtp_rhl", "gauss_newton", "meulemans_lee_dtp"])
def test_activations_that_are_computed_anew_change_nothing(algorithm: str) -> None:
    x, y = batch()
    kept, anew = Learner(network(), algorithm), recomputed(Learner(network(), algorithm))
    anew.load_state_dict(kept.state_dict())
    for learner in (kept, anew):
        learner.backward(F.cross_entropy(learner(x), y))
    for mine, theirs in zip(kept.network.parameters(), anew.network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_gauss_newton_targets_of_a_network_that_diverged_are_not_finite(damping: float) -> None:
    learner, (x, y) = Learner(network(), GAUSS_NEWTON.with_numbers(damping=damping)), batch()
    with torch.no_grad():
        learner.network.forward_parameters()[-2].fill_(torch.inf)
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert not bool(step.local_losses.isfinite().any())


def test_drl_is_refused_where_the_way_down_does_not_begin_at_the_output() -> None:
    with pytest.raises(UserError, match=r"^output_follows_loss: the difference reconstruction loss comes down from"):
        Learner(network(), DRL.with_numbers(output_follows_loss=True))


def test_what_the_rules_need_is_said() -> None:
    assert DRL.needs == Needs(noisy_phase=True, passes=2)
    assert DDTP_LINEAR.needs == DDTP_RHL.needs == DDTP_CONTROL.needs
    assert DDTP_LINEAR.needs == Needs(global_error=True, noisy_phase=True, passes=2)
    assert GAUSS_NEWTON.needs == Needs(frozenset({"weights"}), global_error=True)
    assert MEULEMANS_DFA.needs == Needs(global_error=True)


RULES = [DRL, DDTP_LINEAR, DDTP_RHL, DDTP_RHL.with_numbers(recurrent=True), DDTP_CONTROL]


@pytest.mark.parametrize("algorithm", RULES)
def test_targets_come_down_by_the_feedback_as_it_was_and_then_it_learns(algorithm: Algorithm) -> None:
    x, y = batch()
    learner = Learner(network(), algorithm)
    frozen = copy.deepcopy(learner)
    for parameter in frozen.network.feedback_parameters():
        parameter.requires_grad_(False)
    before = [p.detach().clone() for p in learner.network.feedback_parameters() if p.dim() > 1]
    steps = [each.backward(F.cross_entropy(each(x), y), keep=True) for each in (learner, frozen)]
    for mine, theirs in zip(*(step.targets for step in steps), strict=True):
        assert torch.equal(mine, theirs)
    after = [p for p in learner.network.feedback_parameters() if p.dim() > 1]
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert explain(learner)[1].endswith("one step a batch, after the targets")


@pytest.mark.parametrize("algorithm", ["dtp", "amortised_dtp", "weight_mirror", DRL, DDTP_RHL])
def test_feedback_learns_alone_on_a_batch(algorithm: Algorithm | str) -> None:
    x, _ = batch()
    learner = Learner(network(nn.ELU), algorithm)
    forward = [p.detach().clone() for p in learner.network.forward_parameters()]
    before = [p.detach().clone() for p in learner.network.feedback_parameters() if p.dim() > 1]
    with torch.no_grad():  # which is nobody's business
        losses = learner.learn_feedback(x)
    assert losses.shape == (len(learner.network.fed_numbers),)
    assert bool((losses >= 0).all())
    assert learner.steps == 1
    for old, new in zip(forward, learner.network.forward_parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None
    after = [p for p in learner.network.feedback_parameters() if p.dim() > 1]
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_feedback_learns_alone_as_before_a_step_whose_targets_it_does_not_see() -> None:
    """The same gradient as in a step, through a layer without a rule, too."""

    class Foreign(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.sin()

    x, y = batch()
    alone, stepping = (Learner(network(Foreign), DRL.with_numbers(style="linear")) for _ in range(2))
    losses = alone.learn_feedback(x)
    step = stepping.backward(F.cross_entropy(stepping(x), y))
    assert torch.equal(losses, step.feedback_losses)
    for mine, theirs in zip(alone.network.feedback_parameters(), stepping.network.feedback_parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("algorithm", [DRL, DDTP_RHL])
def test_a_state_between_batches_of_feedback_alone_goes_on_as_the_whole(algorithm: Algorithm) -> None:
    x, y = batch()

    def go_on(learner: Learner) -> None:
        learner.learn_feedback(x)
        learner.backward(F.cross_entropy(learner(x), y))

    whole = Learner(network(), algorithm)
    whole.learn_feedback(x)
    state = copy.deepcopy(whole.state_dict())
    go_on(whole)
    resumed = Learner(network(), algorithm)
    resumed.load_state_dict(state)
    go_on(resumed)
    for (name, mine), theirs in zip(
        whole.network.state_dict().items(), resumed.network.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("algorithm", ["fixed_dtp", "kolen_pollack", "gauss_newton", "meulemans_dfa"])
def test_what_does_not_learn_by_itself_is_refused_where_it_is_to_learn_alone(algorithm: str) -> None:
    learner = Learner(network(), algorithm)
    with pytest.raises(UserError, match=r"^learn_feedback: there is nothing to learn: the feedback rule is "):
        learner.learn_feedback(batch()[0])
    assert learner.steps == 0


def test_feedback_does_not_learn_in_evaluation_mode() -> None:
    with pytest.raises(UserError, match=r"^learn_feedback: set the learner to training mode first\."):
        Learner(network(), DRL).eval().learn_feedback(batch()[0])


def test_blocks_share_the_random_layer_and_the_last_hidden_one_does_without() -> None:
    learner = Learner(network(), DDTP_RHL.with_numbers(hidden_units=11, recurrent=True))
    first, second, third = (pair.feedback for pair in learner.network.pairs[:-1])
    assert isinstance(first, HiddenLayerFeedback)
    assert isinstance(second, HiddenLayerFeedback)
    assert isinstance(third, HiddenLayerFeedback)
    assert first.hidden is not None
    assert first.hidden is second.hidden
    assert third.hidden is None
    shapes = [tuple(pair.feedback_parameters()[0].shape) for pair in learner.network.pairs[:-1]]
    assert shapes == [(6, 11 + 6), (5, 11 + 5), (4, 3)]
    assert not list(first.hidden.parameters())


@pytest.mark.parametrize("algorithm", [DDTP_LINEAR, DDTP_RHL.with_numbers(recurrent=True), DDTP_CONTROL, MEULEMANS_DFA])
def test_convolutional_blocks_get_targets_of_their_shape_if_the_inputs_is_told(algorithm: Algorithm) -> None:
    x, y = batch(1, 8, 8)
    learner = Learner(convolutional(), algorithm, input_shape=(1, 8, 8))
    step = learner.backward(F.cross_entropy(learner(x), y), keep=True)
    assert [tuple(t.shape[1:]) for t in step.targets] == [(4, 4, 4), (4, 2, 2), (3,)]
    with pytest.raises(UserError, match=r"^input_shape: feedback straight from the output needs to know the sizes"):
        Learner(convolutional(), algorithm)


def test_shapes_are_found_without_touching_the_network() -> None:
    norm = nn.BatchNorm1d(5)
    blocks = Blocks([nn.Sequential(nn.Flatten(), nn.Linear(8, 5), norm), nn.Sequential(nn.Linear(5, 2), nn.Tanh())])
    assert [tuple(blocks.output_shape(n)) for n in (0, 1, -1)] == [(5,), (2,), (2,)]
    assert int(norm.num_batches_tracked or 0) == 0
    assert all(each.device.type == "cpu" for block in blocks for each in block.parameters())
    assert float(norm.running_mean.abs().sum()) == 0  # type: ignore[union-attr]


def test_shapes_are_found_where_layers_or_weights_stand_twice() -> None:
    shared, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = shared.weight
    block = nn.Sequential(shared, nn.Tanh(), shared, other, nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
    before = [p.detach().clone() for p in block.parameters()]
    assert tuple(Blocks([block]).output_shape(0)) == (2,)
    for old, new in zip(before, block.parameters(), strict=True):
        assert torch.equal(old, new)
    assert shared.weight is other.weight
    assert block(torch.zeros(3, 4)).shape == (3, 2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 8, 8), r"block 1 cannot be run on an input of shape \(2, 8, 8\)"),
        ((1, 9, 9), r"block 3 cannot be run on an input of shape \(1, 9, 9\)"),
        (8, r"expected the shape of one sample, such as \(3, 32, 32\), got 8"),
        ((1, 8, 0.5), r"expected a whole number, 1 or more, got 0\.5"),
    ],
)
def test_an_input_shape_that_does_not_fit_is_refused_by_name(shape: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^input_shape: {message}"):
        Learner(convolutional(), DDTP_LINEAR, input_shape=shape)


def test_outputs_of_another_shape_than_the_feedback_was_made_for_are_refused() -> None:
    learner = Learner(network(), DDTP_LINEAR)
    x = torch.randn(4, 5, SIZES[0], dtype=torch.float64)  # sequences, which a Linear takes as well
    with pytest.raises(
        UserError, match=r"^input_shape: the feedback was made for outputs of shape \(3,\), got \(5, 3\)"
    ):
        learner.learn_feedback(x)
    told = Learner(network(), DDTP_LINEAR, input_shape=(5, SIZES[0]))
    assert told.learn_feedback(x).shape == (3,)


def test_feedback_in_the_range_of_its_goal_has_the_activation_of_the_block_below() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Conv2d(2, 2, 2), nn.BatchNorm2d(2),
        nn.Flatten(), nn.Linear(8, 4), nn.Tanh(),
        nn.Linear(4, 3),
    ).double()  # fmt: skip
    paired = PairedNetwork.of(model, "range")
    traces = paired.trace(torch.randn(5, 1, 8, 8, dtype=torch.float64))
    into = [
        100 * pair.decode(100 * torch.ones_like(trace.y), trace.context).detach()
        for pair, trace in zip(paired.pairs[1:], traces[1:], strict=True)
    ]
    assert 0 <= float(into[0].min()) <= float(into[0].max()) <= 100  # of the sigmoid
    assert float(into[1].abs().max()) > 1000  # below ends with a norm: no activation
    assert float(into[2].abs().max()) <= 100  # of tanh, for the output block
    assert "its activation comes after its linear map" in paired.pairs[1].not_linear


def test_a_hook_that_puts_layers_back_in_order_leaves_the_ending_where_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)).double()
    x, y = batch(1, 8, 8)
    plain, hooked = (Learner(copy.deepcopy(model), DRL) for _ in range(2))
    hooked.load_state_dict(plain.state_dict())
    hooked.network.pairs[0].block[0].register_forward_hook(lambda *_: None)  # type: ignore[index]
    one, other = (each.backward(F.cross_entropy(each(x), y), keep=True) for each in (plain, hooked))
    for mine, theirs in zip(one.targets, other.targets, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_an_optimiser_with_numbers_per_block_has_a_group_for_each() -> None:
    spec = OptimizerSpec("adam", [0.1, 0.2], betas=[0.8, 0.9], eps=[1e-3, 1e-4])
    blocks = {"one": [torch.zeros(2)], "two": [torch.zeros(3), torch.zeros(1)]}
    optimizer = spec.build_by_block(blocks)
    assert [(g["lr"], g["betas"], g["eps"], len(g["params"])) for g in optimizer.param_groups] == [
        (0.1, (0.8, 0.9), 1e-3, 1),
        (0.2, (0.8, 0.9), 1e-4, 2),
    ]
    OptimizerSpec("adam", [0.3, 0.4]).set_numbers(optimizer)
    assert [(g["lr"], g["eps"]) for g in optimizer.param_groups] == [(0.3, 1e-8), (0.4, 1e-8)]
    with pytest.raises(UserError, match=r"^lr: expected 3 values, one for each block \(a; b; c\)"):
        spec.build_by_block({"a": [], "b": [], "c": []})


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"betas": [0.9, 0.99]}, r"betas: sgd has none, leave it out; got \[0\.9, 0\.99\]"),
        ({"eps": 1e-8}, r"eps: sgd has none, leave it out; got 1e-08"),
        ({"type": "rmsprop", "betas": [0.9, 0.99]}, "betas: rmsprop has none"),
        ({"type": "adam", "betas": 0.9}, r"betas: expected two numbers in \[0, 1\), got 0\.9"),
        ({"type": "adam", "betas": [0.9]}, r"betas: expected two numbers in \[0, 1\)"),
        ({"type": "adam", "betas": [0.9, 1.0]}, r"betas: expected two numbers in \[0, 1\)"),
        ({"type": "adam", "eps": 0}, "eps: expected numbers above 0, got 0"),
        ({"type": "adam", "eps": [1e-8, -1.0]}, "eps: expected numbers above 0"),
        ({"type": "adam", "eps": "tiny"}, "eps: expected numbers above 0, got 'tiny'"),
        ({"type": "adam", "eps": []}, r"eps: expected numbers above 0, got \[\]"),
        ({"lr": []}, r"lr: expected numbers, 0 or more, got \[\]"),
    ],
)
def test_numbers_that_an_optimiser_does_not_have_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"^{message}"):
        OptimizerSpec(**numbers)


@pytest.mark.parametrize(
    ("algorithm", "key", "value"),
    [
        (DDTP_LINEAR, "beta", 0),
        (DDTP_LINEAR, "feedback_bias", 1),
        (DDTP_LINEAR, "divide_by_beta", "yes"),
        (DDTP_RHL, "hidden_units", 0),
        (DDTP_RHL, "recurrent", 1),
        (GAUSS_NEWTON, "damping", -1.0),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_key(algorithm: Algorithm, key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^{key}: expected "):
        algorithm.with_numbers(**{key: value})


@pytest.mark.parametrize("key", ["feedback_training_iterations", "gradient", "style", "init_symmetric_weights"])
def test_direct_feedback_has_no_setting_that_would_do_nothing(key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}: there is no such setting"):
        DDTP_LINEAR.with_numbers(**{key: 1})
