"""Tests of which programs of a problem are one program."""

from itertools import combinations

import pytest

from sandbox.languages import LANGUAGES
from sandbox.verdicts import Verdict
from selftrain.records import Candidate, Execution, Problem
from selftrain.stages.distinct import distinct_programs, form

PASSED, WRONG, TIMEOUT = Verdict.passed, Verdict.wrong_answer, Verdict.timeout


def problem(language: str, prompt: str = "") -> Problem:
    return Problem("a", "a", language, prompt, "tests", "rl", "made")


def same(language: str, one: str, other: str, prompt: str = "") -> bool:
    """Whether two completions are one program."""
    where = problem(language, prompt)
    return form(where, one) == form(where, other)


EQUAL = [
    ("py", "def f(n):\n", "    return n+1", "    # one more\n    return n + 1  # done\n\n"),
    ("py", "def f(n):\n", "    x = (n)\n    return x", "    x = n\n\n    return x"),
    ("py", "def f(n):\n", "    return '\\d'", "    return '\\d' # an escape that is none"),
    ("py", "def f(n):\n", "    retur n", "    retur n  # is no Python"),
    ("cpp", "int f(int n) {\n", "    return n;\n}", "  // gives n\n  return n; /* two\nlines */\n}\n"),
    ("java", "int f(int n) {\n", "\treturn n;\n}", "    return  n;\n}"),
    ("sh", "f() {\n", "    echo $1\n}", "    # says it\n    echo  $1\n}"),
    ("php", "<?php\nfunction f($n) {\n", "    return $n;\n}", "    return $n; # n\n\n}"),
    ("js", "const f = n => {\n", "  return `a b`\n}", "  return `a b` // text\n}"),
    ("ts", "const f = (n: number) => {\n", "  return n\n}", "  /* n */\n  return n\n}"),
    ("cs", "int f(int n) {\n", "return n;}", "return n;} // f"),
    ("go", "func f(n int) int {\n", "return n\n}", "return n // n\n}"),
    ("rs", "fn f(n: i32) -> i32 {\n", "n\n}", "/* a /* nested */ one */ n\n}"),
    ("rb", "def f(n)\n", "  n\nend", "  n # n\nend"),
    ("lua", "function f(n)\n", "  return n\nend", "  --[[ n\n]] return n\nend"),
    ("pl", "sub f {\n", "  return 1;\n}", "  return 1; # 1\n}"),
    ("r", "f <- function(n) {\n", "  n\n}", "  n # n\n}"),
    ("d", "int f(int n) {\n", "return n;\n}", "/+ n +/ return n;\n}"),
    ("rkt", "(define (f n)\n", "  n)", "  n) ; n"),
    ("clj", "(defn f [n]\n", "  n)", "  n) ; n"),
    ("ml", "let f n =\n", "  n", "  (* n *) n"),
    ("hs", "f n =\n", "  n", "  n -- n"),
    ("ex", "def f(n) do\n", "  n\nend", "  n # n\nend"),
    ("scala", "def f(n: Int): Int = {\n", "  n\n}", "  n // n\n}"),
]


@pytest.mark.parametrize(("language", "prompt", "one", "other"), EQUAL)
def test_programs_that_differ_in_comments_and_blanks_are_one(
    language: str, prompt: str, one: str, other: str
):
    assert same(language, one, other, prompt)


@pytest.mark.parametrize(
    ("language", "prompt", "one", "other"),
    [
        ("py", "def f(n):\n", "import math\n\ndef f(n):\n    return (n)", "import math\ndef f(n):\n    return n  # n"),
        ("js", "function f(n) {\n", "const u = 1\nfunction f(n) {\n  return n\n}", "const u = 1 // u\nfunction f(n) {\n return n\n}"),
        ("cpp", "int f(int n) {\n", "#include <map>\nint f(int n) {\n  return n;", "#include <map>\nint f(int n) {\n  /* n */ return n;"),
    ],
)  # fmt: skip
def test_so_are_whole_programs_in_code_blocks(language: str, prompt: str, one: str, other: str):
    blocks = [f"```{LANGUAGES[language].title.lower()}\n{text}\n```" for text in (one, other)]
    assert same(language, *blocks, prompt)
    assert not same(language, blocks[0], blocks[1].replace("return n", "return -n"), prompt)


def test_every_language_has_such_a_pair():
    assert {language for language, *_ in EQUAL} == set(LANGUAGES)


@pytest.mark.parametrize(
    ("language", "programs"),
    [
        ("py", ["return n", "return m", "return 'n'", "return 'n '", "return '# n'", "return '#'"]),
        ("py", ["if n:\n    x()\n    y()", "if n:\n    x()\ny()", "if n: {\n    x()", "if n: {\nx()"]),
        ("hs", ["f n = g\n  where\n    g = n", "f n = g\n  where\n  g = n"]),
        ("sh", ["a=1", "a =1", "echo 'a b'", "echo 'a  b'", "echo a b", "echo a#b", "echo ab"]),
        ("cpp", ["a+ +b", "a++b", 's = "//";', 's = "// x";', "s = 1;", "s = 1; /*"]),
        ("js", ["return\n1", "return 1", "`a\nb`", "`a b`", "`a\n\nb`", "`a${b}`", "`a${ c }`"]),
        ("lua", ["x = [[a\n--b]]", "x = [[a\n]]"]),
    ],
)
def test_other_programs_are_not(language: str, programs: list[str]):
    for one, other in combinations(programs, 2):
        assert not same(language, one, other), (one, other)


@pytest.mark.parametrize("text", ["(" * 5000, "-" * 50000 + "1", "\0", "x = " + "9" * 5000, "\ud800", "'''", "a" * 100000, "[" * 90 + "1" + "]" * 90])  # fmt: skip
def test_hostile_text_has_a_form_too(text: str):
    assert same("py", text, text + "\n")
    assert not same("py", text, text + "b")


def found(*rows: tuple[str, Verdict], pools: int = 1) -> tuple[list[tuple[str, Verdict]], int]:
    """The distinct programs of candidates that are dealt out to pools, each with its verdict, and the number of doubtful ones."""
    dealt = {f"p{n}": [row for row in enumerate(rows) if row[0] % pools == n] for n in range(pools)}
    made = {
        name: (
            [Candidate(f"a#{n}", "a", n, text, (1,), -1.0, "stop") for n, (text, _) in part],
            [Execution(f"a#{n}", "a", verdict, 0) for n, (_, verdict) in part],
        )
        for name, part in dealt.items()
    }
    programs, doubtful = distinct_programs({"a": problem("py")}, made)
    return [(program.id, program.verdict) for program in programs.get("a", [])], doubtful


@pytest.mark.parametrize("pools", [1, 2])
@pytest.mark.parametrize("other", [WRONG, TIMEOUT, Verdict.tampered])
def test_a_program_that_passed_once_and_failed_once_is_left_out(other: Verdict, pools: int):
    rows = [("x = 1", PASSED), ("x = 1  # slow", other), ("x = 2", WRONG)]
    assert found(*rows, pools=pools) == ([("p0/a#2", WRONG)], 1)
    assert found(*rows[:2], pools=pools) == ([], 1)


def test_a_program_that_failed_in_two_ways_is_one_wrong_program():
    assert found(("x = 1", TIMEOUT), ("x  = 1", WRONG), ("x = 1", Verdict.sandbox_error)) == (
        [("p0/a#0", TIMEOUT)],
        0,
    )
