"""Tiny Shakespeare (Karpathy 2015): 1,115,394 characters of Shakespeare's plays, 65 different ones, as one text."""

from __future__ import annotations

import lzma
import zlib
from pathlib import Path

import torch
from torch import Tensor

from targetprop.data.archive import SingleFiles
from targetprop.data.examples import Examples, ExampleSplits
from targetprop.data.locate import locate, unpacking
from targetprop.utils.errors import UserError, require, require_whole

NAME = "input.txt"
MD5 = "6fb458f1232090904fb40fe944165e91"
PUBLISHED = SingleFiles(
    title="Tiny Shakespeare",
    url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",
    folder="tiny_shakespeare",
    files={NAME: MD5},
    unpacked={NAME: MD5},
    aliases=("tinyshakespeare",),
    spellings={NAME: ("tiny_shakespeare.txt", "tinyshakespeare.txt")},
    most=2**26,
)
TEST_SHARE = 0.1
"""Of the text, at its end: held back for the test, as is usual for this text."""


def load(data_dir: Path | str, download: bool = True, *, length: int = 128) -> ExampleSplits:
    """The text as sequences of characters, each labelled with the one that follows it.

    The last tenth of the text is the test set. Sequences follow each other without overlap, so that every character but
    the first is foretold once; what is left at the end of either part is left out. Characters are numbered in the
    order of their codes.

    Args:
        data_dir: the directory that holds the folder of the text.
        download: whether it is downloaded if it is missing.
        length: characters of a sequence.

    Raises:
        UserError: the text is missing, or cannot be read, or is shorter than a few sequences.
    """
    require_whole("length", length, least=1)
    files = locate(PUBLISHED, Path(data_dir), download)
    text = _read(files[NAME])
    letters = sorted(set(text))
    number = {letter: index for index, letter in enumerate(letters)}
    tokens = torch.tensor([number[letter] for letter in text])
    first = round((1 - TEST_SHARE) * len(tokens))
    most = len(tokens) - first - 1
    require(length <= most, "length", f"at most {most}, since the test set has {most + 1} characters", length)
    train, test = (_sequences(part, length, tuple(letters)) for part in (tokens[:first], tokens[first:]))
    return files.noted(ExampleSplits(train, test))


def _sequences(tokens: Tensor, length: int, letters: tuple[str, ...]) -> Examples:
    count = (len(tokens) - 1) // length
    inputs, targets = (tokens[shift : shift + count * length].view(count, length) for shift in (0, 1))
    return Examples(inputs.clone(), targets.clone(), letters)


def _read(path: Path) -> str:
    try:
        with unpacking(path) as stream:
            content = stream.read(PUBLISHED.most + 1)
        require(len(content) <= PUBLISHED.most, str(path), f"at most {PUBLISHED.most:,} bytes", f"{len(content):,}")
        text = content.decode()
    except (EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: not a readable text ({error}). Replace it by a complete copy.") from error
    require(len(text) > 1, str(path), "a text of two characters or more", f"{len(text)}")
    return text
