"""Mathematics as MathML, which browsers draw by themselves: no script, no font, nothing to fetch.

Pages write `$...$` and `$$...$$`, as GitHub and notebooks read them; arithmatex finds them.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, /, **_: Any) -> str:
    """ProperDocs calls this with the HTML of every page."""
    return MATHS.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    element, bracket, tex = match.groups()
    display = "block" if bracket == "[" else "inline"
    return f'<{element} class="maths">{convert(html.unescape(tex).strip(), display=display)}</{element}>'
