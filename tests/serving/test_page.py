"""The page: what it is made of, and in a browser what it does."""

import json
import re
import shutil
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.serving.conftest import Live, quiet, serving
from windtunnel.serving.served import Limits

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TYPES = {
    "/": "text/html; charset=utf-8",
    "/style.css": "text/css; charset=utf-8",
    "/script.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}


def test_the_files_fit_together_and_name_nothing_outside(live: Live) -> None:
    files = {path: live.client.get(path) for path in TYPES}
    assert {path: file.headers["content-type"] for path, file in files.items()} == TYPES
    assert sum(len(file.content) for file in files.values()) < 40_000
    page, script = files["/"].text, files["/script.js"].text
    for file in files.values():
        assert set(re.findall(r"https?://[^\"' )]+", file.text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<[^>]+\s(style|on[a-z]+)=|<script>|<style>", page)
    assert set(re.findall(r'\bat\("([a-z-]+)"\)', script)) <= set(re.findall(r'\bid="([a-z-]+)"', page))
    assert set(re.findall(r'(?:href|src)="([^"#]+)"', page)) == {"icon.svg", "style.css", "script.js"}
    inputs = set(re.findall(r'<(?:input|textarea) id="([a-z-]+)"', page))
    assert inputs == set(re.findall(r'<label for="([a-z-]+)"', page))


@pytest.fixture
def browser() -> Any:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


def opened(browser: Any, url: str, complaints: list[str], **options: Any) -> Any:
    page = browser.new_page(**options)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    origin = url.split("/#")[0]
    page.on("request", lambda asked: None if asked.url.startswith(origin) else complaints.append(asked.url))
    page.goto(url)
    page.wait_for_selector(".run")
    return page


def texts(page: Any) -> list[str]:
    return [each.text_content() for each in page.query_selector_all(".text")]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_variants_side_by_side(live: Live, browser: Any, width: int, scheme: str) -> None:
    complaints: list[str] = []
    page = opened(browser, live.url, complaints, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.get_by_role("checkbox", name="llama").is_checked()
    page.get_by_label("Prompt").fill("lift & drag\n")
    for label, value in (("Tokens", "12"), ("Temperature", "0.7"), ("Top-p", "0.9"), ("Seed", "3")):
        page.get_by_label(label, exact=True).fill(value)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stop:disabled")
    asked = {"prompt": "lift & drag\n", "max_tokens": 12, "temperature": 0.7, "top_p": 0.9, "seed": 3, "logprobs": 5}
    whole = [live.complete(model=model, **asked)["choices"][0] for model in ("llama", "griffin")]
    assert texts(page) == ["lift & drag\n" + each["text"] for each in whole]
    figures = page.query_selector_all(".answer:first-child dd")
    assert figures[0].text_content() == str(len(whole[0]["logprobs"]["tokens"]))
    assert float(figures[1].text_content().replace(",", "")) > 0
    size = live.served["llama"].run.model.state_bytes(13 + len(whole[0]["logprobs"]["tokens"]))
    number, unit = figures[2].text_content().split()
    assert (float(number), unit) == (pytest.approx(size / 1024, abs=0.051), "KiB")
    page.focus(".answer:first-child .text")
    page.keyboard.press("Home")
    shown = page.text_content(".answer:first-child .token")
    likeliest = max(whole[0]["logprobs"]["top_logprobs"][0].values())
    assert f"{100 * 2.718281828459045**likeliest:.1f} %" in shown
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    link = parse_qs(page.url.partition("#")[2])
    assert link["prompt"] == ["lift & drag\n"]
    again = opened(browser, page.url, complaints)
    again.get_by_role("button", name="Generate").click()
    again.wait_for_selector("#stop:disabled")
    assert texts(again) == texts(page)
    assert complaints == []


@pytest.mark.browser
@pytest.mark.slow
def test_stop_and_what_goes_wrong(browser: Any) -> None:
    with serving(limits=Limits(tokens=90_000), context=100_000, keys=("open sesame",)) as live:
        page = browser.new_page()
        page.goto(live.url)
        page.wait_for_selector("#problem:not(:empty)")
        assert "API key" in page.text_content("#problem")
        page.get_by_label("API key").fill("open sesame")
        page.keyboard.press("Tab")
        page.wait_for_selector(".run")
        assert page.text_content("#problem") == ""
        page.get_by_label("Tokens", exact=True).fill("90000")
        live.served["llama"].worker.engine.vocab = 256  # no end of text
        page.get_by_role("button", name="Generate").click()
        page.wait_for_selector(".drawn:nth-child(5)")
        page.get_by_role("button", name="Stop").click()
        page.wait_for_selector("#stop:disabled")
        assert page.text_content(".ending") == "stopped"
        quiet(live)
        page.get_by_role("checkbox", name="llama").uncheck()
        page.get_by_role("button", name="Generate").click()
        assert page.text_content("#problem") == "Choose at least one variant."
        page.get_by_role("checkbox", name="llama").check()
        page.get_by_label("Prompt").fill("x" * 100_001)
        page.get_by_role("button", name="Generate").click()
        page.wait_for_selector(".ending.bad")
        assert "leave no room" in page.text_content(".ending")
        page.close()
        assert json.loads(live.client.get("/health").text)["status"] == "ok"
