"""Templates of the bank's prompts and tests for each language, in the format of MultiPL-E.

A program is prompt + body + "\\n" + tests. In languages where MultiPL-E's tests begin with the brace that closes the
function, the body ends without that brace.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from selftrain.problems.bank.operations import Value


@dataclass(frozen=True)
class Language:
    """The templates of one language.

    types         the bank's type (`list`, `string`, `number`, `bool`) -> its name in the language
    prompt        `<text>` stands for the description, `<arg>` for the argument, `<takes>` and `<gives>` for the types
    before        start of the tests
    test          one test case: `<got>` stands for the argument, `<want>` for the expected result
    after         end of the tests
    literal       value -> its literal in the language
    stop_tokens   texts at which a completion is cut
    indent        indentation of each line of the body
    closing       end of the function, where the tests do not begin with it
    test_of       Python type of the expected result -> template to use in place of `test`
    imports       type of the argument -> start of the prompt
    unpack        type of the argument -> first line of the body
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
    """A `Language.literal` with JSON's strings. Templates: `items` of a list, `empty` list, `item` of a list, `number`."""

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
"""Short name of a language, as in `sandbox.languages` -> its templates."""
