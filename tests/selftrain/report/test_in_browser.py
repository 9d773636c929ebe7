"""Tests of the report in a real browser: no errors, no requests, no hostile scripts, and a working table."""

import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from selftrain.report import ReportInputs, build_report
from tests.needs import need

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium."""
    need(CHROMIUM is not None, "no chromium on PATH")
    need(importlib.util.find_spec("playwright") is not None, "playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, inputs: ReportInputs, tmp_path: Path) -> Iterator:
    """The report, opened; fails at the end if the browser complained or asked for anything else."""
    build_report(inputs, tmp_path)
    complaints: list[str] = []
    requests: list[str] = []
    opened = browser.new_page(viewport={"width": 390, "height": 800})
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto((tmp_path / "report.html").as_uri())
    yield opened
    opened.close()
    assert complaints == []
    assert requests == [(tmp_path / "report.html").as_uri()]


def test_the_table_filters_and_opens(page) -> None:
    rows = page.locator("#list > details")
    assert rows.count() == 24
    page.select_option("[name=language]", "py")
    assert rows.count() == 12
    assert page.text_content("#count") == "12 of 24 problems"
    page.select_option("[name=outcome]", label="no candidate passes")
    assert all(text.startswith("0/8") for text in page.locator(".rate").all_text_contents())
    page.select_option("[name=outcome]", label="all problems")
    page.fill("[name=text]", "bank_003")
    assert rows.count() == 1
    page.select_option("[name=pool]", "ppo-1")
    assert rows.count() == 1
    rows.first.locator("summary").click()
    rows.first.locator(".candidate").first.wait_for()  # what is opened is filled in a moment later
    counts = [
        int(text.split()[1])
        for text in rows.first.locator(".facts span").all_text_contents()
        if text[0] == "×"
    ]
    assert rows.first.locator(".candidate").count() == 8 - sum(count - 1 for count in counts)
    page.fill("[name=text]", "no such thing")
    assert rows.count() == 0


def test_hostile_programs_are_shown_and_not_run(page) -> None:
    for row in page.locator("#list > details").all()[:10]:
        row.locator("summary").click()
    page.wait_for_timeout(200)
    shown = "\n".join(page.locator("pre").all_text_contents())
    assert "</script><script>document.title = 'owned'</script>" in shown
    assert "onerror=\"document.title='owned'\"" in shown
    assert "⟨U+202E⟩" in shown
    assert "⟨U+0000⟩" in shown
    assert page.title() == "made-up – selftrain report"
    assert page.locator("img").count() == 0


def test_the_page_fits_a_phone(page) -> None:
    for details in page.locator("main section > details").all():
        details.locator("summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("h1").count() == 1
    assert page.locator("section").count() == page.locator("section > h2").count() == 9


OUTSIDE = """() => [...document.querySelectorAll("figure svg text")].filter(text => {
  const box = text.getBoundingClientRect(), around = text.closest("svg").getBoundingClientRect();
  return box.left < around.left - .5 || box.right > around.right + .5 || box.top < around.top - 1 || box.bottom > around.bottom + 1;
}).map(text => text.textContent)"""
LONG_NAMES = {"execute-ppo-10-evaluation": 7384.0, "prepare": 0.2, "sample-sft-evaluation": 100.0}


@pytest.mark.parametrize("width", [320, 400, 800, 1400])
def test_no_label_runs_out_of_its_plot(browser, inputs: ReportInputs, tmp_path: Path, width: int) -> None:
    tiny = [
        {"step": step, "score": -5e-7 * step, "reward": -1234.5, "kl": 0.0, "entropy": 0.1} for step in (1, 2)
    ]
    narrow = [
        replace(
            pool,
            problems=tuple(
                replace(problem, scores={name: values / 50 - 2.2 for name, values in problem.scores.items()})
                for problem in pool.problems
            ),
        )
        for pool in inputs.pools
    ]
    seconds = {**inputs.seconds, **LONG_NAMES}
    build_report(replace(inputs, seconds=seconds, ppo={"ppo-1": tiny}, pools=narrow), tmp_path)
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.goto((tmp_path / "report.html").as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert opened.locator("figure svg text").count() > 50
    assert opened.evaluate(OUTSIDE) == []
    opened.close()


def test_a_script_that_slips_into_the_page_is_not_run(browser, inputs: ReportInputs, tmp_path: Path) -> None:
    """The content security policy is a second wall, should the escaping ever have a hole."""
    build_report(inputs, tmp_path)
    path = tmp_path / "report.html"
    html = path.read_text().replace("<main>", "<main><script>document.title = 'owned'</script>")
    path.write_text(html.replace("</main>", "<img src='http://127.0.0.1:9/x'></main>"))
    opened = browser.new_page()
    refused: list[str] = []
    opened.on("console", lambda message: refused.append(message.text))
    opened.goto(path.as_uri())
    assert opened.title() == "made-up – selftrain report"
    assert len([text for text in refused if "Content Security Policy" in text]) == 2
    opened.close()
