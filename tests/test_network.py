"""Cutting a network into blocks, tracing it, and decoding every block's output."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.hooks import RemovableHandle

from targetprop import DTP, Learner, Pair, PairedNetwork, Reshape, Residual, UserError
from targetprop.models.shapes import output_shape
from targetprop.network.blocks import cut, pool_first
from targetprop.noise import NoiseKey


def kinds(model: nn.Sequential) -> list[str]:
    """The blocks of a model, each as the names of its layers."""
    return [
        " ".join(type(m).__name__ for m in block.modules() if not isinstance(m, nn.Sequential)) for block in cut(model)
    ]


def test_flat_sequential_is_cut_before_every_layer_with_weights() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 3),
    )  # fmt: skip
    assert kinds(model) == [
        "Conv2d BatchNorm2d ReLU MaxPool2d",
        "Conv2d BatchNorm2d ReLU AvgPool2d",
        "Flatten Linear Tanh Dropout",
        "Linear",
    ]


def test_nested_sequential_stays_whole() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ELU(), nn.Conv2d(4, 4, 3), nn.ELU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ELU()), nn.MaxPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ELU(), nn.Linear(8, 3)),
    )
    assert kinds(model) == ["Conv2d ELU Conv2d ELU MaxPool2d", "Conv2d ELU MaxPool2d", "Flatten Linear ELU Linear"]


def test_layers_without_weights_after_a_nested_block_belong_to_it() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ELU()), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 4, 3)), nn.BatchNorm2d(4, affine=False),
    )  # fmt: skip
    assert kinds(model) == ["Conv2d ELU BatchNorm2d ReLU MaxPool2d", "Conv2d BatchNorm2d"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.Flatten(), nn.Linear(4, 2)], ["Flatten Linear"]),
        ([nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)], ["BatchNorm1d Dropout Linear"]),
        ([nn.Linear(4, 2), nn.Identity(), nn.Dropout(), nn.Flatten()], ["Linear Identity Dropout Flatten"]),
        (
            [nn.Linear(4, 4), nn.Unflatten(1, (1, 2, 2)), Reshape(1, 2, 2), nn.Conv2d(1, 1, 1), nn.ReLU()],
            ["Linear", "Unflatten Reshape Conv2d ReLU"],
        ),
        ([nn.Linear(4, 4), nn.Linear(4, 2)], ["Linear", "Linear"]),
    ],
)
def test_leading_trailing_and_reshaping_layers(layers: list[nn.Module], expected: list[str]) -> None:
    assert kinds(nn.Sequential(*layers)) == expected


@pytest.mark.parametrize(
    "model", [nn.Sequential(), nn.Sequential(nn.ReLU(), nn.Flatten()), nn.Sequential(nn.Sequential())]
)
def test_network_without_weights_is_refused(model: nn.Sequential) -> None:
    with pytest.raises(UserError, match="at least one block with parameters"):
        PairedNetwork.of(model)


def test_a_sequential_with_a_forward_of_its_own_is_what_its_forward_says() -> None:
    class Scaled(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model, x = Scaled(nn.Linear(2, 2), nn.Linear(2, 3)), torch.randn(5, 2)
    network = PairedNetwork.of(model)
    assert len(network.pairs) == 2
    torch.testing.assert_close(network(x), model(x))


def test_lazy_layers_are_refused_until_they_have_weights() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(3))
    with pytest.raises(UserError, match="lazy layers without weights: call it on one batch first"):
        PairedNetwork.of(model)
    model(torch.zeros(2, 5))
    assert PairedNetwork.of(model).trained[0].decode(torch.zeros(2, 3), torch.Size([4])).shape == (2, 4)


def test_feedback_takes_the_type_of_their_block() -> None:
    network = PairedNetwork.of(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).double())
    assert {p.dtype for p in network.parameters()} == {torch.float64}


def test_pairs_are_named_by_position_and_layers() -> None:
    network = PairedNetwork.of(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2), nn.Tanh())))
    assert [pair.name for pair in network.pairs] == ["1 (Linear)", "2 (Linear, Tanh)"]


def test_first_block_has_no_feedback() -> None:
    network = PairedNetwork.of(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    assert network.pairs[0].feedback_parameters() == []
    assert network.trained == [network.pairs[1]]
    with pytest.raises(UserError, match=r"^block 1 \(Linear\) has no feedback\.$"):
        network.pairs[0].decode(torch.zeros(2, 3), torch.Size([4]))


def test_parameters_are_split_into_forward_and_feedback() -> None:
    network = PairedNetwork.of(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ELU(), nn.Linear(3, 2)))
    forward, feedback = network.forward_parameters(), network.feedback_parameters()
    assert [tuple(p.shape) for p in forward] == [(3, 4), (3,), (3,), (3,), (2, 3), (2,)]
    assert [tuple(p.shape) for p in feedback] == [(3, 2), (3,)]
    assert {id(p) for p in network.parameters()} == {id(p) for p in forward + feedback}


def test_network_of_one_block_traces() -> None:
    network = PairedNetwork.of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    (trace,) = network.trace(torch.randn(3, 2, 2))
    assert trace.y.shape == (3, 2)
    assert network.trained == []


def test_trace_is_detached_between_pairs() -> None:
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)) for _ in range(3)]  # each needs a graph
    network = PairedNetwork.of(nn.Sequential(*blocks))
    x = torch.randn(3, 4, requires_grad=True)
    traces = network.trace(x)
    for pair, trace in zip(network.pairs, traces, strict=True):
        trace.y.sum().backward()
        assert [p.grad is not None for p in network.forward_parameters()].count(True) == 4
        assert all(p.grad is not None for p in pair.block.parameters())
        network.zero_grad()
    assert x.grad is None
    assert torch.equal(traces[1].x, traces[0].y)
    assert traces[0].detach().y.grad_fn is None


Shape = tuple[int, ...]


def layers_for(shape: Shape, kernel: tuple[int, int], stride: int) -> list[nn.Module]:
    """A layer of every supported kind that can take an input of this shape."""
    anywhere = [
        nn.ELU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.2), nn.Tanh(), nn.GELU(), nn.Dropout(0.3), nn.Identity(),
        Reshape(*shape),
    ]  # fmt: skip
    if len(shape) == 1:
        return [*anywhere, nn.Linear(shape[0], 4), nn.BatchNorm1d(shape[0]), nn.Unflatten(1, (1, 1, -1))]
    channels, height, width = shape
    size = (min(kernel[0], height), min(kernel[1], width))
    return [
        *anywhere, nn.Conv2d(channels, 4, size, stride), nn.Conv2d(channels, 2, 2, padding="same"),
        nn.BatchNorm2d(channels), nn.MaxPool2d(size, stride), nn.AvgPool2d(size, stride, ceil_mode=True),
        nn.AdaptiveAvgPool2d((2, None)), nn.AdaptiveMaxPool2d(3), nn.Flatten(),
    ]  # fmt: skip


@st.composite
def stacks(draw: st.DrawFn) -> tuple[nn.Sequential, Tensor]:
    """A network of supported layers, some nested, and a batch for it."""
    shape: Shape = (draw(st.integers(1, 3)), draw(st.integers(3, 8)), draw(st.integers(3, 8)))
    x = torch.randn(3, *shape, dtype=torch.float64)
    model = nn.Sequential()
    for _ in range(draw(st.integers(1, 6))):
        group = nn.Sequential()
        for _ in range(draw(st.sampled_from([1, 1, 1, 3]))):
            kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
            group.append(draw(st.sampled_from(layers_for(shape, kernel, draw(st.integers(1, 2))))))
            shape = tuple(output_shape(group[-1], shape, "drawn"))
        model.append(group if len(group) > 1 else group[0])
    return model.extend([nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 3)]).double(), x


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@given(stacks())
def test_any_stack_of_supported_layers_is_traced_and_decoded(case: tuple[nn.Sequential, Tensor]) -> None:
    model, x = case
    network = PairedNetwork.of(model)
    x = x.contiguous(memory_format=torch.channels_last)  # dropout masks are drawn in the order of memory
    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    traces = network.trace(x)
    torch.testing.assert_close(traces[-1].y, expected)
    for below, (pair, trace) in zip(traces, zip(network.trained, traces[1:], strict=True), strict=False):
        assert torch.equal(trace.x, below.y)
        decoded = pair.decode(torch.randn_like(trace.y), trace.context)
        assert decoded.shape == trace.x.shape
        assert bool(decoded.isfinite().all())
    network.eval()
    torch.testing.assert_close(network(x), model(x))


def test_output_shape_leaves_mode_and_statistics_alone() -> None:
    block = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2))
    norm = block[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert output_shape(block, (1, 8, 6), "a") == (4, 3, 2)
    assert norm.training
    assert norm.num_batches_tracked == 0


def test_output_shape_names_block_layer_and_input() -> None:
    block = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2))
    with pytest.raises(UserError, match=r"^Block a: MaxPool2d cannot take an input of 4 x 1 x 6: "):
        output_shape(block, (1, 3, 8), "a")


def test_pairs_may_be_given_directly() -> None:
    network = PairedNetwork([Pair(nn.Linear(3, 4), None), Pair(nn.Linear(4, 2), None)])
    assert network(torch.zeros(5, 3)).shape == (5, 2)


class Skip(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Holds(nn.Module):
    """A layer of the user's own that calls a Sequential of its own."""

    def __init__(self, inner: nn.Sequential) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).tanh()


