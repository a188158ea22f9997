"""A layer that computes something else than its type says runs as it is, or is refused by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from layer_cases import EXACT, assert_oracle, exact_or_refused, sample
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from targetprop import Learner, Residual, UserError, rule_of
from targetprop.layers.lookup import Opaque

IMAGE = (3, 6, 6)


class Rows(nn.Flatten):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class DoubleReLU(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * F.relu(x)


class Scale(nn.Identity):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


class Ghost(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.batch_norm(half, None, None, self.weight, self.bias, True) for half in x.chunk(2)])


class SoftPool(nn.MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.lp_pool2d(x, 4.0, 2, 1)


class Damp(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


class Called(nn.ReLU):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) + 1


class Partial(nn.Tanh):
    forward = functools.partialmethod(lambda self, factor, x: factor * x.tanh(), 2.0)


class Triples:
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)  # type: ignore[misc]


class Mixed(Triples, nn.Tanh):
    pass


class CallsTwice(nn.Module):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) * 2


class MixedBehind(nn.Tanh, CallsTwice):
    pass


class HalvedInput(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x**2)


class SameConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.mean()


class Standardised(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Property(nn.Conv2d):
    """Put over a convolution that is there, as torch's own tools do."""

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        weight = self._parameters["weight"]
        assert weight is not None
        return 2 * weight

    @classmethod
    def over(cls, layer: nn.Conv2d) -> nn.Conv2d:
        layer.__class__ = cls
        return layer


class Half(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class Skipping(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def patched(layer: nn.Module, factor: float = 2.0) -> nn.Module:
    inner = layer.forward
    layer.forward = lambda x: factor * inner(x)
    return layer


def partial(layer: nn.Module) -> nn.Module:
    layer.forward = functools.partial(lambda factor, x: factor * x.tanh(), 2.0)
    return layer


def conv_patched() -> nn.Module:
    layer = nn.Conv2d(4, 4, 1)
    inner = layer._conv_forward
    layer._conv_forward = lambda x, weight, bias: inner(x, 2 * weight, bias)  # type: ignore
    return layer


def conv_of_another_weight() -> nn.Module:
    layer = nn.Conv2d(4, 4, 1)
    own = layer.weight
    del layer.weight
    layer.own = own
    layer.weight = 2 * own.double()
    return layer


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Rows": Rows, "DoubleReLU": DoubleReLU, "Scale": Scale, "Ghost": lambda: Ghost(4), "SoftPool": lambda: SoftPool(2),
    "Damp": Damp, "Called": Called, "Partial": Partial, "Mixed": Mixed, "MixedBehind": MixedBehind,
    "HalvedInput": lambda: HalvedInput(2, 4), "SameConv": lambda: SameConv(4, 4, 1),
    "Standardised": lambda: Standardised(4, 4, 1), "Property": lambda: Property.over(nn.Conv2d(4, 4, 1)),
    "Half": lambda: Half(nn.Conv2d(4, 4, 1)), "Skipping": lambda: Skipping(nn.Conv2d(4, 4, 1)),
    "ELU": lambda: patched(nn.ELU()), "Tanh": lambda: partial(nn.Tanh()), "Conv2d": conv_patched,
    "MaxPool2d": lambda: patched(nn.MaxPool2d(2, 1)), "Dropout": lambda: patched(nn.Dropout(0.0)),
    "Linear": lambda: nn.Sequential(nn.Flatten(), patched(nn.Linear(64, 64)), nn.Unflatten(1, (4, 4, 4))),
}  # fmt: skip


def net(layer: nn.Module | None = None, *, first: bool = False) -> nn.Sequential:
    """A network with the layer in its first block, or in its second."""
    given = [] if layer is None else [layer]
    below, above = (given, []) if first else ([], given)
    size = {True: 64, False: 64}[first]
    pool: list[nn.Module] = [nn.AvgPool2d(2, 1)]
    body = [nn.Conv2d(3, 4, 3), nn.ELU(), *below, nn.Conv2d(4, 4, 1), nn.Tanh(), *above]
    with torch.no_grad():
        model = nn.Sequential(*body).double()
        y = model(sample(IMAGE, 4))
    if y.dim() == 4:
        body += [*pool, nn.Flatten()]
        size = 4 * (y.shape[2] - 1) ** 2
    return nn.Sequential(*body, nn.Linear(size, 3)).double()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_its_own_is_never_taken_for_its_parent(name: str, first: bool) -> None:
    if first and name == "Rows":
        pytest.skip("leaves no image for the next convolution")
    layer = LAYERS[name]()
    innermost = layer[1] if name == "Linear" else layer  # type: ignore[index]
    assert isinstance(rule_of(innermost), Opaque)
    exact = exact_or_refused(net(layer, first=first), sample(IMAGE, 4), name)
    has_weights = any(p.dim() > 1 for p in layer.parameters())
    assert exact or has_weights


def test_a_weight_made_elsewhere_is_no_parameter_of_the_layer() -> None:
    assert isinstance(rule_of(conv_of_another_weight()), Opaque)


def test_a_subclass_that_only_adds_is_its_parent() -> None:
    class Named(nn.Conv2d):
        """Has a name, and starts from other weights."""

        expansion = 4

        def __init__(self, *args: Any, name: str = "") -> None:
            super().__init__(*args)
            self.name = name

        def reset_parameters(self) -> None:
            nn.init.orthogonal_(self.weight)

        def norm(self) -> Tensor:
            return self.weight.norm()

        @staticmethod
        def of(width: int) -> Named:
            return Named(width, width, 1)

    assert type(rule_of(Named(3, 3, 1, name="a"))) is type(rule_of(nn.Conv2d(3, 3, 1)))
    assert exact_or_refused(net(Named.of(4)), sample(IMAGE, 4), "Named")


Change = Callable[[nn.Module], Any]


def scales_output(module: nn.Module, inputs: Any, y: Tensor) -> Tensor:
    return 2 * y


def looks(module: nn.Module, inputs: Any, y: Tensor) -> None:
    module.seen = y.shape  # type: ignore[assignment]


def scales_input(module: nn.Module, inputs: Any) -> Any:
    return (2 * inputs[0],)


HOOKS: dict[str, Change] = {
    "forward hook": lambda layer: layer.register_forward_hook(scales_output),
    "observer": lambda layer: layer.register_forward_hook(looks),
    "pre-hook": lambda layer: layer.register_forward_pre_hook(scales_input),
    "backward hook": lambda layer: layer.register_full_backward_hook(lambda *_: None),
    "patch": patched,
}
ON_ANY = {"first ELU": 1, "pool": 2, "tanh": 5, "norm": 4, "first map": 0, "map": 3, "last map": 8}


def long_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ELU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Tanh(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3),
    ).double()  # fmt: skip


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("place", ON_ANY)
@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_and_patches_before_and_after_are_exact_or_refused(hook: str, place: str, after: bool) -> None:
    model, x = long_net(), sample(IMAGE, 4)
    layer = model[ON_ANY[place]]
    if after:
        learner = Learner(model, EXACT)
        learner.backward(F.cross_entropy(learner(x), torch.arange(4) % 3))
        HOOKS[hook](layer)
    try:
        if not after:
            HOOKS[hook](layer)
            learner = Learner(model, EXACT)
        assert_oracle(model, learner, x)
    except UserError as refusal:
        if type(layer).__name__ not in str(refusal) or "map" not in place or hook in ("observer", "backward hook"):
            raise
    if hook == "observer":
        assert hasattr(layer, "seen")


