"""A hooked learner trains in `loss.backward()`: the same step, of losses over several calls and learners, too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loop_cases import RULES, SGD, Branched, batches, learner_of, mlp, plain_loop, weights
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from targetprop import (
    ALGORITHMS,
    Algorithm,
    DifferenceTargets,
    Fixed,
    Learner,
    UserError,
    hooked,
    state_in_tensors,
)
from targetprop.baselines.backprop import Backprop
from targetprop.execution.graph import GraphedStep
from targetprop.execution.recompute import recomputed
from targetprop.learners import LEARNERS

BETA = 0.5
EXACT = Algorithm(DifferenceTargets(beta=BETA), Fixed(init_symmetric_weights=True, style="linear"))
"""With V = W^T and linear feedback, all gradients are beta times those of backprop."""
GENUINE = Algorithm(DifferenceTargets(beta=0.7), Fixed())
"""Feedback that stays, evaluated at targets, so that updates are not proportional to the loss."""


def hooked_loop(learner: Learner, data: list[tuple[Tensor, Tensor]]) -> Tensor:
    """As `plain_loop`, with all parameters given to the optimiser."""
    optimizer = torch.optim.SGD(learner.parameters(), **SGD)
    for x, y in data:
        optimizer.zero_grad()
        F.cross_entropy(learner(x), y).backward()
        optimizer.step()
    return weights(learner)


def gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def assert_close(made: list[Tensor], expected: list[Tensor], scale: float = 1.0) -> None:
    assert len(made) == len(expected)
    for a, b in zip(made, expected, strict=True):
        torch.testing.assert_close(a, scale * b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("recompute", [False, True])
def test_every_weight_is_that_of_the_plain_loop(name: str, recompute: bool) -> None:
    base, data = mlp(), batches()
    learner = hooked(learner_of(base, name))
    made = hooked_loop(recomputed(learner) if recompute else learner, data)
    assert torch.equal(made, plain_loop(learner_of(base, name), data))
    assert learner.steps == len(data)
    assert learner.hook is not None
    assert learner.hook.latest is not None
    assert len(learner.hook.latest.local_losses) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("name", RULES)
def test_every_weight_is_that_of_the_plain_loop_on_a_gpu(name: str) -> None:
    """There autograd runs in a thread of its own."""
    base = mlp()
    data = [(x.cuda(), y.cuda()) for x, y in batches()]
    made = hooked_loop(hooked(learner_of(base, name).cuda()), data)
    assert torch.equal(made, plain_loop(learner_of(base, name).cuda(), data))
    with pytest.raises(UserError, match="trained on"):
        _twice(hooked(learner_of(base, name).cuda()), data[0][0])


def test_autocast_of_the_forward_pass_holds_for_the_step() -> None:
    base, (x, y) = mlp(), batches(1)[0]
    found = []
    for hook in (False, True):
        learner = learner_of(base, "amortised_dtp")
        if hook:
            hooked(learner)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(learner(x), y)
        if hook:
            loss.backward()
        else:
            learner.backward(loss)
        found.append(torch.cat([each.flatten() for each in gradients(learner.network)]))
    assert torch.equal(*found)


def test_learner_backward_still_takes_what_a_loss_cannot_tell() -> None:
    (x, y), network = batches(1)[0], mlp()
    learner = hooked(Learner(network, ALGORITHMS["drtp"]))
    with pytest.raises(UserError, match=r"labels of the batch.*: call learner\.backward\(loss, labels=y\)"):
        F.cross_entropy(learner(x), y).backward()
    step = learner.backward(F.cross_entropy(learner(x), y, reduction="none"), labels=y, keep=True)
    assert len(step.outputs) == len(step.targets) == 3
    assert len(gradients(network)) == 6
    loss = F.cross_entropy(learner(x), y) + F.cross_entropy(learner(x), y)
    with pytest.raises(UserError, match="belong to one call"):
        learner.backward(loss, labels=y)
    with pytest.raises(UserError, match="computed from the output"):
        learner.backward(torch.ones((), requires_grad=True))
    with pytest.raises(UserError, match="computed from the output"):
        learner.eval().backward(learner(x).mean())


@pytest.mark.parametrize("calls", [2, 3])
def test_a_loss_may_depend_on_several_calls(calls: int) -> None:
    network, data = mlp(), batches(calls)
    reference = copy.deepcopy(network)
    learner = hooked(Learner(network, EXACT))
    torch.stack([F.cross_entropy(learner(x), y) for x, y in data]).mean().backward()
    torch.stack([F.cross_entropy(reference(x), y) for x, y in data]).mean().backward()
    assert_close(gradients(network), gradients(reference), BETA)
    assert learner.steps == calls


def test_the_noise_of_calls_in_one_loss_differs() -> None:
    base, ((x, y),) = mlp(), batches(1)
    one, other = hooked(learner_of(base, "dtp")), learner_of(base, "dtp")
    (F.cross_entropy(one(x), y) + F.cross_entropy(one(x), y)).backward()
    for _ in range(2):
        other.backward(F.cross_entropy(other(x), y))
    assert torch.equal(weights(one), weights(other))


def test_a_loss_may_depend_on_several_learners_and_on_what_made_their_input() -> None:
    encoder, lower, upper, data = (
        nn.Linear(20, 20),
        mlp(),
        nn.Sequential(nn.Linear(10, 8), nn.ELU(), nn.Linear(8, 10)),
        batches(2),
    )
    copies = [copy.deepcopy(each) for each in (encoder, lower, upper)]
    learners = [hooked(Learner(lower, EXACT)), hooked(Learner(upper, EXACT))]
    for x, y in data:
        code = encoder(x)
        middle = learners[0](code)
        (F.cross_entropy(learners[1](middle), y) + middle.square().mean() + code.abs().mean()).backward()
        code = copies[0](x)
        middle = copies[1](code)
        top = F.cross_entropy(copies[2](middle), y)
        # each learner hands down beta times the gradient of its input
        torch.autograd.backward(
            [BETA**2 * top + BETA * middle.square().mean() + code.abs().mean()],
            inputs=list(copies[0].parameters()),
            retain_graph=True,
        )
        torch.autograd.backward(
            [BETA**2 * top + BETA * middle.square().mean()], inputs=list(copies[1].parameters()), retain_graph=True
        )
        torch.autograd.backward([BETA * top], inputs=list(copies[2].parameters()))
    for made, expected in zip((encoder, lower, upper), copies, strict=True):
        assert_close(gradients(made), gradients(expected))


def test_logits_may_be_changed_in_place_and_parameters_of_a_loss_learn() -> None:
    network, ((x, y),) = mlp(), batches(1)
    reference, temperature = copy.deepcopy(network), torch.ones((), requires_grad=True)
    F.cross_entropy(hooked(Learner(network, EXACT))(x).div_(2) * temperature, y).backward()
    other = torch.ones((), requires_grad=True)
    F.cross_entropy(reference(x) / 2 * other, y).backward()
    assert_close(gradients(network), gradients(reference), BETA)
    torch.testing.assert_close(temperature.grad, other.grad)


def _twice(learner: Learner, x: Tensor) -> None:
    loss = learner(x).square().mean()
    loss.backward(retain_graph=True)
    loss.backward()


def _of_the_input(learner: Learner, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    torch.autograd.grad(learner(x).square().mean(), x)


def _inputs_alone(learner: Learner, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    learner(x).square().mean().backward(inputs=[x])


def _after_a_step(learner: Learner, x: Tensor) -> None:
    learner(x).square().mean().backward()
    loss = learner(x).square().mean()
    torch.optim.Adam(learner.optimizer_parameters(), fused=True).step()
    loss.backward()


REFUSED: dict[str, tuple[Callable[[Learner, Tensor], None], str]] = {
    "going back twice": (_twice, "call the learner again"),
    "the gradient of the input": (_of_the_input, r"learner\.eval\(\)"),
    "backward of the input alone": (_inputs_alone, r"learner\.eval\(\)"),
    "a pass from before a step": (_after_a_step, "a weight was changed"),
    "a graph": (lambda learner, x: _graphed(learner), "hooked"),
}


def _graphed(learner: Learner) -> None:
    GraphedStep(learner, F.cross_entropy)


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_another_step_is_refused_and_the_next_one_works(what: str) -> None:
    learner, ((x, y),) = hooked(learner_of(mlp(), "amortised_dtp")), batches(1)
    attempt, said = REFUSED[what]
    with pytest.raises(UserError, match=said) as caught:
        attempt(learner, x)
    assert "\n" not in str(caught.value)
    learner.zero_grad()
    F.cross_entropy(learner(x), y).backward()
    assert len(gradients(learner.network)) == 6


def test_a_gradient_of_the_logits_alone_trains_nothing() -> None:
    learner, ((x, y),) = hooked(learner_of(mlp(), "amortised_dtp")), batches(1)
    before, logits = weights(learner), learner(x)
    loss = F.cross_entropy(logits, y)
    torch.autograd.grad(loss, logits, retain_graph=True)
    assert learner.steps == 0
    assert not gradients(learner)
    assert torch.equal(before, weights(learner))
    loss.backward()
    assert learner.steps == 1


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_call_may_be_made_again_on_the_way_back(reentrant: bool) -> None:
    """As torch.utils.checkpoint does; it saves no memory, which `recomputed` does."""
    base, ((x, y),) = mlp(), batches(1)
    learner, other = hooked(learner_of(base, "dtp")), learner_of(base, "dtp")
    F.cross_entropy(checkpoint(learner, x.clone().requires_grad_(), use_reentrant=reentrant), y).backward()
    other.backward(F.cross_entropy(other(x), y))
    assert torch.equal(weights(learner), weights(other))
    assert_close(gradients(learner.network), gradients(other.network))


# Gradients of several batches


def test_with_a_share_gradients_of_parts_are_those_of_the_whole() -> None:
    base, (x, y) = mlp(), batches(1, samples=32)[0]
    whole = Learner(copy.deepcopy(base), GENUINE)
    state, found = whole.state_dict(), []
    whole.backward(F.cross_entropy(whole(x), y))
    for share in (1 / 4, 1.0):
        parts = hooked(Learner(copy.deepcopy(base), GENUINE), share=share)
        parts.load_state_dict(state)
        for start in range(0, 32, 8):
            (F.cross_entropy(parts(x[start : start + 8]), y[start : start + 8]) / 4).backward()
        found.append(gradients(parts))
    assert_close(found[0], gradients(whole))
    with pytest.raises(AssertionError):  # targets of a quarter of the loss lie elsewhere
        assert_close(found[1], gradients(whole))


def test_a_share_reaches_the_input_and_every_call_of_learner_backward() -> None:
    network, ((x, y),) = mlp(), batches(1)
    reference, xs = copy.deepcopy(network), [x.clone().requires_grad_() for _ in range(2)]
    learner = hooked(Learner(network, EXACT), share=0.25)
    learner.backward(F.cross_entropy(learner(xs[0]), y) / 4)
    (F.cross_entropy(reference(xs[1]), y) / 4).backward()
    assert_close(gradients(network), gradients(reference), BETA)
    assert xs[0].grad is not None
    assert xs[1].grad is not None
    torch.testing.assert_close(xs[0].grad, BETA * xs[1].grad)


@pytest.mark.parametrize("share", [0, -1, 1.5, 4, True, "half", None, float("nan"), float("inf")])
def test_what_is_no_share_is_refused(share: Any) -> None:
    with pytest.raises(UserError, match="share: expected a number above 0 and up to 1"):
        hooked(Learner(mlp(), EXACT), share=share)


# What may be hooked


@pytest.mark.parametrize("name", ["lra_e", "counter_current"])
def test_rules_that_are_no_sweep_are_hooked_too(name: str) -> None:
    base, ((x, y),) = mlp(), batches(1)
    found = []
    for hook in (False, True):
        torch.manual_seed(1)
        learner: Any = LEARNERS[name].start(copy.deepcopy(base))
        if hook:
            hooked(learner)
        loss = F.cross_entropy(learner(x), y)
        if hook and name == "lra_e":
            loss.backward()
        else:
            learner.backward(loss, labels=y)
        found.append(torch.cat([each.flatten() for each in gradients(learner.network)]))
    assert torch.equal(*found)
    learner = hooked(learner, share=0.5)
    with pytest.raises(UserError, match="share: expected 1 of"):
        learner.backward(F.cross_entropy(learner(x), y), labels=y)


def test_backprop_needs_no_hook_and_what_is_no_learner_is_refused() -> None:
    network, ((x, y),) = mlp(), batches(1)
    F.cross_entropy(hooked(Backprop(network))(x), y).backward()
    assert len(gradients(network)) == 6
    with pytest.raises(UserError, match="expected a Learner, got Sequential"):
        hooked(mlp())


def test_a_copy_of_a_hooked_learner_goes_on_alone() -> None:
    learner, data = hooked(learner_of(mlp(), "dtp")), batches()
    hooked_loop(learner, data[:3])
    loss = F.cross_entropy(learner(data[3][0]), data[3][1])
    other = copy.deepcopy(learner)
    loss.backward()
    assert other.steps == 3
    learner.zero_grad()
    other.zero_grad()
    learner.steps = 3
    learner.load_state_dict(other.state_dict())
    for each in (learner, other):
        F.cross_entropy(each(data[4][0]), data[4][1]).backward()
    assert_close(gradients(learner), gradients(other))


# States in tensors


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("make", [mlp, Branched])
def test_a_state_in_tensors_is_the_same_state(name: str, make: Callable[[], nn.Module]) -> None:
    base = make()
    x = torch.randn(8, 20) if isinstance(base, nn.Sequential) else torch.randn(8, 3, 6, 6)
    y = torch.randint(10, (8,))
    holder = nn.ModuleDict({"net": state_in_tensors(learner_of(base, name)), "other": nn.Linear(2, 2)})
    learner: Any = holder["net"]
    learner.backward(F.cross_entropy(learner(x), y))
    state = holder.state_dict()
    assert all(isinstance(each, Tensor) and each.is_contiguous() for each in state.values())
    plain = learner_of(base, name)
    plain.load_state_dict({key.removeprefix("net."): each for key, each in state.items() if key.startswith("net.")})
    assert plain.steps == 1
    for each in (learner, plain):
        each.zero_grad()
        each.backward(F.cross_entropy(each(x), y))
    assert torch.equal(weights(learner), weights(plain))
    assert all(torch.equal(a, b) for a, b in zip(gradients(learner), gradients(plain), strict=True))


@pytest.mark.parametrize("given", [torch.arange(9, dtype=torch.uint8), torch.zeros(0), torch.tensor(3)])
def test_a_tensor_that_is_no_state_is_refused(given: Tensor) -> None:
    learner = learner_of(mlp(), "dtp")
    with pytest.raises(UserError, match="not written by a learner"):
        learner.load_state_dict({**learner.state_dict(), "_extra_state": given})


def test_what_is_no_learner_has_no_state_in_tensors() -> None:
    with pytest.raises(UserError, match="expected a Learner"):
        state_in_tensors(mlp())  # type: ignore[arg-type]
