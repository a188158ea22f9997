"""The page: nothing comes from outside, every chart compiles; in a real browser it is drawn, light, dark and narrow."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from compare_helpers import Commands, made_plan

from targetprop.compare import charts, page, results
from targetprop.compare.results import Mean, Results

VOID = {"meta", "link", "input"}
"""Elements of the page without an end."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results of a comparison with made-up runs."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        commands = Commands(folder).patched(patch)
        assert commands("compare", str(made_plan(folder)), "--folder", "made") == 0
    return results.read(folder / "made" / "results.json")


class Elements(HTMLParser):
    """All elements with their attributes; tags that are not closed in their order are told."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_names_nothing_outside(made: Results) -> None:
    text = page.html(made)
    elements = Elements(text)
    assert not elements.open
    for tag, attributes in elements.found:
        assert "src" not in attributes, tag
        if tag == "link":
            assert str(attributes["href"]).startswith("data:")
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    identifiers = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    named = [
        str(attributes["href"])[1:] for _, attributes in elements.found if str(attributes.get("href")).startswith("#")
    ]
    assert set(named) <= set(identifiers)
    assert len(text) < 2e6


def test_texts_of_runs_are_texts_on_the_page(made: Results) -> None:
    text = page.html(made)
    assert "A &lt;b&gt;rule&lt;/b&gt; &amp; more" in text
    assert "</script><b>" not in text
    assert json.loads(text.partition('id="results">')[2].partition("</script>")[0]) == results.as_json(made)


def test_every_row_has_command_configuration_and_record(made: Results) -> None:
    text = page.html(made)
    for board in made.boards:
        for row in board.rows:
            assert row.command.partition(" seed=")[0].split()[2] in text
            assert all(run.record in text for run in row.runs)
    assert text.count("<summary>Configuration</summary>") == sum(len(board.rows) for board in made.boards)


def test_charts_compile_and_are_pictures(made: Results, tmp_path: Path) -> None:
    whole = made.boards[0]
    by_key = {chart.key: chart.spec for chart in charts.charts_of(whole)}
    assert list(by_key) == ["epochs", "seconds", "price", "angles"]
    for spec in by_key.values():
        assert vl_convert.vegalite_to_vega(spec)["marks"]
        assert spec["params"][-1] == {"name": "picked", "value": ["backprop", "delta_mirror", "kolen_pollack"]}
    page.pictures(made, tmp_path)
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 8
    assert all(each.read_bytes().startswith(b"\x89PNG") for each in pictures)


def test_charts_show_what_was_measured(made: Results) -> None:
    whole = made.boards[0]
    points = charts.curve_points(whole)
    of_mirror = [point for point in points if point["rule"] == "delta_mirror"]
    runs = whole.rows[1].runs
    last = [100 * run.curve[-1] for run in runs]
    assert of_mirror[-1]["mean"] == pytest.approx(sum(last) / len(last), abs=1e-3)
    assert (of_mirror[-1]["low"], of_mirror[-1]["high"]) == (
        pytest.approx(min(last), abs=1e-3),
        pytest.approx(max(last), abs=1e-3),
    )
    assert of_mirror[3]["seconds"] == pytest.approx(4 * 10 * 0.015)
    assert {point["rule"] for point in charts.angle_points(whole)} == {"delta_mirror", "kolen_pollack"}
    (mirror,) = [point for point in charts.price_points(whole) if point["rule"] == "delta_mirror"]
    assert mirror["ratio"] == 1.5


def test_intervals_on_the_chart_stay_within_what_accuracies_can_be(made: Results) -> None:
    row = made.boards[0].rows[1]
    wide = replace(row, test=Mean(2, 0.7, 0.2, 1.8))
    (point,) = charts.price_points(replace(made.boards[0], rows=[wide]))
    assert (point["low"], point["high"]) == (0, 100)


def test_thirty_rules_look_different() -> None:
    rules = [f"rule {number}" for number in range(30)]
    colours, dashes = charts.colours(rules), charts.dashes(rules)
    assert len({(colours[rule], tuple(dashes[rule])) for rule in rules}) == 30


# In a real browser.

Browser = Any


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for each in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield made
    made.quit()


@pytest.fixture(scope="module")
def show(browser: Browser, made: Results, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Browser]:
    """Opens the page on a screen of this width, in this scheme."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    page.write(made, path)

    def opened(width: int = 1200, scheme: str = "light") -> Browser:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(path.as_uri())
        wait_for(browser, "return document.documentElement.dataset.drawn === 'true'")
        return browser

    return opened


def wait_for(browser: Browser, script: str) -> None:
    deadline = time.monotonic() + 60
    while not browser.execute_script(script):
        assert time.monotonic() < deadline, script
        time.sleep(0.05)


