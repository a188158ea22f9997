"""Modules as layers in sequence: where they are cut, what chains become, and what is refused, with the place."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import (
    AMORTISED_DTP,
    DELTA_MIRROR,
    DTP,
    Algorithm,
    DifferenceTargets,
    Fixed,
    Learner,
    PairedNetwork,
    UserError,
    explain,
)
from targetprop.layers.graph import LayerGraph
from targetprop.layers.operation import Operation
from targetprop.layers.sequence import leaves
from targetprop.network.linear_feedback import LinearPart

EXACT = Algorithm(DifferenceTargets(beta=0.5), Fixed(init_symmetric_weights=True, style="linear"))


class Chain(nn.Module):
    """Layers one behind the other, with functions between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.fc1, self.fc2 = nn.Linear(24, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.elu(self.norm(self.conv1(x))), 2)
        x = F.leaky_relu(self.conv2(x), negative_slope=0.2)
        x = F.dropout(torch.flatten(x, 1), 0.3, self.training)
        return self.fc2(torch.tanh(self.fc1(x)))

    def in_sequence(self) -> nn.Sequential:
        return nn.Sequential(
            self.conv1, self.norm, nn.ELU(), nn.MaxPool2d(2), self.conv2, nn.LeakyReLU(0.2), nn.Flatten(),
            nn.Dropout(0.3), self.fc1, nn.Tanh(), self.fc2,
        )  # fmt: skip


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 6), nn.Linear(6, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 5)
        self.layer1 = nn.Sequential(Block(5), Block(5))
        self.layer2 = nn.Sequential(Block(5), Block(5))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(self.embed(x))))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 8, 8, generator=generator), torch.randint(5, (6,), generator=generator)


# Chains


@pytest.mark.parametrize("algorithm", [DTP, AMORTISED_DTP, DELTA_MIRROR], ids=["dtp", "amortised_dtp", "delta_mirror"])
def test_a_chain_becomes_what_its_layers_in_sequence_are(algorithm: Algorithm) -> None:
    """The same blocks of the same layers, the same closed forms, and the same numbers to the last bit."""
    torch.manual_seed(0)
    module = Chain()
    learners = []
    for network in (module, module.in_sequence()):
        torch.manual_seed(2)
        learners.append(Learner(copy.deepcopy(network), algorithm))
    converted, sequence = (learner.network.pairs for learner in learners)
    for mine, theirs in zip(converted, sequence, strict=True):
        assert [repr(layer) for layer in leaves(mine.block)] == [repr(layer) for layer in leaves(theirs.block)]
        assert mine.name == theirs.name
        assert (mine.chain is None) == (theirs.chain is None)
        assert isinstance(mine.linear, LinearPart) == isinstance(theirs.linear, LinearPart)
    assert explain(learners[0]) == explain(learners[1])
    x, y = batch()
    for learner in learners:
        torch.manual_seed(3)
        learner.backward(F.cross_entropy(learner(x), y))
    for a, b in zip(*(learner.network.forward_parameters() for learner in learners), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)


def test_functions_of_one_tensor_join_a_chain() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
            self.scale = nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = F.silu(self.conv(x)) * self.scale
            return self.fc(x.mean((2, 3)) / 2)

    network = PairedNetwork.of(Net(), "matched")
    kinds = [type(each) for each in leaves(network.pairs[0].block)]
    assert kinds == [nn.Conv2d, nn.SiLU, Operation, Operation, Operation]
    assert network.pairs[1].chain is not None


# Cuts


def test_a_block_for_each_layer_with_weights_as_far_as_there_is_one_way() -> None:
    pairs = PairedNetwork.of(Deep()).pairs
    kinds = [[type(layer) for layer in leaves(pair.block)] for pair in pairs]
    assert kinds == [[nn.Linear], *[[LayerGraph]] * 4, [nn.Linear]]
    assert [len(pair.maps) for pair in pairs] == [0, 2, 2, 2, 2, 1]


