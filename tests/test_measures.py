"""Measures: exact values on small networks in float64, and nothing of a run changes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Thread
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from algorithm_cases import GENERAL
from hypothesis import given, settings
from hypothesis import strategies as st
from identical import assert_identical
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from targetprop import ALGORITHMS, FIXED_DTP, Algorithm, Learner, OutputSignal, Pass, TargetRule, UserError
from targetprop.baselines.backprop import Backprop
from targetprop.feedback.fixed import Fixed
from targetprop.measure import MEASURES, InapplicableError, Probe, angle, effective_rank, measure
from targetprop.measure.gauss_newton import gauss_newton_target_updates, gauss_newton_updates
from targetprop.measure.jacobians import feedback_times, forward_jacobian
from targetprop.measure.probe import RandomState
from targetprop.measure.reach import activation_range, output_range
from targetprop.models import lenet, mlp, norm_vgg, simple_vgg
from targetprop.network.passes import Scope

IMAGE, CLASSES = (3, 16, 16), 5
EXACT = [name for name in MEASURES if name != "time_share"]
"""Those that give the same whenever they are taken."""


def small(activation: type[nn.Module] = nn.Tanh, widths: tuple[int, ...] = (6, 8, 7, 4)) -> nn.Sequential:
    """Blocks of a linear layer and an activation; the last one is linear."""
    layers: list[nn.Module] = []
    for below, above in pairwise(widths):
        layers += [nn.Linear(below, above), activation()]
    return nn.Sequential(*layers[:-1])


def batch(inputs: int = 6, classes: int = 4, samples: int = 9) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, inputs).double(), torch.randint(classes, (samples,))


def squared(output: Tensor, y: Tensor) -> Tensor:
    """Half the squared error of each sample to its one-hot label."""
    return (output - F.one_hot(y, output.shape[1])).square().flatten(1).sum(1) / 2


def fixed(network: nn.Sequential, style: Any = "published", **numbers: Any) -> Learner:
    """A learner in float64 whose feedback weights stay as they are."""
    return Learner(network, Algorithm(FIXED_DTP.targets, Fixed(style=style)).with_numbers(**numbers)).double()


def state(learner: nn.Module) -> dict[str, Any]:
    """All that a step may change, and the random streams."""
    return {
        "state": learner.state_dict(),
        "gradients": [None if p.grad is None else p.grad for p in learner.parameters()],
        "modes": [each.training for each in learner.modules()],
        "attributes": [sorted(vars(each)) for each in learner.modules()],
        "random": torch.get_rng_state(),
    }


def with_everything() -> nn.Sequential:
    """Batch norm, dropout, pooling, a layer without a rule."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ELU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 5, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Dropout(0.4)),
        nn.Sequential(nn.Flatten(), nn.Linear(45, 8), nn.Sigmoid()),
        nn.Linear(8, CLASSES),
    )


@pytest.mark.parametrize("name", ["dtp", "parallel_dtp", "amortised_dtp", "kolen_pollack", "lee_dtp", "backprop"])
def test_nothing_changes(name: str) -> None:
    network = with_everything()
    learner = Backprop(network) if name == "backprop" else Learner(network, name)
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), 0.05)
    x, y = torch.randn(6, *IMAGE), torch.randint(CLASSES, (6,))
    for _ in range(2):
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()
    before = deepcopy(state(learner))
    for measured in MEASURES:
        probe = Probe(learner, x, y, F.cross_entropy)
        try:
            assert MEASURES[measured].function(probe)
        except InapplicableError:
            assert name == "backprop"
        assert_identical(state(learner), before, measured)
    learner.zero_grad()
    twin = deepcopy(learner)
    torch.manual_seed(3)
    learner.backward(F.cross_entropy(learner(x), y))
    torch.manual_seed(3)
    twin.backward(F.cross_entropy(twin(x), y))
    assert_identical(state(learner), state(twin), "next step")


def test_nothing_changes_between_backward_and_step() -> None:
    learner, (x, y) = Learner(with_everything(), "dtp"), (torch.randn(6, *IMAGE), torch.randint(CLASSES, (6,)))
    learner.backward(F.cross_entropy(learner(x), y))
    before = deepcopy(state(learner))
    probe = Probe(learner, x, y, F.cross_entropy, is_after_backward=True)
    for measured in MEASURES.values():
        measured.function(probe)
    assert_identical(state(learner), before, "learner")


