"""Difference target propagation with L-DRL in one page of plain PyTorch, to be read from top to bottom.

    python examples/minimal_dtp.py

It trains a multi-layer perceptron on handwritten digits. Blocks F^n map activations s^{n-1} to s^n; a feedback map G^n
leads from the output space of block n back to its input space. No gradient crosses a block: the feedback carries a
*target* down to each one, and every block learns to hit its own. Nothing here is from the library but the images; its
test holds every weight equal to what `targetprop.Learner` computes.

Ernoult et al., "Towards Scaling Difference Target Propagation by Learning Backprop Targets", 2022,
https://arxiv.org/abs/2201.13415; Lee et al., "Difference Target Propagation", 2015, https://arxiv.org/abs/1412.7525.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BETA, SIGMA, ITERATIONS = 0.7, 0.1, 20
Draw = Callable[[int, int, str, Tensor], Tensor]
"""(block, iteration, "input" or "output", a tensor) -> standard-normal noise of its shape."""


class Block(nn.Module):
    """F(s) = elu(W s + b), and its feedback G(y) = V elu(y) + c; the output block has no activation."""

    def __init__(self, inputs: int, outputs: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward_map = nn.Linear(inputs, outputs)
        self.feedback_map = nn.Linear(outputs, inputs)
        self.activation = activation

    def forward(self, s: Tensor) -> Tensor:
        return self.activation(self.forward_map(s))

    def feedback(self, y: Tensor) -> Tensor:
        return self.feedback_map(self.activation(y))


def feedback_loss(block: Block, s: Tensor, y: Tensor, eps: Tensor, eta: Tensor) -> Tensor:
    """The local difference reconstruction loss: -2 <eps, G(F(s+eps)) - G(F(s))> + ||G(F(s)+eta) - G(F(s))||^2.

    At its minimum G acts on small differences as the transposed Jacobian of F does, and it never reads W.
    """
    with torch.no_grad():
        noisy = block(s + eps)
    clean = block.feedback(y)
    response = block.feedback(noisy) - clean
    output_response = block.feedback(y + eta) - clean
    return (output_response.square().sum() - 2 * (eps * response).sum()) / len(s)


def train_step(
    blocks: list[Block],
    feedback_optimizers: list[torch.optim.Optimizer],
    forward_optimizer: torch.optim.Optimizer,
    x: Tensor,
    labels: Tensor,
    draw: Draw,
) -> float:
    """One batch; returns the cross-entropy before the step."""
    # 1. A forward pass, in which no graph leads from block to block.
    activations = [x]
    with torch.no_grad():
        for block in blocks:
            activations.append(block(activations[-1]))

    # 2. The output's target is a step down the loss: t^N = s^N - beta dL/ds^N, for each sample's own loss.
    output = activations[-1].requires_grad_()
    loss = F.cross_entropy(output, labels)
    (gradient,) = torch.autograd.grad(loss, output)
    difference = -BETA * len(x) * gradient  # a target t^n is kept as t^n - s^n

    # 3. From the output down: a block's feedback learns, the block learns, and its target goes on to the block below.
    forward_optimizer.zero_grad()
    for n in reversed(range(len(blocks))):
        block, s, y = blocks[n], activations[n].detach(), activations[n + 1].detach()
        if n > 0:  # below the first block there is no target to reach
            for iteration in range(ITERATIONS):
                eps, eta = (SIGMA * draw(n, iteration, kind, like) for kind, like in (("input", s), ("output", y)))
                feedback_optimizers[n].zero_grad()
                feedback_loss(block, s, y, eps, eta).backward()
                feedback_optimizers[n].step()
        target = y + difference
        local_loss = 0.5 * (block(s) - target).square().sum() / len(x)
        local_loss.backward(inputs=list(block.forward_map.parameters()))
        if n > 0:
            with torch.no_grad():  # t^{n-1} = s^{n-1} + G(t^n) - G(s^n)
                difference = block.feedback(target) - block.feedback(y)
    forward_optimizer.step()
    return float(loss.detach())


def build(sizes: list[int]) -> list[Block]:
    """One block for each two neighbouring sizes."""
    activations: list[Callable[[Tensor], Tensor]] = [*[F.elu] * (len(sizes) - 2), nn.Identity()]
    return [Block(below, above, act) for below, above, act in zip(sizes[:-1], sizes[1:], activations, strict=True)]


def optimizers(blocks: list[Block]) -> tuple[list[torch.optim.Optimizer], torch.optim.Optimizer]:
    """One optimiser for each feedback, and one for all forward weights."""
    feedback: list[torch.optim.Optimizer] = [
        torch.optim.SGD(block.feedback_map.parameters(), lr=0.1, momentum=0.9) for block in blocks
    ]
    forward = torch.optim.SGD([p for block in blocks for p in block.forward_map.parameters()], lr=0.05, momentum=0.9)
    return feedback, forward


def fresh(block: int, iteration: int, kind: str, like: Tensor) -> Tensor:
    """New noise, whatever it is for."""
    return torch.randn_like(like)


def main() -> None:
    """Train for ten epochs and print the accuracy on held-out digits."""
    from targetprop.data.digits import load

    torch.set_num_threads(1)  # the matrices are too small to share
    splits = load()
    (x, labels), (test_x, test_labels) = (
        ((images.pixels.float().flatten(1) / 255 - 0.3) / 0.4, images.labels) for images in (splits.train, splits.test)
    )
    torch.manual_seed(0)
    blocks = build([x.shape[1], 256, 256, 10])
    feedback_optimizers, forward_optimizer = optimizers(blocks)
    for epoch in range(10):
        order, losses = torch.randperm(len(x)), []
        for batch in order.split(64):
            losses.append(train_step(blocks, feedback_optimizers, forward_optimizer, x[batch], labels[batch], fresh))
        print(f"epoch {epoch + 1:2}: cross-entropy {sum(losses) / len(losses):.4f}")
    with torch.no_grad():
        predicted = nn.Sequential(*blocks)(test_x).argmax(1)
    print(f"test accuracy {100 * float((predicted == test_labels).float().mean()):.2f} %")


if __name__ == "__main__":
    main()
