"""Sequences: a text, the copying and the adding task, images read pixel by pixel or row by row."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from targetprop.data import adding, copying, digits, sequential, tiny_shakespeare
from targetprop.data.examples import Examples, ExampleSplits
from targetprop.data.loader import BatchLoader
from targetprop.utils.errors import UserError

TEXT = "".join(f"Speak, {word}.\n" for word in ("speak", "hear", "me", "you", "we") * 40)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were this text the published one."""
    md5 = hashlib.md5(TEXT.encode()).hexdigest()
    files = {tiny_shakespeare.NAME: md5}
    monkeypatch.setattr(tiny_shakespeare, "PUBLISHED", replace(tiny_shakespeare.PUBLISHED, files=files, unpacked=files))


def plain(content: bytes) -> bytes:
    return content


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("tiny_shakespeare/input.txt", plain),
        ("tinyshakespeare/input.txt", plain),
        ("input.txt", plain),
        ("input.txt.gz", gzip.compress),
        ("tiny_shakespeare/input.txt.xz", lzma.compress),
        ("tiny_shakespeare.txt.xz", lzma.compress),
        ("tiny_shakespeare/input.txt", gzip.compress),
    ],
)
def test_the_text_is_found_however_it_is_packed(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pack(TEXT.encode()))
    splits = tiny_shakespeare.load(tmp_path, download=False, length=10)
    assert splits.note == ""
    letters = splits.train.classes
    assert letters == tuple(sorted(set(TEXT)))
    read = "".join(letters[token] for token in splits.train.inputs.flatten())
    assert TEXT.startswith(read)
    foretold = "".join(letters[token] for token in splits.train.targets.flatten())
    assert TEXT[1:].startswith(foretold)
    assert splits.test is not None
    held_back = "".join(letters[token] for token in splits.test.inputs.flatten())
    assert held_back == TEXT[round(0.9 * len(TEXT)) :][: len(held_back)]
    assert len(read) + len(held_back) > len(TEXT) - 2 * 11


