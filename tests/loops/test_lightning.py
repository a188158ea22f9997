"""Modules of Lightning with the mixin have the weights of the plain loop, in automatic and manual optimisation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from loop_cases import RULES, SGD, Batch, batches, learner_of, mlp, plain_loop, weights
from torch import Tensor, nn
from torch.utils.data import DataLoader

from targetprop import Learner, LightningMixin, UserError, hooked

pytestmark = pytest.mark.filterwarnings("ignore")


class Classifier(LightningMixin, L.LightningModule):
    """As its author wrote it, but for the mixin and the learner."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        x, y = batch
        self.log("val", F.cross_entropy(self(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), **SGD)


class ByHand(Classifier):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        x, y = batch
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self(x), y))
        optimizer.step()


class Forgetful(Classifier):
    def on_fit_start(self) -> None:
        """Without super()."""


class BehindLightning(L.LightningModule, LightningMixin):
    training_step = Classifier.training_step
    configure_optimizers = Classifier.configure_optimizers
    forward = Classifier.forward

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


def fit(module: L.LightningModule, data: list[Batch], path: Path, start: Any = None, **settings: Any) -> L.Trainer:
    trainer = L.Trainer(**{
        "max_steps": len(data), "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": path, **settings,
    })  # fmt: skip
    loader: Any = DataLoader(data, batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, loader, loader, ckpt_path=start)
    return trainer


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", [Classifier, ByHand])
def test_every_weight_is_that_of_the_plain_loop(kind: type[Classifier], name: str, tmp_path: Path) -> None:
    base, data = mlp(), batches()
    module = kind(learner_of(base, name))
    fit(module, data, tmp_path)
    assert torch.equal(weights(module), plain_loop(learner_of(base, name), data))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", [Classifier, ByHand])
