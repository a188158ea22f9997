"""What the benchmarks measure: networks with their published settings, modes of training, and one training step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import get_method
from omegaconf import OmegaConf
from torch import Tensor, nn

import targetprop
from targetprop import AMORTISED_DTP, DTP, Learner, OptimizerSpec, Pair, Recipe, Trace
from targetprop.baselines.backprop import Backprop
from targetprop.data import Augmentation, BatchLoader, Images
from targetprop.feedback.rules import Draw
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
MODES = ("published", "textbook", "exact", "expected", "amortised", NO_FEEDBACK)
"""Ways to train by target propagation; see `recipe_of`."""


def conf(name: str) -> Any:
    """A file of the library's configuration, e.g. "network/lenet"."""
    return OmegaConf.load(Path(targetprop.__file__).parent / "app" / "conf" / f"{name}.yaml")


def build_network(name: str) -> nn.Sequential:
    """One of `NETWORKS` for images of CIFAR-10, always with the same weights."""
    config, changes = NETWORKS[name]
    settings = conf(f"network/{config}")
    hparams: Any = OmegaConf.to_container(settings.hparams)
    torch.manual_seed(0)
    return get_method(settings._target_)(IMAGE, CLASSES, **{**hparams, **changes})


def recipe_of(network: str, mode: str) -> Recipe:
    """The recipe of one of the `MODES` with the published settings of a network."""
    dtp: Any = OmegaConf.to_container(conf(f"network/{NETWORKS[network][0]}").dtp)
    numbers = {key: dtp[key] for key in ("beta", "feedback_training_iterations", "noise")}
    return change(replace(DTP, b_optim=OptimizerSpec("sgd", dtp["b_lr"], momentum=0.9), **numbers), mode)


def change(recipe: Recipe, mode: str) -> Recipe:
    """An L-DRL recipe in one of the `MODES`."""
    if mode == "published":
        return replace(recipe, feedback_loss=uncached_l_drl)
    if mode == "amortised":
        return replace(AMORTISED_DTP, beta=recipe.beta, adaptive=False)  # the whole budget, at every step
    if mode == NO_FEEDBACK:
        return replace(recipe, feedback_loss=None)
    return replace(recipe, feedback=mode)


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


def make_learner(network: nn.Sequential, mode: str, recipe: Recipe | None, device: torch.device) -> nn.Module:
    """What trains `network` on `device`: the network itself for textbook backprop, else a `Backprop` or a `Learner`.

    Args:
        mode: one of `YARDSTICKS`, or anything else for target propagation by `recipe`.
    """
    network = network.to(device)
    if mode == TEXTBOOK:
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if mode == STRICT:
        return Backprop(network)
    assert recipe is not None
    return Learner(network, recipe)


def learner_of(network: str, mode: str, device: torch.device) -> nn.Module:
    """A fresh learner of one of `NETWORKS` by one of the `YARDSTICKS` or `MODES`, with published settings."""
    recipe = None if mode in YARDSTICKS else recipe_of(network, mode)
    return make_learner(build_network(network), mode, recipe, device)


def forward_parameters(learner: nn.Module) -> list[nn.Parameter]:
    """What the forward optimiser trains."""
    if isinstance(learner, (Learner, Backprop)):
        return learner.network.forward_parameters()
    return list(learner.parameters())


def forward_rate(network: str, mode: str) -> float:
    """The network's published forward rate; for backprop the one that gives steps of the same size."""
    dtp = conf(f"network/{NETWORKS[network][0]}").dtp
    return dtp.f_lr * dtp.beta if mode in YARDSTICKS else dtp.f_lr


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
    settings = conf("datamodule/cifar10")
    augmentation = Augmentation(settings.augmentation.flip, settings.augmentation.crop) if train and augment else None
    return BatchLoader(images, batch, settings.mean, settings.std, shuffle=train, augmentation=augmentation)


def endless(loader: BatchLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of one epoch after the other."""
    while True:
        yield from loader
