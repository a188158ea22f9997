"""A step from a graph is the eager step. Without a GPU, a tape of operations stands for the graph."""

from __future__ import annotations

import copy
from typing import Any, cast

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from graph_helpers import WAITING, Tapes
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from targetprop import (
    AMORTISED_DTP,
    DELTA_MIRROR,
    DTP,
    FIXED_DTP,
    KOLEN_POLLACK,
    Algorithm,
    Learner,
    OptimizerSpec,
    Residual,
    Step,
    UserError,
)
from targetprop.app.callbacks.step_losses import StepLosses
from targetprop.app.module import TaskModule
from targetprop.app.task import Classification
from targetprop.execution.graph import KEPT, GraphedStep
from targetprop.execution.grid import Grid
from targetprop.execution.parallel import distribute
from targetprop.execution.schedule import SideBySide
from targetprop.feedback.by_loss import ByLossLearning
from targetprop.feedback.responses import EVERY, ByResponses
from targetprop.noise import NoiseKey, StepNoise

Batch = tuple[Tensor, Tensor]
TASK = Classification("val/accuracy", "max")


@pytest.fixture
def tapes() -> Tapes:
    return Tapes()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    two_maps = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3))  # trained by autograd
    residual = Residual(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ELU(), nn.Conv2d(6, 6, 1)))
    return nn.Sequential(
        two_maps, nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ELU(), nn.MaxPool2d(2), residual, nn.Flatten(),
        nn.Linear(24, 8), nn.GELU(), nn.Linear(8, 3),
    )  # fmt: skip


def batches(count: int, size: int = 8) -> list[Batch]:
    torch.manual_seed(1)
    return [(torch.randn(size, 1, 10, 10), torch.randint(3, (size,))) for _ in range(count)]


def sgd(learner: Learner) -> torch.optim.Optimizer:
    return torch.optim.SGD(learner.optimizer_parameters(), lr=0.05, momentum=0.9)


def eager(learner: Learner, data: list[Batch]) -> list[Step]:
    """Plain training with the noise of a graph."""
    noise = StepNoise(0, torch.device("cpu"))
    learner.noise, optimizer, steps = noise, sgd(learner), []
    for x, y in data:
        noise.start(learner.steps)
        steps.append(learner.backward(F.cross_entropy(learner(x), y)))
        optimizer.step()
        optimizer.zero_grad()
    return steps


def graphed(step: GraphedStep, optimizer: torch.optim.Optimizer, data: list[Batch]) -> list[Step]:
    steps = []
    for x, y in data:
        steps.append(step(x, y).step)
        optimizer.step()
        optimizer.zero_grad()
    return steps


def feedback_optimizer(learner: Learner) -> torch.optim.Optimizer:
    learning = learner.learning.bare
    assert isinstance(learning, ByLossLearning)
    return learning.optimizers[2]


def assert_equal(learner: Learner, other: Learner) -> None:
    for name, value in learner.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
    assert learner.plan == other.plan
    assert learner.steps == other.steps


FEW = DTP.with_numbers(feedback_training_iterations=2)
ALGORITHMS = {
    "amortised_dtp": AMORTISED_DTP,
    "amortised_dtp, gained": AMORTISED_DTP.with_numbers(style="gained"),
    "delta_mirror": DELTA_MIRROR,
    "closed_form": FEW,
    "autograd": FEW.with_numbers(gradient="autograd"),
    "kolen_pollack": KOLEN_POLLACK,
}


@pytest.mark.parametrize("algorithm", [*ALGORITHMS.values(), FIXED_DTP])
def test_replayed_steps_are_the_eager_ones(algorithm: Algorithm, tapes: Tapes) -> None:
    data = batches(2 * EVERY + 6)
    expected, learner = Learner(network(), algorithm), Learner(network(), algorithm)
    eager_steps = eager(expected, data)
    steps = graphed(GraphedStep(learner, F.cross_entropy, graph=tapes), sgd(learner), data)
    assert_equal(learner, expected)
    for ours, theirs in zip(steps, eager_steps, strict=True):
        assert torch.equal(ours.feedback_losses, theirs.feedback_losses)
        assert torch.equal(ours.local_losses, theirs.local_losses)
    plans = 3 if isinstance(algorithm.feedback, ByResponses) else 1
    assert len(tapes) == plans, "a graph for each plan"
    assert sum(tape.replays for tape in tapes) == len(data) - 1 - plans, "the first step, and each of a plan, are eager"


