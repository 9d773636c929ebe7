"""Writes a problem's prompt, solution and tests from the templates in `languages` and the code in `code`."""

import re
from collections.abc import Sequence

from selftrain.problems.bank.code import CODE
from selftrain.problems.bank.languages import LANGUAGES
from selftrain.problems.bank.operations import Step, Value

ARGUMENTS = {"list": "xs", "string": "s", "number": "n"}
"""Type of the argument -> its name."""


def render_prompt(language: str, text: str, takes: str, gives: str) -> str:
    """The prompt with the description `text`, for a function from type `takes` to type `gives`."""
    row = LANGUAGES[language]
    fields = {"text": text, "arg": ARGUMENTS[takes], "takes": row.types[takes], "gives": row.types[gives]}
    return row.imports.get(takes, "") + _fill(row.prompt, fields)


def render_solution(language: str, steps: Sequence[Step]) -> str:
    """The function's body, one line per step, with the end of the function unless the tests begin with it."""
    row = LANGUAGES[language]
    lines = [row.unpack[takes]] if (takes := steps[0].operation.takes) in row.unpack else []
    lines += [CODE[language][step.operation.name].replace("{k}", str(step.number)) for step in steps]
    return "\n".join(row.indent + line for line in lines) + row.closing


def render_tests(language: str, cases: Sequence[tuple[Value, Value]]) -> str:
    """The test code for pairs (argument, expected result); it follows prompt, body and a line break."""
    row = LANGUAGES[language]
    lines = [
        _fill(row.test_of.get(type(want), row.test), {"got": row.literal(got), "want": row.literal(want)})
        for got, want in cases
    ]
    return row.before + "\n".join(lines) + row.after


def _fill(template: str, fields: dict[str, str]) -> str:
    """`template` with each `<name>` replaced by `fields[name]`. Values are not searched for names."""
    return re.sub("<(" + "|".join(fields) + ")>", lambda found: fields[found[1]], template)