def ground(browser: Browser) -> str:
    return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_all_charts_are_drawn_without_errors_and_nothing_is_asked_for(
    show: Callable[..., Browser], width: int, scheme: str
) -> None:
    browser = show(width, scheme)
    drawn = "return [...document.querySelectorAll('.chart')].map(each => each.querySelectorAll('svg path').length)"
    counts = browser.execute_script(drawn)
    assert len(counts) == 8
    assert min(counts) > 5
    assert not browser.execute_script("return document.querySelector('.chart .role-legend')")  # the boxes are one
    axis = "return [...document.querySelectorAll('#digits_tiny_vgg-epochs .role-axis-label')[0].children]"
    assert browser.execute_script(f"{axis}.map(each => each.textContent)") == list("123456")
    assert ground(browser) == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 28)"}[scheme]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width  # no sideways scrolling
    assert not browser.get_log("browser")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"}
    assert not [url for url in asked if not re.match(r"(file|data|blob):", url)]
    picture = base64.b64decode(browser.get_screenshot_as_base64())
    assert picture.startswith(b"\x89PNG")


def test_the_switch_turns_the_scheme_and_the_charts(show: Callable[..., Browser]) -> None:
    browser = show()
    label = "return getComputedStyle(document.querySelector('.chart svg .role-axis-title text')).fill"
    before = browser.execute_script(label)
    browser.find_element("id", "theme").click()
    wait_for(browser, "return document.querySelector('#theme').textContent === 'Light'")
    assert ground(browser) == "rgb(18, 22, 28)"
    deadline = time.monotonic() + 30
    while browser.execute_script(label) in (before, None):
        assert time.monotonic() < deadline
    browser.find_element("id", "theme").click()
    assert ground(browser) == "rgb(255, 255, 255)"


def test_rules_are_chosen_by_keyboard(show: Callable[..., Browser]) -> None:
    browser = show()
    lines = "return document.querySelectorAll('#digits_tiny_vgg-epochs svg .mark-line path').length"
    assert browser.execute_script(lines) == 3
    box = browser.find_element("css selector", ".rules input[value='kolen_pollack']")
    box.send_keys(" ")
    wait_for(browser, f"{lines} === 2")
    browser.find_element("css selector", ".rules .none").send_keys("\ue007")
    wait_for(browser, f"{lines} === 0")
    browser.find_element("css selector", ".rules .all").send_keys("\ue007")
    wait_for(browser, f"{lines} === 3")


def test_everything_that_does_something_has_the_focus_in_turn(show: Callable[..., Browser]) -> None:
    browser = show()
    reachable = browser.execute_script(
        "return [...document.querySelectorAll('button, a[href], summary, input, .scroll, .chart')]"
        ".filter(each => each.checkVisibility() && each.tabIndex < 0).map(each => each.outerHTML.slice(0, 80))"
    )
    assert not reachable


def test_headings_explain_themselves_and_sort(show: Callable[..., Browser]) -> None:
    browser = show()
    heading = browser.find_element("css selector", ".sort")
    tip = browser.find_element("css selector", ".tip")
    assert not tip.is_displayed()
    browser.execute_script("arguments[0].focus()", heading)
    assert tip.is_displayed()
    assert "Accuracy on the test set" in tip.text
    names = "return [...document.querySelectorAll('table')[0].tBodies[0].rows].map(row => row.cells[0].textContent)"
    heading.send_keys("\ue007")
    assert browser.execute_script(names) == ["backprop", "delta_mirror", "kolen_pollack"]
    heading.send_keys("\ue007")
    assert browser.execute_script(names) == ["kolen_pollack", "delta_mirror", "backprop"]
    heading.send_keys("\ue00c")
    assert not tip.is_displayed()


def test_points_have_tooltips(show: Callable[..., Browser]) -> None:
    browser = show()
    browser.execute_script(
        "document.querySelector('#digits_tiny_vgg-price').scrollIntoView({behavior: 'instant', block: 'center'})"
    )
    dot = browser.find_element("css selector", "#digits_tiny_vgg-price svg .mark-symbol path")
    chains = pytest.importorskip("selenium.webdriver").ActionChains(browser)
    chains.move_to_element(dot).perform()
    wait_for(browser, "return document.querySelector('#vg-tooltip-element')?.textContent.includes('rule')")


def test_a_row_leads_to_what_stands_behind_it(show: Callable[..., Browser]) -> None:
    browser = show()
    browser.find_element("css selector", "tbody th a").click()
    wait_for(browser, "return document.querySelector('details#digits_tiny_vgg-0').open")
    assert "python main.py" in browser.find_element("css selector", "details#digits_tiny_vgg-0 pre").text
