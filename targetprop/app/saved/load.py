"""A trained network out of the directory of its run: `targetprop.load`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from targetprop.app.checkpoint.files import record_in
from targetprop.app.checkpoint.find import find
from targetprop.app.checkpoint.resume import check_state, unusable
from targetprop.app.described import Described, describe, described
from targetprop.app.objects import build
from targetprop.app.run import assemble, build_network
from targetprop.app.schema.objects import find_target
from targetprop.utils.errors import UserError, prefixed, require

if TYPE_CHECKING:
    from targetprop.app.module import TaskModule
    from targetprop.trainable import Trainable

CHECKPOINTS = ("best", "last")
KEY = "run"
BATCH = 500
"""Examples that are shown to a network at a time."""


@dataclass(frozen=True)
class Trained:
    """What a run trained, in evaluation mode on the CPU.

    Attributes:
        network: the network as its author wrote it, an ordinary module with its own names. It shares its weights with
            the learner and needs it for nothing: `network.state_dict()` fits the same network made anywhere else.
        module: what Lightning trained, with `learner`, task and loss.
        config: the run's whole configuration.
        data: what is known of its data: `shape`, `classes`, `mean`, `std`, `vocabulary`.
        path: of the checkpoint.
        made_with: command, versions, commits and machine of the run.
    """

    network: nn.Module
    module: TaskModule
    config: DictConfig
    data: Described
    path: Path
    made_with: Mapping[str, Any]

    @property
    def learner(self) -> Trainable:
        """What trains the network, with the state of its feedback: a `Learner`, or what stood in its place."""
        return self.module.learner

    @torch.no_grad()
    def predict(self, examples: Tensor) -> Tensor:
        """Outputs of the network for examples as the data set has them (batch, ...).

        They are (batch, outputs), or (batch, time, outputs) where every place of a sequence has a label.

        Args:
            examples: images as bytes, which are normalised as in the run; other inputs as they are, floats or tokens.

        Raises:
            UserError: they are of another shape or type than those of the run.
        """
        expected = f"examples of {self.data.shape}, {self.data.kind}"
        fits = self.data.takes(examples)
        fits = fits and examples.ndim == 1 + len(self.data.shape) and tuple(examples.shape[1:]) == self.data.shape
        found = f"{str(examples.dtype).removeprefix('torch.')} of {tuple(examples.shape)}"
        if self.data.vocabulary is not None and examples.numel() and not examples.is_floating_point():
            found += f", {int(examples.min())} to {int(examples.max())}"
        require(fits, "examples", expected, found)
        like = next(self.network.parameters())
        self.network.eval()
        dtype = like.dtype if self.data.vocabulary is None else self.data.dtype
        parts = [self.network(self.data.inputs(each.cpu()).to(dtype)) for each in examples.split(BATCH)]
        return torch.cat(parts) if parts else like.new_zeros(0, *self.module.task.output_shape(self.data))


def load(run: Path | str, checkpoint: str = "best") -> Trained:
    """What a run trained, out of its directory, or out of one of its checkpoints.

    >>> trained = targetprop.load("runs/2026-11-27/12-00-00-000000")
    >>> mine.load_state_dict(trained.network.state_dict())  # the same network, made anywhere

    Neither data nor command line are needed. Code of your own that the run used must be importable.

    Args:
        run: its directory, or a file of a checkpoint.
        checkpoint: "best", of the best validation, where there is one, else the last; or "last".

    Raises:
        UserError: there is no such run or checkpoint, it is damaged, or was made by another edition.
    """
    require(checkpoint in CHECKPOINTS, "checkpoint", " or ".join(CHECKPOINTS), checkpoint)
    with prefixed(KEY):
        path, saved = _found(Path(run), checkpoint)
        record = record_in(saved)
        if record is None:
            raise UserError(f"{path} holds weights, but not of which run they are.")
    config = OmegaConf.create(dict(record["config"]))
    assert isinstance(config, DictConfig)
    for name in ("task", "model", "network"):
        find_target(config[name])  # which refuses code that is no longer there
    with torch.random.fork_rng(devices=[]):  # the weights that are replaced were nobody's business
        config.trainer.cuda_graph = False
        data = described(record["data"]) if record.get("data") else describe(build(config.datamodule))
        network = build_network(config, data)
        module = assemble(config, data, network)
    check_state(path, saved["state_dict"], module, KEY)
    try:
        module.load_state_dict(saved["state_dict"])
    except Exception as error:  # whatever a state that may come from anywhere leads to
        raise unusable(path, error, KEY) from error
    module.eval()
    network.eval()
    return Trained(network, module, config, data, path, record.get("made_with", {}))


def _found(run: Path, checkpoint: str) -> tuple[Path, dict[str, Any]]:
    if not run.exists():
        raise UserError(f"there is no directory or file {run}.")
    found = find(str(run.absolute()), "", train=checkpoint == "last")
    assert found is not None  # as "auto" alone may find nothing
    return found
