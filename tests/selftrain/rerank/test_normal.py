"""Tests of the normal form: what other forms of a candidate become, and that sampled completions stay what they are."""

import time
from collections.abc import Callable

import pytest

from selftrain.config import BankConfig
from selftrain.problems.bank.generate import generate
from selftrain.problems.bank.languages import LANGUAGES
from selftrain.rerank.normal import Normal, language_of, normal, refusal

PY = 'from typing import List\n\ndef total(xs: List[int]) -> int:\n    """ Add all.\n    """\n'
SH = "#!/bin/bash\n# Add all.\ntotal() {\n"
JAVA = "import java.util.*;\nclass Problem {\n    // Add all.\n    public static long total(long a) {\n"
JS = "//Add all.\nfunction total(xs){\n"
BODY = {
    PY: "    n = sum(xs)\n    return n",
    SH: "    echo $1\n    n=2",
    JAVA: "        long b = a;\n        return b;",
    JS: "  const n = 1;\n  return n;\n}",
}
CLOSING = {PY: "", SH: "\n}", JAVA: "\n    }\n}", JS: ""}


@pytest.mark.parametrize("prompt", BODY, ids=["py", "sh", "java", "js"])
@pytest.mark.parametrize(
    "form",
    [
        "{body}",
        "{body}\n",
        "{body}  \n\n",
        "{prompt}{body}{closing}\n",
        "\n{prompt}{body}{closing}\n\n",
        "{head}{body}{closing}\n",
        "```\n{prompt}{body}{closing}\n```",
        "Here:\n\n```{name}\n{prompt}{body}{closing}\n```\n\nIt adds.",
        "<think>\nAdd?\n</think>\n```\n{prompt}{body}{closing}\n```",
    ],
)
def test_other_forms_of_a_program_become_its_completion(prompt: str, form: str):
    body = BODY[prompt]
    head = (
        prompt[prompt.rindex("\n", 0, -1) + 1 :]
        if prompt != PY
        else PY[PY.index("def") :].split("\n")[0] + "\n"
    )
    name = {PY: "python", SH: "bash", JAVA: "java", JS: "javascript"}[prompt]
    text = form.format(prompt=prompt, body=body, closing=CLOSING[prompt], head=head, name=name)
    assert normal(prompt, text) == (prompt, body)
    assert normal(prompt.replace("\n", "\r\n"), text.replace("\n", "\r\n")) == (prompt, body)
    assert normal(prompt, text.replace("\n", "\r\n")) == (prompt, body)
    assert normal(prompt.rstrip("\n"), text) == (prompt, body)


def test_the_prompt_alone_is_an_empty_candidate():
    for text in ("", " \n", PY, PY.rstrip(), "\n" + PY, "```\n```", "```text\nno code\n```"):
        assert refusal(normal(PY, text)) == "it is empty, or holds no program"
    assert refusal(normal(PY, "    pass")) is None


def test_blanks_between_prompt_and_completion_are_where_the_stages_have_them():
    assert normal("x = [\n    1", ", 2]") == ("x = [\n    1", ", 2]"), "it continues the last line"
    assert normal("return ", "n + 1\n") == ("return ", "n + 1")
    assert normal("def f(n):\n    ", "return n") == ("def f(n):\n", "    return n")
    assert normal("def f(n):\n    ", "    return n") == ("def f(n):\n", "    return n")
    assert normal("# Print n.", "print(n)") == ("# Print n.\n", "print(n)")
    assert normal("def f(n):", "\n    return n") == ("def f(n):\n", "    return n")


def test_stop_texts_end_a_completion_except_in_chat():
    text = "    return 1\n\ndef g():\n    pass\n"
    assert normal("def f():\n", text, stops=("\ndef", "\n#")).completion == "    return 1"
    assert normal("def f():\n", text, stops=("\ndef",), style="chat").completion == text.rstrip()
    assert normal(JAVA, "        return a;\n    }", stops=("\n    }\n",)).completion == "        return a;"


def test_a_program_that_needs_imports_has_them_in_its_prompt():
    prompt = "def root(x):\n"
    text = "import math\n\ndef root(x):\n    return math.sqrt(x)\n"
    assert normal(prompt, text) == Normal("import math\ndef root(x):\n", "    return math.sqrt(x)")
    whole = normal(prompt, text, "python", style="chat")
    assert whole.prompt == prompt
    assert whole.completion.startswith("```python\nimport math\n")
    assert normal(prompt, whole.completion, style="chat") == whole


def test_answers_that_sft_learns_stay_as_they_are():
    languages = tuple(LANGUAGES)
    made = list(generate(BankConfig(languages=languages, sizes={"sft": 12}, shares={"sft": 1.0})))
    assert len(made) == 12 * len(languages)
    for problem in made:
        for language in (None, problem.language):
            for stops in ((), problem.stop_tokens):
                found = normal(problem.prompt, str(problem.response), language, stops)
                assert found == (problem.prompt, problem.response)


@pytest.mark.parametrize(
    "text",
    [
        "5]\n    return xs",
        "    xs = xs[3:]\n32]\n    return xs",
        "and then\n    ]",
        "\n    return 1",
        "    '''\n    x",
        ")",
    ],
)
def test_what_a_weak_generator_samples_stays_as_it_is(text: str):
    """Lines that are no code, or are not indented: the sandbox runs the whole text, so the whole text is read."""
    assert normal(PY, text) == (PY, text)


def test_definitions_nested_by_the_thousand_are_read_as_a_completion():
    text = "class A {\n" * 2000
    assert normal("#include <x>\nint f(int x) {\n", text, "cpp").completion == text.rstrip()


def grows_with_its_length(read: Callable[[str], object], unit: str) -> bool:
    """Whether `read` takes less than twice as long for each letter of a text of many units. A square would take 16 times as long for
    four times the length."""

    def seconds(length: int) -> float:
        started = time.process_time()
        read(unit * (length // len(unit)) + "x")
        return time.process_time() - started

    return seconds(80_000) < 8 * max(seconds(20_000), 0.02)


@pytest.mark.parametrize("unit", [" \n", "def f(\n", "fn a ", "x = 1\n"])
def test_the_language_of_a_prompt_is_told_in_a_time_that_grows_with_its_length(unit: str):
    assert grows_with_its_length(language_of, unit)


@pytest.mark.parametrize(
    ("language", "prompt", "unit"),
    [("py", "def f(xs):\n", "```\n"), ("cpp", "#include <x>\nint f(int x) {\n", "x\n")],
)
def test_a_candidate_is_read_in_a_time_that_grows_with_its_length(language: str, prompt: str, unit: str):
    assert grows_with_its_length(lambda text: normal(prompt, text, language), unit)


def test_a_carriage_return_that_a_generator_wrote_stays():
    assert normal(PY, "    return 1 and 1\r") == (PY, "    return 1 and 1")
    assert normal(PY, "    return '\r' + s") == (PY, "    return '\r' + s")