def test_a_checkpoint_of_lightning_goes_on_exactly(kind: type[Classifier], name: str, tmp_path: Path) -> None:
    base, data = mlp(), batches()
    whole, first, second = (kind(learner_of(base, name)) for _ in range(3))
    fit(whole, data, tmp_path, max_steps=-1, max_epochs=2)
    trainer = fit(first, data, tmp_path, max_steps=-1, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fit(second, data, tmp_path, tmp_path / "a.ckpt", max_steps=-1, max_epochs=2)
    assert not torch.equal(weights(whole), weights(first))
    assert torch.equal(weights(whole), weights(second))
    loaded: Any = kind(learner_of(base, name))
    loaded.load_state_dict(torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"])
    assert loaded.net.steps == len(data)


@pytest.mark.parametrize("name", ["dtp", "amortised_dtp", "delta_mirror"])
def test_gradients_of_several_batches_are_those_with_a_share(name: str, tmp_path: Path) -> None:
    base, data = mlp(), batches()
    module = Classifier(learner_of(base, name))
    fit(module, data, tmp_path, accumulate_grad_batches=3, max_steps=2)
    expected = plain_loop(hooked(learner_of(base, name), share=1 / 3), data, every=3)
    assert torch.equal(weights(module), expected)


class Toggling(ByHand):
    """Freezes, for the time of a step, what its optimiser does not train."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        self.toggle_optimizer(optimizer)
        super().training_step(batch, batch_idx)
        self.untoggle_optimizer(optimizer)


def test_an_optimiser_may_be_toggled(tmp_path: Path) -> None:
    base, data = mlp(), batches()
    module = Toggling(learner_of(base, "dtp"))
    fit(module, data, tmp_path)
    assert torch.equal(weights(module), plain_loop(learner_of(base, "dtp"), data))


def test_the_older_package_of_lightning_works_too(tmp_path: Path) -> None:
    older: Any = pytest.importorskip("pytorch_lightning")
    parent: Any = older.LightningModule
    base, data = mlp(), batches()

    class Older(LightningMixin, parent):  # type: ignore[misc]
        training_step = Classifier.training_step
        configure_optimizers = Classifier.configure_optimizers
        forward = Classifier.forward

        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

    module = Older(learner_of(base, "dtp"))
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = older.Trainer(max_steps=len(data), accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(module, DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    assert torch.equal(weights(module), plain_loop(learner_of(base, "dtp"), data))


def test_a_hooked_learner_trains_by_fabric_too() -> None:
    base, data = mlp(), batches()
    fabric = L.Fabric(accelerator="cpu", devices=1)
    learner = hooked(learner_of(base, "dtp"))
    model, optimizer = fabric.setup(learner, torch.optim.SGD(learner.parameters(), **SGD))
    for x, y in data:
        optimizer.zero_grad()
        fabric.backward(F.cross_entropy(model(x), y))
        optimizer.step()
    assert torch.equal(weights(learner), plain_loop(learner_of(base, "dtp"), data))


@pytest.mark.parametrize("make", [lambda: StochasticWeightAveraging(0.05, swa_epoch_start=2), EMAWeightAveraging])
def test_averages_of_lightning_work(make: Callable[[], L.Callback], tmp_path: Path) -> None:
    module = Classifier(learner_of(mlp(), "dtp"))
    before = weights(module)
    fit(module, batches(2), tmp_path, max_steps=-1, max_epochs=4, callbacks=[make()])
    assert torch.isfinite(weights(module)).all()
    assert not torch.equal(before, weights(module))


class Two(LightningMixin, L.LightningModule):
    """Two learners, one below the other, each with an optimiser of its own, and a layer that backprop trains."""

    def __init__(self, lower: Learner, upper: Learner) -> None:
        super().__init__()
        self.lower, self.upper, self.head = lower, upper, nn.Linear(10, 10)
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        x, y = batch
        optimizers: Any = self.optimizers()
        for each in optimizers:
            each.zero_grad()
        self.manual_backward(F.cross_entropy(self.head(self.upper(self.lower(x))), y))
        for each in optimizers:
            each.step()

    def configure_optimizers(self) -> Any:
        parts = (self.lower.optimizer_parameters(), [*self.upper.parameters(), *self.head.parameters()])
        return [torch.optim.SGD(each, lr=0.1) for each in parts]


@pytest.mark.parametrize("name", ["dtp", "amortised_dtp"])
def test_several_learners_and_optimisers_learn_together(name: str, tmp_path: Path) -> None:
    bases, data = (mlp(), nn.Sequential(nn.Linear(10, 9), nn.ELU(), nn.Linear(9, 10))), batches()
    module = Two(*(learner_of(base, name) for base in bases))
    head = nn.Linear(10, 10)
    head.load_state_dict(module.head.state_dict())
    fit(module, data, tmp_path, max_steps=-1, max_epochs=1)  # Lightning counts a step for each optimiser
    lower, upper = (hooked(learner_of(base, name)) for base in bases)
    parameters = [*lower.parameters(), *upper.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for x, y in data:
        optimizer.zero_grad()
        F.cross_entropy(head(upper(lower(x))), y).backward()
        optimizer.step()
    expected = torch.cat([weights(each) for each in (lower, upper, head)])
    assert torch.equal(weights(module), expected)


REFUSED: dict[str, tuple[Callable[[Learner], L.LightningModule], dict[str, Any], str]] = {
    "no learner": (lambda _: Classifier(mlp()), {}, r"Classifier has no learner: say self\.net = Learner"),
    "no super()": (Forgetful, {}, r"super\(\)\.on_fit_start\(\)"),
    "behind Lightning": (BehindLightning, {}, r"targetprop\.hooked\(learner\)"),
    "bfloat16 weights": (Classifier, {"precision": "bf16-true"}, "keep them in float32"),
    "float16 weights": (Classifier, {"precision": "16-true"}, "keep them in float32"),
    "autocast": (Classifier, {"precision": "bf16-mixed"}, "'amortised_dtp', or train without autocast"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_train_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    make, settings, said = REFUSED[what]
    with pytest.raises(UserError, match=said) as caught:
        fit(make(learner_of(mlp(), "dtp")), batches(1), tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_several_processes_are_refused_before_the_first_step(tmp_path: Path) -> None:
    module = Classifier(learner_of(mlp(), "dtp"))

    class Run:
        world_size = 2

    module._trainer = Run()  # type: ignore[assignment]
    with pytest.raises(UserError, match="devices: expected one process, got 2"):
        module.on_fit_start()


def test_clipping_mixed_precision_and_validation_work(tmp_path: Path) -> None:
    module = Classifier(learner_of(mlp(), "amortised_dtp"))
    before = weights(module)
    trainer = fit(module, batches(), tmp_path, precision="bf16-mixed", gradient_clip_val=0.1, val_check_interval=2)
    assert torch.isfinite(trainer.callback_metrics["val"])
    assert not torch.equal(before, weights(module))
