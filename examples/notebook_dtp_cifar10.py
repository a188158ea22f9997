# %% [markdown]
# # Difference target propagation, step by step
#
# Backprop tells every weight how to change by sending a gradient down through the whole network. *Difference target
# propagation* (DTP; Lee, Zhang, Fischer and Bengio 2015, [arXiv:1412.7525](https://arxiv.org/abs/1412.7525)) sends
# something else: a **target**, the value that a layer should have had. A layer then learns by itself, from its own
# input, its own output and its own target.
#
# In this notebook you will
#
# 1. see the idea in two pictures,
# 2. write DTP out in thirty lines of plain PyTorch and train with it,
# 3. find out why a widely copied course notebook never trains its hidden layers, although its accuracy goes up,
# 4. do the same by the library, and measure how far DTP is from backprop, layer by layer,
# 5. compare four ways to train, on the same images for the same number of epochs,
# 6. solve four exercises, whose solutions are checked.
#
# It runs on one core of a CPU in a few minutes. The first cell installs the library if it is not there, for example on
# Colab.

# %%
import importlib.util
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

# What pip installs where the library is not there: the clone that this notebook is in, or what TARGETPROP says, such as
# an address (git+https://...). It is on no package index yet, where its name could be somebody else's.
CLONE = Path("..").resolve()
LIBRARY = os.environ.get("TARGETPROP", str(CLONE) if (CLONE / "targetprop").is_dir() else "")
if importlib.util.find_spec("targetprop") is None:
    assert LIBRARY, "Set LIBRARY to the address of the library's repository, and run this cell again."
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", LIBRARY], check=True)

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.patches import FancyArrowPatch
from torch import nn

from targetprop import LEE_DTP, Learner, OptimizerSpec, explain
from targetprop.baselines.backprop import Backprop
from targetprop.baselines.notebook import AsPrinted, negative_probability
from targetprop.data import BatchLoader, cifar10
from targetprop.data.split import stratified_split
from targetprop.measure import angle, measure
from targetprop.models import mlp

torch.manual_seed(0)
plt.rcParams.update({"figure.dpi": 72, "font.size": 10})

# %% [markdown]
# ## The data
#
# CIFAR-10 has 50,000 training images of 3 x 32 x 32 pixels in ten classes, and 10,000 test images. They are read from
# the directory in the variable `DATA_DIR` (default `data`), and downloaded there if they are missing.
#
# **Everything in this notebook trains on the same 10,000 of the training images, for ten epochs.** Another 10,000 are
# held out for validation. The test set is used once, at the end.

# %%
EPOCHS = 10
WIDTH = 300

