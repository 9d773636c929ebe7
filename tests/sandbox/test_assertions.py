"""Tests of tests with one assertion each."""

import pytest

from sandbox.assertions import alone
from sandbox.languages import LANGUAGES

PY = "def check(candidate):\n    assert candidate([1]) == [\n        1\n    ]\n    assert abs(candidate(2) - 2) < 1\n    x = 3\n    assert candidate(x) == 3\n\ncheck(f)\n"


def test_each_assertion_is_there_once_and_the_rest_always():
    assert alone(LANGUAGES["py"], PY) == [
        "def check(candidate):\n    assert candidate([1]) == [\n        1\n    ]\n    pass\n    x = 3\n    pass\n\ncheck(f)\n",
        "def check(candidate):\n    pass\n    pass\n    pass\n    assert abs(candidate(2) - 2) < 1\n    x = 3\n    pass\n\ncheck(f)\n",
        "def check(candidate):\n    pass\n    pass\n    pass\n    pass\n    x = 3\n    assert candidate(x) == 3\n\ncheck(f)\n",
    ]


@pytest.mark.parametrize(
    ("language", "tests", "expected"),
    [
        ("cpp", "int main() {\n  assert(f(1) == (1));\n  assert(f(2) == (2));\n}\n",
         ["int main() {\n  assert(f(1) == (1));\n\n}\n", "int main() {\n\n  assert(f(2) == (2));\n}\n"]),
        ("sh", "run() {\n  [[ $(f 1) = \"1\" ]]\n  [[ $(f 2) = \"2\" ]]\n}\nrun\n",
         ["run() {\n  [[ $(f 1) = \"1\" ]]\n\n}\nrun\n", "run() {\n\n  [[ $(f 2) = \"2\" ]]\n}\nrun\n"]),
    ],
)  # fmt: skip
def test_lines_of_the_other_assertions_are_empty(language: str, tests: str, expected: list[str]):
    assert alone(LANGUAGES[language], tests) == expected


@pytest.mark.parametrize(
    ("language", "tests"),
    [
        ("py", "assert f(1) == 1\n"),
        ("py", "assert f(1) == 1; assert f(2) == 2\n"),
        ("py", "f(1)\n"),
        ("py", ""),
        ("cpp", "int main() { assert(f(1) == (1));\n  assert(f(2) == (2));\n}\n"),
    ],
    ids=["one", "one-line", "none", "empty", "open-bracket"],
)
def test_where_assertions_cannot_be_told_apart_there_is_nothing(language: str, tests: str):
    assert alone(LANGUAGES[language], tests) == []
