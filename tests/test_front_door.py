"""What a user may do with a learner works as it would with backprop, or is refused in a sentence that helps."""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from algorithm_cases import BY_LOSS_ALONE, LEARNING
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from targetprop import (
    ALGORITHMS,
    DTP,
    Algorithm,
    DifferenceTargets,
    Fixed,
    Learner,
    Residual,
    UserError,
    explain,
    hooked,
)
from targetprop.execution.recompute import recomputed

BETA = 0.5
EXACT = Algorithm(DifferenceTargets(beta=BETA), Fixed(init_symmetric_weights=True, style="linear"))
"""With V = W^T and linear feedback, all gradients are beta times those of backprop."""
NAMES = sorted(BY_LOSS_ALONE)
Layers = Callable[[], list[nn.Module]]
Loss = Callable[[Tensor], Tensor]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 16), nn.ELU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 10))


def vectors(samples: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, 20), torch.randint(10, (samples,))


def images(samples: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, 3, 8, 8), torch.randint(10, (samples,))


def fast(name: str) -> Algorithm:
    """The algorithm of this name, with few iterations."""
    algorithm = ALGORITHMS[name]
    return (
        algorithm.with_numbers(feedback_training_iterations=2)
        if "feedback_training_iterations" in algorithm.numbers
        else algorithm
    )


def step(learner: Learner, x: Tensor | None = None, y: Tensor | None = None) -> None:
    """A training step without an optimiser."""
    if x is None or y is None:
        x, y = vectors()
    learner.backward(F.cross_entropy(learner(x), y))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def assert_like_backprop(network: nn.Module, reference: nn.Module, beta: float = BETA) -> None:
    """Compare the gradients of one network with those that backprop gave another."""
    made, expected = gradients(network), gradients(reference)
    assert made.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in made.items():
        torch.testing.assert_close(gradient, beta * expected[name], rtol=1e-4, atol=1e-5 * scale)


def assert_refused(error: UserError, *words: str) -> None:
    """One sentence, which says what to do."""
    said = str(error)
    assert "\n" not in said
    assert not re.search(r"\. [A-Z]", said.rstrip("."))
    assert all(word in said for word in words)


