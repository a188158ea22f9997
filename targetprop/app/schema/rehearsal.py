"""Network and learner of a run, made of tensors without memory: whether they fit, and what they would cost."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from hydra.utils import get_method
from omegaconf import DictConfig
from torch import nn

from targetprop.app.objects import call, plain
from targetprop.app.processes import usable_gpus
from targetprop.app.schema.combinations import BY_BLOCK
from targetprop.app.schema.costs import CORE, GPU, Work, host_memory, least_memory, refuse_endless, refuse_memory
from targetprop.app.schema.data_sets import Size, size_of
from targetprop.app.threads import multiply_adds
from targetprop.feedback.base import each_of
from targetprop.feedback.by_loss import ByLoss
from targetprop.feedback.responses import ByResponses
from targetprop.learner import Learner
from targetprop.trainable import Trainable
from targetprop.utils.errors import UserError, require

log = logging.getLogger(__name__)


def rehearse(config: DictConfig) -> None:
    """Make network and learner for examples of the size of a known data set, and refuse what is too large.

    Raises:
        UserError: lengths that do not fit the blocks, or a run that neither memory nor a year is enough for.
    """
    size = size_of(config.datamodule)
    if size is None:
        return  # nothing is known of the images before they are read
    try:
        with torch.device("meta"):
            made = call("network", config.network, size.shape, size.classes, facts=size.facts)
            network: nn.Module = made
            work = multiply_adds(network, size.shape, size.dtype)
            learner = _learner(config.model, network, size)
    except UserError:
        if size.fixed:
            raise
        return  # files may hold other images
    except Exception as error:  # an operation that cannot do without values: the real network is made later
        log.debug("Not rehearsed: %r", error)
        return
    if size.fixed:
        _refuse_small_shares(config, size)
    _refuse_other_blocks(config.get("callbacks") or {}, learner)
    _refuse_size(config, size, network, learner)
    _refuse_length(config, size, work, learner)


def _refuse_small_shares(config: DictConfig, size: Size) -> None:
    """Refuse shares of batches that are less than one of them."""
    data, held = config.datamodule, round(config.datamodule.val_fraction * size.images)
    evaluated = data.get("eval_batch_size", 500)
    images = {"train": (size.images - held, data.batch_size), "val": (held, evaluated), "test": (size.tests, evaluated)}
    for part, (count, batch) in images.items():
        batches, share = math.ceil(count / batch), config.trainer.get(f"limit_{part}_batches", 1.0)
        expected = f"a share of {batches} batches that is one or more of them"
        met = not isinstance(share, float) or share in (0, 1) or count == 0 or share * batches >= 1
        require(met, f"trainer.limit_{part}_batches", expected, share)


def _refuse_other_blocks(callbacks: Mapping[str, Any], learner: Trainable) -> None:
    """Refuse to wait for a metric of a block that the network does not have, or that has no feedback."""
    for name, each in callbacks.items():
        found = BY_BLOCK.fullmatch(str(each.get("monitor"))) if isinstance(each, DictConfig) else None
        if found:
            fed = found[1] == "feedback_loss"
            numbers = learner.network.fed_numbers if fed else range(len(learner.network.pairs))
            metrics = [f"{found[1]}/block{number + 1}" for number in numbers]
            require(found[0] in metrics, f"callbacks.{name!s}.monitor", " or ".join(metrics) or "a metric", found[0])


def _learner(config: DictConfig, network: nn.Module, size: Size) -> Trainable:
    model = {
        key: value for key, value in plain(config).items() if key not in ("loss", "label_smoothing", "feedback_epochs")
    }
    make, hparams = get_method(model.pop("_target_")), model.pop("hparams")
    model |= {"input_shape": size.shape} if "input_shape" in inspect.signature(make).parameters else {}
    made: Trainable = make(network, hparams, seed=0, **model)
    return made


def _refuse_size(config: DictConfig, size: Size, network: nn.Module, learner: Trainable) -> None:
    trained = learner.parameters() if isinstance(learner, nn.Module) else network.parameters()
    batch = min(config.datamodule.batch_size, size.images)
    weights, activations = least_memory(network, trained, size.shape, batch, size.dtype)
    if usable_gpus(config.trainer.gpus):
        available, where = torch.cuda.get_device_properties(0).total_memory, "this GPU's memory"
    else:
        available, where = host_memory(), "this machine's memory"
    refuse_memory(weights, activations, available, where)


def _refuse_length(config: DictConfig, size: Size, work: int, learner: Trainable) -> None:
    batch = min(config.datamodule.batch_size, size.images)
    step, key = _step(work * batch, learner)
    rate = GPU if usable_gpus(config.trainer.gpus) else CORE * (config.trainer.threads or torch.get_num_threads())
    batches = (1 - config.datamodule.val_fraction) * size.images / batch
    steps = _steps(config.trainer, batches)
    refuse_endless(key or "trainer.max_epochs", step, steps, rate)


def _step(forward: int, learner: Trainable) -> tuple[Work, str]:
    """The work of a step whose forward pass has so many multiply-adds, and the setting that most of it is due to."""
    feedback = learner.algorithm.feedback if isinstance(learner, Learner) else None
    if isinstance(feedback, ByLoss):
        counts = each_of(feedback.feedback_training_iterations)
        blocks = len(cast(Learner, learner).network.trained)
        updates = sum(counts) * feedback.noise_samples * (blocks if len(counts) == 1 else 1)
        passes = updates / max(1, blocks)
        many = feedback.noise_samples > max(counts)
        key = f"model.hparams.{'noise_samples' if many else 'feedback_training_iterations'}"
        return Work(forward * (3 + passes), updates), key if passes > 1000 else ""
    share = feedback.budget if isinstance(feedback, ByResponses) else 0
    return Work(3 * forward * (1 + share), 0), "model.hparams.budget" if share > 1000 else ""


def _steps(trainer: Mapping[str, Any], batches: float) -> float:
    """How many steps a run has at most, if its epochs have so many batches."""
    limit = trainer.get("limit_train_batches", 1.0)
    epoch = max(1.0, min(batches, limit) if isinstance(limit, int) else batches * limit)
    epochs, most = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    length = math.inf if epochs is None or epochs < 0 else epoch * epochs
    return min(length, most) if most >= 0 else length