def test_mixed_precision_is_part_of_what_is_recorded(tapes: Tapes) -> None:
    data = batches(5)
    expected, learner = Learner(network(), DELTA_MIRROR), Learner(network(), DELTA_MIRROR)
    with torch.autocast("cpu", torch.bfloat16):
        eager(expected, data)
        step = GraphedStep(learner, F.cross_entropy, graph=tapes)
        graphed(step, sgd(learner), data)
    assert_equal(learner, expected)
    graphed(step, sgd(learner), data[:2])
    assert len(tapes) == 2


def test_each_shape_has_its_graph_and_few_are_kept(tapes: Tapes) -> None:
    data = [batch for size in range(4, 4 + KEPT + 1) for batch in batches(3, size)]
    expected = Learner(network(), DELTA_MIRROR.with_numbers(adaptive=False))
    learner = copy.deepcopy(expected)
    eager(expected, data)
    step = GraphedStep(learner, F.cross_entropy, graph=tapes)
    graphed(step, sgd(learner), data)
    assert_equal(learner, expected)
    assert len(tapes) == KEPT + 1 == len(step.recordings) + 1
    step.forget()
    assert not step.recordings


@pytest.mark.parametrize("zero", ["set to none", "fill with zeros", "add up"])
def test_gradients_are_added_whatever_becomes_of_the_earlier_ones(zero: str, tapes: Tapes) -> None:
    data = batches(6)
    expected, learner = Learner(network(), DELTA_MIRROR), Learner(network(), DELTA_MIRROR)
    noise = StepNoise(0, torch.device("cpu"))
    expected.noise, step = noise, GraphedStep(learner, F.cross_entropy, graph=tapes)
    for x, y in data:
        noise.start(expected.steps)
        expected.backward(F.cross_entropy(expected(x), y))
        step(x, y)
        for ours, theirs in zip(learner.parameters(), expected.parameters(), strict=True):
            assert (ours.grad is None) == (theirs.grad is None)
            if ours.grad is not None and theirs.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-7)
        if zero != "add up":
            for each in (learner, expected):
                each.zero_grad(set_to_none=zero == "set to none")