def saved_and_loaded(learner: Learner) -> Learner:
    file = io.BytesIO()
    torch.save(learner, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def pickled(learner: Learner) -> Learner:
    return pickle.loads(pickle.dumps(learner))


COPIES = [copy.deepcopy, pickled, saved_and_loaded]


class Double(nn.Module):
    """A layer that the package does not know."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


# Networks and algorithms


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


NO_NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    "a type": (lambda: nn.Sequential, "type"),
    "nothing": (lambda: None, "NoneType"),
    "a name": (lambda: "mlp", "str"),
    "a dictionary": (lambda: nn.ModuleDict({"a": nn.Linear(20, 10)}), "ModuleDict"),
    "an iterator": (lambda: iter(mlp()), "in sequence"),
    "a learner": (lambda: Learner(mlp()), "Learner"),
    "DataParallel": (lambda: nn.DataParallel(mlp()), "DataParallel"),
    "a script": (lambda: torch.jit.script(mlp()), "RecursiveScriptModule"),
    "a compiled network": (lambda: torch.compile(mlp()), "compiled"),
    "a compiled module": (lambda: torch.compile(Wrapped()), "compiled"),
    "a type among layers": (lambda: [nn.Linear(20, 10), nn.ReLU], r"network[1]: expected a layer"),
    "a function among layers": (lambda: (nn.Linear(20, 10), torch.tanh), r"network[1]: expected a layer"),
    "a list among layers": (lambda: [[nn.Linear(20, 10)]], r"network[0]: expected a layer"),
    "no layer": (list, "with parameters"),
    "no weights": (lambda: nn.ModuleList([nn.ReLU(), nn.Flatten()]), "with parameters"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("given", NO_NETWORKS)
def test_what_is_no_network_of_layers_is_refused(given: str) -> None:
    make, word = NO_NETWORKS[given]
    with pytest.raises(UserError) as caught:
        Learner(make())
    assert_refused(caught.value, "network", word)


@pytest.mark.parametrize("kind", [list, tuple, nn.ModuleList, lambda layers: nn.Sequential(*layers)])
@pytest.mark.parametrize("name", NAMES)
def test_layers_in_any_sequence_are_a_network(kind: Callable[[Any], Any], name: str) -> None:
    learner = Learner(kind(mlp()), fast(name))
    step(learner)
    assert len(gradients(learner)) >= 6


def test_nested_modules_in_a_list_stay_whole() -> None:
    learner = Learner([mlp()[:2], mlp()[2:4], nn.Linear(12, 10)], EXACT)
    assert len(learner.network.pairs) == 3


def test_a_network_that_is_compiled_in_place_works() -> None:
    network, (x, y) = mlp(), vectors()
    reference = copy.deepcopy(network)
    network.compile(backend="eager")
    network[2].compile(backend="eager")
    step(Learner(network, EXACT), x, y)
    F.cross_entropy(reference(x), y).backward()
    assert_like_backprop(network, reference)


@pytest.mark.parametrize(
    "given", ["DTP", "dpt", "", "delta mirror", 3, None, DifferenceTargets(), Fixed, ["dtp"], b"dtp"]
)
def test_what_is_no_algorithm_is_refused(given: Any) -> None:
    with pytest.raises(UserError, match=r"^algorithm: ") as caught:
        Learner(mlp(), given)
    assert "\n" not in str(caught.value)


def test_a_name_with_a_slip_is_answered_with_the_right_one() -> None:
    for slip, name in (("dpt", "dtp"), ("delta-mirror", "delta_mirror"), ("kolen_polack", "kolen_pollack")):
        with pytest.raises(UserError, match=f"Did you mean .*'{name}'"):
            Learner(mlp(), slip)


def _append(network: nn.Sequential) -> None:
    network.append(nn.Tanh())


def _insert(network: nn.Sequential) -> None:
    network.insert(1, nn.Tanh())


def _exchange(network: nn.Sequential) -> None:
    network[1] = nn.ReLU()


def _exchange_weights(network: nn.Sequential) -> None:
    network[4] = nn.Linear(12, 10)


def _remove(network: nn.Sequential) -> None:
    network.pop(3)


def _remove_last(network: nn.Sequential) -> None:
    del network[4]


@pytest.mark.parametrize("change", [_append, _insert, _exchange, _exchange_weights, _remove, _remove_last])
@pytest.mark.parametrize("evaluates", [False, True])
def test_a_network_whose_layers_are_others_by_now_needs_another_learner(
    change: Callable[[nn.Sequential], None], evaluates: bool
) -> None:
    network, (x, y) = mlp(), vectors()
    learner = Learner(network, EXACT)
    step(learner, x, y)
    change(network)
    with pytest.raises(UserError) as caught:
        learner.train(not evaluates)(x)
    assert_refused(caught.value, "make a new Learner")
    again = Learner(network, EXACT)
    assert torch.equal(again(x), network(x))


def test_a_residual_block_whose_layers_are_others_by_now_needs_another_learner() -> None:
    for change in (_append, _insert, _exchange):
        body = nn.Sequential(nn.Linear(16, 16), nn.ELU(), nn.Linear(16, 16))
        block = Residual(body)
        learner = Learner([nn.Linear(20, 16), block, nn.ELU(), nn.Linear(16, 10)], EXACT)
        step(learner)
        change(block.body)
        with pytest.raises(UserError, match="make a new Learner"):
            learner(vectors()[0])


def test_a_layer_put_back_is_the_layer_that_was_there() -> None:
    network = mlp()
    learner = Learner(network, EXACT)
    layer, network[1] = network[1], nn.ReLU()
    with pytest.raises(UserError, match="make a new Learner"):
        step(learner)
    network[1] = layer
    step(learner)


# Inputs that require a gradient


def _residual() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))
    return Residual(body)


def _maps() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh(), nn.Conv2d(5, 3, 3))


FIRST: dict[str, Layers] = {
    "a convolution": lambda: [nn.Conv2d(3, 4, 3), nn.ReLU()],
    "a convolution and a pooling": lambda: [nn.Conv2d(3, 4, 3), nn.ELU(), nn.MaxPool2d(2)],
    "circular padding": lambda: [nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.ReLU()],
    "reflection": lambda: [nn.ReflectionPad2d(2), nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()],
    "a batch norm": lambda: [nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)],
    "a batch norm behind": lambda: [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ELU()],
    "a layer norm": lambda: [nn.LayerNorm([3, 8, 8]), nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)],
    "a residual block": lambda: [_residual(), nn.ReLU()],
    "two maps": lambda: [_maps(), nn.ELU()],
    "an unknown layer": lambda: [Double(), nn.Conv2d(3, 4, 3), nn.PReLU(4)],
    "a reshape": lambda: [nn.Flatten(), nn.Linear(192, 16), nn.Tanh()],
    "a transposed convolution": lambda: [nn.ConvTranspose2d(3, 2, 3, stride=2), nn.SiLU()],
}


def network_behind(first: Layers) -> nn.Sequential:
    """A network of three blocks or more, with these layers first."""
    layers = first()
    with torch.no_grad():
        units = nn.Sequential(*copy.deepcopy(layers))(images(2)[0]).flatten(1).shape[1]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(units, 12), nn.ELU(), nn.Linear(12, 10))


def recomputed_if_it_may_be(learner: Learner) -> Learner:
    try:
        return recomputed(learner)
    except UserError:
        pytest.skip("its activations are not the same twice")


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("leaf", [True, False])
def test_the_input_gets_the_gradient_that_backprop_gives(first: str, recompute: bool, leaf: bool) -> None:
    network, (x, y) = network_behind(FIRST[first]), images()
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    if recompute:
        learner = recomputed_if_it_may_be(learner)
    starts = [x.clone().requires_grad_() for _ in range(2)]
    mine, theirs = (start if leaf else start.sin() for start in starts)
    step(learner, mine, y)
    F.cross_entropy(reference(theirs), y).backward()
    assert_like_backprop(network, reference)
    assert starts[0].grad is not None
    assert starts[1].grad is not None
    torch.testing.assert_close(starts[0].grad, BETA * starts[1].grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_input_gets_its_gradient_with_statistics_of_the_batch_or_without(mode: str) -> None:
    network, (x, y) = network_behind(FIRST["a batch norm"]), images()
    network(2 * x + 1)
    network.train(mode == "train")
    reference = copy.deepcopy(network)
    mine, theirs = (x.clone().requires_grad_() for _ in range(2))
    step(Learner(network, EXACT), mine, y)
    F.cross_entropy(reference(theirs), y).backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad, BETA * theirs.grad, rtol=1e-4, atol=1e-7)


def test_gradients_of_the_input_add_up_over_steps_and_reach_its_hooks() -> None:
    network, (x, y) = mlp(), vectors()
    learner, seen = Learner(network, EXACT), list[Tensor]()
    x.requires_grad_()
    x.register_hook(seen.append)
    step(learner, x, y)
    first = x.grad
    assert first is not None
    first = first.clone()
    step(learner, x, y)
    torch.testing.assert_close(x.grad, 2 * first)
    torch.testing.assert_close(seen, [first, first])


def test_an_input_in_the_midst_of_a_graph_keeps_its_gradient_if_it_is_asked_to() -> None:
    network, (x, y) = mlp(), vectors()
    reference = copy.deepcopy(network)
    mine, theirs = (2 * x.clone().requires_grad_() for _ in range(2))
    mine.retain_grad()
    theirs.retain_grad()
    step(Learner(network, EXACT), mine, y)
    F.cross_entropy(reference(theirs), y).backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad, BETA * theirs.grad)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_in_front_is_trained_by_backprop(name: str) -> None:
    learner, encoder, (x, y) = Learner(mlp(), fast(name)), nn.Linear(20, 20), vectors()
    step(learner, encoder(x).tanh(), y)
    assert all(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters())


@pytest.mark.parametrize("penalty", [lambda code: code.square().mean(), lambda code: code.abs().sum(1).mean() / 3])
def test_a_loss_may_depend_on_the_encoder_too(penalty: Loss) -> None:
    network, encoder, (x, y) = mlp(), nn.Sequential(nn.Linear(20, 20), nn.Sigmoid()), vectors()
    theirs, their_encoder = copy.deepcopy(network), copy.deepcopy(encoder)
    learner, code = Learner(network, EXACT), encoder(x)
    learner.backward(F.cross_entropy(learner(code), y) + BETA * penalty(code))
    code = their_encoder(x)
    (F.cross_entropy(theirs(code), y) + penalty(code)).backward()
    assert_like_backprop(network, theirs)
    assert_like_backprop(encoder, their_encoder)


def test_an_input_can_be_learned_through_a_frozen_network() -> None:
    network, (x, y) = mlp(), vectors()
    reference = copy.deepcopy(network).requires_grad_(False)
    learner = Learner(network.requires_grad_(False), EXACT)
    mine, theirs = (nn.Parameter(x.clone()) for _ in range(2))
    step(learner, mine, y)
    F.cross_entropy(reference(theirs), y).backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad, BETA * theirs.grad)


def test_one_learner_can_train_another_below_it() -> None:
    below, above, (x, y) = nn.Sequential(nn.Linear(20, 16), nn.ELU(), nn.Linear(16, 20)), mlp(), vectors()
    reference = nn.Sequential(*copy.deepcopy(below), *copy.deepcopy(above))
    lower, upper = Learner(below, EXACT), Learner(above, EXACT)
    code = lower(x)
    start = code.detach().requires_grad_()
    upper.backward(F.cross_entropy(upper(start), y))
    assert start.grad is not None
    lower.backward((code * start.grad).sum())
    F.cross_entropy(reference(x), y).backward()
    assert_like_backprop(below, reference[:3], BETA**2)


# Batches and weights that change


def _reversed(x: Tensor) -> None:
    x.copy_(x.flip(0))


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "filled anew": _reversed,
    "scaled": lambda x: x.mul_(2),
    "one entry": lambda x: x.__setitem__((0, 0), 5.0),
    "a view": lambda x: x[1:3].zero_(),
    "a flat view": lambda x: x.view(-1)[7:].add_(1),
    "without its graph": lambda x: x.detach().zero_(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", [vectors, images])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_batch_that_was_changed_is_refused(
    change: str, make: Callable[[], tuple[Tensor, Tensor]], recompute: bool
) -> None:
    network = mlp() if make is vectors else network_behind(FIRST["a convolution"])
    learner, (x, y) = Learner(network, EXACT), make()
    learner = recomputed(learner) if recompute else learner
    loss = F.cross_entropy(learner(x), y)
    CHANGES[change](x)
    with pytest.raises(UserError) as caught:
        learner.backward(loss)
    assert_refused(caught.value, "backward", "batch was changed", "copy")
    step(learner, x, y)


def test_a_batch_within_a_buffer_that_is_filled_again_is_refused() -> None:
    learner, buffer, (_, y) = Learner(mlp(), EXACT), torch.randn(32, 20), vectors()
    loss = F.cross_entropy(learner(buffer[8:16]), y)
    buffer.normal_()
    with pytest.raises(UserError, match="batch was changed"):
        learner.backward(loss)


def test_a_copy_of_the_batch_may_change() -> None:
    network, (x, y) = mlp(), vectors()
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    loss = F.cross_entropy(learner(x.clone()), y)
    F.cross_entropy(reference(x), y).backward()
    x.zero_()
    learner.backward(loss)
    assert_like_backprop(network, reference)


def _stepped(learner: Learner) -> None:
    for parameter in learner.optimizer_parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam(learner.optimizer_parameters()).step()


@torch.no_grad()
def _clipped(learner: Learner) -> None:
    learner.network.forward_parameters()[2].clamp_(-0.01, 0.01)


def _loaded(learner: Learner) -> None:
    learner.load_state_dict(Learner(mlp(), EXACT).state_dict())


def _assigned(learner: Learner) -> None:
    learner.load_state_dict(Learner(mlp(), EXACT).state_dict(), assign=True)


def _from_a_vector(learner: Learner) -> None:
    own = learner.network.forward_parameters()
    nn.utils.vector_to_parameters(torch.randn(sum(p.numel() for p in own)), own)


def _with_another_parameter(learner: Learner) -> None:
    layer = learner.network.pairs[1].block[0]  # type: ignore[index]
    layer.weight = nn.Parameter(torch.randn(12, 16))


def _in_double_precision(learner: Learner) -> None:
    learner.double()


@pytest.mark.parametrize(
    "change",
    [_stepped, _clipped, _loaded, _assigned, _from_a_vector, _with_another_parameter, _in_double_precision],
)
@pytest.mark.parametrize("algorithm", [EXACT, fast("dtp")])
def test_weights_that_were_changed_are_refused(change: Callable[[Learner], None], algorithm: Algorithm) -> None:
    learner, (x, y) = Learner(mlp(), algorithm), vectors()
    loss = F.cross_entropy(learner(x), y)
    if algorithm is not EXACT and change in (_loaded, _assigned):
        pytest.skip("another algorithm's state")
    change(learner)
    with pytest.raises(UserError) as caught:
        learner.backward(loss)
    assert_refused(caught.value, "backward", "weight was changed", "call")
    step(learner, x.to(learner.network.forward_parameters()[0].dtype), y)


class Unnoticed(torch.optim.Optimizer):
    """Writes behind torch's back."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> Any:
        for each in self.param_groups[0]["params"]:
            if each.grad is not None:
                each.data.sub_(each.grad)


UNCOUNTED: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "fused SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, fused=True),
    "fused Adam": lambda parameters: torch.optim.Adam(parameters, fused=True),
    "fused AdamW": lambda parameters: torch.optim.AdamW(parameters, fused=True),
    "fused Adagrad": lambda parameters: torch.optim.Adagrad(parameters, fused=True),
    "one that writes to .data": Unnoticed,
}