@pytest.mark.parametrize(
    ("names", "maps"),
    [
        (["layer1", "layer2.0"], [0, 2, 3]),
        (["layer2.0", "layer1"], [0, 2, 3]),
        (["embed", "layer1.0", "layer2"], [0, 2, 6, 1]),
        ([], [0]),
    ],
)
def test_blocks_end_where_the_user_says(names: list[str], maps: list[int]) -> None:
    network = Deep().double()
    if not names:
        with pytest.warns(UserWarning, match="one block"):
            assert len(PairedNetwork.of(network, blocks=names).pairs) == 1
        return
    learner = Learner(network, EXACT, blocks=names)
    assert [len(pair.maps) for pair in learner.network.pairs] == maps
    x = torch.randn(7, 4, dtype=torch.float64)
    expected = torch.autograd.grad(network(x).square().sum(1).mean(), list(network.parameters()))
    learner.backward(learner(x).square().sum(1).mean())
    for parameter, wanted in zip(network.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted / 2)


def test_the_blocks_of_a_sequential_can_be_named_too() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    learner = Learner(model, AMORTISED_DTP, blocks=["1"])
    assert [len(pair.maps) for pair in learner.network.pairs] == [0, 2]


def test_what_is_no_place_to_cut_is_refused_by_name() -> None:
    with pytest.raises(UserError) as caught:
        Learner(Deep(), blocks=["layer1.0.up"])
    assert_says(caught.value, "blocks", "'layer1.0.up' is no place to cut, the output of 'embed' leads past it")
    with pytest.raises(UserError, match=r"^blocks: unknown value 'layer3'. Did you mean 'layer2'"):
        Learner(Deep(), blocks=["layer3"])
    with pytest.raises(UserError, match=r"^blocks: expected a list of names of modules in the network, got 'layer1'"):
        Learner(Deep(), blocks="layer1")
    with pytest.raises(UserError, match=r"^blocks: expected none of a PairedNetwork"):
        Learner(PairedNetwork.of(Deep()), DTP.with_numbers(style="published"), blocks=["layer1"])


# Refusals


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)


class DependsOnData(Branch):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if x.sum() > 0:
            return self.b(x)
        return x


class WritesOverAView(Branch):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = x.view(-1, 2, 2)
        y += 1
        return self.b(x)


class DependsOnMode(Branch):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) if self.training else self.b(x)


class GivesTwo(Branch):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x), self.b(x)


class TakesTwo(Branch):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + self.b(y)


class Einsum(Branch):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,oi->bo", self.a(x), self.b.weight)


class WritesItems(Branch):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x[:, 0] = 0
        return self.b(x)


class Bilinear(Branch):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(self.a(x), self.b(x))


class ReadsInPlace(Branch):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.relu(x)
        return self.b(y) + x


class Loops(Branch):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        for _ in range(x.size(1)):
            x = self.b(x)
        return x


class Recurrent(Branch):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.rnn(x)[0][:, -1])


class Random(Branch):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) + torch.rand(4))


class Constant(Branch):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(torch.ones(3, 4)))


class Hidden(Branch):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(4, 4)]

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.hidden[0](self.a(x)))


REFUSED: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "a condition on data": (DependsOnData, ["DependsOnData cannot be traced", "`if x.sum() > 0:`", "control flow"]),
    "a condition on the mode": (DependsOnMode, ["DependsOnMode.forward takes other ways in training"]),
    "two outputs": (GivesTwo, ["GivesTwo.forward gives a tuple", "one tensor"]),
    "two inputs": (TakesTwo, ["TakesTwo cannot be traced", "'y'"]),
    "a map of an unknown kind": (Einsum, ["einsum of a parameter", "F.linear(x, w)"]),
    "items that are written": (WritesItems, ["WritesItems cannot be traced", "`x[:, 0] = 0`"]),
    "a view that is written over": (WritesOverAView, ["iadd in its forward writes over memory", "used again later"]),
    "a layer of two tensors": (Bilinear, ["'both' (Bilinear) is called on more than one tensor"]),
    "a tensor that is written over": (ReadsInPlace, ["relu writes over a tensor that is used again"]),
    "a loop over a size": (Loops, ["Loops cannot be traced", "`for _ in range(x.size(1)):`"]),
    "a loop over time": (Recurrent, ["'rnn' (LSTM) has its loop over time inside", "nn.LSTMCell"]),
    "random numbers": (Random, ["Random.forward makes tensors that differ every time"]),
    "no way from the input": (Constant, ["the output does not follow from the input"]),
    "a module that is not registered": (Hidden, ["Hidden cannot be traced"]),
}
ANYWHERE = {
    "a loop over time",
    "a map of an unknown kind",
    "a tensor that is written over",
    "a view that is written over",
}
"""Where the way out is another than to give a module with a rule."""


