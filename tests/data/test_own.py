"""Data sets of the user's own."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from targetprop.data.own import read
from targetprop.utils.errors import UserError

X = torch.randn(6, 3)


class Listed(Dataset[Any]):
    """Examples as they are."""

    def __init__(self, examples: list[Any]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> Any:
        return self.examples[number]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(X[0], 0)])


class Noisy(Listed):
    def __getitem__(self, number: int) -> Any:
        x, y = self.examples[number]
        return x + torch.rand(1), y


class Failing(Listed):
    def __getitem__(self, number: int) -> Any:
        if number == 4:
            raise OSError("no such picture")
        return self.examples[number]


def pairs(targets: list[Any], inputs: Any = X) -> Listed:
    return Listed(list(zip(inputs, targets, strict=True)))


LABELS = [0, 1, 2, 2, 1, 0]


@pytest.mark.parametrize(
    "given",
    [
        TensorDataset(X, torch.tensor(LABELS)),
        TensorDataset(X.double(), torch.tensor(LABELS, dtype=torch.uint8)),
        pairs(LABELS),
        pairs(LABELS, X.numpy()),
        pairs(list(map(np.int64, LABELS)), X.tolist()),
        pairs([torch.tensor(label) for label in LABELS]),
        DataLoader(pairs(LABELS), batch_size=2, shuffle=True),
        [pairs(LABELS), None],
    ],
)
def test_labelled_vectors(given: Any) -> None:
    splits = read(given)
    assert splits.train.inputs.dtype == torch.float32
    assert torch.allclose(splits.train.inputs, X)
    assert splits.train.targets.tolist() == LABELS
    assert splits.train.classes == ("0", "1", "2")
    assert splits.test is None


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 8, 8), (4, 2, 3, 3)])
def test_inputs_are_of_any_shape(shape: tuple[int, ...]) -> None:
    assert read(TensorDataset(torch.randn(6, *shape), torch.tensor(LABELS))).train.shape == shape


@pytest.mark.parametrize(
    "targets",
    [torch.arange(6.0), torch.arange(6.0)[:, None], torch.arange(12.0).view(6, 2), torch.arange(6.0).double()],
)
def test_floats_are_numbers_to_be_met(targets: torch.Tensor) -> None:
    for given in (TensorDataset(X, targets), pairs(list(targets))):
        train = read(given).train
        assert train.classes is None
        assert train.targets.dtype == torch.float32
        assert torch.equal(train.targets, targets.float().view(6, -1))  # a column, with which no loss would broadcast


def test_a_pair_of_data_sets_is_for_training_and_testing() -> None:
    splits = read((pairs(LABELS), pairs([1, 1], X[:2])))
    assert splits.test is not None
    assert (len(splits.train), len(splits.test)) == (6, 2)
    assert splits.test.classes == splits.train.classes


def test_classes_may_be_counted_or_named() -> None:
    assert read(pairs(LABELS), 5).train.classes == ("0", "1", "2", "3", "4")
    assert read(pairs(LABELS), ["a", "b", "c"]).train.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("given", "classes", "message"),
    [
        (Stream(), None, r"the training set: expected a Dataset with a length, .* got Stream"),
        (DataLoader(Stream()), None, "got Stream"),
        (DataLoader(pairs(LABELS), collate_fn=list), None, "the DataLoader's own collate_fn would not be used"),
        (None, None, "got NoneType"),
        (Listed([]), None, "expected one example or more, got none"),
        (Failing(pairs(LABELS).examples), None, r"example 4 cannot be read \(OSError: no such picture\)"),
        (Noisy(pairs(LABELS).examples), None, r"another example \d at the second reading"),
        (Listed([1, 2]), None, "expected pairs of an input and a target, got int as example 0"),
        (Listed([(X[0], 0, 1)]), None, "expected pairs of an input and a target, got tuple as example 0"),
        (Listed([("text", 0)]), None, "got 'text' in example 0"),
        (Listed([(X[0], "cat")]), None, "got 'cat' in example 0"),
        (
            Listed([(torch.tensor([[1, 2]]), 0)]),
            None,
            r"or float tensors of one dimension or more, got int64 of shape \(1, 2\)",
        ),
        (Listed([(torch.tensor([1, -2]), 0)] * 2), None, r"inputs: expected tokens, 0 or more, got -2"),
        (TensorDataset(X[:, 0], torch.tensor(LABELS)), None, "float tensors of one dimension or more, got float32"),
        (Listed([(X[0], 0), (X[0, :2], 1)]), None, r"as that of example 0, float32 of shape \(3,\), got .*\(2,\) as"),
        (
            Listed([(X[0], 0), (X[0], 0.5)]),
            None,
            "example 0, int64 0, got float32 0.5 as that of example 1",
        ),
        (pairs([True] * 6), None, "got True in example 0"),
        (pairs([torch.zeros(2, dtype=torch.long)] * 6), None, r"a vector of floats, got int64 of shape \(2,\)"),
        (pairs([torch.zeros(2, 2)] * 6), None, r"a vector of floats, got float32 of shape \(2, 2\)"),
        (pairs([0, 1, -1, 0, 0, 0]), None, r"expected labels in 0\.\.1, got -1 in example 2"),
        (pairs([0, 1, 3, 0, 0, 0]), 3, r"expected labels in 0\.\.2, got 3 in example 2"),
        (pairs([0, 1, 1000, 0, 0, 0]), None, "labels numbered from 0 on, got 1000 among 6 examples"),
        ((pairs(LABELS), pairs([0, 3], X[:2])), None, r"the test set: expected labels in 0\.\.2, got 3 in example 1"),
        ((pairs(LABELS), pairs([0.5, 3.0], X[:2])), None, r"the test set: expected labels in 0\.\.2, got \[0\.5\]"),
        ((pairs(LABELS), pairs([0, 1], X[:2, :2])), None, r"test: expected inputs of \(3,\), as those for training"),
        (pairs([0.5] * 6), 3, "^classes: the targets are floats"),
        (
            TensorDataset(X * torch.tensor(float("nan")), torch.tensor(LABELS)),
            None,
            "finite numbers, .* of example 0",
        ),
        (pairs([0.0, 0.0, float("inf"), 0.0, 0.0, 0.0]), None, "finite numbers, got others in the target of example 2"),
    ],
)
def test_what_is_no_such_data_set_is_refused_in_one_line(given: Any, classes: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        read(given, classes)
    assert "\n" not in str(refused.value)
