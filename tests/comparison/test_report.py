"""The comparison's report: says everything, escapes everything, loads nothing, and is the same bytes every time."""

import json
import random
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.comparison import results_fixture
from windtunnel.comparison.report import markdown_table, render_report, terminal_table, write_report
from windtunnel.report import figures

VARIANTS = [
    results_fixture.results,
    results_fixture.with_failed_arm,
    results_fixture.with_censored_arm,
    results_fixture.with_refused_speedups,
    results_fixture.minimal,
    results_fixture.hostile,
]
VOID = {"meta", "link", "br", "img", "hr", "input"}
RULES = {"verdict", "loss", "seeds", "tuning", "pareto", "costs", "minimal", "own-settings", "equal", "caveats"}


class Page(HTMLParser):
    """Collects elements with their attributes, and the visible text; fails on elements that are closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_results_same_bytes(variant: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    first = write_report(variant(), tmp_path / "a").read_bytes()
    again = write_report(json.loads(json.dumps(variant())), tmp_path / "b").read_bytes()
    assert first == again


def test_the_summary_names_every_size_where_arms_differ() -> None:
    results = VARIANTS[0]()
    assert "architectures of about" in Page(render_report(results)).text
    arms = list(results["arms"].values())
    arms[-1]["n_body"] *= 3
    least, most = (figures.counted(chosen(arm["n_body"] for arm in arms)) for chosen in (min, max))
    assert f"architectures of {least} to {most} body parameters" in Page(render_report(results)).text


@pytest.mark.parametrize("variant", VARIANTS)
def test_page_is_whole_and_loads_nothing(variant: Callable[[], dict[str, Any]]) -> None:
    text = render_report(variant())
    page = Page(text)
    loads = [
        attributes[name]
        for tag, attributes in page.elements
        for name in ("src", "href", "data", "srcset", "xlink:href")
        if name in attributes and tag != "a"
    ]
    assert all(address is not None and address.startswith("data:") for address in loads)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for tag, a in page.elements if tag == "a" and str(a["href"]).startswith("#")}
    assert targets <= set(ids)


def test_every_section_arm_caveat_and_hash_is_there() -> None:
    results = results_fixture.results()
    page = Page(render_report(results))
    sections = {attributes["id"] for tag, attributes in page.elements if tag == "section"}
    assert sections >= RULES
    for name, arm in results["arms"].items():
        assert name in page.text
        assert arm["batch_hash"] in page.text
    for comparison in results["comparisons"]:
        assert comparison["sentence"] in page.text
        assert f"{comparison['verdict']}, grade {comparison['grade']}" in page.text
    for caveat in results["caveats"]:
        assert caveat.replace("`", "").split(" (")[0] in page.text
    for row in results["held_equal"]:
        assert row["evidence"] in page.text


def test_ratios_stand_beside_percent_saved() -> None:
    text = Page(render_report(results_fixture.results())).text
    ngpt = results_fixture.results()["comparisons"][2]
    value = ngpt["s_tok"]["value"]
    assert f"{value:.2f}x [{ngpt['s_tok']['ci95'][0]:.2f}, {ngpt['s_tok']['ci95'][1]:.2f}]" in text
    assert f"{100 * (1 - 1 / value):.0f} % saved" in text


def test_nothing_from_outside_becomes_markup() -> None:
    results = results_fixture.hostile()
    text = render_report(results)
    page = Page(text)
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert not [a for tag, a in page.elements if tag == "a" and not str(a["href"]).startswith(("#", "https://"))]
    assert "red;}" not in text


def test_a_failed_arm_is_told() -> None:
    text = Page(render_report(results_fixture.with_failed_arm())).text
    assert "Not everything ran" in text
    assert "palm: run seed 3, horizon 1.0 failed (MemoryError: could not allocate 1.2 GiB)." in text


def test_an_arm_known_only_from_its_failure_is_told() -> None:
    results = results_fixture.with_failed_arm()
    del results["arms"]["palm"]
    assert "palm: failed" in Page(render_report(results)).text
    assert re.search(r"\| palm \|.*\| failed \|", markdown_table(results))


def test_bounds_and_refusals_are_not_numbers() -> None:
    censored = Page(render_report(results_fixture.with_censored_arm())).text
    assert "< 1.00x (a bound)" in censored
    refused = Page(render_report(results_fixture.with_refused_speedups())).text
    assert "no speedup could be estimated" in refused
    assert "no slope: only one horizon" in refused
    assert "no estimate" in markdown_table(results_fixture.with_refused_speedups())


@pytest.mark.parametrize("seed", range(8))
def test_every_optional_name_may_be_missing(seed: int) -> None:
    """A tenth of all names, and in the last rounds half of them, are left out or null."""
    results, draw = results_fixture.results(), random.Random(seed)
    for path in _paths(results):
        if draw.random() < (0.1 if seed < 6 else 0.5):
            _spoil(results, path, remove=draw.random() < 0.5)
    assert Page(render_report(results)).text
    assert markdown_table(results)
    console = Console(width=100)
    with console.capture():
        console.print(terminal_table(results))


def _paths(results: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Every name below which something can be missing; deeper names first."""
    paths: list[tuple[Any, ...]] = []
    for name, arm in results["arms"].items():
        parts = ("params", "throughput", "minimality", "loss", "curve", "flops", "state_bytes")
        paths += [("arms", name, part, inner) for part in parts for inner in arm[part]]
        paths += [("arms", name, key) for key in arm]
    for index, one in enumerate(results["comparisons"]):
        paths += [("comparisons", index, part, inner) for part in ("s_tok", "s_time", "slope") for inner in one[part]]
        paths += [("comparisons", index, key) for key in one]
    return [*paths, *((name,) for name in results if name not in ("arms", "comparisons"))]


