"""Every error message of targetprop, read from its source, for the page that says what helps.

`<!-- messages: data app/datamodule.py -->` in a page becomes the list of messages that these files and folders of
targetprop/ can raise, and `<!-- messages: . -->` that of all files which no other mark of the page names. Parts that
depend on what was given are shown as an ellipsis.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "targetprop"
MARK = re.compile(r"<!-- messages: (.+?) -->")
RAISED = {"UserError", "DamagedError", "DivergenceError", "InapplicableError"}
"""Errors whose first argument is the message; `key=` is the setting that is meant."""
CHECKS = {"require": 1, "require_whole": 0, "unknown": 0, "no_such": 0, "refuse_unknown": -1}
"""Functions of utils/errors.py that raise or make one, and the position of their argument `key`."""
GIVEN = "…"
MOST = 4
"""Ways to word one message that are told apart."""


@dataclass(frozen=True, order=True)
class Message:
    """One message, as the user sees it.

    Args:
        path: the file that raises it, below targetprop/.
        text: the message with its key before it, an ellipsis for whatever is only known when it is raised.
    """

    path: str
    text: str = field(compare=True)


def on_page_markdown(markdown: str, /, **_: Any) -> str:
    """ProperDocs calls this with the text of every page."""
    everywhere = marked(markdown)
    return MARK.sub(lambda match: listed(match[1].split(), everywhere), markdown)


def listed(places: list[str], everywhere: list[str]) -> str:
    """The messages of these places as a list, but those of a nearer place; each text once, by the alphabet."""
    texts = {each.text for each in collected() if place_of(each.path, everywhere) in places}
    items = [f"- `` {text} ``" for text in sorted(texts, key=lambda text: text.strip(GIVEN + " :").lower())]
    return "\n".join(["The messages:", "", *items]) if items else ""


def place_of(path: str, places: Iterable[str]) -> str | None:
    """Which of these files and folders holds the file; the nearest one if several do, and `.` only if none does."""
    held = (each for each in places if each == "." or path == each or path.startswith(f"{each}/"))
    return max(held, key=lambda each: (each != ".", len(each)), default=None)


def marked(markdown: str) -> list[str]:
    """The files and folders whose messages a page asks for."""
    return [place for places in MARK.findall(markdown) for place in places.split()]


@cache
def collected() -> tuple[Message, ...]:
    """All messages of the package, sorted."""
    return tuple(sorted({message for path in SOURCE.rglob("*.py") for message in _of_file(path)}))


def _of_file(path: Path) -> Iterator[Message]:
    short = path.relative_to(SOURCE).as_posix()
    if short == "utils/errors.py":  # where the checks themselves are
        return
    module = ast.parse(path.read_text(), type_comments=False)
    for function in _functions(module):
        texts = Texts(module, function)
        for call in _calls(function):
            for text in texts.of(call):
                if text.strip(GIVEN + " :.(),'"):  # else it passes on what another error says
                    yield Message(short, re.sub(r"\s+", " ", text))


def _functions(module: ast.Module) -> Iterator[ast.AST]:
    """All functions, each without those that are defined within it, and what stands outside of any."""
    yield module
    yield from (each for each in ast.walk(module) if isinstance(each, ast.FunctionDef))


def _calls(scope: ast.AST) -> Iterator[ast.Call]:
    for node in _below(scope):
        if isinstance(node, ast.Call) and _name(node) in RAISED | CHECKS.keys():
            yield node


def _below(scope: ast.AST) -> Iterator[ast.AST]:
    """What stands in the scope, but not in a function that is defined there."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _below(child)


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


class Texts:
    """What expressions can say within one function: constants, f-strings, names that were given such a value."""

    def __init__(self, module: ast.Module, function: ast.AST) -> None:
        self.module, self.function = module, function

    def of(self, call: ast.Call) -> list[str]:
        """The messages that a call can make."""
        name, given = _name(call), {each.arg: each.value for each in call.keywords}
        if name in RAISED:
            message = call.args[0] if call.args else given["message"]
            keys = self.all(given["key"]) if "key" in given else [""]
            return [f"{key}: {text}" if key else text for key, text in product(keys, self.all(message))]
        keys = [GIVEN] if CHECKS[name] < 0 else self.all(call.args[CHECKS[name]])
        return [f"{key}: {text}" if key else text for key, text in product(keys, self._expected(name, call, given))]

    def _expected(self, name: str, call: ast.Call, given: dict[str | None, ast.expr]) -> list[str]:
        if name == "require":
            return [f"expected {text}, got {GIVEN}" for text in self.all(call.args[2])]
        if name == "require_whole":
            least = ast.unparse(call.args[2] if len(call.args) > 2 else given["least"])
            return [f"expected a whole number, {least if least.lstrip('-').isdigit() else GIVEN} or more, got {GIVEN}"]
        said = f"unknown value {GIVEN}." if name == "unknown" else "there is no such setting."
        return [f"{said} Did you mean {GIVEN}? Valid: {GIVEN}."]

    def all(self, node: ast.expr | None, depth: int = 4) -> list[str]:
        """All texts that an expression can be; an ellipsis where that is not written in this file."""
        if depth == 0 or node is None:
            return [GIVEN]
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if isinstance(node, ast.JoinedStr):
            parts = [
                self.all(part.value, depth - 1) if isinstance(part, ast.FormattedValue) else self.all(part, depth)
                for part in node.values
            ]
            return self._joined(parts)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = [self.all(node.left, depth), self.all(node.right, depth)]
            return self._joined(sides) if any(side != [GIVEN] and _is_text(side) for side in sides) else [GIVEN]
        if isinstance(node, ast.IfExp):
            return [*self.all(node.body, depth), *self.all(node.orelse, depth)]
        if isinstance(node, ast.Name):
            return self._named(node.id, depth - 1)
        return [GIVEN]

    @staticmethod
    def _joined(parts: list[list[str]]) -> list[str]:
        """All ways to put one of each part behind another; of many, the most varied parts are left open."""
        parts = list(parts)
        while math.prod(map(len, parts)) > MOST:
            parts[max(range(len(parts)), key=lambda n: len(parts[n]))] = [GIVEN]
        return ["".join(each) for each in product(*parts)]

    def _named(self, name: str, depth: int) -> list[str]:
        """What a name was given: in this function, in the module, or where this function is called."""
        values = [*_assigned(self.function, name), *_assigned(self.module, name)]
        if values:
            return [text for value in values for text in self.all(value, depth)]
        handed = self._handed(name)
        return [text for texts, value in handed for text in texts.all(value, depth)] or [GIVEN]

    def _handed(self, name: str) -> list[tuple[Texts, ast.expr]]:
        """What other functions of the module hand over for this argument."""
        if not isinstance(self.function, ast.FunctionDef):
            return []
        names = [each.arg for each in self.function.args.args if each.arg not in ("self", "cls")]
        if name not in names:
            return []
        place, found = names.index(name), []
        for caller in _functions(self.module):
            for node in _below(caller):
                if isinstance(node, ast.Call) and _name(node) == self.function.name and caller is not self.function:
                    by_name = {each.arg: each.value for each in node.keywords}
                    value = node.args[place] if place < len(node.args) else by_name.get(name)
                    if value is not None:
                        found.append((Texts(self.module, caller), value))
        return found


def _is_text(texts: list[str]) -> bool:
    return not all(text.lstrip("-").isdigit() for text in texts)


def _assigned(scope: ast.AST, name: str) -> list[ast.expr]:
    """The values that a name is given in a scope."""
    return [
        node.value
        for node in _below(scope)
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    ]
