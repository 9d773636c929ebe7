"""Turns the examples in a prompt into tests: those in a Python docstring here, those in comments in `comment_examples`."""

import ast
import doctest
import re
from collections.abc import Iterator
from contextlib import suppress

from selftrain.problems.comment_examples import closing, comment_example_tests

_RESULT = re.compile(
    r"\s*(?:#\s*)?(?:==?>?|->|\N{HEAVY TRIANGLE-HEADED RIGHTWARDS ARROW}|(?:should )?returns?\b)\s*"
)
"""Stands between a call and its result in an example within a text: `f(1) == 2`, `f(1) => 2`, `f(1) should return 2`."""


def example_tests(prompt: str, language: str, tests: str = "") -> str:
    """Tests made of the examples in `prompt`; empty where there are none that can be read.

    Python: asserts for the `>>>` examples in the docstring of the last function, or if it has none, for its lines such as
    `f(1) == 2` and `f(1) => 2`. An example becomes an assert if its expected output is a literal, or if it is a comparison
    without expected output. Statements without output (an import, an assignment) are copied between the asserts. Other
    languages: assertions in the form of those in `tests`, for the `>>>` examples in comments.
    """
    if language != "py":
        return comment_example_tests(prompt, language, tests)
    try:
        functions = [node for node in ast.parse(prompt).body if isinstance(node, ast.FunctionDef)]
        docstring = (ast.get_docstring(functions[-1], clean=False) if functions else None) or ""
        examples = doctest.DocTestParser().get_examples(docstring)
    except (SyntaxError, ValueError):  # doctest raises ValueError for a layout that it cannot parse
        return ""
    if functions and not examples:
        examples = list(_within_text(docstring, functions[-1].name))
    lines = list(filter(None, map(_line, examples)))
    asserts = any(line.startswith("assert") for line in lines)
    return "\n" + "\n".join(lines) + "\n" if asserts else ""


def _within_text(docstring: str, name: str) -> Iterator[doctest.Example]:
    """The lines of `docstring` that show a call of the function `name` with literals, and its result."""
    for line in docstring.splitlines():
        head = re.search(rf"(?<![\w.]){name}\(", line)
        end = closing(line, head.end()) if head else None
        result = _RESULT.match(line, end + 1) if end is not None else None
        if head is None or end is None or result is None:
            continue
        with suppress(SyntaxError, ValueError):
            ast.literal_eval(f"[{line[head.end() : end]}]")  # raises ValueError for a variable
            want = re.sub(r"\.?\s*$|\s+#.*", "", line[result.end() :])
            yield doctest.Example(line[head.start() : end + 1], want)


def _line(example: doctest.Example) -> str:
    """The example as a line of a test; empty where it is neither a statement nor usable as an assert."""
    try:
        statement = ast.parse(example.source).body[0]
        if not isinstance(statement, ast.Expr):
            return "" if example.want else ast.unparse(statement)
        test = statement.value
        if example.want:
            expected = ast.parse(example.want.strip(), mode="eval").body
            ast.literal_eval(expected)  # raises ValueError if not a literal
            test = ast.Compare(test, [ast.Eq()], [expected])
    except (SyntaxError, ValueError, TypeError, IndexError):
        return ""
    return ast.unparse(ast.Assert(test)) if isinstance(test, ast.Compare) else ""