def _spoil(place: Any, path: tuple[Any, ...], *, remove: bool) -> None:
    for name in path[:-1]:
        place = place[name]
    if remove:
        del place[path[-1]]
    else:
        place[path[-1]] = None


def test_unknown_names_are_ignored() -> None:
    results = results_fixture.results()
    plain = render_report(results)
    results["new"] = {"a": 1}
    results["arms"]["ngpt"]["new"] = [1]
    results["comparisons"][0]["new"] = "x"
    assert render_report(results) == plain


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("variant", VARIANTS[:-1])
def test_terminal_table_fits_and_names_every_arm(variant: Callable[[], dict[str, Any]], width: int) -> None:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(terminal_table(variant()))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    for name in results_fixture.ARMS:
        assert any(line.strip().startswith(name) for line in lines)
    assert not any("…" in line for line in lines)


def test_markdown_is_one_table() -> None:
    results = results_fixture.results()
    lines = markdown_table(results).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(results["arms"])
    assert len({line.count(" | ") for line in table}) == 1
    ngpt = next(line for line in table if line.startswith("| ngpt"))
    assert ngpt.endswith("| wins | D |")
    assert "−" not in ngpt


def test_a_report_replaces_the_old_one_whole(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    path = write_report(results_fixture.results(), tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(tmp_path: Path, width: int, scheme: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    path = write_report(results_fixture.results(), tmp_path)
    complaints: list[str] = []
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        _uses(page, width)
        assert page.evaluate(_OVERLAPS) == []
        browser.close()
    assert complaints == []


_OVERLAPS = """() => {
  const found = [];
  document.querySelectorAll('.panel').forEach((panel) => { panel.hidden = false; });
  for (const drawing of document.querySelectorAll('.drawing')) {
    const texts = [...drawing.querySelectorAll('text')].map((t) => [t.textContent, t.getBoundingClientRect()]);
    const boxes = texts.filter(([, box]) => box.width);
    boxes.forEach(([one, a], i) => boxes.slice(i + 1).forEach(([other, b]) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 4) found.push([one, other]);
    }));
  }
  return found;
}"""


def _uses(page: Any, width: int) -> None:
    """Tabs, legend, values under the pointer and by keys, and the theme switch do what they say."""
    tabs = page.locator("#loss [role=tab]")
    tabs.nth(1).click()
    assert page.locator("#loss-flops").is_visible()
    assert not page.locator("#loss-tokens").is_visible()
    key = page.locator("#loss-flops .key").first
    key.click()
    assert key.get_attribute("aria-pressed") == "false"
    drawing = page.locator(f"#speedups .drawing.{'wide' if width > 700 else 'narrow'}")
    drawing.focus()
    page.keyboard.press("ArrowRight")
    assert "tokens" in page.locator("#tip").inner_text()
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
