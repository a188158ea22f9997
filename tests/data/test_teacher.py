"""The random teacher."""

import pytest
import torch

from targetprop.data.teacher import load
from targetprop.utils.errors import UserError


def test_inputs_are_gaussian_and_outputs_standardised() -> None:
    splits = load(train=4000, test=1000)
    assert splits.test is not None
    assert (splits.train.shape, splits.train.targets.shape, len(splits.test)) == ((16,), (4000, 8), 1000)
    assert splits.train.classes is None
    assert float(splits.train.inputs.mean()) == pytest.approx(0, abs=0.02)
    assert float(splits.train.inputs.std()) == pytest.approx(1, abs=0.02)
    assert splits.train.targets.mean(0).abs().max() < 1e-6
    assert torch.allclose(splits.train.targets.std(0, correction=0), torch.ones(8), atol=1e-6)
    assert torch.allclose(splits.test.targets.std(0), torch.ones(8), atol=0.1)


def test_the_seed_is_all_that_it_depends_on() -> None:
    torch.manual_seed(1)
    first = load(train=20, test=5, seed=3)
    torch.manual_seed(2)
    again, other = load(train=20, test=5, seed=3), load(train=20, test=5, seed=4)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.train.targets, again.train.targets)
    assert not torch.equal(first.train.inputs, other.train.inputs)


def test_noise_is_added_to_the_very_same_teacher() -> None:
    clean, noisy = load(train=5000, test=1000), load(train=5000, test=1000, noise=0.5)
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    for part in ("train", "test"):
        added = getattr(noisy, part).targets - getattr(clean, part).targets
        assert float(added.std()) == pytest.approx(0.5, abs=0.02)


def test_a_teacher_without_hidden_layers_is_linear_and_others_are_far_from_it() -> None:
    def unexplained(hidden: list[int]) -> float:
        train = load(hidden=hidden, train=3000, test=1).train
        inputs = torch.cat([train.inputs, torch.ones(3000, 1)], 1)
        solution = torch.linalg.lstsq(inputs, train.targets).solution
        return float((inputs @ solution - train.targets).square().mean())

    assert unexplained([]) < 1e-9
    assert unexplained([32, 32]) > 0.15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": 0}, "^inputs: expected a whole number, 1 or more, got 0"),
        ({"hidden": [4, 0.5]}, "^hidden: .* got 0.5"),
        ({"train": 1}, "^train: expected a whole number, 2 or more"),
        ({"noise": -1}, "^noise: expected a number, 0 or more, got -1"),
        ({"seed": -1}, "^seed: "),
    ],
)
def test_other_values_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(**settings)  # type: ignore[arg-type]
