"""Algorithms are values, found by name, and refuse bad numbers by the key that holds them; and what each keeps."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from algorithm_cases import BY_LOSS_ALONE, LEARNING
from torch import Tensor, nn

from targetprop import (
    ALGORITHMS,
    AMORTISED_DTP,
    DELTA_MIRROR,
    DTP,
    FIXED_DTP,
    KOLEN_POLLACK,
    LEE_DTP,
    PARALLEL_DTP,
    TP,
    VANILLA_DTP,
    WEIGHT_MIRROR,
    Algorithm,
    ByLoss,
    DeltaMirror,
    DifferenceTargets,
    Fixed,
    KolenPollack,
    Learner,
    OptimizerSpec,
    OutputSignal,
    Pass,
    PlainTargets,
    TargetRule,
    UserError,
    explain,
)
from targetprop.algorithms import named
from targetprop.feedback.base import OPTIMIZERS, per_block
from targetprop.feedback.losses import NetworkLoss, l_drl, reconstruction
from targetprop.network.passes import Scope
from targetprop.noise import Draw
from targetprop.properties import Needs, Source

NAN = float("nan")


def assert_refused(refusal: pytest.ExceptionInfo[UserError], key: str, value: object) -> None:
    """The message starts with the key and shows what was given."""
    message = str(refusal.value)
    assert message.startswith(f"{key}: expected ")
    assert f"got {value!r}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta", 0),
        ("beta", -0.1),
        ("beta", NAN),
        ("beta", "0.7"),
        ("beta", True),
        ("beta", None),
        ("noise", -0.1),
        ("noise", [0.1, 0.0]),
        ("noise", [0.1, None]),
        ("feedback_training_iterations", -1),
        ("feedback_training_iterations", 2.5),
        ("feedback_training_iterations", True),
    ],
)
def test_an_algorithm_refuses_bad_numbers_by_key(key: str, value: Any) -> None:
    with pytest.raises(UserError) as refusal:
        DTP.with_numbers(**{key: value})
    assert_refused(refusal, key, value)


def test_an_algorithm_refuses_a_bad_number_in_a_list_of_iterations() -> None:
    with pytest.raises(UserError, match=r"^feedback_training_iterations: expected .*30\.5"):
        DTP.with_numbers(feedback_training_iterations=[20, 30.5])


@pytest.mark.parametrize(
    ("key", "value"),
    [("budget", 0), ("budget", NAN), ("budget", True), ("adaptive", 1), ("adaptive", None), ("reads_weights", "no")],
)
def test_what_learns_from_responses_refuses_bad_numbers_by_key(key: str, value: Any) -> None:
    for algorithm in (DELTA_MIRROR, AMORTISED_DTP, WEIGHT_MIRROR):
        if key in algorithm.numbers:
            with pytest.raises(UserError) as refusal:
                algorithm.with_numbers(**{key: value})
            assert_refused(refusal, key, value)


@pytest.mark.parametrize("rate", [0, -1, 1.5, NAN, True])
def test_a_weight_mirror_refuses_rates_that_do_not_average(rate: float) -> None:
    with pytest.raises(UserError) as refusal:
        WEIGHT_MIRROR.with_numbers(rate=rate)
    assert_refused(refusal, "rate", rate)


@pytest.mark.parametrize("style", ["linear", "published", "matchd"])
def test_amortised_feedback_has_activations_that_are_evaluated_at_targets(style: str) -> None:
    with pytest.raises(UserError, match=r"^style: unknown value .*Valid: gained, matched"):
        AMORTISED_DTP.with_numbers(style=style)


@pytest.mark.parametrize("algorithm", [KOLEN_POLLACK, FIXED_DTP, DTP])
def test_whether_weights_start_symmetric_is_yes_or_no(algorithm: Algorithm) -> None:
    with pytest.raises(UserError) as refusal:
        algorithm.with_numbers(init_symmetric_weights=1)
    assert_refused(refusal, "init_symmetric_weights", 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", -0.1), ("lr", [0.1, NAN]), ("lr", "0.1"), ("lr", None), ("momentum", -0.9), ("weight_decay", -1e-4)],
)
def test_optimizer_refuses_bad_numbers_by_key(key: str, value: Any) -> None:
    with pytest.raises(UserError) as refusal:
        OptimizerSpec(**{key: value})
    assert_refused(refusal, key, value)


def test_unknown_optimizer_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(
        UserError, match=r"type: unknown value 'adamm'\. Did you mean 'adam'.*Valid: adam, adamw, rmsprop"
    ):
        OptimizerSpec(type="adamm")


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_momentum_is_refused_where_there_is_none(kind: str) -> None:
    with pytest.raises(UserError, match=f"momentum: {kind} has none, set momentum=0; got 0.9"):
        OptimizerSpec(type=kind, momentum=0.9)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizer_is_built_with_its_numbers(kind: str) -> None:
    momentum = 0.5 if kind in ("sgd", "rmsprop") else 0.0
    spec = OptimizerSpec(kind, lr=0.3, momentum=momentum, weight_decay=0.01)
    for optimizer, lr in ((spec.build([nn.Parameter(torch.zeros(2))]), 0.3), (spec.build([torch.zeros(2)], 0.0), 0.0)):
        assert type(optimizer) is OPTIMIZERS[kind]
        assert optimizer.defaults["lr"] == lr
        assert optimizer.defaults["weight_decay"] == 0.01
        assert optimizer.defaults.get("momentum", 0.0) == momentum


def test_nesterov_is_for_sgd_with_momentum() -> None:
    parameters = [nn.Parameter(torch.zeros(2))]
    for wanted in (True, False):
        assert OptimizerSpec(momentum=0.9, nesterov=wanted).build(parameters).defaults["nesterov"] is wanted
    for numbers in ({}, {"type": "adam"}, {"type": "rmsprop", "momentum": 0.9}):
        with pytest.raises(UserError, match=r"^nesterov: only sgd with momentum looks ahead"):
            OptimizerSpec(nesterov=True, **numbers)
    with pytest.raises(UserError) as refusal:
        OptimizerSpec(momentum=0.9, nesterov=1)  # type: ignore[arg-type]
    assert_refused(refusal, "nesterov", 1)


OPTIONS: dict[str, list[tuple[str, Any]]] = {
    "sgd": [("dampening", 0.5), ("nesterov", True), ("fused", True), ("foreach", False)],
    "adam": [("betas", (0.8, 0.9)), ("eps", 1e-6), ("amsgrad", True), ("fused", True), ("foreach", True)],
    "adamw": [("betas", (0.8, 0.9)), ("eps", 1e-6), ("amsgrad", True), ("fused", False), ("foreach", True)],
    "rmsprop": [("alpha", 0.9), ("eps", 1e-6), ("centered", True), ("foreach", True)],
}
NOT_OURS = {"params", "maximize", "differentiable", "capturable", "decoupled_weight_decay"}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_takes_every_option_of_torchs(kind: str) -> None:
    momentum = 0.9 if kind in ("sgd", "rmsprop") else 0.0
    known = set(inspect.signature(OPTIMIZERS[kind]).parameters) - NOT_OURS
    assert known == {"lr", "weight_decay", *(name for name, _ in OPTIONS[kind]), *(["momentum"] if momentum else [])}
    for name, value in OPTIONS[kind]:
        spec = OptimizerSpec(kind, lr=[0.1, 0.2], momentum=momentum, **{name: value})
        built = spec.build_by_block({"1": [torch.zeros(2)], "2": [torch.zeros(2)]})
        assert [group[name] for group in built.param_groups] == [value, value]
        other = OptimizerSpec(kind).build([torch.zeros(2)])
        OptimizerSpec(kind, momentum=momentum, **{name: value}).set_numbers(other)
        assert other.param_groups[0][name] == value


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_option_is_refused_where_torch_has_none(kind: str) -> None:
    own = {name for name, _ in OPTIONS[kind]}
    for name, value in {pair for pairs in OPTIONS.values() for pair in pairs if pair[0] not in own and pair[1]}:
        with pytest.raises(UserError, match=rf"^{name}: {'only sgd' if name == 'nesterov' else kind}"):
            OptimizerSpec(kind, **{name: value})


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("sgd", {"momentum": 0.9, "dampening": 1.5}),
        ("sgd", {"momentum": 0.9, "dampening": "0"}),
        ("rmsprop", {"alpha": 1.0}),
        ("rmsprop", {"centered": 1}),
        ("adam", {"amsgrad": "yes"}),
        ("adam", {"foreach": 1}),
        ("adam", {"fused": "null"}),
        ("adam", {"betas": [0.9]}),
        ("adam", {"eps": 0.0}),
    ],
)
def test_an_option_of_another_kind_is_refused(kind: str, numbers: dict[str, Any]) -> None:
    key, value = list(numbers.items())[-1]
    with pytest.raises(UserError) as refusal:
        OptimizerSpec(kind, **numbers)
    assert_refused(refusal, key, value)


@pytest.mark.parametrize(
    ("numbers", "key"),
    [({"dampening": 0.5}, "dampening"), ({"momentum": 0.9, "nesterov": True, "dampening": 0.5}, "dampening"),
     ({"foreach": True, "fused": True}, "fused")],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(numbers: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}: "):
        OptimizerSpec(**numbers)


def test_an_optimizer_says_what_is_not_usual() -> None:
    assert repr(OptimizerSpec("adam", 1e-3, amsgrad=True)) == "OptimizerSpec(type='adam', lr=0.001, amsgrad=True)"


@pytest.mark.parametrize("key", ["output_follows_loss", "divide_by_beta"])
@pytest.mark.parametrize("value", ["loss", None, 1])
def test_what_targets_are_like_is_refused_by_key(key: str, value: Any) -> None:
    with pytest.raises(UserError) as refusal:
        LEE_DTP.with_numbers(**{key: value})
    assert_refused(refusal, key, value)


def test_algorithms_are_values() -> None:
    assert Algorithm(DifferenceTargets(), ByLoss()) == DTP
    assert DTP.with_numbers() == DTP
    assert DTP.with_numbers(beta=0.5).numbers["beta"] == 0.5
    assert DTP.numbers["beta"] == 0.7
    with pytest.raises(FrozenInstanceError):
        DTP.targets = PlainTargets()  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        cast(Any, DTP.targets).beta = 0.5


def test_published_algorithms_are_their_rules() -> None:
    def rules(algorithm: Algorithm) -> tuple[type, object]:
        assert isinstance(algorithm.feedback, ByLoss)
        return type(algorithm.targets), algorithm.feedback.loss

    assert rules(DTP) == (DifferenceTargets, l_drl)
    assert rules(PARALLEL_DTP) == (DifferenceTargets, l_drl)
    assert rules(VANILLA_DTP) == (DifferenceTargets, reconstruction)
    assert rules(TP) == (PlainTargets, reconstruction)
    assert rules(LEE_DTP) == (DifferenceTargets, reconstruction)
    assert LEE_DTP.numbers["output_follows_loss"] is True
    follow = {name for name, each in ALGORITHMS.items() if each.numbers.get("output_follows_loss")}
    assert follow == {"lee_dtp", "meulemans_lee_dtp"}
    assert (type(FIXED_DTP.feedback), type(KOLEN_POLLACK.feedback)) == (Fixed, KolenPollack)
    assert type(DELTA_MIRROR.feedback) is DeltaMirror


def test_numbers_go_to_the_rule_that_has_them() -> None:
    mine = DTP.with_numbers(beta=0.2, noise=[0.1, 0.3], style="matched")
    assert mine == Algorithm(DifferenceTargets(beta=0.2), ByLoss(noise=[0.1, 0.3], style="matched"))
    assert mine.numbers == {**DTP.numbers, "beta": 0.2, "noise": [0.1, 0.3], "style": "matched"}
    assert DELTA_MIRROR.with_numbers(beta=0.1, budget=0.3) == Algorithm(DifferenceTargets(0.1), DeltaMirror(0.3))


def test_every_number_can_be_set_and_only_those() -> None:
    for algorithm in ALGORITHMS.values():
        assert algorithm.with_numbers(**algorithm.numbers) == algorithm
        assert "loss" not in algorithm.numbers
    targets = {"beta", "output_follows_loss", "divide_by_beta"}
    of_responses = {*targets, "budget"}
    assert set(DELTA_MIRROR.numbers) == {*of_responses, "adaptive", "reads_weights"}
    assert set(AMORTISED_DTP.numbers) == {*of_responses, "adaptive", "reads_weights", "style"}
    assert set(WEIGHT_MIRROR.numbers) == {*of_responses, "rate"}
    assert set(FIXED_DTP.numbers) == {*targets, "init_symmetric_weights", "style"}


@pytest.mark.parametrize(
    ("algorithm", "key", "answer"),
    [
        (DTP, "bta", r"Did you mean 'beta'\?"),
        (DTP, "noise_sample", "Did you mean 'noise_samples' or 'noise'"),
        (DTP, "loss", "Valid: b_optim, beta, .*, style"),
        (DTP, "budget", "Valid: b_optim"),
        (DELTA_MIRROR, "noise", "Valid: adaptive, beta, budget, divide_by_beta, output_follows_loss, reads_weights"),
        (DELTA_MIRROR, "style", "Valid: adaptive"),
        (FIXED_DTP, "b_optim", "Valid: beta"),
    ],
)
def test_a_number_that_neither_rule_has_is_answered_with_the_nearest_and_all_there_are(
    algorithm: Algorithm, key: str, answer: str
) -> None:
    with pytest.raises(UserError, match=answer) as refusal:
        algorithm.with_numbers(**{key: 1})
    assert str(refusal.value).startswith(f"{key}: there is no such setting.")
    assert refusal.value.key == key


def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(UserError, match=r"^feedback: expected a FeedbackRule, got "):
        Algorithm(DifferenceTargets(), l_drl)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^targets: expected a TargetRule, got "):
        Algorithm(ByLoss(), ByLoss())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BY_LOSS_ALONE)
def test_algorithms_can_be_looked_up_by_name(name: str) -> None:
    assert named(name) is ALGORITHMS[name]
    assert Learner(network(), name).algorithm is ALGORITHMS[name]


def test_names_of_no_algorithm_are_answered_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"^algorithm: unknown value 'dpt'\. Did you mean .*'dtp'.*Valid: amortised_dtp"
    ):
        Learner(network(), "dpt")
    with pytest.raises(UserError, match=r"^algorithm: expected an Algorithm or the name of one, got 3"):
        Learner(network(), 3)  # type: ignore[arg-type]


def test_an_algorithm_looks_as_far_as_the_further_of_its_rules() -> None:
    @NetworkLoss
    def of_network(seen: Pass, block: int, draw: Draw) -> Tensor:
        return seen.output.sum()

    class Far(DifferenceTargets):
        scope = "network"

    far = {name for name, algorithm in ALGORITHMS.items() if algorithm.scope == "network"}
    assert far == {
        "drl", "ddtp_linear", "ddtp_rhl", "ddtp_control", "gauss_newton", "meulemans_dtp", "meulemans_lee_dtp",
        "meulemans_dfa", "direct_feedback_alignment", "drtp", "shibuya_drl",
    }  # fmt: skip
    found: list[Scope] = [
        Algorithm(targets, feedback).scope
        for targets in (DifferenceTargets(), Far())
        for feedback in (ByLoss(), ByLoss(of_network))
    ]
    assert found == ["block", "network", "network", "network"]


def test_a_loss_that_looks_at_the_network_sees_the_pass_and_learns() -> None:
    seen: list[tuple[Pass, int, Tensor]] = []

    @NetworkLoss
    def of_output(whole: Pass, block: int, draw: Draw) -> Tensor:
        """Whether the block's feedback gives its input from its output, with the traces of all blocks in reach."""
        traces = [whole.trace(n) for n in range(len(whole.network.pairs))]
        seen.append((whole, block, traces[-1].y))
        trace = traces[block]
        return (whole.network.pairs[block].decode(trace.y, trace.context) - trace.x).square().mean()

    learner = Learner(network(), Algorithm(DifferenceTargets(), ByLoss(of_output, feedback_training_iterations=2)))
    before = [p.clone() for p in learner.network.feedback_parameters()]
    x, y = batch()
    output = learner(x)
    learner.backward(F.cross_entropy(output, y))
    assert [block for _, block, _ in seen] == [2, 2, 1, 1]
    assert all(torch.equal(top, output) for _, _, top in seen)
    for old, new in zip(before, learner.network.feedback_parameters(), strict=True):
        assert not torch.equal(old, new)


