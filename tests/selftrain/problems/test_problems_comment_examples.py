"""Tests of the tests that are made from the `>>>` examples in comments, in seven languages."""

from dataclasses import dataclass

import pytest

from sandbox.client import Sandbox
from sandbox.programs import assemble
from sandbox.verdicts import Verdict
from selftrain.problems.examples import example_tests
from tests.needs import need


@dataclass(frozen=True)
class Made:
    """A problem: numbers above a bound. `hidden` and `shown`: the tests' assertion and the one that its example becomes."""

    comments: str
    head: str
    around: tuple[str, str]
    hidden: str
    shown: str
    right: str
    wrong: str

    @property
    def prompt(self) -> str:
        return self.comments + self.head

    @property
    def tests(self) -> str:
        return self.hidden.join(self.around)


PROBLEMS = {
    "cpp": Made(
        "#include<assert.h>\n#include<bits/stdc++.h>\n// Numbers above a bound.\n"
        "// >>> above((std::vector<long>({(long)4, (long)7})), (5))\n// (std::vector<long>({(long)7}))\n",
        "std::vector<long> above(std::vector<long> values, long bound) {\n",
        ("}\nint main() {\n    auto candidate = above;\n", "}\n"),
        "    assert(candidate((std::vector<long>({(long)3})), (2)) == (std::vector<long>({(long)3})));\n",
        "    assert(candidate((std::vector<long>({(long)4, (long)7})), (5)) == (std::vector<long>({(long)7})));\n",
        "    std::vector<long> r;\n    for (long v : values) if (v > bound) r.push_back(v);\n    return r;\n",
        "    return {};\n",
    ),
    "java": Made(
        "import java.util.*;\nclass Problem {\n    // Numbers above a bound.\n"
        "    // >>> aboveBound((new ArrayList<Long>(Arrays.asList((long)4l, (long)7l))), (5l))\n"
        "    // (new ArrayList<Long>(Arrays.asList((long)7l)))\n",
        "    public static ArrayList<Long> above(ArrayList<Long> values, long bound) {\n",
        ("    }\n    public static void main(String[] args) {\n", "    }\n\n}\n"),
        "    assert(above((new ArrayList<Long>(Arrays.asList((long)3l))), (2l)).equals((new ArrayList<Long>(Arrays.asList((long)3l)))));\n",
        "    assert(above((new ArrayList<Long>(Arrays.asList((long)4l, (long)7l))), (5l))"
        ".equals((new ArrayList<Long>(Arrays.asList((long)7l)))));\n",
        "        ArrayList<Long> r = new ArrayList<>();\n        for (long v : values) if (v > bound) r.add(v);\n        return r;\n",
        "        return new ArrayList<>();\n",
    ),
    "js": Made(
        "//Numbers above a bound.\n// >>> above([4, 7], 5)\n// [7]\n",
        "function above(values, bound){\n",
        ("const assert = require('node:assert');\n\nfunction test() {\n  let candidate = above;\n", "}\n\ntest();"),
        "  assert.deepEqual(candidate([3], 2),[3]);\n",
        "  assert.deepEqual(candidate([4, 7], 5),[7]);\n",
        "  return values.filter(v => v > bound);\n}\n",
        "  return [];\n}\n",
    ),
    "ts": Made(
        "//Numbers above a bound.\n// >>> above([4, 7], 5)\n// [7]\n",
        "function above(values: number[], bound: number): number[] {\n",
        (
            "declare var require: any;\nconst assert = require('node:assert');\n\nfunction test() {\n  let candidate = above;\n",
            "}\n\ntest();",
        ),
        "  assert.deepEqual(candidate([3], 2),[3]);\n",
        "  assert.deepEqual(candidate([4, 7], 5),[7]);\n",
        "  return values.filter(v => v > bound);\n}\n",
        "  return [];\n}\n",
    ),
    "php": Made(
        "<?php\n// Numbers above a bound.\n// >>> above(array(4, 7), 5)\n// array(7)\n",
        "function above($values, $bound) {\n",
        (
            "function candidate(...$args) {\n    return above(...$args);\n}\n\nfunction test(): void {\n",
            "}\n\ntest();",
        ),
        '    if (candidate(array(3), 2) !== array(3)) { throw new Exception("Test failed!"); }\n',
        '    if (candidate(array(4, 7), 5) !== array(7)) { throw new Exception("Test failed!"); }\n',
        "    return array_values(array_filter($values, fn($v) => $v > $bound));\n}\n",
        "    return array();\n}\n",
    ),
    "cs": Made(
        "using System;\nusing System.Diagnostics;\nusing System.Collections.Generic;\nusing System.Linq;\nclass Problem {\n"
        "    // Numbers above a bound.\n    // >>> AboveBound((new List<long>(new long[]{(long)4L, (long)7L})), (5L))\n"
        "    // (new List<long>(new long[]{(long)7L}))\n",
        "    public static List<long> Above(List<long> values, long bound) {\n",
        ("    }\n    public static void Main(string[] args) {\n", "    }\n\n}\n"),
        "    Debug.Assert(Above((new List<long>(new long[]{(long)3L})), (2L)).SequenceEqual((new List<long>(new long[]{(long)3L}))));\n",
        "    Debug.Assert(Above((new List<long>(new long[]{(long)4L, (long)7L})), (5L))"
        ".SequenceEqual((new List<long>(new long[]{(long)7L}))));\n",
        "        return values.Where(v => v > bound).ToList();\n",
        "        return new List<long>();\n",
    ),
    "sh": Made(
        "#!/bin/bash\n# Numbers above a bound.\n# >>> $(above \"4 7 9\" \"5\")\n# ['\"7\"', '\"9\"']\n#\n",
        "above() {\n",
        ('}\n\ncandidate() {\n    above "$@"\n}\n\nset -e\nrun_test() {\n', "}\n\nrun_test"),
        '    [[ $(candidate "3" "2") = "3" ]]\n',
        '    [[ $(candidate "4 7 9" "5") = "7 9" ]]\n',
        "    local r=()\n    for v in $1; do (( v > $2 )) && r+=($v); done\n    echo \"${r[*]}\"\n",
        '    echo "$1"\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", PROBLEMS)
def test_an_example_takes_the_place_of_the_tests_assertions(language: str) -> None:
    """Java's and C#'s examples have another name of the function than the prompt, as in MultiPL-E."""
    made = PROBLEMS[language]
    assert example_tests(made.prompt, language, made.tests) == made.shown.join(made.around)
    twice = (2 * made.hidden).join(made.around)
    assert example_tests(made.prompt, language, twice) == made.shown.join(made.around)


@pytest.mark.parametrize("language", PROBLEMS)
def test_examples_tell_right_from_wrong(language: str) -> None:
    made = PROBLEMS[language]
    tests = example_tests(made.prompt, language, made.tests)
    programs = [
        assemble(language, made.prompt, text, tests).program(name, language)
        for name, text in (("right", made.right), ("wrong", made.wrong))
    ]
    with Sandbox("process") as sandbox:
        missing = sandbox.missing_tools(language)
        need(not missing, f"{language} needs {', '.join(missing)}")
        verdicts = {result.id: result.verdict for result in sandbox.run(programs)}
    assert verdicts["right"] is Verdict.passed
    assert verdicts["wrong"] in (Verdict.wrong_answer, Verdict.runtime_error)


def test_examples_with_other_kinds_of_values_are_left_out() -> None:
    """In C++ they would not compile, and no program would pass."""
    made = PROBLEMS["cpp"]
    head = '// >>> above((std::vector<std::string>({"4"})), (5))\n// (std::vector<long>())\n'
    assert example_tests(head + made.prompt, "cpp", made.tests) == made.shown.join(made.around)
    assert example_tests(head + made.head, "cpp", made.tests) == ""


def test_only_calls_with_their_results_are_examples() -> None:
    made = PROBLEMS["js"]
    for comment in (
        "// >>> above([4], 5)",
        "// >>> above([4], 5) // why\n// []",
        "// >>> above([4], 5\n// []",
        "// >>> values\n// []",
        "// >>> above([4], 5)\n// ])",
        "// >>> above([4], 5)\n// nothing",
        "// above([4], 5)\n// []",
    ):
        assert example_tests(f"{comment}\n{made.head}", "js", made.tests) == ""


def test_brackets_and_quotes_in_strings_end_nothing() -> None:
    tests = '  assert.deepEqual(candidate(")", "\\")"),"it\'s (");\n'
    prompt = '// >>> f("]", "\\"}")\n// "(\'"\nfunction f(a, b){\n'
    assert example_tests(prompt, "js", tests) == '  assert.deepEqual(candidate("]", "\\"}"),"(\'");\n'


def test_no_test_of_the_problem_gets_into_the_result() -> None:
    """Assertions in another form between two of the known form are left out; before or after them, all is."""
    made = PROBLEMS["js"]
    other = "  assert.deepEqual(candidate([1], 2).length < 1, true);\n"
    between = (made.hidden + other + made.hidden).join(made.around)
    assert example_tests(made.prompt, "js", between) == made.shown.join(made.around)
    assert example_tests(made.prompt, "js", (made.hidden + other).join(made.around)) == ""
    assert example_tests(made.prompt, "js", other.join(made.around)) == ""


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ('"a b"', '"a b"'),
        ("[]", '""'),
        ("{}", '""'),
        ("""['"a"', '"b c"']""", '"a b c"'),
        ("""[['"1"', '"2"'], ['"3"']]""", r'"1 2\n3"'),
        ("""{'"a"': '"1"', '"b"': '"2"'}""", r'"a,1\nb,2"'),
        ("[1, 2]", None),
        ("12", None),
        ("words", None),
    ],
)
def test_bash_expected_values_are_what_a_program_prints(shown: str, printed: str | None) -> None:
    tests = '    [[ $(candidate "") = "" ]]\n'
    prompt = f'# >>> $(f "x")\n# {shown}\nf() {{\n'
    expected = "" if printed is None else f'    [[ $(candidate "x") = {printed} ]]\n'
    assert example_tests(prompt, "sh", tests) == expected
