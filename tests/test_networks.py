"""The networks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from targetprop import PairedNetwork, Residual, UserError
from targetprop.layers.fixed import Scale, Whitening
from targetprop.models import lenet, mlp, norm_vgg, resnet, simple_vgg, whitened_vgg
from targetprop.models.activations import ACTIVATIONS

Network = Callable[..., nn.Sequential]


def test_simple_vgg_is_the_published_one() -> None:
    model = simple_vgg((3, 32, 32), 10)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [128, 128, 256, 256, 512]
    assert {(m.kernel_size, m.stride, m.padding) for m in convolutions} == {((3, 3), (1, 1), (1, 1))}
    assert sum(isinstance(m, nn.ELU) for m in model.modules()) == 5
    assert [m.in_features for m in model.modules() if isinstance(m, nn.Linear)] == [512]


@pytest.mark.parametrize(("blocks", "parameters"), [((2, 2, 2, 2), 11_173_962), ((3, 4, 6, 3), 21_282_122)])
def test_resnets_are_those_of_small_images(blocks: tuple[int, ...], parameters: int) -> None:
    """Parameters as counted layer by layer; ImageNet's ResNets have a 7x7 stem and 1000 classes instead."""
    model = resnet((3, 32, 32), 10, blocks=blocks)
    assert sum(p.numel() for p in model.parameters()) == parameters
    bodies = [m.body for m in model.modules() if isinstance(m, Residual)]
    firsts = [body[0] for body in bodies if isinstance(body, nn.Sequential)]
    strides = [conv.stride[0] for conv in firsts if isinstance(conv, nn.Conv2d)]
    assert strides == [2 if i in (blocks[0], sum(blocks[:2]), sum(blocks[:3])) else 1 for i in range(sum(blocks))]
    assert [len(m.skip) for m in model.modules() if isinstance(m, Residual)] == [2 * (s == 2) for s in strides]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == len(convolutions) == 2 * sum(blocks) + 1 + 3
    assert all(m.bias is None for m in convolutions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (1, 2)}, "blocks: expected one number for each of 4 stages"),
        ({"blocks": 2}, "blocks: expected a list"),
        ({"channels": (), "blocks": ()}, "channels: expected at least one stage"),
        ({"norm": "yes"}, "norm: expected true or false, got 'yes'"),
    ],
)
def test_resnets_of_other_builds_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        resnet((3, 32, 32), 10, **options)


def test_whitened_vgg_is_built_as_described() -> None:
    model = whitened_vgg((3, 32, 32), 10)
    (whitening,) = (m for m in model.modules() if isinstance(m, Whitening))
    (scale,) = (m for m in model.modules() if isinstance(m, Scale))
    assert tuple(whitening.weight.shape) == (24, 3, 2, 2)
    assert scale.factor == 1 / 9
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 64, 256, 256, 256, 256]
    assert all(m.bias is None for m in convolutions)
    kinds = [[type(layer) for layer in block] for block in model]  # type: ignore[attr-defined]
    assert kinds[0] == [Whitening, nn.ELU, nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.ELU]
    assert kinds[1] == [nn.Conv2d, nn.BatchNorm2d, nn.ELU]
    assert kinds[2] == [nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.ELU]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ()}, "channels: expected at least one stage"),
        ({"depth": 0}, "depth: expected a whole number, 1 or more"),
        ({"patch": 0.5}, "patch: expected a whole number, 1 or more"),
        ({"logit_scale": 0}, "logit_scale: expected a number above 0"),
    ],
)
def test_whitened_vggs_of_other_builds_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        whitened_vgg((3, 32, 32), 10, **options)


def test_lenet_pools_with_overlap() -> None:
    model = lenet((1, 28, 28), 10)
    pools = [m for m in model.modules() if isinstance(m, nn.MaxPool2d)]
    assert [(m.kernel_size, m.stride, m.padding) for m in pools] == [(3, 2, 1)] * 2
    assert [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)] == [
        (64 * 7 * 7, 512),
        (512, 10),
    ]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("network", "options", "blocks"),
    [
        (simple_vgg, {"channels": (4, 5)}, 3),
        (lenet, {"channels": (4, 5), "hidden": 6}, 4),
        (norm_vgg, {"channels": (4, 5, 6)}, 4),
        (whitened_vgg, {"channels": (4, 5)}, 5),
        (whitened_vgg, {"channels": (4,), "depth": 3, "patch": 3}, 4),
        (mlp, {"hidden": (6, 5)}, 3),
        (resnet, {"channels": (4, 5), "blocks": (1, 2)}, 5),
        (resnet, {"channels": (4,), "blocks": (1,), "norm": False}, 3),
    ],
)
def test_network_has_one_block_a_child_and_fits_any_image(
    network: Network, options: dict[str, object], blocks: int, activation: str
) -> None:
    model = network((2, 9, 14), 7, activation=activation, **options)
    assert model(torch.randn(3, 2, 9, 14)).shape == (3, 7)
    assert len(PairedNetwork.of(model).pairs) == len(model) == blocks
    assert any(type(m) is ACTIVATIONS[activation] for m in model.modules())


@pytest.mark.parametrize(("network", "widths"), [(simple_vgg, "channels"), (mlp, "hidden")])
def test_network_without_hidden_blocks_is_linear(network: Network, widths: str) -> None:
    model = network((1, 4, 4), 2, **{widths: ()})
    assert [type(m) for m in model.modules() if not isinstance(m, nn.Sequential)] == [nn.Flatten, nn.Linear]
    assert model(torch.zeros(5, 1, 4, 4)).shape == (5, 2)


def test_image_too_small_for_simple_vgg_names_the_block() -> None:
    with pytest.raises(UserError, match=r"^Block conv4: MaxPool2d cannot take an input of 256 x 1 x 1: .*too small"):
        simple_vgg((1, 8, 8), 10)


@pytest.mark.parametrize("network", [simple_vgg, norm_vgg, lenet, mlp, resnet, whitened_vgg])
def test_unknown_activation_is_answered_with_the_nearest_name(network: Network) -> None:
    with pytest.raises(
        UserError, match=r"activation: unknown value 'leakyrelu'\. Did you mean 'leaky_relu'.*Valid: celu, elu"
    ):
        network((1, 32, 32), 10, activation="leakyrelu")