splits = cifar10.load(os.environ.get("DATA_DIR", "data"))
classes = splits.train.classes
kept, held = stratified_split(splits.train.labels, len(splits.train) // 5, torch.Generator().manual_seed(0))
few_images = splits.train.subset(kept[torch.randperm(len(kept))[:10_000]])
val_images, test_images = splits.train.subset(held), splits.test
NORMALISE = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
val_batches = BatchLoader(val_images, 1024, **NORMALISE)
test_batches = BatchLoader(test_images, 1024, **NORMALISE)
print(f"{len(few_images)} training, {len(val_images)} validation and {len(test_images)} test images")

figure, axes = plt.subplots(1, 10, figsize=(11, 1.4), layout="constrained")
for label, axis in enumerate(axes):
    first = int((few_images.labels == label).nonzero()[0])
    axis.imshow(few_images.pixels[first].permute(1, 2, 0).numpy())
    axis.set_title(classes[label], fontsize=8)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Two paths
#
# The network is a multi-layer perceptron with three hidden layers of 300 units and tanh. (The course notebook has 1000
# units. A smaller network teaches the same in less time.) On the **forward path** block $n$ computes
#
# $$h_n = f_n(h_{n-1}) = \tanh(W_n h_{n-1} + b_n), \qquad n = 1, 2, 3,$$
#
# from the image $h_0$, and the output block computes the logits from $h_3$. The **backward path** consists of maps
# $g_3$ and $g_2$ with weights of their own, each from the output space of its block to the input space. Nothing is
# needed below block 1, since the image has no target, and nothing below the output block, for a reason that follows.


# %%
def arrow(axis, start, end, color, label="", bend=0.0, offset=(0, 0), **style):
    """An arrow with a label at its middle."""
    axis.add_patch(
        FancyArrowPatch(
            start, end, connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=14, color=color, lw=1.6,
            shrinkA=13, shrinkB=13, **style,
        )
    )  # fmt: skip
    middle = ((start[0] + end[0]) / 2 + offset[0], (start[1] + end[1]) / 2 + offset[1])
    axis.text(*middle, label, color=color, ha="center", va="center")


def node(axis, x, y, label, color):
    """A layer's value as a circle."""
    axis.scatter([x], [y], s=900, color="white", edgecolors=color, zorder=3, lw=1.6)
    axis.text(x, y, label, ha="center", va="center", zorder=4, color=color)


FORWARD, BACK, LOCAL = "tab:blue", "tab:red", "tab:green"
figure, axis = plt.subplots(figsize=(11, 3.4), layout="constrained")
for n in range(4):
    node(axis, 2 * n, 0, f"$h_{n}$", FORWARD)
    if n:
        arrow(axis, (2 * n - 2, 0), (2 * n, 0), FORWARD, f"$f_{n}$", offset=(0, 0.17))
        node(axis, 2 * n, 1.4, rf"$\hat h_{n}$", BACK)
        arrow(axis, (2 * n, 1.4), (2 * n, 0), LOCAL, "", ls=":")
        axis.text(2 * n + 0.1, 0.72, r"$\|h-\hat h\|^2$", color=LOCAL, fontsize=9)
    if n > 1:
        arrow(axis, (2 * n, 1.4), (2 * n - 2, 1.4), BACK, f"$g_{n}$", offset=(0, 0.17))
node(axis, 8, 0, "$L$", FORWARD)
arrow(axis, (6, 0), (8, 0), FORWARD, "output block, loss", offset=(0, 0.17))
arrow(axis, (8, 0), (6, 1.4), BACK, r"$-\eta\;\partial L/\partial h_3$", offset=(0.45, 0.2))
axis.set(
    xlim=(-0.5, 8.5), ylim=(-0.5, 1.9), title="values go up (blue), targets come down (red), learning is local (green)"
)
axis.axis("off")
plt.show()

# %% [markdown]
# ## Targets
#
# **The first target** stands right below the output block, which can follow the loss itself. It is one step down the
# gradient:
#
# $$\hat h_3 = h_3 - \eta\, \frac{\partial L}{\partial h_3}.$$
#
# **The others** come down through the feedback. If $g_n$ were the exact inverse of $f_n$, then $g_n(\hat h_n)$ would be
# the value of $h_{n-1}$ that makes block $n$ hit its target. It never is exact. So DTP takes only the *difference*
# that the target makes, and the error of $g_n$ itself cancels to first order:
#
# $$\hat h_{n-1} = h_{n-1} + g_n(\hat h_n) - g_n(h_n).$$
#
# If a block has already reached its target, so has the one below: $\hat h_n = h_n$ gives $\hat h_{n-1} = h_{n-1}$,
# however bad $g_n$ is.

# %%
figure, axis = plt.subplots(figsize=(8.5, 3.4), layout="constrained")
h, h_hat = (4.4, 0.6), (5.4, 1.5)  # above
below, back, back_hat = (0.2, 0.4), (1.2, 0.1), (1.9, 1.1)
target = (below[0] + back_hat[0] - back[0], below[1] + back_hat[1] - back[1])
for point, label, color in (
    (h, "$h_n$", FORWARD), (h_hat, r"$\hat h_n$", BACK), (below, "$h_{n-1}$", FORWARD),
    (back, "$g_n(h_n)$", "gray"), (back_hat, r"$g_n(\hat h_n)$", "gray"), (target, r"$\hat h_{n-1}$", BACK),
):  # fmt: skip
    axis.scatter(*point, color=color, s=45, zorder=3)
    axis.annotate(label, point, xytext=(0, 8), textcoords="offset points", ha="center", color=color)
arrow(axis, h, h_hat, BACK)
arrow(axis, back, back_hat, "gray")
arrow(axis, below, target, BACK)
arrow(axis, h, back, "gray", bend=-0.12, ls=":")
arrow(axis, h_hat, back_hat, "gray", bend=0.12, ls=":")
axis.text(4.9, -0.35, "above block $n$", ha="center")
axis.text(0.9, -0.35, "below block $n$", ha="center")
axis.set(xlim=(-0.4, 6), ylim=(-0.5, 2.1), title="the gray arrow, moved to where the value is, gives the target")
axis.axis("off")
plt.show()

# %% [markdown]
# ## Two losses
#
# $g_n$ is trained to undo $f_n$ near the data, and also a little beside it, with Gaussian noise $\varepsilon$:
#
# $$\big\| g_n(f_n(h_{n-1} + \varepsilon)) - (h_{n-1} + \varepsilon) \big\|^2 .$$
#
# A block learns to hit its target, which is **a constant** in this loss:
#
# $$\tfrac12 \big\| f_n(h_{n-1}) - \hat h_n \big\|^2 \quad\text{for the parameters of } f_n \text{ only.}$$
#
# ## DTP in thirty lines
#
# Here is all of it, in plain PyTorch. Read it from top to bottom: a block and its feedback, the learning of the
# feedback, and the gradients of the blocks. No gradient crosses from one block to another.


# %%
class Block(nn.Module):
    """f(h) = act(W h + b), and its feedback g(h) = tanh(V h + c)."""

    def __init__(self, inputs, outputs, activation=torch.tanh):
        super().__init__()
        self.W, self.V, self.activation = nn.Linear(inputs, outputs), nn.Linear(outputs, inputs), activation

    def f(self, h):
        return self.activation(self.W(h))

    def g(self, h):
        return torch.tanh(self.V(h))


@torch.no_grad()
def values(blocks, x):
    """[x, h_1, ..., h_N]: what goes up."""
    h = [x]
    for block in blocks:
        h.append(block.f(h[-1]))
    return h


def feedback_gradients(blocks, h, sigma=0.24):
    """Feedback learns to undo its block; block 1 and the output block have none."""
    for block, below in list(zip(blocks, h[:-1], strict=True))[1:-1]:
        noisy = below + sigma * torch.randn_like(below)
        (block.g(block.f(noisy).detach()) - noisy).square().sum(1).mean().backward()


def forward_gradients(blocks, h, y, eta=0.3):
    """The output block follows the loss; each block below it follows its target."""
    last = h[-2].requires_grad_()
    loss = F.cross_entropy(blocks[-1].f(last), y)
    loss.backward()  # the gradient of the output block, and of h_3
    target = last.detach() - eta * len(y) * last.grad  # len(y): each sample's own gradient, not that of the mean
    for n in reversed(range(len(blocks) - 1)):
        (0.5 * (blocks[n].f(h[n].detach()) - target).square().sum(1).mean()).backward()
        if n > 0:
            with torch.no_grad():
                target = h[n] + blocks[n].g(target) - blocks[n].g(h[n + 1])
    return loss.detach()


# %% [markdown]
# That is the algorithm. The rest is an ordinary loop with two optimisers, one for the forward weights and one for the
# feedback weights:


# %%
def batches_of(images, size=256):
    """The same batches in the same order for all that are compared."""
    return BatchLoader(images, size, **NORMALISE, shuffle=True)


torch.manual_seed(0)
sizes = [3 * 32 * 32, WIDTH, WIDTH, WIDTH]
blocks = nn.ModuleList(Block(below, above) for below, above in pairwise(sizes))
blocks.append(Block(WIDTH, 10, activation=nn.Identity()))
forward_optimizer = torch.optim.Adam([p for block in blocks for p in block.W.parameters()], lr=5e-4)
feedback_optimizer = torch.optim.Adam([p for block in blocks for p in block.V.parameters()], lr=2e-3)

batches = batches_of(few_images)
for epoch in range(1, 3):
    losses = []
    for x, y in batches:
        x = x.flatten(1)
        feedback_optimizer.zero_grad()
        feedback_gradients(blocks, values(blocks, x))
        feedback_optimizer.step()
        forward_optimizer.zero_grad()
        losses.append(float(forward_gradients(blocks, values(blocks, x), y)))
        forward_optimizer.step()
    print(f"epoch {epoch}: cross-entropy {sum(losses) / len(losses):.3f}")

# %% [markdown]
# The loss falls. **Look at every layer**, not only at the loss: which way does each update point? The angle to
# backprop's gradient says it. At 0 degrees both agree, and at 90 degrees the update is of no use to the loss, as far as
# a gradient can tell.


# %%
def backprop_gradients(blocks, x, y):
    """What backprop would do, for comparison."""
    for block in blocks:
        x = block.f(x)
    return torch.autograd.grad(F.cross_entropy(x, y), [block.W.weight for block in blocks])


x, y = next(iter(batches))
x = x.flatten(1)
forward_optimizer.zero_grad()
forward_gradients(blocks, values(blocks, x), y)
for n, (block, gradient) in enumerate(zip(blocks, backprop_gradients(blocks, x, y), strict=True), start=1):
    print(f"block {n}: {angle(block.W.weight.grad, gradient):5.1f} degrees from backprop")

# %% [markdown]
# The output block follows the loss itself, so its angle is 0. Block 3 has the first target, which is one step down the
# gradient, so its angle is 0, too. Below it the targets have come through feedback, and the angle grows.
#
# ## As printed: hidden layers that never learn
#
# Now to the course notebook, which has one line a little differently. `AsPrinted` is its training step, equal to
# recorded steps of it number by number (`tests/test_golden.py`). Its feedback has no activation, its losses are means
# over all elements, its optimiser is RMSprop with a rate of .01, and its batches have 1024 images. It calls its loss
# the negative log-likelihood, but applies it to probabilities, so it is minus the mean probability of the true class.


# %%
def train(learner, optimizer, batches, loss_of=F.cross_entropy, schedule=None):
    """Train for EPOCHS; a row of losses, accuracies and angles to backprop for every epoch."""
    rows = []
    for epoch in range(1, EPOCHS + 1):
        learner.train()
        loss_sum, right, seen = 0.0, 0, 0
        for x, y in batches:
            logits = learner(x)
            loss = loss_of(logits, y)
            learner.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            if schedule is not None:
                schedule.step()
            loss_sum += loss.item() * len(y)
            right += int((logits.argmax(1) == y).sum())
            seen += len(y)
        row = {"epoch": epoch, "loss": loss_sum / seen, "accuracy": right / seen, "angles": angles_of(learner, x, y)}
        rows.append(row | {f"val {key}": value for key, value in evaluate(learner, val_batches, loss_of).items()})
    return rows


def angles_of(learner, x, y):
    """The angle of every block's update to backprop's gradient; of a learner that is compared with backprop."""
    if not isinstance(learner, Learner):
        return []
    measured = measure(learner, x, y, F.cross_entropy, ["backprop"])
    return [value for name, value in measured.items() if name.startswith("angle")]


@torch.no_grad()
def evaluate(learner, batches, loss_of=F.cross_entropy):
    """Mean loss and accuracy over all images of the batches."""
    learner.eval()
    losses, right, seen = 0.0, 0, 0
    for x, y in batches:
        logits = learner(x)
        losses += float(loss_of(logits, y)) * len(y)
        right += int((logits.argmax(1) == y).sum())
        seen += len(y)
    learner.train()
    return {"loss": losses / seen, "accuracy": right / seen}


def show(rows):
    """The epochs as a table."""
    print("epoch   train loss   accuracy    val loss   accuracy")
    for row in rows:
        print(
            f"{row['epoch']:5d} {row['loss']:12.3f} {row['accuracy']:9.1%} "
            f"{row['val loss']:12.3f} {row['val accuracy']:9.1%}"
        )


def new_network():
    """The network of this notebook; the same first weights each time."""
    torch.manual_seed(0)
    return mlp((3, 32, 32), 10, hidden=[WIDTH] * 3)


printed = AsPrinted(new_network(), seed=0)
before = [next(pair.block.parameters()).detach().clone() for pair in printed.network.pairs]  # weights of each block
large_batches = BatchLoader(few_images, 1024, **NORMALISE, shuffle=True, drop_last=False)
optimizer = torch.optim.RMSprop(printed.optimizer_parameters(), lr=0.01)
printed_rows = train(printed, optimizer, large_batches, negative_probability)
show(printed_rows)

# %% [markdown]
# It learns! Or so it seems. Look at each layer: how far it has moved, and the gradient on one more batch.

# %%
x, y = next(iter(large_batches))
printed.backward(negative_probability(printed(x), y))
print("                     moved by    largest gradient")
for n, (pair, first) in enumerate(zip(printed.network.pairs, before, strict=True), start=1):
    weight = next(pair.block.parameters())
    moved = float((weight.detach() - first).norm())
    print(f"block {n}, {'output' if n == 4 else 'hidden'}: {moved:14.4f} {float(weight.grad.abs().max()):19.6f}")

# %% [markdown]
# The three hidden layers have not moved at all. Their gradient is not small: it is **exactly zero**. The accuracy is
# that of a softmax trained on random features.
#
# The reason is one missing `detach()`. The printed code computes the targets from the values, keeps their graph, and
# differentiates the layer's loss through *both* sides. Write the target out, with $g_3$ linear and weights $V_3$:
#
# $$h_2 - \hat h_2 = g_3(h_3) - g_3(\hat h_3) = V_3\,(h_3 - \hat h_3) = V_3\,\eta\, \frac{\partial L}{\partial h_3},$$
#
# and the last factor is a number that autograd has handed over, without a graph. So $h_n - \hat h_n$ does not depend on
# $W_1, W_2, W_3$ at all: when the value moves, the target moves along with it, and the distance stays the same.
#
# One more thing to know when comparing: the printed code divides the right answers by *batches times 1024*, though the
# last batch is smaller, so that 10,000 images count as 10,240. Its accuracies are 2.3 % (of themselves) too low:

# %%
true = evaluate(printed, val_batches)["accuracy"]
counted = len(val_batches) * 1024
print(f"validation accuracy: {true * len(val_images) / counted:.2%} as the notebook counts, {true:.2%} truly")

# %% [markdown]
# ## By the library
#
# `Learner` is the library's training step, and `LEE_DTP` is the algorithm of 2015 as a value. `learner.backward(loss)`
# stands where `loss.backward()` stood. It trains the feedback on this batch, then leaves every block's local gradient,
# with its target held fixed, in `.grad`. The optimiser is ours.
#
# First we check that it is the algorithm that you have just read. A learner trains its feedback on a batch; then its
# weights are copied into the blocks from above. Both must give the same gradients:

# %%
algorithm = LEE_DTP.with_numbers(beta=0.3, noise=0.24, b_optim=OptimizerSpec("adam", lr=2e-3))
learner = Learner(new_network(), algorithm)
x, y = next(iter(batches))
learner.backward(F.cross_entropy(learner(x), y))

with torch.no_grad():
    for block, pair in zip(blocks, learner.network.pairs, strict=True):
        for mine, theirs in zip(block.W.parameters(), pair.block.parameters(), strict=True):
            mine.copy_(theirs)
        if pair.feedback is not None:
            for mine, theirs in zip(block.V.parameters(), pair.feedback.parameters(), strict=True):
                mine.copy_(theirs)
forward_optimizer.zero_grad()
forward_gradients(blocks, values(blocks, x.flatten(1)), y)
for n, (block, pair) in enumerate(zip(blocks, learner.network.pairs, strict=True), start=1):
    theirs = next(pair.block.parameters()).grad
    error = float((block.W.weight.grad - theirs).norm() / theirs.norm())
    print(f"block {n}: relative difference of both gradients {error:.0e}")
    assert error < 1e-3

# %% [markdown]
# `explain` says of every block how its feedback learns. Then we train:


# %%
def run(make):
    """A learner on the network with the same first weights, trained with the same batches and schedule."""
    learner = make(new_network())
    optimizer = torch.optim.Adam(learner.optimizer_parameters(), lr=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(batches))
    return learner, train(learner, optimizer, batches_of(few_images), schedule=schedule)


print(*explain(learner), sep="\n")
dtp, dtp_rows = run(lambda network: Learner(network, algorithm))
show(dtp_rows)

# %% [markdown]
# **Backprop**, from the same weights, with the same batches, optimiser and epochs:

# %%
backprop, backprop_rows = run(Backprop)
show(backprop_rows)

# %% [markdown]
# **Amortised DTP** is a newer rule. Its targets come down in the same way. But its feedback does not learn to invert
# the block: it learns the *transposed* Jacobian, which is what backprop uses, from a little noise on every batch
# (`docs/amortised.md`).

# %%
amortised, amortised_rows = run(lambda network: Learner(network, "amortised_dtp"))
show(amortised_rows)

# %% [markdown]
# ## Curves and angles

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.4), layout="constrained")
for name, rows, color in (
    ("as printed", printed_rows, "gray"),
    ("DTP", dtp_rows, BACK),
    ("amortised DTP", amortised_rows, LOCAL),
    ("backprop", backprop_rows, FORWARD),
):
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [100 * row["val accuracy"] for row in rows], "-o", ms=3, color=color, label=name)
left.set(xlabel="epoch", title="validation accuracy (%)")
left.legend(fontsize=8)
for axis, rows, title in ((middle, dtp_rows, "DTP"), (right, amortised_rows, "amortised DTP")):
    for n in range(4):
        axis.plot(
            [row["epoch"] for row in rows], [row["angles"][n] for row in rows], "-o", ms=3, label=f"block {n + 1}"
        )
    axis.set(xlabel="epoch", ylim=(-3, 95), title=f"{title}: degrees from backprop")
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# The angles tell the story. Feedback that reconstructs drives $g_n$ towards an *inverse* of $f_n$, so that the updates
# of blocks 1 and 2 point elsewhere than backprop's. Feedback that learns the transposed Jacobian keeps all angles
# small. Blocks 3 and 4 have the first target and the loss itself, so their angles are 0 or nearly so in both.
#
# And with the targets held fixed, every layer moves:

