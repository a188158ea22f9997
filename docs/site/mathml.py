"""Mathematics as MathML, which browsers draw by themselves: no script, no font, nothing to fetch.

Pages write `$...$` and `$$...$$`, as GitHub and notebooks read them; arithmatex finds them.
"""

from __future__ import annotations

import html
import logging
import re
from functools import partial
from typing import Any

from latex2mathml.converter import convert
from properdocs.structure.pages import Page

log = logging.getLogger("properdocs.hooks.mathml")
MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """ProperDocs calls this with the HTML of every page."""
    return MATHS.sub(partial(_mathml, page.file.src_uri), content)


def _mathml(page: str, match: re.Match[str]) -> str:
    element, bracket, tex = match.groups()
    made = convert(html.unescape(tex).strip(), display="block" if bracket == "[" else "inline")
    if "\\" in made:
        log.warning(f"{page}: a command that latex2mathml does not know: {tex}")
    return f'<{element} class="maths">{made}</{element}>'