def hooked(model: nn.Sequential) -> nn.Sequential:
    model.register_forward_hook(lambda module, inputs, y: 2 * y)
    return model


@pytest.mark.parametrize(
    "first",
    [
        Skip(nn.Linear(4, 4)),
        nn.Sequential(Skip(nn.Linear(4, 4)), nn.ELU()),
        Holds(nn.Sequential(nn.Linear(4, 4))),
        Holds(Skip(nn.Linear(4, 4))),
        Holds(hooked(nn.Sequential(nn.Linear(4, 4)))),
    ],
    ids=repr,
)
def test_sequentials_that_are_layers_of_their_own_are_run_as_they_are(first: nn.Module) -> None:
    model = nn.Sequential(first, nn.ELU(), nn.Linear(4, 3))
    learner, x, y = Learner(model, "fixed_dtp"), torch.randn(5, 4), torch.randint(3, (5,))
    output = learner(x)
    torch.testing.assert_close(output, model(x))
    learner.backward(F.cross_entropy(output, y))
    assert all(p.grad is not None for p in first.parameters())


def test_a_hook_on_a_sequential_that_is_opened_is_refused_whenever_it_comes() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.ELU())
    for each in (inner, nn.Sequential(inner)):
        model = nn.Sequential(each, nn.Linear(4, 3))
        network, x = PairedNetwork.of(model), torch.randn(5, 4)
        network.trace(x)
        for container in (model, inner):
            handle = container.register_forward_hook(lambda module, inputs, y: 2 * y)
            with pytest.raises(UserError, match="hook its layers"):
                PairedNetwork.of(model)
            with pytest.raises(UserError, match="hook its layers"):
                network.trace(x)
            handle.remove()
            network.trace(x)