# %%
for n, (pair, first) in enumerate(zip(dtp.network.pairs, new_network(), strict=True), start=1):
    now, then = (torch.cat([p.detach().flatten() for p in block.parameters()]) for block in (pair.block, first))
    print(f"block {n}: moved by {float((now - then).norm()):.2f}, from a norm of {float(then.norm()):.2f}")

# %% [markdown]
# ## The comparison
#
# All four trained on the same 10,000 images for ten epochs, from the same first weights, in one run each. DTP,
# amortised DTP and backprop had the same batches, optimiser and schedule. "As printed" kept its own optimiser, loss and
# batch size. The rates were not tuned for each of them, so small differences mean nothing. The numbers below were
# recorded on one core of a CPU, with torch 2.13 and Python 3.11.


# %%
@torch.no_grad()
def by_class(learner):
    """Accuracy on the test images of each class."""
    learner.eval()
    hits = torch.cat([learner(x).argmax(1) == y for x, y in test_batches]).float()
    learner.train()
    return [float(hits[test_images.labels == label].mean()) for label in range(10)]


columns = {name: by_class(each) for name, each in
           {"as printed": printed, "DTP": dtp, "amortised DTP": amortised, "backprop": backprop}.items()}  # fmt: skip
print(f"{'test accuracy':14}" + "".join(f"{name:>15}" for name in columns))
for label, name in enumerate(classes):
    print(f"{name:14}" + "".join(f"{values_[label]:15.1%}" for values_ in columns.values()))
