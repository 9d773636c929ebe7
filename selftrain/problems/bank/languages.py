"""How the bank's languages write a problem: one row each, in the shape of MultiPL-E.

A program is prompt + body + "\\n" + tests. Where MultiPL-E's tests begin with the brace that closes the
function, the body ends without it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from selftrain.problems.bank.operations import Value


@dataclass(frozen=True)
class Language:
    """How one language writes a problem.

    types         its names of the types list (of int), string, number and bool
    prompt        with `<text>`, what is asked for, and `<arg>`, `<takes>`, `<gives>`: argument and types
    before, test, after   the tests; `test` is there once per case, with `<got>` (the argument) and `<want>`
    literal       a value as the language writes it
    stop_tokens   texts at which a completion is cut
    indent        what each line of the body begins with
    closing       what ends the function, where the tests do not
    test_of       another `test` for results of some types
    imports       what the prompt begins with, by type of the argument
    unpack        first line of the body, by type of the argument
    """

    types: dict[str, str]
    prompt: str
    before: str
    test: str
    after: str
    literal: Callable[[Value], str]
    stop_tokens: tuple[str, ...]
    indent: str = "    "
    closing: str = ""
    test_of: dict[type, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    unpack: dict[str, str] = field(default_factory=dict)


def _literals(items: str, empty: str, item: str = "%d", number: str = "%d") -> Callable[[Value], str]:
    """Literals of a language with C's strings; `items` takes a list's items, each written as `item`."""

    def literal(value: Value) -> str:
        if isinstance(value, list):
            return items % ", ".join(item % x for x in value) if value else empty
        return json.dumps(value) if isinstance(value, str | bool) else number % value

    return literal


def _bash(value: Value) -> str:
    if isinstance(value, list):
        return '"' + " ".join(map(str, value)) + '"'
    return f'"{str(value).lower() if isinstance(value, bool) else value}"'


_SCRIPT_TESTS = """\
const assert = require('node:assert');


function test() {
  let candidate = solve;
"""
_SCRIPT_TEST = "  assert.deepEqual(candidate(<got>),<want>);"

LANGUAGES = {
    "py": Language(
        types={"list": "List[int]", "string": "str", "number": "int", "bool": "bool"},
        imports={"list": "from typing import List\n\n"},
        prompt='def solve(<arg>: <takes>) -> <gives>:\n    """ <text>\n    """\n',
        before="def check(candidate):\n",
        test="    assert candidate(<got>) == <want>",
        after="\n\ncheck(solve)\n",
        literal=repr,
        stop_tokens=("\ndef", "\n#", "\nif", "\nclass"),
    ),
    "cpp": Language(
        types={"list": "std::vector<long>", "string": "std::string", "number": "long", "bool": "bool"},
        prompt="#include<assert.h>\n#include<bits/stdc++.h>\n// <text>\n<gives> solve(<takes> <arg>) {\n",
        before="}\nint main() {\n    auto candidate = solve;\n",
        test="    assert(candidate((<got>)) == (<want>));",
        after="\n}\n",
        literal=_literals("std::vector<long>({%s})", "std::vector<long>()", item="(long)%d"),
        stop_tokens=("\n}",),
    ),
    "java": Language(
        types={"list": "ArrayList<Long>", "string": "String", "number": "long", "bool": "boolean"},
        prompt="import java.util.*;\nimport java.util.stream.*;\nclass Problem {\n    // <text>\n"
        "    public static <gives> solve(<takes> <arg>) {\n",
        indent="        ",
        before="    }\n    public static void main(String[] args) {\n",
        test="    assert(solve((<got>)) == (<want>));",
        test_of=dict.fromkeys((list, str), "    assert(solve((<got>)).equals((<want>)));"),
        after="\n    }\n\n}\n",
        literal=_literals(
            "new ArrayList<Long>(Arrays.asList(%s))",
            "new ArrayList<Long>(Arrays.asList())",
            "(long)%dl",
            "%dl",
        ),
        stop_tokens=("\n    }\n",),
    ),
    "php": Language(
        types=dict.fromkeys(("list", "string", "number", "bool"), ""),
        prompt="<?php\n// <text>\nfunction solve($<arg>) {\n",
        closing="\n}",
        before="function candidate(...$args) {\n    return solve(...$args);\n}\n\nfunction test(): void {\n",
        test='    if (candidate(<got>) !== <want>) { throw new Exception("Test failed!"); }',
        after="\n}\n\ntest();\n",
        literal=_literals("array(%s)", "array()"),
        stop_tokens=("\nfunction", "\n?>", "\n//", "\n#"),
    ),
    "ts": Language(
        types={"list": "number[]", "string": "string", "number": "number", "bool": "boolean"},
        prompt="// <text>\nfunction solve(<arg>: <takes>): <gives> {\n",
        closing="\n}",
        before="declare var require: any;\n" + _SCRIPT_TESTS,
        test=_SCRIPT_TEST,
        after="\n}\n\ntest();\n",
        literal=_literals("[%s]", "[]"),
        stop_tokens=("\nfunction ", "\n/*", "\n//", "\nclass"),
    ),
    "cs": Language(
        types={"list": "List<long>", "string": "string", "number": "long", "bool": "bool"},
        prompt="using System;\nusing System.Collections.Generic;\nusing System.Diagnostics;\n"
        "using System.Linq;\nclass Problem {\n    // <text>\n"
        "    public static <gives> Solve(<takes> <arg>) {\n",
        indent="        ",
        before="    }\n    public static void Main(string[] args) {\n",
        test="    Debug.Assert(Solve((<got>)) == (<want>));",
        test_of={
            list: "    Debug.Assert(Solve((<got>)).SequenceEqual((<want>)));",
            str: "    Debug.Assert(Solve((<got>)).Equals((<want>)));",
        },
        after="\n    }\n\n}\n",
        literal=_literals("new List<long>(new long[]{%s})", "new List<long>()", "(long)%dL", "%dL"),
        stop_tokens=("\n    }\n",),
    ),
    "sh": Language(
        types={"list": "a space-separated list", "string": "a string", "number": "an integer", "bool": ""},
        prompt="#!/bin/bash\n# <text>\n#\n# $1 is <takes>\nsolve() {\n",
        unpack={"list": "xs=($1)", "string": "s=$1", "number": "n=$1"},
        before='}\n\ncandidate() {\n    solve "$@"\n}\n\nset -e\nrun_test() {\n',
        test="    [[ $(candidate <got>) = <want> ]]",
        after="\n}\n\nrun_test\n",
        literal=_bash,
        stop_tokens=("\n}",),
    ),
    "js": Language(
        types=dict.fromkeys(("list", "string", "number", "bool"), ""),
        prompt="// <text>\nfunction solve(<arg>){\n",
        closing="\n}",
        before=_SCRIPT_TESTS,
        test=_SCRIPT_TEST,
        after="\n}\n\ntest();\n",
        literal=_literals("[%s]", "[]"),
        stop_tokens=("\nfunction ", "\n/*", "\n//", "\nconsole.log"),
    ),
}
"""By short name, as `sandbox.languages` has it."""