def image_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ELU(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 3, padding=1), nn.ELU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(4, 4), nn.Tanh(), Residual(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 3),
    ).double()  # fmt: skip


def noise(key: NoiseKey, like: Tensor) -> Tensor:
    """The same in whatever order memory is; hooked layers get contiguous tensors."""
    generator = torch.Generator().manual_seed(zlib.crc32(repr(tuple(key)).encode()))
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


def trained(prepare: Callable[[Learner], None]) -> list[Tensor]:
    """All weights, and the gradients of the forward ones, after two steps."""
    learner = Learner(image_model(), "dtp", noise=noise)
    prepare(learner)
    x, y = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1)).double(), torch.arange(5) % 3
    for _ in range(2):
        learner.backward(F.cross_entropy(learner(x), y))
    gradients = [p.grad for p in learner.network.forward_parameters() if p.grad is not None]
    return [*(p.detach() for p in learner.network.parameters()), *gradients]


def nothing(learner: Learner) -> None:
    pass


def test_a_hook_on_all_modules_sees_every_layer_and_changes_nothing() -> None:
    plain, names = trained(nothing), set[str]()
    handle = register_module_forward_hook(lambda module, inputs, y: names.add(type(module).__name__))
    try:
        watched = trained(nothing)
    finally:
        handle.remove()
    torch.testing.assert_close(watched, plain)
    assert {"Conv2d", "ELU", "AvgPool2d", "Flatten", "Linear", "Tanh"} <= names


