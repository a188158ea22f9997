"""examples/hugging_face.py trains, and the loops of accelerate and transformers make the steps of the plain loop."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loop_cases import SGD, batches, learner_of, mlp, plain_loop, weights
from torch import Tensor, nn

from targetprop import Learner, UserError, hooked, state_in_tensors

accelerate = pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
RULES = ["dtp", "amortised_dtp"]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Accelerate keeps the settings of the first one in a process."""
    yield
    accelerate.state.AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return importlib.import_module("examples.hugging_face")


def test_the_example_learns_the_digits(example: ModuleType) -> None:
    assert all(0.95 < reached <= 1 for reached in example.main().values())


def by_accelerate(learner: Learner, data: list[tuple[Tensor, Tensor]], every: int, **settings: Any) -> Tensor:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=every, **settings)
    made = torch.optim.SGD(learner.parameters(), **SGD)
    model, optimizer = accelerator.prepare(learner, made)
    for x, y in data:
        with accelerator.accumulate(model):
            accelerator.backward(F.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
    return weights(learner)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("every", [1, 3])
def test_accelerate_makes_the_steps_of_the_plain_loop(name: str, every: int) -> None:
    base, data = mlp(), batches()
    made = by_accelerate(hooked(learner_of(base, name), share=1 / every), data, every)
    assert torch.equal(made, plain_loop(hooked(learner_of(base, name), share=1 / every), data, every=every))


def test_accelerate_is_refused_without_a_hook() -> None:
    with pytest.raises(UserError, match=r"targetprop\.hooked\(learner\)"):
        by_accelerate(learner_of(mlp(), "dtp"), batches(1), 1)


def test_accelerate_is_refused_where_the_feedback_cannot_learn() -> None:
    with pytest.raises(UserError, match="'amortised_dtp', or train without autocast"):
        by_accelerate(hooked(learner_of(mlp(), "dtp")), batches(1), 1, mixed_precision="bf16")


@pytest.mark.parametrize("safe", [False, True])
def test_a_state_of_accelerate_goes_on_exactly(safe: bool, tmp_path: Path) -> None:
    base, data = mlp(), batches()
    first, second = (state_in_tensors(hooked(learner_of(base, "dtp"))) for _ in range(2))
    accelerator = accelerate.Accelerator(cpu=True)
    accelerator.prepare(first)
    by_accelerate(first, data, 1)
    accelerator.save_state(str(tmp_path), safe_serialization=safe)
    accelerator = accelerate.Accelerator(cpu=True)
    accelerator.prepare(second)
    accelerator.load_state(str(tmp_path))
    assert second.steps == len(data)
    assert torch.equal(weights(first), weights(second))
    assert torch.equal(by_accelerate(first, data, 1), by_accelerate(second, data, 1))


class Model(nn.Module):
    def __init__(self, base: nn.Module, name: str, share: float = 1.0) -> None:
        super().__init__()
        self.net = state_in_tensors(hooked(learner_of(base, name), share=share))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def by_trainer(
    model: Model, data: list[dict[str, Tensor]], path: Path, start: Path | None = None, **settings: Any
) -> Tensor:
    arguments = transformers.TrainingArguments(**{
        "output_dir": str(path), "use_cpu": True, "report_to": [], "disable_tqdm": True, "logging_strategy": "no",
        "optim": "sgd", "optim_args": "momentum=0.9", "weight_decay": 0.0, "learning_rate": 0.1,
        "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "save_strategy": "no", "num_train_epochs": 1,
        **settings,
    })  # fmt: skip
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data)
    trainer.train(resume_from_checkpoint=None if start is None else str(start))
    return weights(model)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("every", [1, 2])
def test_the_trainer_makes_the_steps_of_the_plain_loop(name: str, every: int, tmp_path: Path) -> None:
    """On a batch whose samples are one and the same, since the order is its own."""
    base, (x, y) = mlp(), batches(1, samples=1)[0]
    data = [{"x": x[0], "labels": y[0]}] * 16
    model = Model(base, name, share=1 / every)
    made = by_trainer(model, data, tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=every)
    other = hooked(learner_of(base, name), share=1 / every)
    optimizer = torch.optim.SGD(other.optimizer_parameters(), lr=0.1, momentum=0.9)
    for number in range(1, 5):
        (F.cross_entropy(other(x.expand(4, -1)), y.expand(4)) / every).backward()
        if number % every == 0:
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(made, weights(other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_a_checkpoint_of_the_trainer_goes_on_exactly(name: str, tmp_path: Path) -> None:
    base = mlp()
    data = [{"x": torch.randn(20), "labels": torch.randint(10, ())} for _ in range(32)]
    settings: dict[str, Any] = {"num_train_epochs": 2, "save_strategy": "epoch"}
    whole = by_trainer(Model(base, name), data, tmp_path, **settings)
    resumed = Model(base, name)
    made = by_trainer(resumed, data, tmp_path / "again", tmp_path / "checkpoint-4", **settings)
    assert torch.equal(made, whole)
    assert resumed.net.steps == 8


def test_the_trainer_works_in_bfloat16_and_compiled(tmp_path: Path) -> None:
    base = mlp()
    data = [{"x": torch.randn(20), "labels": torch.randint(10, ())} for _ in range(16)]
    plain = by_trainer(Model(base, "amortised_dtp"), data, tmp_path)
    compiled = by_trainer(
        Model(base, "amortised_dtp"), data, tmp_path, torch_compile=True, torch_compile_backend="aot_eager"
    )
    assert torch.equal(plain, compiled)
    narrow = by_trainer(Model(base, "amortised_dtp"), data, tmp_path, bf16=True)
    torch.testing.assert_close(narrow, plain, rtol=0.05, atol=0.01)
    assert not torch.equal(narrow, plain)