def assert_says(error: UserError, key: str, *words: str) -> None:
    """One sentence, with the key and these words."""
    said = str(error)
    assert said.startswith(f"{key}: ")
    assert "\n" not in said
    assert not re.search(r"\. [A-Z]", said.rstrip("."))
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_traced_is_refused_with_the_place_and_the_ways_out(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(UserError) as caught:
        Learner(make())
    ways = [] if name in ANYWHERE else ["@targetprop.register", "in sequence"]
    assert_says(caught.value, "network", *words, *ways)


def test_a_hook_on_what_is_traced_through_is_refused_before_and_after() -> None:
    network = Deep()
    handle = network.layer1[0].register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match=r"Block layer1.0: a hook on it is not seen"):
        Learner(network)
    handle.remove()
    learner = Learner(network, AMORTISED_DTP)
    network.layer1[0].register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match="a hook on a Block is not seen in training"):
        learner(torch.randn(3, 4))


def test_an_exchanged_layer_is_noticed() -> None:
    network = Deep()
    learner = Learner(network, AMORTISED_DTP)
    network.head = nn.Linear(5, 3)
    with pytest.raises(UserError, match="make a new Learner"):
        learner(torch.randn(3, 4))


# What a forward may do besides


class Checked(Branch):
    """Conditions that only raise are taken to hold."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        assert x.dim() == 2, "a matrix"
        if x.shape[1] != 4:
            raise ValueError(f"not {x.shape[1]}")
        x = self.a(x)
        if mask is not None:
            x = x * mask
        return self.b(x)


class InPlace(Branch):
    """Every tensor that is looked at later is the one that was written over."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x) * 1
        y = x
        x += 1
        z = y * 2
        z.mul_(x)
        return self.b(F.relu(z, inplace=True)) + z


class ModeInFunctions(Branch):
    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.a(x), p=0.5, training=self.training)
        q = x[:, None]
        return self.b(F.scaled_dot_product_attention(q, q, q, dropout_p=0.4 * self.training)[:, 0])


