"""What Lightning costs: the same steps by a plain loop over `Learner`, and by the Trainer as main.py builds it.

    python benchmarks/lightning_overhead.py --network small --model amortised_dtp
    python benchmarks/lightning_overhead.py --model backprop --steps 100

The Trainer runs with its default callbacks (angles every 25 steps, progress, checkpoints) and with callbacks=none, both
with the default loggers. Each run makes `--steps` steps of one epoch on random images of CIFAR-10's size, after one
that is not timed. All that happens between these steps counts, what happens once an epoch (validation, checkpoints,
curves) does not. Runs of all kinds take turns; the table shows medians of runs.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Sequence
from itertools import islice
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from cases import NETWORKS, cifar_loader, random_images
from targetprop.app.module import TaskModule
from targetprop.app.overrides import check_overrides
from targetprop.app.run import build_module
from targetprop.data import Splits
from timing import medians, parser, positive, prepare, synchronize, title, write_record

LOOP = "plain loop"
TRAINERS = {"Trainer, callbacks=default": "default", "Trainer, callbacks=none": "none"}


class Clock(L.Callback):
    """Seconds from the end of the first step to the end of the last one."""

    def __init__(self, steps: int) -> None:
        self.bounds = (0, steps - 1)
        self.times: list[float] = []

    def tick(self, step: int, device: torch.device) -> None:
        """Step number `step` has ended."""
        if step in self.bounds:
            synchronize(device)
            self.times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """A step."""
        start, end = self.times
        return (end - start) / self.bounds[1]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tick."""
        self.tick(batch_idx, pl_module.device)


def compose(network: str, model: str, batch: int, steps: int, device: str, callbacks: str, output: str) -> DictConfig:
    """What main.py composes for one epoch of so many steps."""
    config, changes = NETWORKS[network]
    return check_overrides(
        [
            f"network={config}",
            *(f"network.hparams.{key}={value}" for key, value in changes.items()),
            f"model={model}",
            "datamodule=cifar10",
            f"datamodule.batch_size={batch}",
            f"callbacks={callbacks}",
            f"trainer.gpus={int(device == 'cuda')}",
            "trainer.max_epochs=1",
            f"trainer.limit_train_batches={steps}",
            "trainer.limit_val_batches=1",
            f"output_dir={output}",
        ]
    )


def make_module(config: DictConfig, splits: Splits) -> tuple[TaskModule, L.LightningDataModule]:
    """The module, and the data module on these images."""
    datamodule = instantiate(config.datamodule, load=lambda data_dir, download: splits)
    return build_module(config, datamodule), datamodule


def by_trainer(config: DictConfig, splits: Splits, clock: Clock) -> None:
    """One epoch by Lightning."""
    module, datamodule = make_module(config, splits)
    callbacks = [instantiate(each) for each in (config.get("callbacks") or {}).values()]
    loggers = [instantiate(each) for each in config.logger.values()]
    trainer = instantiate(config.trainer, callbacks=[*callbacks, clock], logger=loggers)
    trainer.fit(module, datamodule=datamodule)


def by_loop(config: DictConfig, splits: Splits, clock: Clock, device: torch.device) -> None:
    """The same steps without Lightning."""
    module, _ = make_module(config, splits)
    learner = module.to(device).learner
    optimizer = module.f_optim.build(learner.optimizer_parameters())
    loader = cifar_loader(splits.train.to(device), config.datamodule.batch_size)
    for number, (x, y) in enumerate(islice(loader, config.trainer.limit_train_batches)):
        optimizer.zero_grad()
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()
        clock.tick(number, device)


def quiet() -> None:
    """Without the advice of Lightning's that does not hold here."""
    warnings.filterwarnings("ignore", module="lightning")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--network", choices=NETWORKS, default="small")
    made.add_argument("--model", choices=("amortised_dtp", "backprop", "dtp"), default="amortised_dtp")
    made.add_argument("--batch", type=positive, default=128)
    made.add_argument("--steps", type=positive, default=50, help="timed, of each run")
    made.add_argument("--repeats", type=positive, default=5, help="runs of each kind")
    options = made.parse_args(arguments)
    device = prepare(options)
    quiet()
    images = random_images(2 * (options.steps + 1) * options.batch)
    splits = Splits(train=images, test=images)
    times: dict[str, list[float]] = {name: [] for name in (LOOP, *TRAINERS)}
    for _ in range(options.repeats):
        for name, seconds in times.items():
            clock = Clock(options.steps + 1)
            with tempfile.TemporaryDirectory() as output:
                fixed = (options.network, options.model, options.batch, options.steps + 1, options.device)
                config = compose(*fixed, TRAINERS.get(name, "none"), output)
                if name == LOOP:
                    by_loop(config, splits, clock, device)
                else:
                    by_trainer(config, splits, clock)
            seconds.append(clock.seconds)
    Console().print(table_of(title(f"{options.model}, {options.network}, batch {options.batch}", options), times))
    write_record(options, "lightning_overhead", {"medians": medians(times), "seconds_per_step": times})


def table_of(heading: str, times: dict[str, list[float]]) -> Table:
    """Milliseconds of a step, and their ratio to the plain loop."""
    table = Table("", "step, ms", "x plain loop", "runs", title=heading)
    middle = medians(times)
    for name, seconds in middle.items():
        table.add_row(name, f"{1000 * seconds:.2f}", f"{seconds / middle[LOOP]:.3f}", str(len(times[name])))
    return table


if __name__ == "__main__":
    main()
