"""Under autocast to bfloat16 a step is the float32 step, up to the rounding that backprop has there, too."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import (
    DELTA_MIRROR,
    DTP,
    FIXED_DTP,
    Algorithm,
    DifferenceTargets,
    FeedbackLayer,
    Fixed,
    LayerRule,
    Learner,
    Residual,
    Step,
    UserError,
    register,
)
from targetprop.baselines.backprop import Backprop
from targetprop.execution.recompute import recomputed
from targetprop.layers.base import Style
from targetprop.layers.conv import Convolution, ConvolutionFeedback
from targetprop.local import local_loss
from targetprop.measure.alignment import angle
from targetprop.noise import NoiseKey


class OwnConv(nn.Conv2d):
    """A layer that is not known to be linear, so that feedback watches what it does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@register(OwnConv)
class OwnRule(LayerRule[OwnConv]):
    any_memory_order = True

    def feedback(self, layer: OwnConv, style: Style) -> FeedbackLayer:
        return ConvolutionFeedback(layer)


NETWORKS: dict[str, Callable[[], Sequence[nn.Module]]] = {
    "elu": lambda: (
        nn.Conv2d(3, 8, 3), nn.ELU(), nn.MaxPool2d(2), nn.Conv2d(8, 64, 3, padding=1), nn.ELU(),
        nn.Conv2d(64, 6, 3), nn.ELU(), nn.Flatten(), nn.Linear(150, 10),
    ),
    "norms": lambda: (
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8, affine=False), nn.GELU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(200, 10, bias=False),
        nn.BatchNorm1d(10),
    ),
    "pools": lambda: (
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3),
        nn.AdaptiveMaxPool2d(2), nn.LeakyReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "residual": lambda: (
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        Residual(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)),
            nn.Conv2d(8, 8, 1),
        ),
        nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(392, 10),
    ),
    "mlp": lambda: (
        nn.Flatten(), nn.Linear(768, 64), nn.ELU(), nn.Dropout(0.0), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10)
    ),
    "convolution on top": lambda: (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ELU(), nn.Conv2d(8, 8, 3)), OwnConv(8, 8, 3), nn.ELU(),
        nn.Conv2d(8, 10, 10), nn.ELU(), nn.Flatten(),
    ),
}  # fmt: skip
bfloat16 = torch.autocast("cpu", torch.bfloat16)


def noise(key: NoiseKey, like: Tensor) -> Tensor:
    """The same in every type."""
    generator = torch.Generator().manual_seed(zlib.crc32(repr(tuple(key)).encode()))
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)


def two_steps(
    network: str, algorithm: Algorithm | None, mixed: bool
) -> tuple[Learner | Backprop, list[Tensor], Step | None]:
    """A learner (backprop for None) after two steps, its second gradients, and the step."""
    torch.manual_seed(0)
    model = nn.Sequential(*NETWORKS[network]())
    learner = Backprop(model) if algorithm is None else Learner(model, algorithm, noise=noise)
    step: Step | None = None
    for _ in range(2):
        model.zero_grad()
        x, y = torch.randn(32, 3, 16, 16), torch.randint(10, (32,))
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = F.cross_entropy(learner(x), y)
        if isinstance(learner, Learner):
            step = learner.backward(loss)
        else:
            learner.backward(loss)
    return learner, [p.grad for p in model.parameters() if p.grad is not None], step


MATCHED = Algorithm(DifferenceTargets(), Fixed(init_symmetric_weights=True, style="matched"))
"""With the feedback weights that a mirror comes to, and feedback that is not linear: differences of it are formed."""


