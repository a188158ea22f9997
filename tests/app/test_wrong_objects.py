"""Whatever an import path of the configuration names, it does what its place asks for, or is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from targetprop.app.overrides import check_overrides
from targetprop.app.run import train
from targetprop.utils.errors import UserError

HERE = __name__
PRINT = "{_target_: builtins.print, _partial_: true}"


def per_sample(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def detached(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets).detach()


def failing(*arguments: object, **others: object) -> None:
    raise RuntimeError("first line\nsecond line")


def no_network(image_shape: object, num_classes: int) -> list[nn.Module]:
    return []


def failing_network(image_shape: object, num_classes: int) -> nn.Module:
    raise ZeroDivisionError("by zero")


def no_learner(network: nn.Module, hparams: object, *, seed: int) -> nn.Module:
    return network


def no_schedule(optimizer: torch.optim.Optimizer, T_max: int, eta_min: float) -> None:  # noqa: N803
    return None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+model.loss=abc"], r"model\.loss: expected the import path of a class or function .*, got 'abc'"),
        (["+model.loss=torch.nn.functional.cros"], r"model\.loss: cannot be built: .*cros"),
        (["+model.loss=torch.pi"], r"model\.loss: expected the import path of a class or function .*'torch\.pi'"),
        (["+model.loss=builtins.print"], r"model\.loss: expected .*a mean loss.*builtins\.print, which makes nothing"),
        (["+model.loss=torch.relu"], r"model\.loss: "),
        (["+model.loss=HERE.per_sample"], r"model\.loss: expected .*a mean loss.*per_sample, which makes a Tensor"),
        (["+model.loss=HERE.detached"], r"model\.loss: expected .*a mean loss"),
        (["+model.loss=HERE.failing"], r"model\.loss: .*makes no mean loss.*RuntimeError: first line second line"),
        (["datamodule.load._target_=builtins.print"], r"datamodule\.load\._target_: expected .*print, which makes n"),
        (["datamodule.load._target_=HERE.failing"], r"datamodule\.load\._target_: .*no data set.*first line second"),
        (["network._target_=HERE.no_network", "~network.hparams.channels", "~network.hparams.activation"],
         r"network\._target_: expected .*a network \(Module\), got .*no_network, which makes a list"),
        (["network._target_=HERE.failing_network", "~network.hparams.channels", "~network.hparams.activation"],
         r"network\._target_: .*makes no network.*ZeroDivisionError: by zero"),
        (["model=backprop", "model._target_=HERE.no_learner"], r"model\._target_: expected .*a learner"),
        (["scheduler._target_=HERE.no_schedule"], r"scheduler\._target_: expected what makes an LRScheduler, got None"),
        (["scheduler._target_=HERE.failing"], r"scheduler: .*first line second line"),
        (["datamodule.augmentation={_target_: collections.OrderedDict}"], r"datamodule\.augmentation"),
        (["datamodule.augmentation={_target_: builtins.print}"], r"datamodule\.augmentation: .*makes nothing"),
    ],
)  # fmt: skip
def test_what_is_none_of_its_kind_is_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.threads=1", f"output_dir={tmp_path}"]
    named = [each.replace("HERE", HERE) for each in overrides]
    with pytest.raises(UserError, match=rf"^{message}") as caught:
        train(check_overrides([*named, *short]))
    assert "\n" not in str(caught.value)


def test_a_loss_of_ones_own_trains(tmp_path: Path) -> None:
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.threads=1", f"output_dir={tmp_path}"]
    assert train(check_overrides(["+model.loss=torch.nn.functional.multi_margin_loss", *short]))["test/accuracy"] >= 0