print(f"{'overall':14}" + "".join(f"{sum(values_) / 10:15.2%}" for values_ in columns.values()))

# %% [markdown]
# Whole runs, on all images and with the network of the course notebook, are two commands:
#
# ```
# python main.py reproduce=cifar10_mlp_as_printed
# python main.py reproduce=cifar10_mlp_dtp
# ```
#
# ## Exercises
#
# Write your own solution in a new cell before you read on. The solution that follows is checked by an `assert`, and
# yours can be checked in the same way.
#
# **1. The missing `detach`.** Build the error of the course notebook into the thirty lines. With linear feedback
# $g(h) = V h + c$, let the graph of the target live on, and look at the gradient of block 2.

# %%
torch.manual_seed(1)
lower, upper = Block(20, 20), Block(20, 20)
x, step = torch.randn(8, 20), torch.randn(8, 20)  # step: what autograd handed over for the block above, a number
value = lower.f(x)
above = upper.f(value)
target = value + upper.V(above - step) - upper.V(above)  # the graph of all three terms lives on
(0.5 * (value - target).square().sum(1).mean()).backward()
print(f"largest gradient with the graph:  {float(lower.W.weight.grad.abs().max()):.1e}")
assert float(lower.W.weight.grad.abs().max()) < 1e-6

lower.W.weight.grad = None
(0.5 * (lower.f(x) - target.detach()).square().sum(1).mean()).backward()
print(f"largest gradient without it:      {float(lower.W.weight.grad.abs().max()):.1e}")
assert float(lower.W.weight.grad.abs().max()) > 1e-3