@pytest.mark.parametrize("algorithm", [DELTA_MIRROR, MATCHED], ids=["linear", "matched"])
@pytest.mark.parametrize("network", NETWORKS)
def test_updates_are_as_near_to_those_of_float32_as_those_of_backprop(network: str, algorithm: Algorithm) -> None:
    wide, wide_gradients, wide_step = two_steps(network, algorithm, mixed=False)
    mixed, gradients, step = two_steps(network, algorithm, mixed=True)
    _, backprop_wide, _ = two_steps(network, None, mixed=False)
    _, backprop_mixed, _ = two_steps(network, None, mixed=True)
    allowed = [float(angle(a, b)) for a, b in zip(backprop_wide, backprop_mixed, strict=True)]
    for a, b, limit in zip(wide_gradients, gradients, allowed, strict=True):
        assert not torch.equal(a, b)
        assert float(angle(a, b)) < 1.3 * limit + 1.5
    assert isinstance(mixed, Learner)
    assert isinstance(wide, Learner)
    assert step is not None
    assert wide_step is not None
    for a, b in zip(wide.network.feedback_parameters(), mixed.network.feedback_parameters(), strict=True):
        assert b.dtype == torch.float32
        assert a.dim() == 1 or float(angle(a.detach(), b.detach())) < 0.1
    for tensor in (*gradients, step.feedback_losses, step.local_losses, step.activities, *mixed.buffers()):
        assert tensor.dtype != torch.bfloat16
    torch.testing.assert_close(step.local_losses, wide_step.local_losses, rtol=0.02, atol=0)
    torch.testing.assert_close(list(mixed.buffers()), list(wide.buffers()), rtol=0.01, atol=0.01)


def test_backward_works_in_the_precision_of_its_forward_pass_wherever_it_is_called() -> None:
    learners = [Learner(nn.Sequential(*NETWORKS["mlp"]()), DELTA_MIRROR, noise=noise) for _ in range(2)]
    learners[1].load_state_dict(learners[0].state_dict())
    x, y = torch.randn(8, 3, 16, 16), torch.randint(10, (8,))
    for learner, inside in zip(learners, (False, True), strict=True):
        with bfloat16:
            logits = learner(x)
            loss = F.cross_entropy(logits, y)
        assert logits.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            learner.backward(loss)
    gradients = [[p.grad for p in learner.network.forward_parameters()] for learner in learners]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    with bfloat16:
        wide = Learner(nn.Sequential(*NETWORKS["mlp"]()), DELTA_MIRROR, noise=noise)
    loss = F.cross_entropy(wide(x), y)
    with bfloat16:
        step = wide.backward(loss, keep=True)
    assert all(target.dtype == torch.float32 for target in step.targets)


@pytest.mark.parametrize("recompute", [False, True])
def test_one_context_around_many_steps_sees_the_weights_change(recompute: bool) -> None:
    learner = Learner(nn.Sequential(*NETWORKS["elu"]()), DELTA_MIRROR)
    if recompute:
        learner = recomputed(learner)
    optimizer = torch.optim.SGD(learner.network.forward_parameters(), lr=0.1)
    x, y = torch.randn(32, 3, 16, 16), torch.randint(10, (32,))
    losses = []
    with bfloat16:
        for _ in range(20):
            losses.append(F.cross_entropy(learner(x), y))
            learner.backward(losses[-1])
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < 0.9 * losses[0]


def test_what_is_unsound_in_low_precision_is_refused() -> None:
    x = torch.randn(4, 3, 16, 16)
    with bfloat16, pytest.raises(UserError, match=r"^autocast: .* block 2 .* 'amortised_dtp'"):
        Learner(nn.Sequential(*NETWORKS["mlp"]()), DTP)(x)
    with torch.autocast("cpu", torch.float16), pytest.raises(UserError, match="expected bfloat16"):
        Learner(nn.Sequential(*NETWORKS["mlp"]()), DELTA_MIRROR)(x)
    with bfloat16:
        Learner(nn.Sequential(*NETWORKS["mlp"]()), FIXED_DTP)(x)

    def several_maps() -> nn.Sequential:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(768, 5), nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
        )

    with bfloat16, pytest.raises(UserError, match=r"block 2 .* needs differences of nearly equal numbers"):
        Learner(several_maps(), FIXED_DTP)(x)
    with bfloat16:
        Learner(several_maps(), DELTA_MIRROR)(x)


def test_sums_over_a_batch_are_float32() -> None:
    ones = torch.ones(300, 8, 4, 4, dtype=torch.bfloat16)
    assert local_loss(ones) == 64
    wide = Convolution.of(nn.Conv2d(64, 8, 3, padding=1))
    x = torch.ones(300, 64, 16, 16, dtype=torch.bfloat16)
    sums = wide.correlate(x, torch.ones(300, 8, 16, 16, dtype=torch.bfloat16))
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums[:, :, 1, 1], torch.full((8, 64), 300.0 * 256), rtol=4e-3, atol=0)