def test_hooks_of_parameters_run() -> None:
    for after in (False, True):
        for place in (0, 3, 4, 8):
            model, x = long_net(), sample(IMAGE, 4)
            learner = Learner(model, EXACT) if after else None
            model[place].weight.register_hook(lambda gradient: 3 * gradient)  # type: ignore[operator]
            assert_oracle(model, learner or Learner(model, EXACT), x)


@pytest.mark.parametrize("after", [False, True])
def test_a_hook_on_a_container_is_refused_by_name(after: bool) -> None:
    for inner in (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh()), Residual(nn.Conv2d(4, 4, 1))):
        model, x = net(inner), sample(IMAGE, 4)
        name = type(inner).__name__
        learner = Learner(model, EXACT) if after else None
        inner.register_forward_hook(scales_output)
        with pytest.raises(UserError, match=name):
            (learner or Learner(model, EXACT))(x)


def spectral(layer: nn.Module) -> nn.Module:
    return torch.nn.utils.spectral_norm(layer, n_power_iterations=80)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Doubled())


def sparse(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return torch.rand_like(weight) > 0.4


REWEIGHTED: dict[str, Change] = {
    "pruned": lambda layer: prune.custom_from_mask(layer, "weight", sparse(layer)),
    "old weight norm": lambda layer: torch.nn.utils.weight_norm(layer),
    "weight norm": lambda layer: parametrizations.weight_norm(layer),
    "old spectral norm": spectral,
    "spectral norm": lambda layer: parametrizations.spectral_norm(layer, n_power_iterations=80),
    "doubled": doubled,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.filterwarnings("ignore:.*spectral_norm")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("place", [0, 3, 8])
@pytest.mark.parametrize("kind", REWEIGHTED)
def test_weights_that_torch_makes_of_others_are_exact(kind: str, place: int, after: bool) -> None:
    model, x = long_net(), sample(IMAGE, 4)
    learner = Learner(model, EXACT) if after else None
    REWEIGHTED[kind](model[place])
    model.double()
    if learner is None:
        learner = Learner(model, EXACT)
    learner(x)  # of which some make their weights
    learner.network.make_symmetric()
    assert_oracle(model, learner, x, 1e-7)
    mirror = Learner(model, "delta_mirror")
    mirror.backward(F.cross_entropy(mirror(x), torch.arange(4) % 3))


@pytest.fixture
def global_hook() -> Iterator[None]:
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, y: None)
    yield
    handle.remove()


@pytest.mark.usefixtures("global_hook")
def test_under_a_global_hook_all_is_exact_or_refused() -> None:
    exact_or_refused(long_net(), sample(IMAGE, 4), "")


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_two_outputs_are_refused_by_name(dims: int) -> None:
    for kind in ("MaxPool", "AdaptiveMaxPool"):
        pool = getattr(nn, f"{kind}{dims}d")(2, return_indices=True)
        with pytest.raises(UserError, match=f"{kind}{dims}d: return_indices=True"):
            Learner(nn.Sequential(nn.Flatten(), nn.Linear(3, 3), pool, nn.Linear(3, 3)), "dtp")
