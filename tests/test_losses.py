"""The loss of sequences: a mean over time and over the batch, and the same gradients however it is given."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import Learner, UserError
from targetprop.utils.losses import token_cross_entropy


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 5, 4, generator=generator), torch.randint(4, (3, 5), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_is_the_mean_over_time_and_over_the_batch(smoothing: float) -> None:
    outputs, tokens = batch()
    by_place = torch.stack(
        [F.cross_entropy(outputs[:, t], tokens[:, t], reduction="none", label_smoothing=smoothing) for t in range(5)], 1
    )
    made = {kind: token_cross_entropy(outputs, tokens, label_smoothing=smoothing, reduction=kind) for kind in KINDS}
    torch.testing.assert_close(made["none"], by_place)
    torch.testing.assert_close(made["sample"], by_place.mean(1))
    torch.testing.assert_close(made["mean"], by_place.mean())


KINDS = ("mean", "sample", "none")


def test_a_learner_takes_the_mean_or_one_loss_for_each_sample() -> None:
    outputs, tokens = batch()
    gradients = []
    for kind in KINDS[:2]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))
        learner = Learner(net, "dtp")
        learner.backward(token_cross_entropy(learner(outputs), tokens, reduction=kind))
        gradients.append([p.grad for p in net.parameters() if p.grad is not None])
    assert len(gradients[0]) == 4
    torch.testing.assert_close(gradients[0], gradients[1])


def test_shapes_that_do_not_fit_are_refused() -> None:
    outputs, tokens = batch()
    for given, labels in ((outputs[:, 0], tokens[:, 0]), (outputs, tokens[:, :4]), (outputs, tokens[0])):
        with pytest.raises(UserError, match=r"^outputs: expected outputs \(batch, time, classes\) for labels"):
            token_cross_entropy(given, labels)
    with pytest.raises(UserError, match=r"^reduction: expected mean, sample or none, got 'sum'"):
        token_cross_entropy(outputs, tokens, reduction="sum")
