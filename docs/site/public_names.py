"""What `import targetprop` offers, for the page of the API: read from targetprop/public.py, so that none is left out.

`<!-- api: targets -->` in a page becomes an entry for each public name that is defined in this part of targetprop/, and
`<!-- api: . -->` one for each that no other mark of the page takes. `CAPITALS` after the part takes only constants,
`names` all others.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

PUBLIC = Path(__file__).parents[2] / "targetprop" / "public.py"
MARK = re.compile(r"<!-- api: (\S+)(?: (CAPITALS|names))? -->")


def on_page_markdown(markdown: str, /, **_: Any) -> str:
    """ProperDocs calls this with the text of every page."""
    marks = [(part, kind) for part, kind in MARK.findall(markdown)]
    return MARK.sub(lambda match: entries(mark_of(match), marks), markdown)


def mark_of(match: re.Match[str]) -> tuple[str, str]:
    """The part and the kind of names that a mark asks for."""
    return match[1], match[2] or ""


def entries(mark: tuple[str, str], marks: list[tuple[str, str]]) -> str:
    """One directive of mkdocstrings for each public name of a mark."""
    chosen = [path for path in public_paths() if taken_by(path, marks) == mark]
    return "\n\n".join(f"::: {path}" for path in chosen)


def taken_by(path: str, marks: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The mark that takes a name; `.` takes what is left."""
    module, _, name = path.removeprefix("targetprop.").rpartition(".")
    kind = "CAPITALS" if name.isupper() else "names"
    fitting = [mark for mark in marks if f"{module}.".startswith(f"{mark[0]}.") and mark[1] in ("", kind)]
    return max(fitting, key=lambda mark: len(mark[0]), default=next((mark for mark in marks if mark[0] == "."), None))


@cache
def public_paths() -> tuple[str, ...]:
    """The full path of every public name, in the order of targetprop/public.py."""
    imports = [node for node in ast.parse(PUBLIC.read_text()).body if isinstance(node, ast.ImportFrom)]
    paths = [f"{node.module}.{alias.name}" for node in imports for alias in node.names]
    return tuple(path for path in paths if not path.endswith(".__version__"))