def test_hooks_that_only_watch_change_nothing_whenever_they_come() -> None:
    def watch(learner: Learner) -> None:
        for pair in learner.network.pairs:
            for layer in pair.block.modules():
                if not isinstance(layer, nn.Sequential | Residual):
                    layer.register_forward_hook(lambda module, inputs, y: None)

    handles: list[RemovableHandle] = []

    def watch_all(learner: Learner) -> None:
        handles.append(register_module_forward_hook(lambda module, inputs, y: None))

    plain = trained(nothing)
    for prepare in (watch, watch_all):
        try:
            torch.testing.assert_close(trained(prepare), plain)
        finally:
            for handle in handles:
                handle.remove()


@pytest.mark.parametrize("branch", ["", "body", "skip"])
def test_a_hook_on_a_residual_or_a_whole_branch_is_refused_whenever_it_comes(branch: str) -> None:
    residual = Residual(nn.Linear(4, 4), nn.Linear(4, 4))
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Sequential(residual, nn.ELU()), nn.Linear(4, 3)), torch.randn(5, 4)
    network = PairedNetwork.of(model)
    handle = residual.get_submodule(branch).register_forward_hook(lambda module, inputs, y: 2 * y)
    with pytest.raises(UserError, match="hook its layers"):
        PairedNetwork.of(model)
    with pytest.raises(UserError, match="hook its layers"):
        network.trace(x)
    handle.remove()
    torch.testing.assert_close(network.trace(x)[-1].y, model(x))


def test_a_hook_that_only_watches_leaves_the_cut_as_it_is() -> None:
    model = image_model()
    before = kinds(model)
    for layer in model:
        if not isinstance(layer, Residual):
            layer.register_forward_hook(lambda module, inputs, y: None)
    assert kinds(model) == before


def test_pooling_goes_first_only_past_an_activation_that_commutes_with_it() -> None:
    def order(activation: nn.Module, pool: nn.Module) -> list[str]:
        return [type(layer).__name__ for layer in pool_first(nn.Sequential(nn.Conv2d(1, 1, 1), activation, pool))]

    commuting: list[nn.Module] = [nn.ELU(), nn.Tanh(), nn.LeakyReLU()]
    for activation in commuting:
        assert order(activation, nn.MaxPool2d(2))[1] == "MaxPool2d"
        assert order(activation, nn.MaxPool2d(3, 2))[1] != "MaxPool2d"
        assert order(activation, nn.AvgPool2d(2))[1] != "AvgPool2d"
    others: list[nn.Module] = [nn.ReLU(), nn.GELU(), nn.ELU(-0.5), nn.LeakyReLU(0.0)]
    for activation in others:
        assert order(activation, nn.MaxPool2d(2))[1] != "MaxPool2d"


def test_a_list_of_layers_is_a_network_and_other_things_are_refused_by_name() -> None:
    for layers in ([nn.Linear(4, 3), nn.Linear(3, 2)], nn.ModuleList([nn.Linear(4, 3), nn.Linear(3, 2)])):
        assert Learner(list(layers))(torch.randn(5, 4)).shape == (5, 2)
    with pytest.raises(
        UserError, match=r"^network: expected an nn.Module, or layers in sequence as a list, got Tensor"
    ):
        Learner(torch.zeros(3))  # type: ignore[arg-type]


def test_a_group_norm_is_given_contiguous_tensors_and_leaves_channels_last_to_the_others() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ELU(), nn.Conv2d(4, 3, 3))
    Learner(network, DTP)
    for layer in (network[0], network[3]):
        assert isinstance(layer, nn.Conv2d)
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_frozen_kernels_before_a_group_norm_stay_as_they_are_for_the_owner() -> None:
    """With channels last torch 2.13 crashes in the backward pass of a group norm whose input asks for no gradient."""
    conv, norm = nn.Conv2d(3, 4, 3).requires_grad_(False), nn.GroupNorm(2, 4)
    network = nn.Sequential(conv, norm, nn.ELU(), nn.Flatten(), nn.Linear(144, 3))
    learner = Learner(network, DTP)
    assert conv.weight.is_contiguous()
    x = torch.randn(2, 3, 8, 8)
    learner.backward(learner(x).square().mean())
    assert norm.weight.grad is not None
    network.zero_grad()
    network(x).square().mean().backward()
    assert norm.weight.grad is not None