def test_a_target_rule_is_told_the_gradient_the_labels_and_the_loss() -> None:
    told: list[OutputSignal] = []

    class Noting(DifferenceTargets):
        def sweep(self, seen: Pass, output: OutputSignal) -> Any:
            told.append(output)
            return super().sweep(seen, output)

    def loss_of(output: Tensor) -> Tensor:
        return F.cross_entropy(output, y)

    learner = Learner(network(), Algorithm(Noting(), Fixed()))
    x, y = batch()
    output = learner(x)
    learner.backward(loss_of(output), labels=y, loss_of=loss_of)
    (signal,) = told
    start = output.detach().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(start, y, reduction="sum"), start)
    torch.testing.assert_close(signal.gradient, expected)
    assert signal.labels is y
    assert signal.loss is loss_of


def test_one_number_stands_for_all_blocks_and_a_list_for_each() -> None:
    assert per_block("noise", 0.1, ["a", "b", "c"]) == [0.1, 0.1, 0.1]
    assert per_block("noise", (0.1, 0.2), ["a", "b"]) == [0.1, 0.2]
    assert per_block("noise", [], []) == []


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.2, 0.3]])
def test_list_of_another_length_is_refused_with_key_and_blocks(values: list[float]) -> None:
    with pytest.raises(UserError) as refusal:
        per_block("noise", values, ["2 (Linear, ELU)", "3 (Linear)"])
    message = str(refusal.value)
    assert message.startswith("noise: expected 2 values")
    assert "(2 (Linear, ELU); 3 (Linear))" in message
    assert message.endswith(f"got {len(values)}: {values}.")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ELU(), nn.Linear(8, 7), nn.ELU(), nn.Linear(7, 5))


