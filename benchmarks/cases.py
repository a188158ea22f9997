"""What the benchmarks measure: networks with their published settings, modes of training, and one training step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import get_method
from omegaconf import DictConfig
from torch import Tensor, nn

from targetprop import (
    AMORTISED_DTP,
    DELTA_MIRROR,
    DTP,
    WEIGHT_MIRROR,
    Algorithm,
    ByLoss,
    Fixed,
    Learner,
    OptimizerSpec,
    Pair,
    Trace,
)
from targetprop.app.objects import plain
from targetprop.app.overrides import check_overrides
from targetprop.baselines.backprop import Backprop
from targetprop.data import Augmentation, BatchLoader, Images
from targetprop.noise import Draw
from timing import Step

IMAGE, CLASSES = (3, 32, 32), 10

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("simple_vgg", {}),
    "small": ("simple_vgg", {"channels": [32, 32, 64, 64, 128]}),
    "lenet": ("lenet", {}),
    "mlp": ("mlp", {}),
    "resnet18": ("resnet18", {}),
    "tiny": ("tiny_vgg", {"channels": [4, 8]}),
}
"""Configuration of each network, and what differs from it. "tiny" is there to try a benchmark out."""
VGGS = ("full", "small", "tiny")

TEXTBOOK, STRICT = "backprop, textbook", "backprop, strict"
YARDSTICKS = (TEXTBOOK, STRICT)
NO_FEEDBACK = "no feedback learning"
UNCACHED = "autograd, nothing kept"
"""L-DRL as published code computes it: our stand-in for that code, which is not timed here."""
BY_RESPONSES: dict[str, tuple[Algorithm, dict[str, Any]]] = {
    "amortised_dtp": (AMORTISED_DTP, {}),
    "amortised_dtp, gained": (AMORTISED_DTP, {"style": "gained"}),
    "amortised_dtp, reads_weights": (AMORTISED_DTP, {"reads_weights": True}),
    "delta_mirror": (DELTA_MIRROR, {}),
    "delta_mirror, reads_weights": (DELTA_MIRROR, {"reads_weights": True}),
    "weight_mirror": (WEIGHT_MIRROR, {}),
}
"""Modes whose feedback learns from responses to noise, and what differs from the algorithm."""
MODES = (UNCACHED, "autograd", "closed_form", *BY_RESPONSES, NO_FEEDBACK)
"""Ways to train; see `change`."""


@cache
def configured(network: str) -> DictConfig:
    """What `python main.py` composes to train one of `NETWORKS` by L-DRL on CIFAR-10."""
    return check_overrides(["model=dtp", f"network={NETWORKS[network][0]}", "datamodule=cifar10"])


def build_network(name: str) -> nn.Sequential:
    """One of `NETWORKS` for images of CIFAR-10, always with the same weights."""
    settings = configured(name).network
    torch.manual_seed(0)
    return get_method(settings._target_)(IMAGE, CLASSES, **{**plain(settings.hparams), **NETWORKS[name][1]})


def algorithm_of(network: str, mode: str) -> Algorithm:
    """One of the `MODES` with the published settings of a network."""
    numbers = plain(configured(network).model.hparams)
    del numbers["f_optim"]  # which is not the algorithm's
    numbers["b_optim"] = OptimizerSpec(**numbers["b_optim"])
    return change(DTP.with_numbers(**numbers), mode)


def change(l_drl: Algorithm, mode: str) -> Algorithm:
    """One of the `MODES` with the step size of an algorithm with L-DRL; with all of a noise budget at every step."""
    if mode in BY_RESPONSES:
        algorithm, numbers = BY_RESPONSES[mode]
        whole = {"adaptive": False} if "adaptive" in algorithm.numbers else {}
        return algorithm.with_numbers(beta=l_drl.numbers["beta"], **whole, **numbers)
    if mode == NO_FEEDBACK:
        return replace(l_drl, feedback=Fixed())
    if mode == UNCACHED:
        assert isinstance(l_drl.feedback, ByLoss)
        return replace(l_drl, feedback=replace(l_drl.feedback, loss=uncached_l_drl))
    return l_drl.with_numbers(gradient=mode)


def uncached_l_drl(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
    """L-DRL as published code computes it: two encoder and three decoder passes an iteration, nothing kept."""
    eps, eta = draw("input", trace.x), draw("output", trace.y)
    with torch.no_grad():
        y, context = pair.encode(trace.x)
        noisy, noisy_context = pair.encode(trace.x + eps)
    clean = pair.decode(y, context)
    response = pair.decode(noisy, noisy_context) - clean
    output_response = pair.decode(y + eta, context) - clean
    return (output_response.square().sum() - 2 * (eps * response).sum()) / len(eps)


def make_learner(network: nn.Sequential, mode: str, algorithm: Algorithm | None, device: torch.device) -> nn.Module:
    """What trains `network` on `device`: the network itself for textbook backprop, else a `Backprop` or a `Learner`.

    Args:
        mode: one of `YARDSTICKS`, or anything else for target propagation by `algorithm`.
    """
    network = network.to(device)
    if mode == TEXTBOOK:
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if mode == STRICT:
        return Backprop(network)
    assert algorithm is not None
    return Learner(network, algorithm)


def learner_of(network: str, mode: str, device: torch.device) -> nn.Module:
    """A fresh learner of one of `NETWORKS` by one of the `YARDSTICKS` or `MODES`, with published settings."""
    algorithm = None if mode in YARDSTICKS else algorithm_of(network, mode)
    return make_learner(build_network(network), mode, algorithm, device)


def forward_parameters(learner: nn.Module) -> list[nn.Parameter]:
    """What the forward optimiser trains."""
    if isinstance(learner, (Learner, Backprop)):
        return learner.optimizer_parameters()
    return list(learner.parameters())


def forward_rate(network: str, mode: str) -> float:
    """The network's published forward rate; for backprop the one that gives steps of the same size."""
    numbers = plain(configured(network).model.hparams)
    rate: float = numbers["f_optim"]["lr"]
    return rate * numbers["beta"] if mode in YARDSTICKS else rate


