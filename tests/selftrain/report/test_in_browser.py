"""Tests of the report in a real browser: no errors, no requests, no hostile scripts, and a working table."""

import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from selftrain.evaluation.comparisons import evaluate_pools
from selftrain.evaluation.pools import PoolProblem
from selftrain.report.build import build_report
from selftrain.report.page import ReportInputs
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
    rows = page.locator("#list tr.problem")
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
    rows.first.locator("button").click()
    opened = page.locator("#list .detail > td > .candidate")
    counts = [
        int(text.split()[1]) for text in opened.locator(".facts span").all_text_contents() if text[0] == "×"
    ]
    assert opened.count() == 8 - sum(count - 1 for count in counts)
    page.fill("[name=text]", "no such thing")
    assert rows.count() == 0


def test_hostile_programs_are_shown_and_not_run(page) -> None:
    for row in page.locator("#list tr.problem").all()[:10]:
        row.locator("button").click()
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
    assert page.locator("section").count() == page.locator("section > h2").count() == 10


def test_the_address_keeps_filters_and_the_open_problem(page) -> None:
    page.select_option("[name=language]", "py")
    page.fill("[name=text]", "bank_003")
    page.locator("#list tr.problem button").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#problems?language=py&text=bank_003&open=bank_003_py"
    page.evaluate("location.hash = '#problems?language=sh&order=name&pool=no-such'")
    page.wait_for_function("document.querySelector('[name=language]').value === 'sh'")
    assert page.locator("#list tr.problem").count() == 12
    assert page.input_value("[name=pool]") == "sft"
    assert page.locator("#list tr.problem th").first.text_content() == "bank_000_sh"
    page.evaluate("location.hash = '#problems?open=bank_003_py'")
    page.wait_for_selector("[aria-expanded=true]")
    assert page.text_content("[aria-expanded=true]") == "bank_003_py"


def test_a_hard_negative_stands_beside_a_passing_program_with_the_difference_marked(page) -> None:
    page.select_option("[name=outcome]", "lost")
    page.locator("#list tr.problem button").first.click()
    left, right = page.locator(".panes > div").all()
    assert left.locator(".facts b").text_content().endswith("passed")
    assert not right.locator(".facts b").text_content().endswith("passed")
    texts = [side.locator("pre").text_content() for side in (left, right)]
    marked = ["".join(side.locator("mark").all_text_contents()) for side in (left, right)]
    assert "sum" in marked[0] or texts[0].startswith("<")
    page.select_option(".choose label:first-child select", "1")
    page.select_option(".choose label:last-child select", "1")
    assert page.locator(".panes mark").count() == 0  # a program beside itself


@pytest.mark.parametrize(("width", "models"), [(400, 4), (768, 4), (1280, 4), (1280, 9)])
def test_names_of_problems_have_room_beside_many_ways(
    browser, inputs: ReportInputs, tmp_path: Path, width: int, models: int
) -> None:
    """Further ways are columns where there is room for all; the chosen one and its rival always are."""

    def with_more(problem: PoolProblem) -> PoolProblem:
        return replace(
            problem, scores=problem.scores | {f"model-{at}": problem.scores["rm-1"] for at in range(models)}
        )

    pools = [replace(pool, problems=tuple(map(with_more, pool.problems))) for pool in inputs.pools]
    build_report(replace(inputs, pools=pools, evaluation=evaluate_pools(pools, resamples=50)), tmp_path)
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.goto((tmp_path / "report.html").as_uri())
    assert opened.locator("#list tr.problem th").first.bounding_box()["width"] > 70
    assert opened.locator("#list thead th:visible").count() == (13 if models == 4 and width == 1280 else 5)
    opened.close()


SMALL = """() => [...document.querySelectorAll("body *")].filter(element => {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || element.closest("script, style") || !element.getClientRects().length) return false;
  const svg = element.closest("svg"), scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
  return parseFloat(getComputedStyle(element).fontSize) * scale < 12;
}).map(element => element.textContent)"""
PALE = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = colour => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(part => part / 255)
      .map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  return [...document.querySelectorAll("svg text")].filter(text => {
    const [a, b] = [getComputedStyle(text).fill, getComputedStyle(text.closest("figure")).backgroundColor].map(light);
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
  }).map(text => text.textContent);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_can_be_read_and_worked_by_anyone(
    browser, inputs: ReportInputs, tmp_path: Path, width: int, scheme: str
) -> None:
    """No serious finding of axe, with everything open; plots, which axe does not judge, have a contrast of at least 4.5."""
    build_report(inputs, tmp_path)
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
    )
    opened = context.new_page()
    opened.goto((tmp_path / "report.html").as_uri() + "#problems?outcome=lost")
    opened.locator("#list tr.problem button").first.click()
    opened.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert opened.evaluate(SMALL) == []
    assert opened.evaluate(PALE) == []
    assert serious(opened) == []
    context.close()


def serious(opened) -> list[tuple[str, str]]:
    """(rule, element) of each serious or critical finding of axe on an open page, whose policy must be bypassed."""
    found = importlib.util.find_spec("axe_playwright_python")
    need(found is not None, "axe-playwright-python is not installed")
    opened.evaluate((Path(found.origin).parent / "axe.min.js").read_text())
    rules = opened.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    return [
        (rule["id"], node["html"])
        for rule in rules
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


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
