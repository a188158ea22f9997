"""Links to files of the repository that are no pages: shown as paths, and checked.

The pages are read in the repository, too, where `[the rule](../examples/your_own_rule.py)` is a link. The site has no
such file, so there the path stands behind the text. A link to nothing is a warning, which ends a strict build.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from properdocs.config.defaults import MkDocsConfig
from properdocs.structure.pages import Page

LINK = re.compile(r"(?<!!)\[([^\]\n]+(?:\n[^\]\n]+)?)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
log = logging.getLogger("properdocs.hooks.links")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """ProperDocs calls this with the text of every page."""
    docs = Path(config.docs_dir).resolve()
    here = (docs / page.file.src_uri).parent

    def shown(match: re.Match[str]) -> str:
        text, target = match[1], (here / match[2]).resolve()
        if not target.exists():
            log.warning(f"{page.file.src_uri}: {match[2]}: no such file")
        elif not target.is_relative_to(docs) or target.is_dir():
            return as_path(text, target.relative_to(docs.parent).as_posix())
        return match[0]

    kept: list[str] = FENCE.findall(markdown)
    parts = [LINK.sub(shown, part) for part in FENCE.split(markdown)]
    return "".join(part + fence for part, fence in zip(parts, [*kept, ""], strict=True))


def as_path(text: str, path: str) -> str:
    """The text of a link with the path that it leads to; a text that is the path stands alone."""
    plain = text.strip("`").removeprefix("../").rstrip("/")
    return f"`{path}`" if path.endswith(plain) else f"{text} (`{path}`)"