class Shared(Branch):
    """One layer twice, one parameter in two functions."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.a(x))
        x = torch.tanh(self.a(x))
        return F.linear(torch.tanh(self.b(x)), self.b.weight.t())


class Blind(Branch):
    """No error comes back through comparisons, and none through what is detached."""

    def forward(self, x: Tensor) -> Tensor:
        chosen = torch.where(self.a(x) > 0, self.b(torch.tanh(self.a(x))), F.normalize(x, dim=-1))
        return self.b(F.elu(chosen) * self.a(chosen).detach())


class Complex(Branch):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.fft.fft(torch.tanh(self.a(x))).abs())


@pytest.mark.parametrize("kind", [Checked, InPlace, ModeInFunctions, Shared, Blind, Complex])
def test_what_forwards_do_besides(kind: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network, x = kind().double(), torch.randn(6, 4, dtype=torch.float64)
    learner = Learner(network, EXACT)
    torch.manual_seed(1)
    expected = torch.autograd.grad(network(x).square().sum(1).mean(), list(network.parameters()))
    torch.manual_seed(1)
    learner.backward(learner(x).square().sum(1).mean())
    for parameter, wanted in zip(network.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted / 2, rtol=1e-9, atol=1e-12)
    learner.eval()
    torch.testing.assert_close(learner(x), network(x))


def test_a_weight_with_two_uses_has_feedback_for_each() -> None:
    learner = Learner(Shared(), EXACT)
    maps = [each for pair in learner.network.pairs for each in pair.maps]
    assert len(maps) == 3
    assert len({id(each.map) for each in maps}) == 3
    assert len(learner.network.forward_parameters()) == 4


def test_buffers_and_parameters_move_with_the_learner() -> None:
    class Net(Branch):
        offset: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", torch.ones(4))
            self.gain = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x)) * self.gain + self.offset)

    network = Net()
    learner = Learner(network, AMORTISED_DTP).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    assert network.offset.dtype == torch.float64
    torch.testing.assert_close(learner(x), network(x))
    learner.backward(learner(x).square().sum(1).mean())
    assert network.gain.grad is not None


def test_the_batch_may_be_looked_at_by_any_block_and_gets_no_gradient() -> None:
    class Net(Branch):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x))) + x

    network, x = Net(), torch.randn(5, 4)
    learner = Learner(network, AMORTISED_DTP)
    assert len(learner.network.pairs) == 2
    learner.backward(learner(x).square().sum(1).mean())
    with pytest.raises(UserError, match=r"^input: it asks for a gradient"):
        learner(x.clone().requires_grad_())
    learner.eval()
    asking = x.clone().requires_grad_()
    learner(asking).sum().backward()
    expected = torch.autograd.grad(network(asking).sum(), asking)[0]
    torch.testing.assert_close(asking.grad, expected)


def test_whole_numbers_are_a_batch_for_an_embedding_in_the_first_block() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    learner, ids = Learner(model, EXACT), torch.randint(7, (5, 3))
    expected = torch.autograd.grad(model(ids).square().sum(1).mean(), list(model.parameters()))
    learner.backward(learner(ids).square().sum(1).mean())
    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted / 2)
    with pytest.raises(UserError, match=r"block 2 \(Embedding\): an Embedding takes whole numbers"):
        Learner(nn.Sequential(nn.Linear(4, 4), nn.Embedding(7, 4)))


def test_an_input_of_another_shape_than_the_first_convolution_takes_is_a_batch() -> None:
    class Net(Branch):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.elu(self.conv(torch.stack([x, -x], 1))).mean((2, 3)))

    assert Learner(Net(), AMORTISED_DTP)(torch.randn(5, 8, 8)).shape == (5, 2)


def test_a_hook_on_a_layer_in_a_graph_is_part_of_it() -> None:
    network, x = Deep().double(), torch.randn(6, 4, dtype=torch.float64)
    learner = Learner(network, EXACT)
    learner(x)
    network.layer1[0].norm.register_forward_hook(lambda layer, given, y: y * y)  # type: ignore[union-attr]
    expected = torch.autograd.grad(network(x).square().sum(1).mean(), list(network.parameters()))
    learner.backward(learner(x).square().sum(1).mean())
    for parameter, wanted in zip(network.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted / 2)


def test_under_autocast_updates_are_those_without_it_but_for_rounding() -> None:
    x = torch.randn(32, 4)
    updates = []
    for narrow in (False, True):
        torch.manual_seed(0)
        network = Deep()
        learner = Learner(network, AMORTISED_DTP)
        learner.backward(learner(x).square().sum(1).mean())
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            output = learner(x)
        learner.backward(output.square().sum(1).mean())
        updates.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert float((updates[1] - updates[0]).norm() / updates[0].norm()) < 0.03


# Words


def test_the_cut_is_explained_layer_by_layer() -> None:
    lines = explain(Learner(Deep(), AMORTISED_DTP), layers=True)
    first = "    1: layer1.0.norm (LayerNorm) of the input; back by its transposed Jacobian on the clean batch"
    block = lines[lines.index(first) :][:5]
    assert block[1] == "    2: layer1.0.up (Linear) of 1; back by feedback weights 5x6"
    assert block[2].startswith("    3: GELU of 2; back by its matched function")
    assert "at the target" in block[2]
    assert block[4] == "    5: add of the input and 4; back by its transpose"
    mirror = explain(Learner(Deep(), DELTA_MIRROR), layers=True)
    assert not any("at the target" in line for line in mirror)


def test_operations_show_what_they_are() -> None:
    network = PairedNetwork.of(Deep())
    operations: list[Any] = [each for pair in network.pairs for each in pair.modules() if isinstance(each, Operation)]
    assert {each.title for each in operations} == {"add"}
    assert "LayerGraph(LayerNorm, Linear, GELU, Linear, add)" in repr(network.pairs[1].block)