# %% [markdown]
# **2. When is DTP backprop?** Show that DTP's update is a multiple of backprop's gradient if all blocks are linear and
# $V = W^\top$. (Both halves of the condition matter: try tanh, or another $V$.)


# %%
class Linear(Block):
    """f and g without an activation."""

    def f(self, h):
        return self.W(h)

    def g(self, h):
        return self.V(h)


torch.manual_seed(2)
linear = [Linear(12, 12) for _ in range(4)]
x, y = torch.randn(16, 12), torch.randint(12, (16,))
with torch.no_grad():
    for block in linear:
        block.V.weight.copy_(block.W.weight.T)
forward_gradients(linear, values(linear, x), y)
turned = [float(angle(b.W.weight.grad, g)) for b, g in zip(linear, backprop_gradients(linear, x, y), strict=True)]
print("degrees from backprop:", [round(each, 2) for each in turned])
assert max(turned) < 0.1

# %% [markdown]
# **3. What the difference is good for.** Feedback that has not learned anything is a bad inverse. Compare how far the
# target of block 1 lies from its value with the difference, and without it ($\hat h_{n-1} = g_n(\hat h_n)$), for a
# target of block 2 that is hardly away from its value.

# %%
torch.manual_seed(3)
block, h = Block(30, 30), torch.randn(8, 30).tanh()
above = block.f(h).detach()
near = above + 1e-3 * torch.randn_like(above)
with torch.no_grad():
    with_difference = h + block.g(near) - block.g(above)
    without = block.g(near)
