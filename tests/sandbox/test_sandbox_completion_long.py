"""Tests that reading an answer (`sandbox.completion`) takes a time in proportion to its length, whatever it consists of.

An answer's author is a model or a client of a server. Each of these answers has 100 to 300 kB; where a loop searched the rest of
the answer again for each of its pieces, one took minutes.
"""

import contextlib
import time
from collections.abc import Callable

import pytest

from sandbox.completion import Unreadable, extract_program, is_answer

PROMPT = 'def solve(xs):\n    """ Add. """\n'
JAVA = "class Problem {\n    // Add.\n    public static long solve(ArrayList<Long> xs) {\n"
SOLVE = "```python\ndef solve(xs):\n    return f0(xs)\n```\n"


def _each(text: str, count: int) -> str:
    """`text` for each number i below `count`, with `I` for i and `J` for i + 1."""
    return "".join(text.replace("I", str(i)).replace("J", str(i + 1)) for i in range(count))


ANSWERS: dict[str, Callable[[], str]] = {
    "thoughts": lambda: "<think>\n</think>\n" * 10_000,
    "blocks in blocks of text": lambda: "".join("`" * at + "text\n" for at in range(500, 2, -1))
    + "".join("`" * at + "\n" for at in range(3, 501)),
    "blanks": lambda: "```\n" + " " * 100_000 + "x\n```\n",
    "functions that need the next": lambda: SOLVE + _each("```python\ndef fI(x):\n    return fJ(x)\n```\n", 6000),
    "functions that use the one before": lambda: SOLVE + _each("```python\ndef fJ(x):\n    return fI(x) + solve(x)\n```\n", 3000)
    + _each("```python\ndef hI(x):\n    return hJ(x)\n```\n", 3000) + "```python\ndef h3000(x):\n    return solve(x)\n```\n",
    "imports": lambda: SOLVE.replace("f0(xs)", _each("aI, ", 8000)) + _each("```python\nimport aI\n```\n", 8000),
    "values and what fills them": lambda: "```python\n" + _each("xJ = xI\nxJ.append(xI)\n", 6000) + "def solve(xs):\n    return x6000\n```\n",
}  # fmt: skip


def _seconds(prompt: str, answer: str, language: str) -> float:
    began = time.process_time()
    is_answer(prompt, answer, language)
    with contextlib.suppress(Unreadable):
        extract_program(prompt, answer, language, loosely=True)
    return time.process_time() - began


@pytest.mark.parametrize("what", ANSWERS)
def test_a_long_answer_takes_no_time_by_the_square_of_its_length(what: str) -> None:
    assert _seconds(PROMPT, ANSWERS[what](), "py") < 5


def test_methods_of_a_long_class_are_taken_over_in_a_short_time() -> None:
    methods = _each("    static long gI(long x) { return gJ(x); }\n", 6000)
    answer = f"```java\nclass A {{\n{methods}    public static long solve(ArrayList<Long> xs) {{ return g0(1); }}\n}}\n```\n"
    assert _seconds(JAVA, answer, "java") < 5


def test_an_error_shows_some_of_the_names_of_a_long_answer() -> None:
    with pytest.raises(Unreadable) as failed:
        extract_program(PROMPT, _each("```python\ndef fI(a, b):\n    return 1\n```\n", 100), "py")
    assert str(failed.value).endswith("f18, f19, ...")
    assert "f20" not in str(failed.value)