def make_optimizer(learner: nn.Module, rate: float) -> torch.optim.Optimizer:
    """The published forward optimiser."""
    return torch.optim.SGD(forward_parameters(learner), lr=rate, momentum=0.9, weight_decay=1e-4)


def learn(learner: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Forward and backward of one step; returns the loss."""
    loss = F.cross_entropy(learner(x), y)
    if isinstance(learner, (Learner, Backprop)):
        learner.backward(loss)
    else:
        loss.backward()
    return loss.detach()


def step_of(learner: nn.Module, x: Tensor, y: Tensor) -> Step:
    """One whole training step: forward, backward, optimiser. The forward rate is zero: weights stay where they are."""
    optimizer = make_optimizer(learner, rate=0.0)

    def step() -> None:
        learn(learner, x, y)
        optimizer.step()
        optimizer.zero_grad()

    return step


def random_batch(batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images and labels, always the same."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, *IMAGE, generator=generator).to(device).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(CLASSES, (batch,), generator=generator).to(device)


def random_images(count: int) -> Images:
    """Images of the form of CIFAR-10, for what depends on their number and size only."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, *IMAGE), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % CLASSES
    return Images(pixels, labels, tuple(f"class {number}" for number in range(CLASSES)))


def cifar_loader(images: Images, batch: int, *, train: bool = True, augment: bool = True) -> BatchLoader:
    """Batches as the configuration of CIFAR-10 makes them; for training they are shuffled, and augmented if asked."""
    settings = configured("small").datamodule
    augmentation = Augmentation(settings.augmentation.flip, settings.augmentation.crop) if train and augment else None
    return BatchLoader(images, batch, settings.mean, settings.std, shuffle=train, augmentation=augmentation)


def endless(loader: BatchLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of one epoch after the other."""
    while True:
        yield from loader