def test_a_loss_may_have_parameters_and_values_per_sample(tapes: Tapes) -> None:
    class Tempered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = nn.Parameter(torch.ones(()))

        def forward(self, logits: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(logits * self.temperature, y, reduction="none")

    learner, loss = Learner(network(), DELTA_MIRROR), Tempered()
    step = GraphedStep(learner, loss, graph=tapes)
    for x, y in batches(4):
        outcome = step(x, y)
        assert outcome.loss.shape == (8,)
        temperature = torch.ones((), requires_grad=True)
        F.cross_entropy(outcome.output * temperature, y).backward()
        torch.testing.assert_close(loss.temperature.grad, temperature.grad)
        loss.zero_grad()


def test_losses_of_a_step_stay_when_the_next_one_is_replayed(tapes: Tapes) -> None:
    step = GraphedStep(Learner(network(), DELTA_MIRROR), F.cross_entropy, graph=tapes)
    outcomes = [step(x, y) for x, y in batches(5)]
    assert len({float(outcome.loss) for outcome in outcomes}) == 5
    assert len({float(outcome.step.local_losses[0]) for outcome in outcomes}) == 5


def test_a_resumed_run_repeats_the_uninterrupted_one(tapes: Tapes) -> None:
    data = batches(8)
    learner = Learner(network(), DELTA_MIRROR)
    optimizer, step = sgd(learner), GraphedStep(learner, F.cross_entropy, graph=tapes)
    graphed(step, optimizer, data[:4])
    resumed = Learner(network(), DELTA_MIRROR)
    resumed.load_state_dict(copy.deepcopy(learner.state_dict()))
    again = sgd(resumed)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    graphed(step, optimizer, data[4:])
    graphed(GraphedStep(resumed, F.cross_entropy, graph=tapes), again, data[4:])
    assert_equal(resumed, learner)


@pytest.mark.parametrize("algorithm", [AMORTISED_DTP, FEW], ids=["amortised_dtp", "closed_form"])
def test_a_run_made_without_graphs_goes_on_with_them(algorithm: Algorithm, tapes: Tapes) -> None:
    """And back again: what is saved is the same."""
    data = batches(8)
    learners = Learner(network(), algorithm), Learner(network(), algorithm)
    optimizers = [sgd(learner) for learner in learners]
    for x, y in data[:4]:  # with the noise of an eager run
        learners[0].backward(F.cross_entropy(learners[0](x), y))
        optimizers[0].step()
        optimizers[0].zero_grad()
    learners[1].load_state_dict(copy.deepcopy(learners[0].state_dict()))
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    noise = StepNoise(0, torch.device("cpu"))
    learners[0].noise = noise
    for x, y in data[4:]:
        noise.start(learners[0].steps)
        learners[0].backward(F.cross_entropy(learners[0](x), y))
        optimizers[0].step()
        optimizers[0].zero_grad()
    graphed(GraphedStep(learners[1], F.cross_entropy, graph=tapes), optimizers[1], data[4:])
    assert_equal(*learners)
    assert sum(tape.replays for tape in tapes) == 3
    back = Learner(network(), algorithm)
    back.load_state_dict(copy.deepcopy(learners[1].state_dict()))
    x, y = data[0]
    back.backward(F.cross_entropy(back(x), y))


def test_rates_that_change_are_part_of_what_is_recorded(tapes: Tapes) -> None:
    data = batches(8)
    expected, learner = Learner(network(), FEW), Learner(network(), FEW)
    step, optimizers = GraphedStep(learner, F.cross_entropy, graph=tapes), (sgd(expected), sgd(learner))
    noise = StepNoise(0, torch.device("cpu"))
    expected.noise = noise
    for number, (x, y) in enumerate(data):
        if number == 4:
            for each in (expected, learner):
                for group in feedback_optimizer(each).param_groups:
                    group["lr"] *= 0.1
        noise.start(expected.steps)
        expected.backward(F.cross_entropy(expected(x), y))
        step(x, y)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert_equal(learner, expected)
    assert len(tapes) == 2


def test_a_step_that_makes_momentum_is_not_recorded(tapes: Tapes) -> None:
    expected, learner = Learner(network(), FEW), Learner(network(), FEW)
    fresh = copy.deepcopy(learner.state_dict())
    fresh["_extra_state"]["steps"] = 5  # on, but without momentum
    step = GraphedStep(learner, F.cross_entropy, graph=tapes)
    for _ in range(3):
        for each in (expected, learner):
            each.load_state_dict(fresh)
        eager(expected, batches(3))
        graphed(step, sgd(learner), batches(3))
        assert_equal(learner, expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_pairs_that_learn_before_the_way_down_learn_the_same(
    algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, learner = Learner(network(), algorithm), Learner(network(), algorithm)
    steps = eager(expected, batches(3))
    module = "targetprop.execution.schedule"
    monkeypatch.setattr(f"{module}.is_recorded", lambda x: True)
    monkeypatch.setattr(f"{module}.side_by_side", lambda works: {key: work() for key, work in works.items()})
    learner.learning = SideBySide(learner.learning)
    for ours, theirs in zip(eager(learner, batches(3)), steps, strict=True):
        assert torch.equal(ours.feedback_losses, theirs.feedback_losses)
    assert_equal(learner, expected)


def test_pairs_that_share_feedback_are_not_trained_at_a_time() -> None:
    shared = nn.Linear(6, 6)
    learner = Learner(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)), FEW)
    learning = SideBySide(learner.learning)
    assert learning.are_apart
    for pair in learner.network.trained:
        assert pair.feedback is not None
        pair.feedback.register_parameter("shared", cast(nn.Parameter, shared.weight))
    assert not learning.are_apart


def test_a_state_that_is_loaded_brings_feedback_optimisers_of_its_own(tapes: Tapes) -> None:
    data = batches(8)
    expected, learner = Learner(network(), FEW), Learner(network(), FEW)
    eager(expected, data)
    step = GraphedStep(learner, F.cross_entropy, graph=tapes)
    graphed(step, sgd(learner), batches(5))
    learner.load_state_dict(expected.state_dict())
    eager(expected, data)
    graphed(step, sgd(learner), data)
    assert_equal(learner, expected)
    assert len(tapes) == 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_trains_by_graphs_as_without(precision: Any, tapes: Tapes) -> None:
    data = batches(4)
    expected, learner = Learner(network(), DELTA_MIRROR), Learner(network(), DELTA_MIRROR)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true"):
        steps = eager(expected, data * 2)
    graphed = GraphedStep(learner, F.cross_entropy, graph=tapes)
    module = TaskModule(learner, OptimizerSpec(lr=0.05, momentum=0.9), TASK, 3, F.cross_entropy, graphed=graphed)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=2, precision=precision, callbacks=[StepLosses()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(cast(Dataset[Any], data), batch_size=None))
    assert_equal(learner, expected)
    assert sum(tape.replays for tape in tapes) == 6
    losses = torch.stack([step.local_losses for step in steps[4:]]).mean(0)
    logged = [trainer.callback_metrics[f"local_loss/block{n}"] for n in range(1, 6)]
    torch.testing.assert_close(torch.stack(logged), losses)


def test_learners_whose_step_is_no_graph_are_refused() -> None:
    with pytest.raises(UserError, match=r"b_optim\.type.*Adam.*use sgd"):
        GraphedStep(Learner(network(), DTP.with_numbers(b_optim=OptimizerSpec("adam", 1e-3))), F.cross_entropy)

    def noise(key: NoiseKey, like: Tensor) -> Tensor:
        return torch.zeros_like(like)

    with pytest.raises(UserError, match=r"cuda_graph.*noise"):
        GraphedStep(Learner(network(), DELTA_MIRROR, noise=noise), F.cross_entropy)
    step = GraphedStep(Learner(network(), DELTA_MIRROR), F.cross_entropy)
    with pytest.raises(UserError, match="only a GPU has graphs; the batch is on the cpu"):
        step(*batches(1)[0])
    grid = Grid(1, 1, 0, 0, None, None)  # type: ignore[arg-type]
    distribute(step.learner, grid)
    with pytest.raises(UserError, match=r"cuda_graph: .* in another way"):
        step(*batches(1)[0])
    with pytest.raises(UserError, match="cuda_graph: processes exchange feedback"):
        GraphedStep(step.learner, F.cross_entropy)


class NoWaiting(TorchDispatchMode):
    """Fails where the host would wait for a device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function not in WAITING, f"{function} waits for the device"
        if function is torch.ops.aten.index.Tensor:
            assert not any(each is not None and each.dtype == torch.bool for each in args[1])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_a_step_does_not_wait_for_the_device(algorithm: Algorithm) -> None:
    learner = Learner(network(), algorithm)
    module = TaskModule(learner, OptimizerSpec(lr=0.1), TASK, 3, F.cross_entropy)
    optimizer = module.configure_optimizers()
    for number, batch in enumerate(batches(4)):
        with NoWaiting() if number else torch.enable_grad():  # a new shape of batch is looked at once
            module.backward(module.training_step(batch, number))
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("algorithm", "dtype"), [*((algorithm, None) for algorithm in ALGORITHMS.values()), (DELTA_MIRROR, torch.bfloat16)]
)
def test_cuda_graphs_train_as_eager_steps_do(algorithm: Algorithm, dtype: torch.dtype | None) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    data = [(x.to(device), y.to(device)) for x, y in batches(EVERY + 6)]
    expected, learner = (Learner(network().to(device), algorithm) for _ in range(2))
    noise = StepNoise(0, device)
    expected.noise, optimizer = noise, sgd(expected)
    step, own_optimizer = GraphedStep(learner, F.cross_entropy), sgd(learner)
    for x, y in data:
        noise.start(expected.steps)
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype is not None):
            loss = F.cross_entropy(expected(x), y)
            outcome = step(x, y)
        eager_step = expected.backward(loss)
        torch.testing.assert_close(outcome.loss, loss.detach(), rtol=2e-2 if dtype else 1e-3, atol=1e-3)
        if dtype is None:
            losses = outcome.step.feedback_losses
            torch.testing.assert_close(losses, eager_step.feedback_losses, rtol=1e-2, atol=1e-3)
        for each in (optimizer, own_optimizer):
            each.step()
            each.zero_grad()
    assert any(recording is not None for recording in step.recordings.values())


@pytest.mark.gpu
def test_replays_on_a_gpu_draw_new_noise_every_step_and_the_same_for_the_same_step() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    learner = Learner(network().to(device), FEW)
    step = GraphedStep(learner, F.cross_entropy)
    x, y = (each.to(device) for each in batches(1)[0])
    for _ in range(4):
        step(x, y)
    state, losses = copy.deepcopy(learner.state_dict()), []
    for later in (0, 0, 1):
        learner.load_state_dict(state)
        step(x, y)  # eagerly: the state brought new feedback optimisers
        learner.steps += later
        losses.append(step(x, y).step.feedback_losses)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(losses[0], losses[2], rtol=1e-3), "the same weights, and the noise of another step"
