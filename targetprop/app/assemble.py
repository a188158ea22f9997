"""From a configuration to what is trained: the network, its learner, the loss, the forward optimiser."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from hydra.utils import get_method
from omegaconf import DictConfig
from torch import nn

from targetprop.app.described import Described, describe
from targetprop.app.module import TaskModule
from targetprop.app.objects import build, call, plain
from targetprop.app.optimizers import forward_optimizer
from targetprop.app.places import placed
from targetprop.app.task import Loss, Task
from targetprop.app.threads import multiply_adds
from targetprop.execution.graph import GraphedStep
from targetprop.layers.fixed import Whitening
from targetprop.learner import Learner, Trainable
from targetprop.utils.errors import UserError, is_number, prefixed, refuse_unknown, require

if TYPE_CHECKING:
    from targetprop.app.datamodule import HeldDataModule

EPOCHS = "feedback_epochs"
"""What of a model is a matter of the run."""
INPUT_SHAPE = "input_shape"
"""What a model may be told that no configuration says."""
SAMPLE = 2000
"""Training inputs whose statistics a network may be made from."""


def build_module(config: DictConfig, datamodule: HeldDataModule) -> TaskModule:
    """The network for the examples of `datamodule`, its learner and its forward optimiser.

    Raises:
        UserError: a value of the configuration that does not fit, named by its full key.
    """
    with prefixed("datamodule"):
        data = describe(datamodule)
    network = build_network(config, data)
    _show_images(network, datamodule)
    return assemble(config, data, network)


def build_network(config: DictConfig, data: Described) -> nn.Sequential:
    """The network for such data, as its author wrote it, with new weights."""
    return call("network.hparams", config.network, data.shape, data.outputs)


def assemble(config: DictConfig, data: Described, network: nn.Sequential) -> TaskModule:
    """The learner of a network for such data, and its forward optimiser.

    Raises:
        UserError: a value of the configuration that does not fit, named by its full key.
    """
    task: Task = build(config.task)
    model = plain(config.model)
    with prefixed("model"):
        taken = inspect.signature(get_method(model["_target_"])).parameters
        own = [name for name in taken if name not in ("network", "seed", INPUT_SHAPE)]
        refuse_unknown(model, ["_target_", "loss", "label_smoothing", EPOCHS, *own])
        model.pop(EPOCHS, None)
        loss = _loss(model.pop("loss", task.loss), model.pop("label_smoothing", 0.0))
    task.check(data, loss)
    work = multiply_adds(network, data.shape)  # before there is a learner, which minds who runs its network
    hparams = model.pop("hparams")
    f_optim = forward_optimizer(hparams)
    model |= {INPUT_SHAPE: data.shape} if INPUT_SHAPE in taken else {}
    learner: Trainable = get_method(model.pop("_target_"))(network, hparams, seed=config.seed, **model)
    scheduler = _scheduler(config)
    graphed = None
    if config.trainer.get("cuda_graph") is True:
        with placed():
            graphed = GraphedStep(cast(Learner, learner), loss)  # which refuses what is none
    made = TaskModule(learner, f_optim, task, data.outputs, loss, scheduler, graphed)
    made.multiply_adds = work
    if config.trainer.get("precision") == "64-true":
        made.double()  # as the trainer will, but only after it has loaded a checkpoint, whose digits would be lost
    return made


def _loss(path: str, label_smoothing: float) -> Loss:
    """The loss at an import path, on labels of which this share is spread over all classes."""
    loss = get_method(path)
    fits = is_number(label_smoothing) and 0 <= label_smoothing < 1
    require(fits, "label_smoothing", "a number in [0, 1)", label_smoothing)
    if label_smoothing == 0:
        return loss
    if "label_smoothing" not in inspect.signature(loss).parameters:
        raise UserError(f"{path} has none; set it to 0.", key="label_smoothing")
    return partial(loss, label_smoothing=label_smoothing)


def _show_images(network: nn.Module, datamodule: HeldDataModule) -> None:
    """Give layers that are made from statistics of training images some of them."""
    for layer in network.modules():
        if isinstance(layer, Whitening):
            layer.fit(datamodule.sample(SAMPLE))


def _scheduler(config: DictConfig) -> Any:
    """What makes a scheduler from the forward optimiser; None if there is none."""
    chosen = config.get("scheduler")
    if not chosen:
        return None
    return build(chosen)
