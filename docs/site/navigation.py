"""Fills the navigation of mkdocs.yml: `folder/` is the pages of a folder that it does not name, `*` all that are left.

So a page that somebody adds is found on the site, without a line in mkdocs.yml.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from properdocs.config.defaults import MkDocsConfig

Entry = dict[str, Any] | str
"""{title: page or entries}, or a page without a title."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """ProperDocs calls this before it looks for pages."""
    root = Path(config.docs_dir)
    pages = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.md"))]
    config.nav = filled(config.nav or [], pages)
    return config


def filled(nav: list[Entry], pages: list[str]) -> list[Entry]:
    """`nav` with pages in place of folders and of `*`; a section that is left without any is dropped."""
    left = set(pages) - set(_named(nav))
    folders = {entry: _take(entry, left) for entry in _named(nav) if entry.endswith("/")}
    folders["*"] = sorted(left)
    return list(_fill(nav, folders))


def _named(entries: list[Entry]) -> Iterator[str]:
    for entry in entries:
        below = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [below] if isinstance(below, str) else _named(below)


def _take(folder: str, left: set[str]) -> list[str]:
    found = sorted(page for page in left if page.startswith(folder))
    left.difference_update(found)
    return found


def _fill(entries: list[Entry], folders: dict[str, list[str]]) -> Iterator[Entry]:
    for entry in entries:
        if isinstance(entry, str):
            yield from folders.get(entry, [entry])
        else:
            ((title, below),) = entry.items()
            inside = below if isinstance(below, str) else list(_fill(below, folders))
            if inside:
                yield {title: inside}