@pytest.mark.usefixtures("published")
def test_another_text_is_used_from_its_folder_alone_and_noted(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("another text " * 20)
    with pytest.raises(UserError, match=r"lacks input\.txt, and the download is switched off.*others, by their md5"):
        tiny_shakespeare.load(tmp_path, download=False)
    (tmp_path / "tiny_shakespeare").mkdir()
    (tmp_path / "input.txt").rename(tmp_path / "tiny_shakespeare/input.txt")
    with pytest.warns(UserWarning, match=r"the checksums of input\.txt are not the published ones"):
        assert tiny_shakespeare.load(tmp_path, download=False, length=5).note.startswith("Tiny Shakespeare: input.txt")


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    "content", [b"", b"a", b"\xff\xfe\x00\x81" * 50, lzma.compress(TEXT.encode())[:60], b"\x1f\x8bno"]
)
def test_what_is_no_text_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tiny_shakespeare").mkdir()
    (tmp_path / "tiny_shakespeare/input.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"input\.txt: ") as refused:
        tiny_shakespeare.load(tmp_path, download=False)
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("published")
def test_sequences_are_no_longer_than_the_text(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text(TEXT)
    with pytest.raises(UserError, match=r"^length: expected at most \d+, since the test set has \d+ characters"):
        tiny_shakespeare.load(tmp_path, download=False, length=10_000)


def test_symbols_are_written_down_after_the_wait() -> None:
    splits = copying.load(symbols=3, copied=4, wait=6, train=50, test=7)
    assert splits.test is not None
    assert (splits.train.shape, len(splits.train), len(splits.test)) == ((14,), 50, 7)
    x, y = splits.train.inputs, splits.train.targets
    assert set(x[:, :4].flatten().tolist()) == {1, 2, 3}
    assert torch.equal(x[:, :4], y[:, 10:])
    assert (x[:, 9] == 4).all()
    assert not x[:, 4:9].any()
    assert not x[:, 10:].any()
    assert not y[:, :10].any()
    assert len(splits.train.classes or ()) == 5


def test_the_sum_of_two_marked_numbers_one_of_each_half() -> None:
    train = adding.load(length=7, train=2000, test=1).train
    numbers, marks = train.inputs.unbind(2)
    assert torch.equal(marks[:, :3].sum(1), torch.ones(2000))
    assert torch.equal(marks[:, 3:].sum(1), torch.ones(2000))
    torch.testing.assert_close((numbers * marks).sum(1, keepdim=True), train.targets)
    assert float(train.targets.var()) == pytest.approx(1 / 6, abs=0.01)
    assert (marks.sum(0) > 0).all()


@pytest.mark.parametrize("make", [adding.load, copying.load])
def test_the_seed_is_all_that_they_depend_on(make: Callable[..., ExampleSplits]) -> None:
    torch.manual_seed(1)
    first = make(train=20, test=5, seed=3)
    torch.manual_seed(2)
    again, other = make(train=20, test=5, seed=3), make(train=20, test=5, seed=4)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.train.targets, again.train.targets)
    assert not torch.equal(first.train.targets, other.train.targets)


def test_images_are_read_by_rows_or_by_pixels() -> None:
    images = digits.load().train
    rows, pixels = (sequential.load("", images="digits", by=by).train for by in ("rows", "pixels"))
    assert (rows.shape, pixels.shape) == ((8, 8), (64, 1))
    assert torch.equal(rows.inputs.flatten(1), pixels.inputs.flatten(1))
    assert torch.equal(rows.targets, images.labels)
    for inputs in (rows.inputs, pixels.inputs):
        assert abs(float(inputs.mean())) < 1e-6
        assert float(inputs.std(correction=0)) == pytest.approx(1)
    shades = images.pixels.flatten(1).float()
    assert float(torch.corrcoef(torch.stack([shades.flatten(), rows.inputs.flatten()]))[0, 1]) == pytest.approx(1)


def test_permuted_pixels_are_the_same_pixels_in_one_other_order() -> None:
    usual, first, again = (
        sequential.load("", images="digits", permuted=permuted, seed=seed).train.inputs.flatten(1)
        for permuted, seed in ((False, 0), (True, 1), (True, 2))
    )
    assert not torch.equal(first, usual)
    assert not torch.equal(first, again)
    assert torch.equal(first.sort(1).values, usual.sort(1).values)
    order = [int((usual == column[:, None]).all(0).nonzero()[0]) for column in first.T]
    assert torch.equal(usual[:, order], first)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (adding.load, {"length": 1}, "^length: expected a whole number, 2 or more, got 1"),
        (copying.load, {"wait": 0}, "^wait: expected a whole number, 1 or more, got 0"),
        (copying.load, {"seed": -1}, "^seed: "),
        (sequential.load, {"data_dir": "", "images": "mist"}, "^images: unknown value 'mist'. Did you mean 'mnist'"),
        (sequential.load, {"data_dir": "", "by": "row"}, "^by: unknown value 'row'. Did you mean 'rows'"),
        (tiny_shakespeare.load, {"data_dir": "", "length": 0}, "^length: expected a whole number, 1 or more"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[..., object], settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**settings)


def test_tokens_and_labels_of_every_place_are_examples() -> None:
    tokens = torch.randint(4, (6, 5))
    examples = Examples(tokens, tokens.flip(1), tuple("abcd"))
    loader = BatchLoader(examples, 3)
    x, y = next(iter(loader))
    assert (x.dtype, y.shape) == (torch.int64, (3, 5))
    assert (loader.blank(2).dtype, loader.blank(2).shape) == (torch.int64, (2, 5))
    for bad, message in (
        ((tokens.view(6, 5, 1), tokens, tuple("abcd")), r"^inputs: expected tokens of shape \(N, time\)"),
        ((tokens - 4, tokens, tuple("abcd")), "^inputs: expected tokens, 0 or more"),
        ((tokens, tokens[:, :4], tuple("abcd")), r"^targets: expected shape \(6,\), or \(6, 5\)"),
        ((tokens, tokens, tuple("ab")), r"^targets: expected labels in 0\.\.1"),
    ):
        with pytest.raises(UserError, match=message):
            Examples(*bad)
    with pytest.raises(UserError, match=r"^test: expected targets as those for training \(4 classes, 5 labels each\)"):
        ExampleSplits(examples, Examples(tokens, tokens[:, 0], tuple("abcd")))