@pytest.mark.parametrize("name", UNCOUNTED)
def test_steps_of_optimisers_that_torch_does_not_count_are_noticed(name: str) -> None:
    learner, (x, y) = Learner(mlp(), EXACT), vectors()
    optimizer, other = UNCOUNTED[name](learner.optimizer_parameters()), torch.nn.Parameter(torch.ones(2))
    for _ in range(2):  # in the order of any loop
        optimizer.zero_grad()
        step(learner, x, y)
        optimizer.step()
    loss = F.cross_entropy(learner(x), y)
    optimizer.step()
    with pytest.raises(UserError) as caught:
        learner.backward(loss)
    assert_refused(caught.value, "backward", "weight was changed", "call")
    loss = F.cross_entropy(learner(x), y)
    other.grad = torch.ones(2)
    UNCOUNTED[name]([other]).step()  # of other weights
    optimizer.zero_grad()
    optimizer.step()  # of nothing
    learner.backward(loss)


def test_passes_leave_no_watch_of_optimisers_behind() -> None:
    from torch.optim import optimizer

    before = len(optimizer._global_optimizer_post_hooks)
    learner = Learner(mlp(), EXACT)
    for _ in range(3):
        learner(vectors()[0])
    step(learner)
    del learner
    assert len(optimizer._global_optimizer_post_hooks) == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_weights_without_values_are_refused(when: str) -> None:
    network = mlp()
    learner = Learner(network.to("meta"), EXACT) if when == "before" else Learner(network, EXACT).to("meta")
    for x in (vectors()[0], vectors()[0].to("meta")):
        with pytest.raises(UserError) as caught:
            learner(x)
        assert_refused(caught.value, "network", "'meta'", "to_empty")
    learner.to_empty(device="cpu")
    learner.load_state_dict(Learner(mlp(), EXACT).state_dict())
    step(learner)