def batch(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(9, 6, generator=generator), torch.randint(5, (9,), generator=generator)


def train(learner: Learner, steps: int) -> None:
    """By plain gradient steps with weight decay on all that the user's optimiser is given."""
    for step in range(steps):
        learner.zero_grad()
        x, y = batch(step)
        learner.backward(F.cross_entropy(learner(x), y))
        with torch.no_grad():
            for parameter in learner.optimizer_parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.05 * (parameter.grad + 0.1 * parameter))


def feedback(learner: Learner) -> list[Tensor]:
    """The weights of all feedback, copied; not the biases, which not every rule learns."""
    return [p.detach().clone() for p in learner.network.feedback_parameters() if p.dim() > 1]


def have_moved(before: list[Tensor], learner: Learner) -> list[bool]:
    return [not torch.equal(old, new) for old, new in zip(before, feedback(learner), strict=True)]


def assert_equal(one: Learner, other: Learner) -> None:
    assert one.steps == other.steps
    for (name, mine), theirs in zip(one.network.state_dict().items(), other.network.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def plain(name: str, model: nn.Sequential | None = None) -> Learner:
    return Learner(network() if model is None else model, name, seed=5)


def assigned(name: str) -> Learner:
    learner = plain(name)
    learner.load_state_dict(plain(name).state_dict(), assign=True)
    return learner


def assigned_while_it_learned(name: str) -> Learner:
    learner = plain(name)
    train(learner, 2)
    learner.load_state_dict(plain(name).state_dict(), assign=True)
    return learner


def from_the_meta_device(name: str) -> Learner:
    with torch.device("meta"):
        learner = plain(name)
    learner.load_state_dict(plain(name).state_dict(), assign=True)
    return learner


def emptied(name: str) -> Learner:
    with torch.device("meta"):
        learner = plain(name)
    learner.to_empty(device="cpu")
    with torch.no_grad():
        wanted = plain(name)
        for tensor, given in zip(
            [*learner.parameters(), *learner.buffers()], [*wanted.parameters(), *wanted.buffers()], strict=True
        ):
            tensor.copy_(given)
    return learner


MADE: list[Callable[[str], Learner]] = [assigned, assigned_while_it_learned, from_the_meta_device, emptied]


@pytest.mark.parametrize("make", MADE, ids=lambda make: str(make.__name__))
@pytest.mark.parametrize("name", LEARNING)
def test_feedback_learns_on_weights_assigned_anew_as_on_others(name: str, make: Callable[[str], Learner]) -> None:
    learner, reference = make(name), plain(name)
    before = feedback(learner)
    for each in (learner, reference):
        train(each, 3)
    assert all(have_moved(before, learner))
    assert_equal(learner, reference)


@pytest.mark.parametrize("name", LEARNING)
def test_feedback_that_is_frozen_stays_and_learns_once_it_is_unfrozen(name: str) -> None:
    learner = plain(name, nn.Sequential(nn.Linear(6, 6), nn.Tanh(), *network()))
    frozen, *others = (p for p in learner.network.feedback_parameters() if p.dim() > 1)
    assert len(others) == (1 if name in ("lee_dtp", "meulemans_lee_dtp") else 2)
    frozen.requires_grad_(False)
    before = feedback(learner)
    train(learner, 2)
    assert have_moved(before, learner) == [False, *(True for _ in others)]
    frozen.requires_grad_(True)
    before = feedback(learner)
    train(learner, 2)
    assert all(have_moved(before, learner))
    for parameter in learner.network.feedback_parameters():
        parameter.requires_grad_(False)
    before = feedback(learner)
    train(learner, 2)
    assert not any(have_moved(before, learner))


@pytest.mark.parametrize("name", ["dtp", "delta_mirror"])
def test_frozen_feedback_is_said_to_be(name: str) -> None:
    learner = plain(name)
    for parameter in learner.network.pairs[1].feedback_parameters():
        parameter.requires_grad_(False)
    lines = explain(learner)
    assert lines[1].endswith("feedback stays as it is, its weights are frozen")
    assert "frozen" not in lines[2]


def test_fixed_feedback_stays() -> None:
    learner = plain("fixed_dtp")
    before = feedback(learner)
    train(learner, 2)
    assert have_moved(before, learner) == [False, False]
    assert explain(learner)[1].endswith("feedback stays as it is, the rule trains none")


def saved(learner: Learner) -> Learner:
    file = io.BytesIO()
    torch.save(learner, file)
    file.seek(0)
    return cast(Learner, torch.load(file, weights_only=False))


def pickled(learner: Learner) -> Learner:
    return cast(Learner, pickle.loads(pickle.dumps(learner)))


COPIES: list[Callable[[Learner], Learner]] = [saved, pickled, copy.deepcopy]


@pytest.mark.parametrize("duplicate", COPIES, ids=["torch.save", "pickle", "deepcopy"])
@pytest.mark.parametrize("name", BY_LOSS_ALONE)
def test_a_copy_of_a_learner_goes_on_as_the_original_and_by_itself(
    name: str, duplicate: Callable[[Learner], Learner]
) -> None:
    learner = plain(name)
    train(learner, 2)
    copied, undisturbed = duplicate(learner), copy.deepcopy(learner.state_dict())
    train(copied, 2)
    for key, value in learner.network.state_dict().items():
        assert torch.equal(value, undisturbed[f"network.{key}"]), key
    train(learner, 2)
    assert_equal(copied, learner)


@pytest.mark.parametrize("name", BY_LOSS_ALONE)
def test_each_of_the_optimisers_parameters_is_there_once(name: str) -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(nn.Linear(6, 8), nn.ELU(), shared, nn.ELU(), shared, nn.ELU(), nn.Linear(8, 5))
    learner = Learner(model, name)
    parameters = learner.optimizer_parameters()
    assert len({id(p) for p in parameters}) == len(parameters)
    assert len(parameters) == 6 + (3 if name == "kolen_pollack" else 0)
    assert {id(p) for p in model.parameters()} <= {id(p) for p in parameters}
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    assert shared.weight.grad is not None
    before, gradient = shared.weight.detach().clone(), shared.weight.grad.clone()
    torch.optim.SGD(parameters, lr=0.1).step()
    torch.testing.assert_close(shared.weight.detach(), before - 0.1 * gradient)


def test_a_rule_of_the_users_own_is_a_value_beside_the_others() -> None:
    class Halved(DifferenceTargets):
        """Differences that shrink on the way."""

        def carry(self, *args: Any) -> Tensor:
            return super().carry(*args) / 2

    assert isinstance(Halved(), TargetRule)
    x, y = batch()
    whole, halved = (
        Learner(network(), Algorithm(targets, replace(Fixed(), init_symmetric_weights=True, style="linear")))
        for targets in (DifferenceTargets(), Halved())
    )
    for learner in (whole, halved):
        learner.backward(F.cross_entropy(learner(x), y))
    for number, (mine, theirs) in enumerate(zip(halved.network.pairs, whole.network.pairs, strict=True)):
        for p, q in zip(mine.block.parameters(), theirs.block.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad / 2 ** (2 - number) if q.grad is not None else None)


@pytest.mark.parametrize(
    ("algorithm", "needs"),
    [
        (DTP, Needs(noisy_phase=True)),
        (LEE_DTP, Needs(frozenset({"weights"}), noisy_phase=True)),
        (FIXED_DTP, Needs()),
        (KOLEN_POLLACK, Needs(frozenset({"weight updates"}))),
        (AMORTISED_DTP, Needs(noisy_phase=True)),
        (AMORTISED_DTP.with_numbers(reads_weights=True), Needs(frozenset({"weights"}), noisy_phase=True)),
        (
            Algorithm(DifferenceTargets(), ByLoss(NetworkLoss(lambda *_: torch.zeros(())))),
            Needs(noisy_phase=True, passes=2),
        ),
    ],
)
def test_an_algorithm_needs_what_either_of_its_rules_needs(algorithm: Algorithm, needs: Needs) -> None:
    assert algorithm.needs == needs


def test_numbers_leave_an_algorithm_its_source() -> None:
    assert isinstance(DTP.source, Source)
    assert DTP.with_numbers(beta=0.1).source is DTP.source
    assert str(DTP.source).startswith("Ernoult et al., “Towards Scaling")
