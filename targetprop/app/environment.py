"""Variables of a file `.env`, such as DATA_DIR or WANDB_API_KEY, in the directory where the command is given."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from dotenv.parser import parse_stream

from targetprop.utils.errors import UserError

NAME = ".env"


def load_environment(folder: Path, environment: MutableMapping[str, str]) -> None:
    """Add the variables of `folder`/.env to an environment; those that it has already stay as they are.

    Raises:
        UserError: there is such a file, and it cannot be read; the message names the line.
    """
    path = folder / NAME
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}.") from None
    for each in bindings:
        if each.error or (each.key is not None and each.value is None):
            given = each.original.string.strip()
            raise UserError(f"{path}, line {each.original.line}: expected NAME=VALUE, got {given!r}.")
    for each in bindings:
        if each.key is not None and each.value is not None:
            environment.setdefault(each.key, each.value)
