"""Does a change keep every bit? Weights after 20 steps of every algorithm on four networks, before and after.

    git worktree add ../before a336cb7
    python tests/commands/same_weights.py ../before .

Both trees train from their own configuration, each in a process of its own, with one thread and with two; the table
shows for each algorithm and network whether all weights, forward and feedback, are equal. Difference target
propagation on resnet18 differs on purpose, which is shown and not counted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

STEPS, BATCH = 20, 16
NETWORKS = {
    "tiny_vgg": ((1, 8, 8), []),
    "lenet": ((3, 16, 16), ["network.hparams.channels=[6,8]", "network.hparams.hidden=32"]),
    "mlp": ((3, 16, 16), ["network.hparams.hidden=[40,30,20]"]),
    "resnet18": ((3, 16, 16), ["network.hparams.channels=[8,8,16,16]", "network.hparams.blocks=[1,1,1,1]"]),
}
"""Shape of the images, and overrides."""
ADJOINT = "model.hparams.style=adjoint"
"""What the first edition called the published style, but for its batch norm, which had no feedback."""

NUMBERS = [
    "model.hparams.beta=0.7",
    "model.hparams.noise=0.2",
    "model.hparams.b_optim.type=sgd",
    "model.hparams.b_optim.lr=1e-7",
    "model.hparams.b_optim.momentum=0.9",
]
"""Of rules whose own numbers on some of these networks do not fit, or have changed since."""
NOISE, RATE = "model.hparams.noise=0.2", "model.hparams.b_optim.lr=1e-4"
"""Of L-DRL: the first edition had rounded the published numbers of lenet."""
FIRST, SECOND = 0, 1
ALGORITHMS: dict[str, tuple[list[str], list[str]]] = {
    "dtp": (["model=dtp", NOISE, RATE], ["model=dtp", NOISE, RATE, ADJOINT]),
    "dtp, autograd": (
        ["model=dtp", NOISE, RATE, "feedback=textbook"],
        ["model=dtp", NOISE, RATE, "model.hparams.gradient=autograd", ADJOINT],
    ),
    "layer_parallel_dtp": (
        ["model=layer_parallel_dtp", NOISE, RATE],
        ["model=layer_parallel_dtp", NOISE, RATE, ADJOINT],
    ),
    "parallel_dtp": (["model=parallel_dtp", NOISE], ["model=parallel_dtp", NOISE, ADJOINT]),
    "vanilla_dtp": (["model=vanilla_dtp", *NUMBERS], ["model=vanilla_dtp", *NUMBERS, ADJOINT]),
    "lee_dtp": (["model=lee_dtp", *NUMBERS], ["model=lee_dtp", *NUMBERS]),
    "tp": (["model=tp", *NUMBERS], ["model=tp", *NUMBERS, ADJOINT]),
    "kolen_pollack": (["model=dtp", "feedback=kolen_pollack"], ["model=kolen_pollack"]),
    "fixed_dtp": (["model=dtp", "model.hparams.feedback_training_iterations=0"], ["model=fixed_dtp", ADJOINT]),
    "delta_mirror": (["model=amortised_dtp"], ["model=delta_mirror"]),
    "backprop": (["model=backprop"], ["model=backprop"]),
}
"""Overrides of the first edition (the `feedback` group), and of the second."""
MEANT = {(name, "resnet18") for name, (_, second) in ALGORITHMS.items() if ADJOINT in second}
"""Those that differ on purpose: their batch norm has feedback now."""


def train(overrides: Sequence[str], shape: tuple[int, ...], rate: float) -> list[torch.Tensor]:
    """Weights after `STEPS` steps on random images, in the order of the network; runs in one of the trees."""
    import hydra

    import targetprop

    package = Path(targetprop.__file__).parent
    app = "app" if (package / "app").is_dir() else "training"
    build_module = importlib.import_module(f"targetprop.{app}.run").build_module
    conf = package / "app" / "conf" if app == "app" else package / "conf"
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        config = hydra.compose("config", [*overrides, "scheduler=none", f"model.hparams.f_optim.lr={rate}"])
    torch.manual_seed(0)
    data: Any = SimpleNamespace(image_shape=shape, num_classes=10, classes=[str(number) for number in range(10)])
    module = build_module(config, data)
    optimizer = module.configure_optimizers()
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.randn(BATCH, *shape, generator=generator)
        y = torch.randint(10, (BATCH,), generator=generator)
        module.learner.backward(torch.nn.functional.cross_entropy(module.learner(x), y))
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in module.learner.network.parameters()]


def record(edition: int, threads: int, path: Path) -> None:
    """Train everything in this process's tree."""
    torch.set_num_threads(threads)
    weights = {}
    for name, both in ALGORITHMS.items():
        for network, (shape, changes) in NETWORKS.items():
            weights[name, network] = train([*both[edition], f"network={network}", *changes], shape, rate=0.01)
    torch.save({"/".join(key): value for key, value in weights.items()}, path)


def compared(first: list[torch.Tensor], second: list[torch.Tensor]) -> str:
    """In a word, and the largest difference if there is one."""
    if [each.shape for each in first] != [each.shape for each in second]:
        return "other shapes"
    if not all(bool(each.isfinite().all()) for each in first):
        return "not finite"
    apart = max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))
    return "equal" if all(map(torch.equal, first, second)) else f"{apart:.1e}"


def main() -> None:
    """Record both trees and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs=2, type=Path, help="the first edition's, and the present one")
    parser.add_argument("--keep", type=Path, help="folder for the weights; those that lie there are not made anew")
    parser.add_argument("--record", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.record:
        return record(int(options.record[0]), int(options.record[1]), Path(options.record[2]))
    folder = options.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    differing = 0
    for threads in (1, 2):
        files = []
        for edition, tree in enumerate(options.trees):
            files.append(folder / f"{edition}-{threads}.pt")
            if not files[-1].exists() or edition == SECOND:
                command = [sys.executable, __file__, *map(str, options.trees), "--record", str(edition), str(threads)]
                environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
                subprocess.run([*command, str(files[-1])], check=True, env=environment)
        first, second = (torch.load(file) for file in files)
        print(f"{threads} thread{'s' * (threads > 1)}".ljust(22), *(name.ljust(12) for name in NETWORKS))
        for name in ALGORITHMS:
            found = [compared(first[f"{name}/{network}"], second[f"{name}/{network}"]) for network in NETWORKS]
            meant = [(name, network) in MEANT for network in NETWORKS]
            differing += sum(each != "equal" and not wanted for each, wanted in zip(found, meant, strict=True))
            print(name.ljust(22), *(each.ljust(12) for each in found), flush=True)
    sys.exit(f"{differing} differ" if differing else 0)


if __name__ == "__main__":
    main()
