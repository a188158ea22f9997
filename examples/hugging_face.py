"""Target propagation in two loops of Hugging Face: accelerate's, and the Trainer of transformers.

    pip install -e ".[hugging_face]"
    python examples/hugging_face.py

Both call `loss.backward()` themselves. A hooked learner trains when they do, with no line of theirs changed. They add
up the gradients of two batches for each step: `share` says so, since they divide the loss, and targets are to be those
of the undivided one. Both write safetensors, for which `state_in_tensors` has the state hold tensors alone.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, StackDataset
from transformers import Trainer, TrainingArguments

from targetprop import Learner, hooked, state_in_tensors
from targetprop.data import digits

EPOCHS, BATCH, ADDED_UP, RATE = 10, 32, 2, 0.05
SIZES = [64, 128, 128, 10]


def data(part: str) -> StackDataset:
    """A part of the handwritten digits, "train" or "test", as the Trainer reads it."""
    images = getattr(digits.load(), part)
    pixels = (images.pixels.flatten(1) / 255 - 0.3) / 0.4
    return StackDataset(pixels=pixels, labels=images.labels)


class Classifier(nn.Module):
    """A network as the Trainer wants it: its loss comes with its output."""

    def __init__(self, algorithm: str) -> None:
        super().__init__()
        layers = [each for sizes in pairwise(SIZES) for each in (nn.Linear(*sizes), nn.ELU())][:-1]
        self.net = state_in_tensors(hooked(Learner(layers, algorithm), share=1 / ADDED_UP))

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean loss and logits (batch, 10) of images (batch, 64)."""
        logits = self.net(pixels)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


@torch.no_grad()
def accuracy(classifier: Classifier) -> float:
    """On the test images."""
    images = data("test")[:]
    classifier.eval()
    return float((classifier(**images)["logits"].argmax(1) == images["labels"]).float().mean())


def by_accelerate(classifier: Classifier, folder: Path) -> None:
    """Train in a loop of one's own, which accelerate steers."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ADDED_UP)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=RATE, momentum=0.9)
    batches = DataLoader(data("train"), BATCH, shuffle=True, drop_last=True)
    model, optimizer, batches = accelerator.prepare(classifier, optimizer, batches)
    for _ in range(EPOCHS):
        for batch in batches:
            with accelerator.accumulate(model):
                accelerator.backward(model(**batch)["loss"])
                optimizer.step()
                optimizer.zero_grad()
    accelerator.save_state(str(folder))


def by_trainer(classifier: Classifier, folder: Path) -> None:
    """Train by the Trainer, which writes a checkpoint every epoch, and can go on from any."""
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no", optim="sgd",
        optim_args="momentum=0.9", learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0.0,
        num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, dataloader_drop_last=True,
        gradient_accumulation_steps=ADDED_UP, save_strategy="epoch", save_total_limit=2,
    )  # fmt: skip
    Trainer(model=classifier, args=arguments, train_dataset=data("train")).train()


def main() -> dict[str, float]:
    """Train by both; returns the accuracies on the test images."""
    found = {}
    for train in (by_accelerate, by_trainer):
        torch.manual_seed(0)
        classifier = Classifier("amortised_dtp")
        with tempfile.TemporaryDirectory() as folder:
            train(classifier, Path(folder))
        found[train.__name__] = accuracy(classifier)
    return found


if __name__ == "__main__":
    for name, reached in main().items():
        print(f"{name}: {reached:.1%} of the test images")