def test_statistics_and_feedback_may_change_before_backward() -> None:
    network, (x, y) = network_behind(FIRST["a batch norm"]), images()
    learner = Learner(network, EXACT)
    reference = copy.deepcopy(network)
    loss = F.cross_entropy(learner(x), y)
    with torch.no_grad():
        learner(3 * x)
    for parameter in learner.network.feedback_parameters():
        parameter.data = parameter.data.clone()
    learner.backward(loss)
    F.cross_entropy(reference(x), y).backward()
    assert_like_backprop(network, reference)


# loss.backward() by habit


HABITS: dict[str, Callable[[Tensor], object]] = {
    "a loss": lambda logits: logits.square().mean().backward(),
    "a sum": lambda logits: torch.autograd.backward([logits.sum(), logits.exp().sum()]),
    "a gradient": lambda logits: logits.backward(torch.ones_like(logits)),
    "a scaled loss": lambda logits: torch.amp.GradScaler("cpu").scale(logits.square().mean()).backward(),
    "a retained graph": lambda logits: logits.square().mean().backward(retain_graph=True),
    "after an edit": lambda logits: logits.div_(2).log_softmax(1).mean().backward(),
    "of Fabric": lambda logits: L.Fabric(accelerator="cpu", devices=1).backward(logits.square().mean()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("habit", HABITS)
def test_a_backward_pass_by_habit_is_refused_at_once_and_the_next_step_works(habit: str) -> None:
    network, (x, y) = mlp(), vectors()
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    with pytest.raises(UserError) as caught:
        HABITS[habit](learner(x))
    assert_refused(caught.value, "backward", "learner.backward(loss)")
    assert not gradients(network)
    step(learner, x, y)
    F.cross_entropy(reference(x), y).backward()
    assert_like_backprop(network, reference)


class Careless(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.learner = Learner(mlp(), EXACT)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.learner(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.learner.optimizer_parameters(), lr=0.1)


class Careful(Careless):
    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        self.learner.backward(loss)


def fit(module: L.LightningModule, path: Path) -> None:
    trainer = L.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=path, accumulate_grad_batches=1,
    )  # fmt: skip
    batches: Any = [vectors() for _ in range(2)]
    trainer.fit(module, DataLoader(batches, batch_size=None))


@pytest.mark.filterwarnings("ignore")
def test_a_lightning_module_must_hand_its_loss_to_the_learner(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"use learner\.backward\(loss\)"):
        fit(Careless(), tmp_path)
    module = Careful()
    before = [p.clone() for p in module.learner.optimizer_parameters()]
    fit(module, tmp_path)
    assert module.learner.steps == 2
    assert not any(torch.equal(a, b) for a, b in zip(before, module.learner.optimizer_parameters(), strict=True))


def test_gradients_may_be_asked_for_without_training() -> None:
    network, (x, y) = mlp(), vectors()
    reference, temperature = copy.deepcopy(network), torch.ones((), requires_grad=True)
    learner = Learner(network, EXACT)
    logits = learner(x)
    loss = F.cross_entropy(logits * temperature, y)
    (at_logits,) = torch.autograd.grad(loss, logits, retain_graph=True)
    assert at_logits.shape == logits.shape
    loss.backward(inputs=[temperature], retain_graph=True)
    assert temperature.grad is not None
    temperature.grad = None
    learner.backward(loss)
    F.cross_entropy(reference(x), y).backward()
    assert_like_backprop(network, reference)


def test_a_saliency_map_of_an_evaluating_learner_is_that_of_the_network() -> None:
    network, (x, y) = mlp(), vectors()
    learner = Learner(network, EXACT).eval()
    saliencies = []
    for each in (learner, network):
        start = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(each(start), y), start)
        saliencies.append(gradient)
    assert torch.equal(*saliencies)


def test_a_scaled_loss_gives_scaled_gradients() -> None:
    network, (x, y) = mlp(), vectors()
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD(learner.optimizer_parameters(), lr=0.1)
    learner.backward(scaler.scale(F.cross_entropy(learner(x), y)))
    scaler.unscale_(optimizer)
    F.cross_entropy(reference(x), y).backward()
    assert_like_backprop(network, reference)


# Logits that are changed in place


def _mask(logits: Tensor) -> Tensor:
    logits[:, torch.arange(10) >= 5] = -1e4
    return logits


def _add_on_a_view(logits: Tensor) -> Tensor:
    logits[:, 2:4].add_(1)
    logits.view(-1)[::3].mul_(0.5)
    return logits


def _by_index(logits: Tensor) -> Tensor:
    logits[torch.arange(8), torch.arange(8)] = logits[:, 9].clone() * 2
    return logits


def _sorted(logits: Tensor) -> Tensor:
    logits.copy_(logits.sort(1).values)
    return logits


def _filled(logits: Tensor) -> Tensor:
    return logits.masked_fill_(torch.arange(10) == 7, -30.0)


def _margin(logits: Tensor) -> Tensor:
    return logits.scatter_add_(1, torch.arange(8)[:, None] % 5, torch.full((8, 1), -0.3))


EDITS: dict[str, Callable[[Tensor], Tensor]] = {
    "masking": _mask,
    "dividing": lambda logits: logits.div_(2.0),
    "clamping": lambda logits: logits.clamp_(-0.2, 0.2),
    "sorting": _sorted,
    "index assignment": _by_index,
    "changes of views": _add_on_a_view,
    "filling": _filled,
    "a margin": _margin,
    "transposing": lambda logits: logits.t_().t_(),
    "an activation": lambda logits: F.elu_(logits),
    "chained": lambda logits: logits.sub_(logits.detach().amax(1, keepdim=True)).mul_(3).tanh_(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_logits_may_be_changed_in_place(edit: str) -> None:
    network, (x, y) = mlp(), vectors()
    y %= 5
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    learner.backward(F.cross_entropy(EDITS[edit](learner(x)), y))
    F.cross_entropy(EDITS[edit](reference(x)), y).backward()
    assert_like_backprop(network, reference)


# Empty and unbatched inputs


UNBATCHED: dict[str, tuple[Layers, tuple[int, ...]]] = {
    "a vector": (lambda: [nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 10)], (20,)),
    "a vector behind an activation": (lambda: [nn.ReLU(), nn.Linear(20, 16), nn.Linear(16, 10)], (20,)),
    "a vector to unflatten": (
        lambda: [nn.Unflatten(1, (1, 4, 5)), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(12, 10)],
        (20,),
    ),
    "an image": (lambda: [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)], (3, 8, 8)),
    "an image behind a norm": (lambda: [nn.GroupNorm(1, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)], (3, 8, 8)),
    "an image behind dropout": (lambda: [nn.Dropout(), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)], (3, 8, 8)),
    "an image to be pooled": (lambda: [nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 2)], (3, 8, 8)),
    "a transposed convolution": (lambda: [nn.ConvTranspose2d(3, 4, 3), nn.Conv2d(4, 3, 3)], (3, 8, 8)),
    "a residual block": (lambda: [_residual(), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)], (3, 8, 8)),
    "a sequence": (lambda: [nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 3, 3)], (3, 9)),
    "a volume": (lambda: [nn.Conv3d(3, 4, 3), nn.ReLU(), nn.Conv3d(4, 3, 2)], (3, 6, 6, 6)),
    "a number": (lambda: [nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 10)], ()),
}


