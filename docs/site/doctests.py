"""Examples in docstrings that begin with `>>>` are code, which Markdown alone would take for quotations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor
from properdocs.config.defaults import MkDocsConfig

BEFORE_FENCES = 40
"""Priority of what makes the blocks: those that find fenced code have 25 and 30."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """ProperDocs calls this once; the text of docstrings goes through the same extensions as that of pages."""
    config.markdown_extensions.append(Doctests())  # type: ignore[arg-type]  # an extension may stand for its name
    return config


class Doctests(Extension):
    """Fences around lines that begin with `>>>`, and what follows up to an empty line."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - its name in Python-Markdown
        md.preprocessors.register(Fence(md), "doctests", BEFORE_FENCES)


class Fence(Preprocessor):
    """The preprocessor of `Doctests`."""

    def run(self, lines: list[str]) -> list[str]:
        return list(fenced(lines))


def fenced(lines: list[str]) -> Iterator[str]:
    """The lines, with a fence around every example."""
    for is_empty, group in groupby(lines, key=lambda line: not line.strip()):
        block = list(group)
        if is_empty or not block[0].startswith(">>> "):
            yield from block
        else:
            yield from ("```pycon", *block, "```")
