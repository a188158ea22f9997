"""What the site is made by: messages and public names read from the source, navigation, links, formulas."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import targetprop
from docs.site import messages, public_names
from targetprop import ByLoss, DifferenceTargets, Learner, OptimizerSpec, Standardize, UserError
from targetprop.app.overrides import check_overrides
from targetprop.data import idx
from targetprop.data.augment import Augmentation

DOCS = Path(__file__).parents[1] / "docs"
TROUBLES = (DOCS / "troubleshooting.md").read_text()


def no_images(folder: Path) -> None:
    (folder / "images").write_bytes(b"no image")
    idx.load_idx(folder / "images", dimensions=3)


MISTAKES: dict[str, Callable[[Path], object]] = {
    "a check": lambda _: DifferenceTargets(beta=-1),
    "a check of a whole number": lambda _: ByLoss(noise_samples=0),
    "a name that there is not": lambda _: OptimizerSpec("sdg"),
    "a key that there is not": lambda _: check_overrides(["model.hparams.bta=1"]),
    "a choice that there is not": lambda _: check_overrides(["model=dpt"]),
    "a text": lambda _: OptimizerSpec("adam", momentum=0.9),
    "a network that is none": lambda _: Learner(nn.LSTM(3, 4)),
    "a layer without a rule": lambda _: Learner(nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2), nn.Linear(2, 2))),
    "a batch of one": lambda _: Standardize()(torch.ones(1, 3)),
    "a share above 1": lambda _: Augmentation(flip=2),
    "a file of another kind": no_images,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_message_that_is_seen_is_one_that_was_found(mistake: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as seen:
        MISTAKES[mistake](tmp_path)
    texts = [each.text.removeprefix(f"{messages.GIVEN}: ") for each in messages.collected()]
    patterns = [re.escape(text).replace(re.escape(messages.GIVEN), ".*") for text in texts if len(text) > 12]
    said = str(seen.value)
    assert any(re.search(f"{pattern}$", said, re.DOTALL) for pattern in patterns), said


def test_messages_that_the_page_quotes_are_there() -> None:
    quoted = re.findall(r'^- \*\*"([^"]+)"', TROUBLES, flags=re.MULTILINE)
    assert quoted
    texts = "\n".join(each.text for each in messages.collected())
    for each in quoted:
        assert re.search(re.escape(each).replace(re.escape("..."), ".*"), texts), each


@pytest.mark.parametrize("error", sorted(messages.RAISED))
def test_every_text_that_is_raised_was_found(error: str) -> None:
    """A search of the source for the texts that stand right behind the name of an error, without its syntax."""
    for path in messages.SOURCE.rglob("*.py"):
        short = path.relative_to(messages.SOURCE).as_posix()
        found = [each.text for each in messages.collected() if each.path == short]
        for text in re.findall(rf"{error}\(\s*f?\"([^\"{{}}]{{6,}})", path.read_text()):
            assert short == "utils/errors.py" or any(text.strip() in each for each in found), f"{short}: {text}"


def test_every_message_stands_on_the_page_once() -> None:
    places = messages.marked(TROUBLES)
    assert len(places) == len(set(places))
    assert "." in places, "messages of files that are named nowhere would be left out"
    for place in set(places) - {"."}:
        assert (messages.SOURCE / place).exists(), f"docs/troubleshooting.md: there is no targetprop/{place}"
    page = messages.on_page_markdown(TROUBLES)
    for each in messages.collected():
        assert f"`` {each.text} ``" in page


def test_every_public_name_has_an_entry() -> None:
    page = public_names.on_page_markdown((DOCS / "reference" / "api.md").read_text())
    shown = [path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE)]
    assert sorted(shown) == sorted(set(targetprop.__all__) - {"__version__"})


def test_what_is_left_of_a_folder_is_listed_behind_what_is_named() -> None:
    pytest.importorskip("properdocs")
    from docs.site.navigation import Entry, filled

    nav: list[Entry] = [{"Home": "index.md"}, {"Guides": [{"First": "guides/b.md"}, "guides/"]}, {"More": ["*"]}]
    pages = ["guides/a.md", "guides/b.md", "guides/c.md", "index.md"]
    assert filled(nav, pages) == [
        {"Home": "index.md"},
        {"Guides": [{"First": "guides/b.md"}, "guides/a.md", "guides/c.md"]},
    ]
    assert filled(nav, [*pages, "new.md"])[-1] == {"More": ["new.md"]}


def test_formulas_become_mathml(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("properdocs")
    pytest.importorskip("latex2mathml")
    from docs.site.mathml import on_page_content

    page = SimpleNamespace(file=SimpleNamespace(src_uri="a.md"))
    shown = on_page_content(r'<p>of <span class="arithmatex">\(s^n &lt; t\)</span>.</p>', page)  # type: ignore[arg-type]
    assert re.fullmatch(r'<p>of <span class="maths"><math .*<msup>.*&(lt|#x0003C);.*</math></span>\.</p>', shown)
    assert not caplog.records
    on_page_content(r'<div class="arithmatex">\[\unheardof x\]</div>', page)  # type: ignore[arg-type]
    assert "a.md" in caplog.text


def test_examples_in_docstrings_are_code() -> None:
    pytest.importorskip("properdocs")
    from docs.site.doctests import fenced

    text = ["Says so.", "", ">>> f(1)", "2", "", "> a quotation"]
    assert list(fenced(text)) == ["Says so.", "", "```pycon", ">>> f(1)", "2", "```", "", "> a quotation"]


def test_a_link_out_of_the_pages_is_a_path() -> None:
    pytest.importorskip("properdocs")
    from docs.site.links import as_path

    assert as_path("a rule", "examples/your_own_rule.py") == "a rule (`examples/your_own_rule.py`)"
    assert as_path("../plans", "plans") == "`plans`"