@pytest.mark.parametrize("given", UNBATCHED)
def test_a_single_sample_is_refused(given: str) -> None:
    layers, shape = UNBATCHED[given]
    learner = Learner(layers(), EXACT)
    with pytest.raises(UserError) as caught:
        learner(torch.randn(shape))
    assert_refused(caught.value, "input", str(shape), "unsqueeze(0)")
    if shape:
        output = learner(torch.randn(1, *shape))
        learner.backward(output.flatten(1).square().mean(1))


@pytest.mark.parametrize("given", UNBATCHED)
def test_an_empty_batch_is_refused(given: str) -> None:
    layers, shape = UNBATCHED[given]
    if not shape:
        pytest.skip("not a batch")
    with pytest.raises(UserError) as caught:
        Learner(layers(), EXACT)(torch.randn(0, *shape))
    assert_refused(caught.value, "input", "empty")


@pytest.mark.parametrize("given", [[1.0, 2.0], (torch.ones(2, 20),), {"x": 1}, None, 3.0])
def test_what_is_no_tensor_is_refused(given: Any) -> None:
    with pytest.raises(UserError) as caught:
        Learner(mlp(), EXACT)(given)
    assert_refused(caught.value, "input", type(given).__name__)


def test_an_image_that_is_taken_for_a_batch_is_noticed_by_its_outputs() -> None:
    learner = Learner([Double(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)], EXACT)
    with pytest.raises(UserError, match="5 outputs for a batch of 3"):
        learner(torch.randn(3, 8, 8))


# torch's wrappers


@contextmanager
def one_process(path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Holder(nn.Module):
    """Something that holds a learner."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(20, 20)
        self.learner = Learner(mlp(), EXACT)

    def forward(self, x: Tensor) -> Tensor:
        return self.learner(self.encoder(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [lambda: Learner(mlp(), EXACT), lambda: hooked(Learner(mlp(), EXACT)), Holder])
@pytest.mark.parametrize("settings", [{}, {"find_unused_parameters": True}, {"static_graph": True}])
def test_distributed_data_parallel_is_refused(
    make: Callable[[], nn.Module], settings: dict[str, Any], tmp_path: Path
) -> None:
    x, _ = vectors()
    with one_process(tmp_path):
        wrapped = DistributedDataParallel(make(), **settings)
        with pytest.raises(UserError) as caught:
            wrapped(x)
        assert_refused(caught.value, "DistributedDataParallel", "distribute")
        with pytest.raises(UserError, match="distribute"), wrapped.no_sync():
            wrapped(x)
        wrapped.eval()(x)
        inside = wrapped.module
        inside.train()(x)  # by itself it works


def test_a_replica_of_data_parallel_is_refused_and_a_lone_learner_within_it_trains() -> None:
    learner, (x, y) = Learner(mlp(), EXACT), vectors()
    for module in (learner, Holder().learner):
        with pytest.raises(UserError, match="DataParallel"):
            module._replicate_for_data_parallel()(x)
    if not torch.cuda.is_available():
        learner.backward(F.cross_entropy(nn.DataParallel(learner)(x), y))
        assert len(gradients(learner)) == 6


# Tied weights


class Readout(nn.Module):
    """A last layer with the matrix of an embedding."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


def over_blocks() -> nn.Sequential:
    shared = nn.Linear(20, 20)
    return nn.Sequential(shared, nn.ELU(), nn.Linear(20, 20), nn.Tanh(), shared, nn.ELU(), nn.Linear(20, 10))


def within_a_block() -> nn.Sequential:
    shared = nn.Linear(16, 16)
    block = nn.Sequential(shared, nn.Tanh(), shared)
    return nn.Sequential(nn.Linear(20, 16), nn.ELU(), block, nn.ELU(), nn.Linear(16, 10))


def one_parameter() -> nn.Sequential:
    layers = [nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 20)]
    layers[2].weight = layers[0].weight
    layers[1].bias = layers[0].bias
    return nn.Sequential(layers[0], nn.ELU(), layers[1], nn.Tanh(), layers[2], nn.ELU(), nn.Linear(20, 10))


def in_a_residual() -> nn.Sequential:
    shared = nn.Linear(16, 16)
    blocks = [Residual(nn.Sequential(shared, nn.Tanh(), nn.Linear(16, 16))) for _ in range(2)]
    return nn.Sequential(nn.Linear(20, 16), nn.ELU(), *blocks, nn.Linear(16, 10))


TIED = [over_blocks, within_a_block, one_parameter, in_a_residual]


@pytest.mark.parametrize("make", TIED)
def test_tied_weights_get_the_sum_of_their_gradients(make: Callable[[], nn.Sequential]) -> None:
    network, (x, y) = make(), vectors()
    reference = copy.deepcopy(network)
    step(Learner(network, EXACT), x, y)
    F.cross_entropy(reference(x), y).backward()
    assert_like_backprop(network, reference)


