"""GAIT-prop: beside its equations with targets as they are written, and backprop where weights are orthogonal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import ALGORITHMS, Learner, UserError
from targetprop.algorithms.gait_prop import GAIT_PROP, half_squared_error
from targetprop.feedback.orthogonal import penalty_gradient
from targetprop.layers.fixed import FirstUnits
from targetprop.measure import block_gradients
from targetprop.models import invertible_mlp

IMAGE, CLASSES, SLOPE = (1, 3, 4), 5, 0.1
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared error": half_squared_error,
    "cross-entropy": F.cross_entropy,
}


def network(depth: int = 3, widths: list[int] | None = None, *, noise: float = 0.0) -> nn.Sequential:
    """Orthogonal weights, and as much noise on them."""
    torch.manual_seed(0)
    model = invertible_mlp(IMAGE, CLASSES, depth, widths).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.orthogonal_(parameter)  # in float64
            parameter.add_(torch.randn_like(parameter), alpha=noise if parameter.dim() > 1 else 0.3)
    return model


def batch(samples: int = 8) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(samples, *IMAGE).double(), torch.randint(CLASSES, (samples,))


def gradients_of(learner: Learner, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    learner.zero_grad()
    learner.backward(loss(learner(x), y), labels=y)
    return block_gradients(learner.network)


def backprop(model: nn.Sequential, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss(model(x), y).backward()
    return [torch.cat([p.grad.flatten() for p in block.parameters() if p.grad is not None]) for block in model]


def f(a: Tensor) -> Tensor:
    return torch.where(a > 0, a, SLOPE * a)


def f_inverse(h: Tensor) -> Tensor:
    return torch.where(h > 0, h, h / SLOPE)


@pytest.mark.parametrize("penalty", [0.0, 0.05])
@pytest.mark.parametrize("gamma", [0.5, 0.05])
@pytest.mark.parametrize("widths", [[12, 12, 12], [12, 9, 7]])
def test_every_weight_is_as_by_its_equations(widths: list[int], gamma: float, penalty: float) -> None:
    model, rate = network(widths=widths, noise=0.2), 0.1
    learner = Learner(model, GAIT_PROP.with_numbers(gamma=gamma, penalty=penalty))
    own = [p.detach().clone() for p in learner.network.forward_parameters()]
    weights, biases = [w.T.contiguous() for w in own[::2]], own[1::2]  # a = h W + b, as published
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=rate)
    x, y = batch()
    for _ in range(4):
        gradients_of(learner, half_squared_error, x, y)
        optimizer.step()

        h, a = [x.flatten(1)], list[Tensor]()
        for w, b in zip(weights, biases, strict=True):
            a.append(h[-1][:, : len(w)] @ w + b)
            h.append(f(a[-1]))
        target = torch.cat((F.one_hot(y, CLASSES).double(), h[-1][:, CLASSES:]), 1)
        factor, updates = 1.0, []
        for n in range(len(weights) - 1, -1, -1):
            slopes = torch.where(a[n] > 0, torch.ones_like(a[n]), SLOPE)
            delta = factor * (h[n + 1] - target) * slopes
            updates.append((h[n][:, : len(weights[n])].T @ delta / len(x), delta.mean(0)))
            moved = (1 - gamma * slopes**2) * h[n + 1] + gamma * slopes**2 * target
            below = (f_inverse(moved) - biases[n]) @ weights[n].inverse()
            target = torch.cat((below, h[n][:, len(weights[n]) :]), 1)
            factor /= gamma
        for w, b, (dw, db) in zip(weights, biases, reversed(updates), strict=True):
            gram = w @ w.T
            dw = dw + 4 * penalty * (gram - gram.diagonal().diag()) @ w
            w.sub_(rate * dw)
            b.sub_(rate * db)
        mine = [p.detach() for p in learner.network.forward_parameters()]
        for one, other in zip(mine[::2], weights, strict=True):
            torch.testing.assert_close(one, other.T, rtol=1e-9, atol=1e-10)
        for one, other in zip(mine[1::2], biases, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("widths", [None, [12, 9, 7]])
def test_it_is_backprop_where_weights_are_orthogonal(widths: list[int] | None, loss: str) -> None:
    x, y = batch()
    learner = Learner(network(widths=widths), GAIT_PROP)
    expected = backprop(network(widths=widths), LOSSES[loss], x, y)
    for update, gradient in zip(gradients_of(learner, LOSSES[loss], x, y), expected, strict=True):
        torch.testing.assert_close(update, gradient, rtol=1e-11, atol=1e-13)


def test_it_is_not_where_they_are_not() -> None:
    x, y = batch()
    learner = Learner(network(noise=0.3), GAIT_PROP)
    first, *_, last = zip(
        gradients_of(learner, half_squared_error, x, y),
        backprop(network(noise=0.3), half_squared_error, x, y),
        strict=True,
    )
    assert float((first[0] - first[1]).norm() / first[1].norm()) > 0.1
    torch.testing.assert_close(*last, rtol=1e-11, atol=1e-13)


def test_float32_is_enough_for_a_deep_network_and_a_small_gamma() -> None:
    x, y = batch()
    wide = gradients_of(Learner(network(8, noise=0.05), GAIT_PROP), half_squared_error, x, y)
    narrow = gradients_of(Learner(network(8, noise=0.05).float(), GAIT_PROP), half_squared_error, x.float(), y)
    for one, other in zip(narrow, wide, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-4


def test_beta_is_a_factor_where_no_unit_crosses_the_kink() -> None:
    x, y = batch()
    one, half = (
        gradients_of(Learner(network(), GAIT_PROP.with_numbers(beta=beta)), half_squared_error, x, y)
        for beta in (1.0, 0.5)
    )
    for whole, part in zip(one, half, strict=True):
        torch.testing.assert_close(part, whole / 2)


def test_the_penalty_is_what_it_says_and_keeps_weights_near_orthogonal_ones() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 6).double().requires_grad_()
    gram = weight.T @ weight
    (gram - gram.diagonal().diag()).square().sum().backward()
    torch.testing.assert_close(penalty_gradient(weight.detach()), weight.grad)

    def oblique(penalty: float) -> float:
        learner = Learner(network(), GAIT_PROP.with_numbers(penalty=penalty))
        optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=0.1)
        for _ in range(30):
            gradients_of(learner, half_squared_error, *batch())
            optimizer.step()
        grams = [w.T @ w for w in learner.network.forward_parameters() if w.dim() > 1]
        return sum(float((gram - gram.diagonal().diag()).norm()) for gram in grams)

    assert oblique(0.1) < 0.5 * oblique(0.0)


def test_shared_weights_are_penalised_once() -> None:
    shared = nn.Linear(12, 12).double()
    model = nn.Sequential(nn.Flatten(), shared, nn.LeakyReLU(0.1), shared, nn.LeakyReLU(0.1))
    found = []
    for penalty in (0.0, 1.0):
        learner = Learner(model, GAIT_PROP.with_numbers(penalty=penalty))
        gradients_of(learner, lambda output, y: output.square().mean(), *batch())
        assert shared.weight.grad is not None
        found.append(shared.weight.grad.clone())
    torch.testing.assert_close(found[1] - found[0], penalty_gradient(shared.weight.detach()))


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([nn.Linear(12, 9), nn.LeakyReLU(0.1)], r"Linear\(in_features=12, out_features=9"),
        ([nn.Linear(12, 12), nn.Tanh()], r"Tanh\(\)"),
        ([nn.Linear(12, 12), nn.LeakyReLU(0.0)], "LeakyReLU"),
        ([nn.Linear(12, 12), nn.Dropout()], "Dropout"),
    ],
)
def test_blocks_that_are_not_known_to_be_invertible_are_refused(layers: list[nn.Module], named: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 12), nn.LeakyReLU(0.1), *layers)
    with pytest.raises(UserError, match=f"^network: block 2 .*{named}.* has no inverse that is known; expected square"):
        Learner(model, GAIT_PROP)


@pytest.mark.parametrize("key", ["gamma", "beta"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "1"])
def test_bad_numbers_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^{key}: expected a number above 0.*, got "):
        GAIT_PROP.with_numbers(**{key: value})
    with pytest.raises(UserError, match=r"^penalty: expected a number, 0 or more, got -1"):
        GAIT_PROP.with_numbers(penalty=-1)


@pytest.mark.parametrize(
    ("options", "key"),
    [({"depth": 0}, "depth"), ({"widths": []}, "widths"), ({"widths": [12, 13]}, "widths"),
     ({"widths": [4]}, "widths"), ({"widths": 12}, "widths"), ({"slope": 0}, "slope"), ({"slope": 2}, "slope")],
)  # fmt: skip
def test_networks_that_cannot_be_inverted_are_refused(options: dict[str, object], key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}: expected "):
        invertible_mlp(IMAGE, CLASSES, **options)  # type: ignore[arg-type]


def test_the_network_is_square_and_its_output_the_first_units() -> None:
    torch.manual_seed(0)
    model = invertible_mlp(IMAGE, CLASSES, widths=[10, 10, 6])
    sizes = [(layer.in_features, layer.out_features) for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(10, 10), (10, 10), (6, 6)]
    assert model(torch.randn(2, *IMAGE)).shape == (2, CLASSES)
    assert len(list(model)) == 3
    other = invertible_mlp((1, 2, 3), 6, depth=1)
    assert not any(isinstance(layer, FirstUnits) for layer in other.modules())


def test_other_rules_train_the_network_too() -> None:
    x, y = batch()
    for name in ("dtp", "delta_mirror", "kolen_pollack"):
        learner = Learner(network(widths=[12, 9, 7]), ALGORITHMS[name], seed=0)
        assert all(float(g.abs().max()) > 0 for g in gradients_of(learner, half_squared_error, x, y))