@pytest.mark.parametrize("name", ["dtp", "amortised_dtp"])
def test_measures_do_not_disturb_each_other(name: str) -> None:
    learner, (x, y) = Learner(with_everything(), name), (torch.randn(6, *IMAGE), torch.randint(CLASSES, (6,)))
    learner.backward(F.cross_entropy(learner(x), y))
    random = RandomState(x.device)
    together = Probe(learner, x, y, F.cross_entropy, random=random)
    for measured in [*EXACT, *reversed(EXACT)]:
        alone = Probe(learner, x, y, F.cross_entropy, random=random)
        found, expected = MEASURES[measured].function(together), MEASURES[measured].function(alone)
        assert found == pytest.approx(expected, nan_ok=True, rel=1e-9)


def test_the_update_is_that_of_the_step() -> None:
    """Masks of dropout, noise, feedback learning and all."""
    learner, (x, y) = Learner(with_everything(), "dtp"), (torch.randn(6, *IMAGE), torch.randint(CLASSES, (6,)))
    random = RandomState(x.device)
    expected = Probe(learner, x, y, F.cross_entropy).updates
    learner.backward(F.cross_entropy(learner(x), y))
    found = Probe(learner, x, y, F.cross_entropy, is_after_backward=True, random=random).updates
    for one, other in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize(
    "network", [lambda: lenet(IMAGE, CLASSES, (4, 6), 20, "tanh"), lambda: norm_vgg(IMAGE, CLASSES, (6, 8))]
)
def test_every_rule_is_measured_or_says_why_not(name: str, network: Callable[[], nn.Sequential]) -> None:
    learner = Learner(network(), name, input_shape=IMAGE)
    x, y = torch.randn(8, *IMAGE), torch.randint(CLASSES, (8,))
    learner.backward(F.cross_entropy(learner(x), y), labels=y)
    for measured in MEASURES:
        try:
            values = measure(learner, x, y, F.cross_entropy, [measured])
        except InapplicableError:
            continue
        assert {key.partition("/")[0] for key in values} <= set(MEASURES[measured].quantities)
        assert all(isinstance(value, float) for value in values.values())
        if "lee_dtp" not in name:  # whose feedback saturates here, so that no target comes down to the first block
            assert all(map(math.isfinite, values.values())), values


def test_what_makes_no_sense_says_so() -> None:
    x, y = batch()
    learner = Backprop(small()).double()
    for name in ("backprop", "feedback_weights", "transpose", "inverse", "reconstruction", "reach", "time_share"):
        with pytest.raises(InapplicableError):
            measure(learner, x, y, F.cross_entropy, [name])
    values = measure(learner, x, y, F.cross_entropy, ["gauss_newton", "gauss_newton_targets", "rank"])
    assert values["gnt_ratio/block3"] == pytest.approx(1)
    with pytest.warns(UserWarning, match="one block"):
        alone = Learner(nn.Sequential(nn.Linear(6, 4)), "dtp").double()
    for name in ("transpose", "inverse", "reconstruction", "feedback_weights"):
        with pytest.raises(InapplicableError, match="no "):
            measure(alone, x, y, F.cross_entropy, [name])


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (["reech"], ["which: unknown value 'reech'", "Did you mean 'reach'"]),
        ("reach", ["which: expected names of measures, got 'reach'"]),
        ({"inverse": {"dampin": 1}}, ["numbers.inverse.dampin: there is no such setting", "Did you mean 'damping'"]),
        ({"inverse": {"damping": -1}}, ["numbers.inverse.damping: expected a number, 0 or more, got -1"]),
        ({"gauss_newton": {"damping": -1}}, ["numbers.gauss_newton.damping", "0 or more", "-1"]),
        ({"gauss_newton_targets": {"damping": -1}}, ["numbers.gauss_newton_targets.damping", "0 or more", "-1"]),
        ({"gauss_newton": {"iterations": 1.5}}, ["numbers.gauss_newton.iterations", "whole number", "1.5"]),
        ({"transpose": {"probes": 0}}, ["numbers.transpose.probes", "1 or more", "0"]),
        ({"reconstruction": {"sigma": "x"}}, ["numbers.reconstruction.sigma", "'x'"]),
        ({"time_share": {"repeats": 0}}, ["numbers.time_share.repeats", "0"]),
        ({"reach": 3}, ["numbers.reach: expected its numbers by name, got 3"]),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(which: Any, words: list[str]) -> None:
    x, y = batch()
    numbers = which if isinstance(which, dict) else None
    with pytest.raises(UserError) as caught:
        measure(fixed(small()), x, y, F.cross_entropy, list(which) if numbers else which, numbers)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_numbers_of_a_measure_that_is_not_taken_are_refused() -> None:
    x, y = batch()
    with pytest.raises(UserError, match=r"numbers.inverse: there is no such setting. Valid: reach, transpose"):
        measure(fixed(small()), x, y, F.cross_entropy, ["reach", "transpose"], {"inverse": {"damping": 0.1}})