@pytest.mark.parametrize("make", TIED)
@pytest.mark.parametrize("name", NAMES)
def test_tied_weights_take_one_step_of_the_optimiser(make: Callable[[], nn.Sequential], name: str) -> None:
    network = make()
    try:
        learner = Learner(network, fast(name))
    except UserError as error:
        assert_refused(error, "feedback")
        pytest.skip(str(error))
    parameters = learner.optimizer_parameters()
    assert len({id(p) for p in parameters}) == len(parameters)
    assert {id(p) for p in network.parameters()} <= {id(p) for p in parameters}
    step(learner)
    before = [(p, p.detach().clone(), p.grad.clone()) for p in parameters if p.grad is not None]
    assert len(before) == len(parameters)
    torch.optim.SGD(parameters, lr=0.1).step()
    for parameter, old, gradient in before:
        torch.testing.assert_close(parameter.detach(), old - 0.1 * gradient)


def test_an_embedding_may_share_its_matrix_with_a_layer_known_by_its_rule() -> None:
    embedding = nn.Embedding(10, 12)
    last = nn.Linear(12, 10)
    last.weight = embedding.weight
    network = nn.Sequential(embedding, nn.ELU(), nn.Linear(12, 12), nn.Tanh(), last)
    reference, x, y = copy.deepcopy(network), torch.randint(10, (8,)), torch.randint(10, (8,))
    learner = Learner(network, EXACT)
    step(learner, x, y)
    F.cross_entropy(reference(x), y).backward()
    assert_like_backprop(network, reference)
    assert len(learner.optimizer_parameters()) == 4


def test_a_layer_of_ones_own_with_the_matrix_of_an_embedding_is_refused_by_name() -> None:
    embedding = nn.Embedding(10, 12)
    with pytest.raises(UserError, match="Readout has no feedback"):
        Learner([embedding, nn.ELU(), nn.Linear(12, 12), nn.Tanh(), Readout(embedding)], EXACT)


# States, copies, devices, types


def learns(learner: Learner) -> bool:
    """Whether a step moves all feedback weights."""
    weights = [pair.feedback_parameters()[0] for pair in learner.network.trained]
    before = [weight.detach().clone() for weight in weights]
    train_step(learner)
    return not any(torch.equal(a, b) for a, b in zip(before, weights, strict=True))


def train_step(learner: Learner) -> None:
    """A training step; the feedback of Kolen-Pollack learns in the optimiser."""
    parameters = learner.optimizer_parameters()
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    x, y = vectors()
    step(learner, x.to(parameters[0].dtype), y)
    optimizer.step()
    optimizer.zero_grad()


def _of_its_own_state(learner: Learner, name: str) -> Learner:
    other = Learner(mlp(), fast(name))
    train_step(other)
    learner.load_state_dict(other.state_dict(), assign=True)
    return learner


def _from_meta(learner: Learner, name: str) -> Learner:
    with torch.device("meta"):
        made = Learner(mlp(), fast(name))
    return _of_its_own_state(made, name)


def _emptied(learner: Learner, name: str) -> Learner:
    learner.to("meta").to_empty(device="cpu")
    for each in (*learner.parameters(), *learner.buffers()):
        nn.init.normal_(each, std=0.1)
    return learner


def _wider(learner: Learner, name: str) -> Learner:
    return learner.double()


def _there_and_back(learner: Learner, name: str) -> Learner:
    return learner.half().float()


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("change", [_of_its_own_state, _from_meta, _emptied, _wider, _there_and_back])
@pytest.mark.parametrize("name", LEARNING)
def test_feedback_still_learns_when_weights_come_from_elsewhere(
    name: str, change: Callable[[Learner, str], Learner], trained: bool
) -> None:
    learner = Learner(mlp(), fast(name))
    if trained:
        train_step(learner)
    changed = change(learner, name)
    assert learns(changed)
    assert all(bool(p.isfinite().all()) for p in changed.parameters())


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_goes_on_like_the_original(name: str, how: Callable[[Learner], Learner], pending: bool) -> None:
    learner, (x, y) = Learner(mlp(), fast(name)), vectors()
    train_step(learner)
    learner.zero_grad()
    loss = F.cross_entropy(learner(x), y) if pending else None
    twin = how(learner)
    twin.zero_grad()
    if loss is not None:
        learner.backward(loss)
    else:
        step(learner, x, y)
    step(twin, x, y)
    made, expected = gradients(twin), gradients(learner)
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[key], expected[key]) for key in made)
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), learner.parameters(), strict=True))