print(
    f"distance with the difference {float((with_difference - h).norm()):.4f}, without {float((without - h).norm()):.4f}"
)
assert (with_difference - h).norm() < 0.01 < (without - h).norm()

# %% [markdown]
# **4. Feedback that stays at random.** `targetprop.FIXED_DTP` is DTP whose feedback never learns. Train it on the same
# images, and compare its angles with those of DTP. Does it learn at all? Why can it?

# %%
fixed, fixed_rows = run(lambda network: Learner(network, "fixed_dtp"))
print(f"validation accuracy {fixed_rows[-1]['val accuracy']:.1%}; DTP {dtp_rows[-1]['val accuracy']:.1%}")
print("degrees from backprop at the end:", [round(each) for each in fixed_rows[-1]["angles"]])
assert fixed_rows[-1]["angles"][-1] < 1  # the output block has the same target in all of them

# %% [markdown]
# It does learn. The forward weights adapt to the feedback: they come to be such that the fixed feedback is of some use.
# This is called feedback alignment, after Lillicrap et al. 2016
# ([doi:10.1038/ncomms13276](https://doi.org/10.1038/ncomms13276)). In the run that is recorded here, fixed feedback did
# about as well as feedback that reconstructs, whose angles are not much smaller. On such a small problem, a bad
# direction in the lower blocks costs little. Whether it does elsewhere is a question to measure, with equal data and
# several seeds.
#
# ## What to take along
#
# - **A target is a constant.** Detach it. If a local loss pulls its target along, its gradient is zero, and nothing
#   warns you: the loss still falls, because the output layer learns.
# - **Look at every layer**, not only at the loss. Has it moved? Does its update point anywhere near backprop's?
#   (`python main.py` logs these angles for every block.)
# - **Compare equals.** The same data, the same epochs, the same search for rates, and more than one seed.
#   (`targetprop compare` does all of this.)
# - **Count with the number of images**, not with batches times batch size.
# - A loss for log-probabilities wants log-probabilities. Minus the mean *probability* still trains, but its gradient
#   vanishes where the network is surely wrong.
# - Reconstruction drives $g_n$ towards an *inverse* of $f_n$. Backprop uses the *transposed* Jacobian. Later rules aim
#   at the transpose: `model=dtp`, `model=amortised_dtp`.
# - A multi-layer perceptron does not know which pixels are neighbours. Blocks may be convolutions, too:
#   `network=simple_vgg`.
