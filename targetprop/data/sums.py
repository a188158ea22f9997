"""Lists of md5 checksums, as the command md5sum writes and checks them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from targetprop.data.files import readable, refuse_large
from targetprop.utils.errors import UserError
from targetprop.utils.files import write_text
from targetprop.utils.text import shown

MOST = 2**20
"""Bytes that a list may have."""


def read_sums(path: Path) -> dict[str, str]:
    """The md5 of each file in a list, by its name as it is written there; empty if there is no list.

    Raises:
        UserError: the list cannot be read, or is none; names it.
    """
    with readable(path):
        if not path.is_file():
            return {}
        refuse_large(path, MOST)
        lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    found = {}
    for line in lines:
        matched = re.fullmatch(r"([0-9a-fA-F]{32}) [ *](.+)", line)
        if matched is None:
            raise UserError(f"{path}: expected lines of an md5 and the name of a file, got {shown(line)}")
        found[matched[2]] = matched[1].lower()
    return found


def write_sums(path: Path, sums: Mapping[str, str]) -> None:
    """Write the md5 of files, by their names below the folder of the list."""
    write_text(path, "".join(f"{md5}  {name}\n" for name, md5 in sums.items()))
