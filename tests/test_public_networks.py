"""Networks that other people defined: they are what their definitions say, and rules of every kind train them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from targetprop import Learner, UserError
from targetprop.app.overrides import check_overrides
from targetprop.baselines.backprop import Backprop
from targetprop.models import conv_mixer, decoder, mlp_mixer, rnn, torchvision_resnet, vit
from targetprop.models.attention import SelfAttention
from targetprop.utils.losses import token_cross_entropy

TABLE = yaml.safe_load(Path(__file__).with_name("torchvision_resnets.yaml").read_text())
Shapes = dict[str, tuple[int, ...]]
IMAGE = (3, 16, 16)
SMALL: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "torchvision_resnet": (torchvision_resnet, IMAGE, {"stem": "cifar", "width": 4}),
    "bottlenecks": (torchvision_resnet, IMAGE, {"stem": "cifar", "width": 4, "block": "bottleneck", "layers": [1] * 4}),
    "conv_mixer": (conv_mixer, IMAGE, {"depth": 2, "width": 8}),
    "mlp_mixer": (mlp_mixer, IMAGE, {"depth": 2, "width": 8, "token_hidden": 8, "channel_hidden": 16}),
    "vit": (vit, IMAGE, {"depth": 2, "width": 8, "heads": 2, "hidden": 16}),
    "decoder": (decoder, (6,), {"depth": 2, "width": 8, "heads": 2, "hidden": 16}),
    "tied decoder": (decoder, (6,), {"depth": 1, "width": 8, "heads": 2, "hidden": 16, "tied": True}),
    "rnn": (rnn, (6, 2), {"width": 8}),
    "gru": (rnn, (6, 2), {"width": 8, "cell": "gru"}),
    "rnn of tokens": (rnn, (6,), {"width": 8, "vocabulary": 5, "places": 6}),
}
CLASSES = 5


def made(name: str) -> tuple[Any, Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """A small network, a batch, and the loss."""
    torch.manual_seed(0)
    make, shape, sizes = SMALL[name]
    net, tokens = make(shape, CLASSES, **sizes), len(shape) == 1
    x = torch.randint(CLASSES, (8, *shape)) if tokens else torch.randn(8, *shape)
    y = x.roll(1, 1) if tokens else torch.arange(8) % CLASSES
    return net, x, y, token_cross_entropy if tokens else F.cross_entropy


# What they are


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.{each}": (width,) for each in ("weight", "bias", "running_mean", "running_var")} | {
        f"{name}.num_batches_tracked": ()
    }


def expected(table: dict[str, Any]) -> Shapes:
    """Names and shapes of the state of a ResNet in the table."""
    sides = TABLE[table["block"]]["convolutions"]
    names, expansion = list(sides), 4 if table["block"] == "bottleneck" else 1
    found: Shapes = {"conv1.weight": tuple(TABLE["stem"]["conv1"]), **norm("bn1", TABLE["stem"]["bn1"])}
    width = TABLE["stem"]["bn1"]
    for stage, count in enumerate(table["stages"], start=1):
        planes = 64 * 2 ** (stage - 1)
        inner, out = planes * table.get("inner", 1), planes * expansion
        for number in range(count):
            place = f"layer{stage}.{number}"
            channels = [width, *[inner] * (len(names) - 1), out]
            for position, name in enumerate(names):
                given, made = channels[position], channels[position + 1]
                groups = table.get("groups", 1) if name == "conv2" else 1
                found[f"{place}.{name}.weight"] = (made, given // groups, sides[name], sides[name])
                found |= norm(f"{place}.bn{name[-1]}", made)
            if number == 0 and (stage > 1 or width != out):
                found[f"{place}.downsample.0.weight"] = (out, width, 1, 1)
                found |= norm(f"{place}.downsample.1", out)
            width = out
    return found | {"fc.weight": (1000, width), "fc.bias": (1000,)}


@pytest.mark.parametrize("name", TABLE["networks"])
def test_torchvisions_states_load(name: str) -> None:
    config = check_overrides([f"network={name}"]).network
    with torch.device("meta"):
        net = torchvision_resnet((3, 224, 224), 1000, **config.hparams)
    table = TABLE["networks"][name]
    assert [(key, tuple(each.shape)) for key, each in net.state_dict().items()] == list(expected(table).items())
    assert sum(p.numel() for p in net.parameters()) == table["numbers"]


def test_a_resnet_computes_what_its_definition_says() -> None:
    """Written down once more for its second stage: strides, where the skip joins, and the order of norms."""
    torch.manual_seed(0)
    net = torchvision_resnet((3, 32, 32), CLASSES, width=4).eval()
    x = torch.randn(2, 3, 32, 32)
    y = F.max_pool2d(F.relu(net.bn1(F.conv2d(x, net.conv1.weight, stride=2, padding=3))), 3, 2, 1)
    assert y.shape == (2, 4, 8, 8)
    y = net.layer1(y)
    block: Any = net.layer2[0]
    inner = F.relu(block.bn1(F.conv2d(y, block.conv1.weight, stride=2, padding=1)))
    skip = block.downsample[1](F.conv2d(y, block.downsample[0].weight, stride=2))
    first = F.relu(block.bn2(F.conv2d(inner, block.conv2.weight, padding=1)) + skip)
    torch.testing.assert_close(block(y), first)
    deep = net.layer4(net.layer3(net.layer2(y)))
    torch.testing.assert_close(net(x), net.fc(deep.mean((2, 3))))


def test_bottlenecks_stride_in_their_middle() -> None:
    net = torchvision_resnet((3, 32, 32), CLASSES, width=4, block="bottleneck", layers=[1, 1, 1, 1])
    block: Any = net.layer2[0]
    strides = [getattr(block, f"conv{number}").stride for number in (1, 2, 3)]
    assert strides == [(1, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize(("cell", "kind"), [("elman", nn.RNN), ("gru", nn.GRU)])
def test_recurrent_layers_are_torchs(cell: str, kind: type[nn.RNN] | type[nn.GRU]) -> None:
    torch.manual_seed(0)
    net = rnn((7, 3), 2, width=4, cell=cell, places=7)
    layer: Any = net[0]
    theirs: Any = kind(3, 4, batch_first=True)
    with torch.no_grad():
        layer.input.bias.normal_()
        theirs.weight_ih_l0.copy_(layer.input.weight)
        theirs.weight_hh_l0.copy_(layer.recurrent.weight)
        theirs.bias_ih_l0.copy_(layer.input.bias)
        theirs.bias_hh_l0.zero_()
    x = torch.randn(5, 7, 3)
    torch.testing.assert_close(layer(x), theirs(x)[0])
    last = rnn((7, 3), 2, width=4, cell=cell)
    last.load_state_dict(net.state_dict())
    torch.testing.assert_close(last(x), net(x)[:, -1])


def test_attention_is_torchs_and_sees_no_future() -> None:
    torch.manual_seed(0)
    ours: Any = SelfAttention(8, 2, causal=True)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([each.weight for each in (ours.query, ours.key, ours.value)]))
        theirs.in_proj_bias.copy_(torch.cat([each.bias for each in (ours.query, ours.key, ours.value)]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(3, 5, 8)
    mask = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    torch.testing.assert_close(ours(x), theirs(x, x, x, attn_mask=mask, need_weights=False)[0])
    net, tokens, _, _ = made("decoder")
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % CLASSES
    difference = (net(tokens) - net(changed)).abs().amax((0, 2))
    assert not difference[:4].any()
    assert (difference[4:] > 0).all()


def test_a_decoder_begins_as_a_uniform_answer_and_may_share_its_embeddings() -> None:
    net, tokens, y, loss = made("decoder")
    assert float(loss(net(tokens), y)) == pytest.approx(math.log(CLASSES), abs=0.1)
    tied, *_ = made("tied decoder")
    assert tied.head.weight is tied.token.weight
    with pytest.raises(UserError, match=r"^tied: expected false, since 9 tokens are not 5 classes"):
        decoder((6,), 5, tied=True, vocabulary=9)


@pytest.mark.parametrize(
    ("make", "shape", "sizes", "message"),
    [
        (torchvision_resnet, (5,), {}, r"^image_shape: expected images \(channels, height, width\), got \(5,\)"),
        (torchvision_resnet, IMAGE, {"layers": [2, 2]}, "^layers: expected four numbers"),
        (torchvision_resnet, IMAGE, {"block": "bottle"}, "^block: unknown value 'bottle'. Did you mean 'bottleneck'"),
        (torchvision_resnet, IMAGE, {"stem": "large"}, "^stem: unknown value 'large'"),
        (torchvision_resnet, IMAGE, {"groups": 2}, "^groups: expected 1 of 64 channels, without bottlenecks"),
        (vit, IMAGE, {"patch": 5}, "^patch: expected a number that divides the sides of images, 16 and 16, got 5"),
        (vit, IMAGE, {"heads": 3}, "^heads: expected a number that divides the width, 128, got 3"),
        (vit, IMAGE, {"dropout": 1}, r"^dropout: expected a number in \[0, 1\)"),
        (mlp_mixer, IMAGE, {"depth": 0}, "^depth: expected a whole number, 1 or more"),
        (conv_mixer, IMAGE, {"kernel": 4}, "^kernel: expected an odd number, got 4"),
        (conv_mixer, (7, 3), {}, "^image_shape: expected images"),
        (decoder, (5, 2), {}, r"^image_shape: expected sequences of tokens \(time,\), got \(5, 2\)"),
        (decoder, (5,), {"activation": "gel"}, "^activation: unknown value 'gel'. Did you mean 'gelu'"),
        (rnn, (5,), {}, r"^image_shape: expected sequences, \(time, features\)"),
        (rnn, (5, 2), {"cell": "lstm"}, "^cell: unknown value 'lstm'"),
        (rnn, (5, 2), {"width": 0}, "^width: "),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    make: Callable[..., nn.Module], shape: tuple[int, ...], sizes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make(shape, CLASSES, **sizes)


# They train


@pytest.mark.parametrize("name", SMALL)
def test_they_train_by_plain_torch(name: str) -> None:
    net, x, y, loss = made(name)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(loss(net(x), y))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("algorithm", ["backprop", "amortised_dtp", "delta_mirror"])
@pytest.mark.parametrize("name", SMALL)
def test_they_train_in_place_by_every_kind_of_rule(name: str, algorithm: str) -> None:
    net, x, y, loss = made(name)
    learner = Backprop(net) if algorithm == "backprop" else Learner(net, algorithm)
    optimizer = torch.optim.Adam(learner.optimizer_parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(loss(learner(x), y))
        learner.backward(losses[-1], labels=y)
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]
    assert all(p.grad is not None for p in net.parameters())
    torch.testing.assert_close(net.eval()(x), learner.eval()(x))