GRAPHS: dict[str, Callable[[], tuple[Learner, Tensor]]] = {
    "an input with a gradient": lambda: (Learner(mlp(), EXACT), vectors()[0].requires_grad_()),
    "an encoder": lambda: (Learner(mlp(), EXACT), nn.Linear(20, 20)(vectors()[0])),
    "a block of two maps": lambda: (Learner(in_a_residual(), EXACT), vectors()[0]),
    "an unknown layer": lambda: (Learner([Double(), *mlp()], EXACT), vectors()[0]),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_copy_between_forward_and_backward_leaves_the_graph_to_the_original(
    graph: str, how: Callable[[Learner], Learner]
) -> None:
    learner, x = GRAPHS[graph]()
    y = vectors()[1]
    loss = F.cross_entropy(learner(x), y)
    twin = how(learner)
    with pytest.raises(UserError, match="call the learner on a batch first"):
        twin.backward(loss)
    learner.backward(loss)
    step(twin, x.detach(), y)
    assert_like_backprop(twin.network, learner.network, 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_weights_are_refused_in_training_and_run_in_evaluation(name: str, dtype: torch.dtype) -> None:
    learner, (x, y) = Learner(mlp(), fast(name)), vectors()
    step(learner, x, y)
    learner.to(dtype)
    with pytest.raises(UserError) as caught:
        learner(x.to(dtype))
    assert_refused(caught.value, str(dtype), "float32", "autocast")
    assert learner.eval()(x.to(dtype)).dtype == dtype
    step(learner.train().float(), x, y)


def test_one_layer_of_half_precision_is_refused() -> None:
    network = mlp()
    network[2].half()
    with pytest.raises(UserError, match="float16"):
        Learner(network, EXACT)(vectors()[0])


# What is frozen


def feedback_of(learner: Learner) -> list[Tensor]:
    return [p.detach().clone() for pair in learner.network.trained for p in pair.feedback_parameters()[:1]]


@pytest.mark.parametrize("start", ["frozen", "free"])
@pytest.mark.parametrize("name", LEARNING)
def test_feedback_rests_while_it_is_frozen_and_then_learns(name: str, start: str) -> None:
    learner = Learner(mlp(), fast(name))
    if start == "free":
        assert learns(learner)
    for parameter in learner.network.feedback_parameters():
        parameter.requires_grad_(False)
    before = feedback_of(learner)
    train_step(learner)
    train_step(learner)
    assert all(torch.equal(a, b) for a, b in zip(before, feedback_of(learner), strict=True))
    assert "frozen" in explain(learner)[1]
    for parameter in learner.network.feedback_parameters():
        parameter.requires_grad_()
    assert learns(learner)
    assert "frozen" not in explain(learner)[1]


@pytest.mark.parametrize("name", LEARNING)
def test_the_feedback_of_one_block_rests_alone(name: str) -> None:
    learner = Learner(mlp(), fast(name))
    for parameter in learner.network.trained[0].feedback_parameters():
        parameter.requires_grad_(False)
    before = feedback_of(learner)
    train_step(learner)
    after = feedback_of(learner)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [i == 0 for i in range(len(after))]


FROZEN: dict[str, Callable[[nn.Sequential], Any]] = {
    "the first layer": lambda net: net[0].requires_grad_(False),
    "a middle one": lambda net: net[2].requires_grad_(False),
    "a bias": lambda net: net[4].bias.requires_grad_(False),
    "all weights": lambda net: [p.requires_grad_(p.dim() == 1) for p in net.parameters()],
}


@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize("after", [False, True])
def test_forward_parameters_freeze_and_thaw_as_with_backprop(frozen: str, after: bool) -> None:
    network, (x, y) = mlp(), vectors()
    reference = copy.deepcopy(network)
    if after:
        learner = Learner(network, EXACT)
        FROZEN[frozen](network)
    else:
        FROZEN[frozen](network)
        learner = Learner(network, EXACT)
    FROZEN[frozen](reference)
    for _ in range(2):
        step(learner, x, y)
        F.cross_entropy(reference(x), y).backward()
        assert_like_backprop(network, reference)
        for each in (network, reference):
            each.zero_grad()
            each.requires_grad_()


# Order of calls


@pytest.mark.parametrize("name", NAMES)
def test_passes_that_are_not_used_leave_nothing_behind(name: str) -> None:
    learners = [Learner(mlp(), fast(name)) for _ in range(2)]
    learners[1].load_state_dict(learners[0].state_dict())
    x, y = vectors()
    for _ in range(3):
        learners[0](torch.randn(5, 20))
    for learner in learners:
        step(learner, x, y)
    assert_like_backprop(learners[0].network, learners[1].network, 1.0)


def test_gradients_of_several_batches_add_up() -> None:
    network, batches = mlp(), [vectors(samples) for samples in (8, 8, 3)]
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    for x, y in batches:
        learner.backward(F.cross_entropy(learner(x), y) / len(batches))
        (F.cross_entropy(reference(x), y) / len(batches)).backward()
    assert_like_backprop(network, reference)


@pytest.mark.parametrize("calls", [2, 3])
def test_a_loss_of_several_calls_needs_a_hooked_learner(calls: int) -> None:
    """With which it works: tests/loops/test_hooked.py."""
    learner = Learner(mlp(), EXACT)
    with pytest.raises(UserError) as caught:
        learner.backward(torch.stack([F.cross_entropy(learner(x), y) for x, y in [vectors()] * calls]).mean())
    assert_refused(caught.value, "backward", "targetprop.hooked(learner)")
    step(learner)


NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.BatchNorm2d(4),
    "instance norm": lambda: nn.InstanceNorm2d(4, affine=True),
    "instance norm with statistics": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "dropout": lambda: nn.Dropout2d(0.5),
    "group norm": lambda: nn.GroupNorm(2, 4),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("first", ["train", "eval"])
@pytest.mark.parametrize("then", ["train", "eval"])
def test_the_mode_of_the_forward_pass_holds_for_backward(norm: str, first: str, then: str) -> None:
    def layers() -> list[nn.Module]:
        return [nn.Conv2d(3, 4, 3), nn.ELU(), nn.Conv2d(4, 4, 3, bias=False), NORMS[norm](), nn.ReLU()]

    network, (x, y) = network_behind(layers), images()
    network(2 * x)
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    losses = []
    for each in (learner.network, reference):
        torch.manual_seed(1)
        each.train(first == "train")
        losses.append(F.cross_entropy((learner if each is learner.network else each)(x), y))
        each.train(then == "train")
    learner.backward(losses[0])
    losses[1].backward()
    assert_like_backprop(network, reference)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_between_forward_and_backward_changes_nothing(name: str) -> None:
    learners = [Learner(mlp(), fast(name)) for _ in range(2)]
    learners[1].load_state_dict(learners[0].state_dict())
    x, y = vectors()
    for learner in learners:
        loss = F.cross_entropy(learner(x), y)
        if learner is learners[0]:
            learner.eval()(torch.randn(3, 20))
            with torch.no_grad():
                learner.train()(torch.randn(4, 20))
        learner.backward(loss)
    assert_like_backprop(learners[0].network, learners[1].network, 1.0)


def test_batch_norms_follow_their_switches_as_with_backprop() -> None:
    network, (x, y) = network_behind(FIRST["a batch norm"]), images()
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    for switch in (
        lambda net: net[3].eval(),
        lambda net: net[3].requires_grad_(False),
        lambda net: net[3].train(),
        lambda net: net[0].eval(),
        lambda net: net.train().requires_grad_(),
    ):
        for each in (network, reference):
            switch(each)
            each.zero_grad()
        step(learner, x, y)
        F.cross_entropy(reference(x), y).backward()
        assert_like_backprop(network, reference)
        for mine, theirs in zip(network.buffers(), reference.buffers(), strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("names", [("dtp", "dtp"), ("delta_mirror", "kolen_pollack"), ("lee_dtp", "fixed_dtp")])
def test_two_learners_in_one_loop_do_not_meet(names: tuple[str, str]) -> None:
    batch = vectors()
    alone, beside = ([Learner(mlp(), fast(name)) for name in names] for _ in range(2))
    for one, other in zip(alone, beside, strict=True):
        other.load_state_dict(one.state_dict())
    for _ in range(3):
        for learner in alone:
            step(learner, *batch)
        losses = [F.cross_entropy(learner(batch[0]), batch[1]) for learner in beside]
        for learner, loss in zip(reversed(beside), reversed(losses), strict=True):
            learner.backward(loss)
    for one, other in zip(alone, beside, strict=True):
        assert_like_backprop(one.network, other.network, 1.0)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_loss_of_another_learner_is_refused() -> None:
    first, second, (x, y) = Learner(mlp(), EXACT), Learner(mlp(), EXACT), vectors()
    loss = F.cross_entropy(first(x), y)
    second(x)
    with pytest.raises(UserError):
        second.backward(loss)


# Losses


def test_a_loss_with_parameters_of_its_own_trains_them_by_backprop() -> None:
    network, (x, y) = mlp(), vectors()
    head = nn.Sequential(nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 10))
    theirs, their_head = copy.deepcopy(network), copy.deepcopy(head)
    learner = Learner(network, EXACT)
    learner.backward(F.cross_entropy(head(learner(x)), y))
    F.cross_entropy(their_head(theirs(x)), y).backward()
    assert_like_backprop(network, theirs)
    assert_like_backprop(head, their_head, 1.0)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "each sample": lambda logits, y: F.cross_entropy(logits, y, reduction="none"),
    "weighted samples": lambda logits, y: F.cross_entropy(logits, y, reduction="none") * torch.arange(len(y)),
    "each unit": lambda logits, y: F.binary_cross_entropy_with_logits(
        logits, F.one_hot(y, 10).float(), reduction="none"
    ),
    "a sum": lambda logits, y: F.cross_entropy(logits, y, reduction="sum"),
    "samples left out": lambda logits, y: F.cross_entropy(logits, torch.where(y < 5, -100, y)),
    "of the whole batch": lambda logits, y: logits.var(0).sum() + F.cross_entropy(logits, y),
    "of some units": lambda logits, y: logits[:, 3].square().mean(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_any_loss_is_that_of_backprop(loss: str) -> None:
    network, (x, y) = mlp(), vectors()
    y[0] = 7
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    learner.backward(LOSSES[loss](learner(x), y))
    LOSSES[loss](reference(x), y).mean().backward()
    assert_like_backprop(network, reference)


# Inputs of all sorts


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_number_spreads_as_with_backprop(name: str) -> None:
    network, (x, y) = mlp(), vectors()
    x[0, 0] = float("nan")
    reference = copy.deepcopy(network)
    step(Learner(network, fast(name)), x, y)
    F.cross_entropy(reference(x), y).backward()
    for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert bool(mine.grad.isnan().any()) == bool(theirs.grad.isnan().any())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize("make", [vectors, images])
def test_an_input_of_another_type_is_answered_as_by_torch(
    dtype: torch.dtype, make: Callable[[], tuple[Tensor, Tensor]]
) -> None:
    network = mlp() if make is vectors else network_behind(FIRST["a convolution"])
    learner, (x, y) = Learner(network, EXACT), make()
    with pytest.raises(RuntimeError) as expected:
        network(x.to(dtype))
    with pytest.raises(RuntimeError, match=re.escape(str(expected.value))):
        learner(x.to(dtype))
    step(learner, x, y)


@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 5)])
@pytest.mark.parametrize("sparse", [False, True])
def test_indices_are_a_batch_for_an_embedding(shape: tuple[int, ...], sparse: bool) -> None:
    units = 6 * (shape[1] if len(shape) > 1 else 1)
    network = nn.Sequential(
        nn.Embedding(9, 6, padding_idx=0, sparse=sparse), nn.Flatten(), nn.Linear(units, 8), nn.ELU(), nn.Linear(8, 10)
    )
    x, y, reference = torch.randint(9, shape), torch.randint(10, (8,)), copy.deepcopy(network)
    step(Learner(network, EXACT), x, y)
    F.cross_entropy(reference(x), y).backward()
    for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad.to_dense(), BETA * theirs.grad.to_dense())


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "expanded": lambda x: x[:1].expand_as(x),
    "transposed": lambda x: x.mT,
    "strided": lambda x: torch.cat([x, x])[::2],
    "reversed channels": lambda x: x.flip(1)[:, [2, 1, 0]],
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "permuted": lambda x: x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1),
    "repeated": lambda x: x[:, :, :1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wants", [False, True])
@pytest.mark.parametrize("first", ["a convolution", "a reshape", "an unknown layer"])
def test_the_memory_order_of_the_input_does_not_matter(layout: str, wants: bool, first: str) -> None:
    network, (x, y) = network_behind(FIRST[first]), images()
    reference = copy.deepcopy(network)
    starts = [x.clone().requires_grad_(wants) for _ in range(2)]
    step(Learner(network, EXACT), LAYOUTS[layout](starts[0]), y)
    F.cross_entropy(reference(LAYOUTS[layout](starts[1])), y).backward()
    assert_like_backprop(network, reference)
    if wants:
        assert starts[0].grad is not None
        assert starts[1].grad is not None
        torch.testing.assert_close(starts[0].grad, BETA * starts[1].grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("first", FIRST)
def test_a_batch_of_inference_mode_trains_and_may_change(first: str) -> None:
    network, (x, y) = network_behind(FIRST[first]), images()
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    with torch.inference_mode():
        batch = x.clone()
    loss = F.cross_entropy(learner(batch), y)
    with torch.inference_mode():
        batch.zero_()
    learner.backward(loss)
    F.cross_entropy(reference(x), y).backward()
    assert_like_backprop(network, reference)


def test_within_inference_mode_nothing_is_trained() -> None:
    learner, (x, y) = Learner(mlp(), EXACT), vectors()
    with torch.inference_mode():
        logits = learner(x)
    with pytest.raises(UserError, match="in training mode and with gradients on"):
        learner.backward(F.cross_entropy(logits, y))


@pytest.mark.parametrize("name", NAMES)
def test_batches_may_have_any_size(name: str) -> None:
    learner = Learner(mlp(), fast(name))
    for samples in (8, 1, 17, 2, 8):
        learner.zero_grad()
        step(learner, *vectors(samples))
        assert all(bool(gradient.isfinite().all()) for gradient in gradients(learner).values())


@pytest.mark.parametrize("sizes", [(8, 1, 5), (3, 7)])
def test_gradients_are_exact_at_any_size(sizes: tuple[int, ...]) -> None:
    network = network_behind(FIRST["a residual block"])
    block = network[0]
    assert isinstance(block, Residual)
    block.body[1] = nn.GroupNorm(1, 3)
    reference = copy.deepcopy(network)
    learner = Learner(network, EXACT)
    for samples in sizes:
        x, y = images(samples)
        step(learner, x, y)
        F.cross_entropy(reference(x), y).backward()
        assert_like_backprop(network, reference)


def test_default_numbers_of_an_algorithm_reach_no_other() -> None:
    changed = DTP.with_numbers(beta=0.3)
    assert DTP.numbers["beta"] != changed.numbers["beta"] == 0.3