# Gauss-Newton


def exact_gauss_newton(learner: Learner, x: Tensor, y: Tensor, loss: Any, damping: float) -> list[Tensor]:
    """By whole Jacobians and Hessians, sample by sample."""
    updates = []
    for number, pair in enumerate(learner.network.pairs):
        names = [name for name, _ in pair.block.named_parameters()]
        own = {f"pairs.{number}.block.{name}": p.detach() for name, p in pair.block.named_parameters()}
        size = sum(p.numel() for p in own.values())
        matrix, gradient = torch.zeros(size, size).double(), torch.zeros(size).double()
        for one, label in zip(x.split(1), y.split(1), strict=True):

            def output_of(values: dict[str, Tensor], one: Tensor = one) -> Tensor:
                return functional_call(learner.network, values, (one,))[0]

            def of_one(z: Tensor, label: Tensor = label) -> Tensor:
                return loss(z[None], label).mean()

            output = learner.network(one).detach()[0]
            jacobians = cast(dict[str, Tensor], jacrev(output_of)(own))
            jacobian = torch.cat([jacobians[f"pairs.{number}.block.{name}"].flatten(1) for name in names], 1)
            matrix += jacobian.mT @ torch.func.hessian(of_one)(output) @ jacobian / len(x)
            gradient += jacobian.mT @ torch.func.grad(of_one)(output) / len(x)
        updates.append(torch.linalg.solve(matrix + damping * torch.eye(size).double(), gradient))
    return updates


@pytest.mark.parametrize("loss", [F.cross_entropy, squared])
@pytest.mark.parametrize("damping", [1.0, 0.01])
def test_gauss_newton_is_that_of_whole_matrices(loss: Any, damping: float) -> None:
    learner, (x, y) = fixed(small()), batch()
    found = gauss_newton_updates(Probe(learner, x, y, loss), damping, iterations=1000)
    for solution, exact in zip(found, exact_gauss_newton(learner, x, y, loss, damping), strict=True):
        assert float((solution.update - exact).norm() / exact.norm()) < 1e-7
        assert solution.residual < 1e-8


def test_with_much_damping_gauss_newton_is_backprop() -> None:
    learner, (x, y) = Backprop(small()).double(), batch()
    values = measure(learner, x, y, F.cross_entropy, ["gauss_newton"], {"gauss_newton": {"damping": 1e7}})
    for block in (1, 2, 3):
        assert values[f"gauss_newton_angle/block{block}"] < 1e-4
        assert values[f"gauss_newton_ratio/block{block}"] == pytest.approx(1e7, rel=1e-6)


def test_what_is_not_solved_shows_in_the_residual() -> None:
    learner, (x, y) = fixed(small()), batch()
    one, many = (
        measure(learner, x, y, F.cross_entropy, ["gauss_newton"], {"gauss_newton": numbers})
        for numbers in ({"damping": 1e-3, "iterations": 1}, {"damping": 1e-3, "iterations": 500})
    )
    assert all(one[f"gauss_newton_residual/block{block}"] > 1e-3 for block in (1, 2, 3))
    assert all(many[f"gauss_newton_residual/block{block}"] < 1e-8 for block in (1, 2, 3))


class Linear(nn.Linear):
    """Without a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)


def exact_targets(network: nn.Sequential, x: Tensor, e: Tensor, damping: float) -> list[Tensor]:
    """Differences of Gauss-Newton targets, sample by sample, by whole Jacobians."""
    blocks = list(network)
    found: list[list[Tensor]] = [[] for _ in blocks]
    for one, error in zip(x.split(1), e, strict=True):
        s = one
        for number, block in enumerate(blocks):
            s = block(s).detach()
            jacobian = cast(Tensor, jacrev(nn.Sequential(*blocks[number + 1 :]))(s)).reshape(len(error), -1)
            gram = jacobian @ jacobian.mT + damping * torch.eye(len(error)).double()
            inverse = jacobian.mT @ torch.linalg.inv(gram) if damping else torch.linalg.pinv(jacobian)
            found[number].append(-(inverse @ error).view_as(s))
    return [torch.cat(each) for each in found]


@dataclass(frozen=True)
class ExactTargets(TargetRule):
    """Gauss-Newton targets of the blocks of a Sequential that has one layer of its own for each block."""

    blocks: nn.Sequential
    damping: float

    @property
    def scope(self) -> Scope:
        return "network"

    def needs_feedback(self, block: int, blocks: int) -> bool:
        return False

    def sweep(self, seen: Pass, output: OutputSignal) -> Iterator[tuple[int, Tensor]]:
        targets = exact_targets(self.blocks, seen.x, output.gradient, self.damping)
        yield from reversed(list(enumerate(targets)))


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("loss", [F.cross_entropy, squared])
def test_with_gauss_newton_targets_the_angle_to_them_is_zero(damping: float, loss: Any) -> None:
    network = nn.Sequential(
        nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, 7), nn.Sigmoid()), nn.Linear(7, 4)
    ).double()
    learner = Learner(network, Algorithm(ExactTargets(deepcopy(network), damping), Fixed())).double()
    x, y = batch()
    probe = Probe(learner, x, y, loss)
    values = MEASURES["gauss_newton_targets"].function(probe, damping=damping)
    for block in (1, 2, 3):
        assert values[f"gnt_angle/block{block}"] < 1e-5
        assert values[f"gnt_ratio/block{block}"] == pytest.approx(1, abs=1e-9)
    for update, exact in zip(probe.updates, gauss_newton_target_updates(probe, damping), strict=True):
        flat = torch.cat([each.flatten() for each in update])
        assert float((flat - exact).norm() / exact.norm()) < 1e-11
    other = MEASURES["gauss_newton_targets"].function(probe, damping=damping + 1)
    assert other["gnt_angle/block1"] > 0.1


def test_of_one_sample_in_a_linear_network_gauss_newton_and_its_targets_agree() -> None:
    """Meulemans et al. 2020: in direction, without damping, for squared errors."""
    learner = Backprop(nn.Sequential(Linear(6, 8), Linear(8, 7), Linear(7, 3))).double()
    x, y = batch(classes=3, samples=1)
    probe = Probe(learner, x, y, squared)
    gauss_newton = gauss_newton_updates(probe, 1e-9, 1000)
    targets = gauss_newton_target_updates(probe, 0.0)
    for solution, other in zip(gauss_newton, targets, strict=True):
        assert float(angle(solution.update, other)) < 1e-3
    backprop = MEASURES["gauss_newton_targets"].function(probe)
    assert backprop["gnt_angle/block1"] > 5


# Jacobians


def whole(function: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """A linear map as a matrix, by its values on a basis."""
    columns = [function(each.view_as(like)).flatten() for each in torch.eye(like.numel()).double()]
    return torch.stack(columns, 1)


BLOCKS: dict[str, Callable[[], nn.Sequential]] = {
    "tanh": lambda: small(nn.Tanh),
    "elu": lambda: small(nn.ELU),
    "gelu": lambda: small(nn.GELU),
    "dropout": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5)),
        nn.Sequential(nn.Linear(8, 5), nn.Dropout(0.5), nn.ELU()),
        nn.Linear(5, 4),
    ),
    "pooling": lambda: nn.Sequential(
        nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 1), nn.Tanh()),
        nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.ELU(), nn.MaxPool1d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(12, 4)),
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh()),
        nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5), nn.ELU()),
        nn.Linear(5, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("style", ["published", "adjoint", "matched", "gained", "linear", "lee"])
@pytest.mark.parametrize("name", BLOCKS)
def test_jacobians_are_those_of_autograd(name: str, style: str) -> None:
    learner, (x, y) = fixed(BLOCKS[name](), style), batch(samples=2)
    clean = Probe(learner, x, y, F.cross_entropy).whole
    for block, pair in clean.network.fed.items():
        trace, forward = clean.trace(block), forward_jacobian(clean, block)
        expected = jacrev(lambda s, block=block: clean.anew(block, s))(trace.x)
        expected = cast(Tensor, expected).reshape(trace.y.numel(), trace.x.numel())
        assert torch.allclose(whole(forward.times, trace.x), expected, atol=1e-12)
        assert torch.allclose(whole(forward.transposed, trace.y), expected.mT, atol=1e-12)
        if style == "linear":
            continue
        v, h = torch.randn_like(trace.y), 1e-5
        ahead, behind = (pair.decode_difference(trace.y, sign * h * v, trace.context) for sign in (1, -1))
        found = feedback_times(pair, trace, v)
        tolerance = 1e-3 if (name, style) == ("gelu", "matched") else 1e-7  # whose function is a table
        assert torch.allclose(found, (ahead - behind) / (2 * h), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", BLOCKS)
def test_with_linear_twins_and_transposed_weights_both_jacobians_agree(name: str) -> None:
    learner, (x, y) = fixed(BLOCKS[name](), "linear"), batch()
    learner.network.make_symmetric()
    values = measure(learner, x, y, F.cross_entropy, ["transpose", "feedback_weights", "backprop"])
    for block in (2, 3):
        assert values[f"transpose_angle/block{block}"] < 1e-5
        assert values[f"transpose_ratio/block{block}"] == pytest.approx(1, abs=1e-12)
        assert values[f"feedback_angle/block{block}"] < 1e-5
        assert values[f"feedback_distance/block{block}"] == 0
    assert values["angle/block1"] < 1e-5  # the same masks of dropout, too
    with torch.no_grad():
        for weights in learner.network.feedback_parameters():
            weights.mul_(3)
    values = measure(learner, x, y, F.cross_entropy, ["transpose", "feedback_weights"])
    assert values["transpose_ratio/block2"] == pytest.approx(3)
    assert values["feedback_distance/block2"] == pytest.approx(2)


def test_published_twins_of_tanh_are_no_transposed_jacobians() -> None:
    learner, (x, y) = fixed(small()), batch()
    learner.network.make_symmetric()
    values = measure(learner, 3 * x, y, F.cross_entropy, ["transpose"])
    assert values["transpose_angle/block2"] > 1
    assert values["transpose_angle/block3"] < 1e-5


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000), probes=st.integers(1, 30), samples=st.integers(1, 20), width=st.integers(2, 12),
    activation=st.sampled_from([nn.Tanh, nn.ELU, nn.Sigmoid]),
)  # fmt: skip
def test_random_probes_err_as_they_say(
    seed: int, probes: int, samples: int, width: int, activation: type[nn.Module]
) -> None:
    torch.manual_seed(seed)
    learner = fixed(small(activation, (6, width, width + 1, 4)))
    x, y = batch(samples=samples)
    probe = Probe(learner, x, y, F.cross_entropy)
    values = MEASURES["transpose"].function(probe, probes=probes)
    bound = math.sqrt(2 / (probes * samples))
    for block, pair in probe.fed.items():
        trace = probe.few.trace(block)
        backward = whole(lambda v, pair=pair, trace=trace: feedback_times(pair, trace, v), trace.y)  # type: ignore[misc]
        forward = whole(forward_jacobian(probe.few, block).times, trace.x)
        ratio = float(backward.norm() / forward.norm())
        assert abs(values[f"transpose_ratio/block{block + 1}"] / ratio - 1) < 4 * bound
        cosine = float((backward * forward.mT).sum() / (backward.norm() * forward.norm()))
        assert abs(math.cos(math.radians(values[f"transpose_angle/block{block + 1}"])) - cosine) < 4 * bound


def test_the_damped_inverse_is_that_of_whole_matrices() -> None:
    learner, (x, y) = fixed(small()), batch()
    probe = Probe(learner, x, y, F.cross_entropy)
    damping, probes = 0.05, 400
    values = MEASURES["inverse"].function(probe, damping=damping, probes=probes, iterations=200)
    for block, pair in probe.fed.items():
        trace = probe.few.trace(block)
        backward = whole(lambda v, pair=pair, trace=trace: feedback_times(pair, trace, v), trace.y)  # type: ignore[misc]
        forward = whole(forward_jacobian(probe.few, block).times, trace.x)
        gram = forward @ forward.mT + damping * torch.eye(len(forward)).double()
        inverse = forward.mT @ torch.linalg.inv(gram)
        exact = float(angle(backward, inverse))
        assert values[f"inverse_angle/block{block + 1}"] == pytest.approx(exact, abs=2)
        assert values[f"inverse_ratio/block{block + 1}"] == pytest.approx(
            float(backward.norm() / inverse.norm()), rel=0.05
        )
        assert values[f"inverse_residual/block{block + 1}"] < 1e-9


# Targets and feedback


def with_inverses(learner: Learner) -> Learner:
    """Its feedback weights are the pseudo-inverses of its forward weights."""
    with torch.no_grad():
        for pair in learner.network.trained:
            for forward, feedback in pair.weights():
                feedback.copy_(torch.linalg.pinv(forward).mT)
    return learner


def test_a_linear_network_with_inverses_reaches_its_targets() -> None:
    learner = with_inverses(fixed(nn.Sequential(Linear(9, 8), Linear(8, 6), Linear(6, 4))))
    x, y = batch(9)
    which = ["reach", "inverse", "reconstruction", "transpose"]
    values = measure(learner, x, y, F.cross_entropy, which, {"inverse": {"damping": 1e-10}})
    for block in (2, 3):
        assert values[f"reach/block{block}"] < 1e-12
        assert values[f"inverse_angle/block{block}"] < 1e-5
        assert values[f"inverse_ratio/block{block}"] == pytest.approx(1, abs=1e-6)
        assert values[f"reconstruction/block{block}"] > 0.1  # eight numbers do not come back from six
        assert values[f"transpose_angle/block{block}"] > 1
    assert not any(key.startswith("out_of_range") for key in values)
    plain = fixed(nn.Sequential(Linear(9, 8), Linear(8, 6), Linear(6, 4)))
    assert measure(plain, x, y, F.cross_entropy, ["reach"])["reach/block2"] > 0.1


def test_an_inverse_reconstructs() -> None:
    learner = with_inverses(fixed(nn.Sequential(Linear(4, 4), Linear(4, 6), Linear(6, 9))))
    x, y = batch(4, 9)
    values = measure(learner, x, y, F.cross_entropy, ["reconstruction"])
    assert max(values.values()) < 1e-12
    with torch.no_grad():
        for weights in learner.network.feedback_parameters():
            weights.mul_(0)
    values = measure(learner, x, y, F.cross_entropy, ["reconstruction"])
    assert list(values.values()) == pytest.approx([1] * 4)


def test_feedback_for_differences_alone_reconstructs_no_inputs() -> None:
    x, y = batch()
    for style in ("matched", "gained", "linear"):
        values = measure(fixed(small(), style), x, y, F.cross_entropy, ["reconstruction"])
        assert {key.partition("/")[0] for key in values} == {"difference_reconstruction"}


@pytest.mark.parametrize("name", ["fixed_dtp", "tp", "lee_dtp"])
def test_reach_is_that_of_the_steps_own_targets(name: str) -> None:
    numbers: dict[str, Any] = {} if name == "fixed_dtp" else {"feedback_training_iterations": 0}
    algorithm = ALGORITHMS[name].with_numbers(**numbers, beta=20.0)
    learner, (x, y) = Learner(small(), algorithm).double(), batch()
    values = measure(learner, x, y, F.cross_entropy, ["reach"])
    step = learner.backward(F.cross_entropy(learner(x), y), keep=True)
    for n in (1, 2):
        block, target, s = learner.network.pairs[n].block, step.targets[n], step.outputs[n]
        expected = float((block(step.targets[n - 1]) - target).norm() / (s - target).norm())
        assert values[f"reach/block{n + 1}"] == pytest.approx(expected, rel=1e-10)
    shares = [float((step.targets[n].abs() > 1).double().mean()) for n in (0, 1)]
    assert [values[f"out_of_range/block{n}"] for n in (1, 2)] == pytest.approx(shares)
    assert max(shares) > 0
    assert "out_of_range/block3" not in values


class Asinh(nn.Module):
    """Grows beyond all bounds, but slowly."""

    def forward(self, x: Tensor) -> Tensor:
        return x.asinh()


@pytest.mark.parametrize(
    ("layer", "low", "high"),
    [
        (nn.Tanh(), -1, 1),
        (nn.Sigmoid(), 0, 1),
        (nn.Softsign(), -1, 1),
        (nn.ELU(0.5), -0.5, math.inf),
        (nn.SELU(), -1.7580993408, math.inf),
        (nn.ReLU(), 0, math.inf),
        (nn.ReLU6(), 0, 6),
        (nn.Hardtanh(-2, 3), -2, 3),
        (nn.Softplus(), 0, math.inf),
        (nn.LogSigmoid(), -math.inf, 0),
        (nn.GELU(), -0.1699712, math.inf),
        (nn.SiLU(), -0.2784645, math.inf),
        (nn.LeakyReLU(), -math.inf, math.inf),
        (Asinh(), -math.inf, math.inf),
    ],
)
def test_ranges_of_activations(layer: nn.Module, low: float, high: float) -> None:
    assert activation_range(layer) == pytest.approx((low, high), abs=1e-5)


def test_ranges_of_blocks() -> None:
    def of(*layers: nn.Module) -> tuple[float, float] | None:
        return output_range(nn.Sequential(nn.Conv2d(3, 4, 3), *layers))

    assert of(nn.Tanh(), nn.MaxPool2d(2), nn.Flatten()) == (-1, 1)
    assert of(nn.Sequential(nn.Sigmoid(), nn.AvgPool2d(2))) == (0, 1)
    assert of(nn.Tanh(), nn.AvgPool2d(3, padding=1)) is None
    assert of(nn.Tanh(), nn.Dropout()) is None
    assert of(nn.LeakyReLU()) is None
    assert of() is None


# Ranks and times


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_effective_rank(rows: int, columns: int, seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    matrix = torch.randn(rows, columns).double()
    singular = torch.linalg.svdvals(matrix)
    shares = singular / singular.sum()
    exact = math.exp(-sum(float(p) * math.log(p) for p in shares))
    found = float(effective_rank(scale * matrix))
    assert found == pytest.approx(exact, rel=1e-6)
    assert 1 - 1e-9 <= found <= min(rows, columns) + 1e-9
    assert float(effective_rank(matrix.mT)) == pytest.approx(found, rel=1e-6)
    assert float(effective_rank(torch.outer(matrix[:, 0], matrix[0]))) == pytest.approx(1, abs=1e-5)


def test_effective_ranks_that_are_known() -> None:
    q, _ = torch.linalg.qr(torch.randn(9, 9).double())
    assert float(effective_rank(q[:, :5])) == pytest.approx(5)
    assert float(effective_rank(torch.zeros(3, 4))) == 0


def test_ranks_of_a_step() -> None:
    """Of one sample everything has rank one; of identical samples activations do."""
    learner, (x, y) = fixed(small()), batch(samples=1)
    values = measure(learner, x, y, F.cross_entropy, ["rank"])
    assert len(values) == 6
    assert list(values.values()) == pytest.approx([1] * 6, abs=1e-5)
    x, y = batch()
    values = measure(learner, x, y, F.cross_entropy, ["rank"])
    activation = learner.network.pairs[0].block(x)
    assert values["activation_rank/block1"] == pytest.approx(float(effective_rank(activation)))
    update = Probe(learner, x, y, F.cross_entropy).updates[0][0]
    assert values["update_rank/block1"] == pytest.approx(float(effective_rank(update)))


@pytest.mark.parametrize("name", ["dtp", "delta_mirror", "lee_dtp"])
def test_shares_of_time_are_positive_and_add_up(name: str) -> None:
    learner = Learner(simple_vgg(IMAGE, CLASSES, (6, 8, 8), "elu"), name)
    x, y = torch.randn(4, *IMAGE), torch.randint(CLASSES, (4,))
    values = measure(learner, x, y, F.cross_entropy, ["time_share"])
    assert list(values) == [f"time_share/block{n}" for n in (1, 2, 3, 4)]
    assert min(values.values()) > 0
    assert sum(values.values()) == pytest.approx(1)


def test_batches_of_any_kind() -> None:
    """Features, squared errors, one value a sample; more samples than are looked at; a learner in eval mode."""
    learner = Learner(mlp((1, 2, 3), 4, (8, 7), "tanh"), "dtp").eval()
    x, goal = torch.randn(150, 1, 2, 3), torch.randn(150, 4)
    values = measure(learner, x, goal, lambda output, y: (output - y).square().sum(1), EXACT)
    assert all(math.isfinite(value) for value in values.values())
    assert not learner.training


# Several processes


@pytest.mark.parametrize("measured", ["backprop", "gauss_newton_targets", "reach", "nonlinearity"])
def test_processes_on_batches_of_their_own_measure_as_one_on_all_of_them(measured: str) -> None:
    """Here threads, which average as processes do."""
    learner, (x, y) = fixed(small()), batch(samples=8)
    learners = [learner, deepcopy(learner), deepcopy(learner)]  # threads would disturb each other in one
    for each in learners:
        each.backward(F.cross_entropy(each(x), y))
    expected = MEASURES[measured].function(Probe(learner, x, y, F.cross_entropy, is_after_backward=True))
    barrier, given, found = Barrier(2), dict[int, list[Tensor]](), dict[int, dict[str, float]]()

    def work(row: int) -> None:
        def average(tensors: Sequence[Tensor]) -> None:
            given[row] = [each.clone() for each in tensors]
            barrier.wait(60)
            for each, others in zip(tensors, zip(given[0], given[1], strict=True), strict=True):
                each.copy_((others[0] + others[1]) / 2)
            barrier.wait(60)

        part = slice(4 * row, 4 * row + 4)
        own = learners[1 + row]
        probe = Probe(own, x[part], y[part], F.cross_entropy, is_after_backward=True, average=average)
        with pytest.raises(InapplicableError):
            MEASURES["gauss_newton"].function(probe)
        found[row] = MEASURES[measured].function(probe)

    threads = [Thread(target=work, args=(row,)) for row in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == pytest.approx(expected, rel=1e-9, abs=1e-5)


# The page


PAGE = (Path(__file__).parents[1] / "docs" / "measures.md").read_text()


def test_the_page_names_every_measure_and_quantity() -> None:
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in PAGE.splitlines() if line[:1] == "|"]
    named: dict[str, list[str]] = {}
    name = ""
    for row in cells[2:]:
        name = row[1].strip("`") or name  # a row without a name is of the one before it
        named.setdefault(name, []).append(row[2].strip("`"))
    assert named == {name: list(each.quantities) for name, each in MEASURES.items()}


def test_the_page_says_the_numbers() -> None:
    (said,) = re.findall(r"with their default values: (.*?)\. Damping", PAGE, flags=re.DOTALL)
    found: dict[str, dict[str, float]] = {}
    for name, each in MEASURES.items():
        numbers = {key: value.default for key, value in list(signature(each.function).parameters.items())[1:]}
        found |= {name: numbers} if numbers else {}
    expected = "; ".join(
        f"`{name}` " + ", ".join(f"{key} {value:g}" for key, value in numbers.items())
        for name, numbers in found.items()
    )
    assert " ".join(said.split()) == expected


def test_the_pages_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    ((code, printed),) = re.findall(r"```python\n(.*?)```\s*```text\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(code, {})

    def numbers(text: str) -> list[float]:
        return [float(each) for each in re.findall(r"\d+\.\d+", text)]

    found = capsys.readouterr().out
    assert re.sub(r"[\d.]+", "", found) == re.sub(r"[\d.]+", "", printed)
    assert numbers(found) == pytest.approx(numbers(printed), abs=0.02)
