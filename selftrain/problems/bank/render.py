"""Writes problems: prompt, solution body and tests, each as the language's row in `languages` has it."""

import re
from collections.abc import Sequence

from selftrain.problems.bank.code import CODE
from selftrain.problems.bank.languages import LANGUAGES
from selftrain.problems.bank.operations import Step, Value

ARGUMENTS = {"list": "xs", "string": "s", "number": "n"}


def render_prompt(language: str, text: str, takes: str, gives: str) -> str:
    """The prompt that asks for `text`, to be done by a function from type `takes` to type `gives`."""
    row = LANGUAGES[language]
    fields = {"text": text, "arg": ARGUMENTS[takes], "takes": row.types[takes], "gives": row.types[gives]}
    return row.imports.get(takes, "") + _fill(row.prompt, fields)


def render_solution(language: str, steps: Sequence[Step]) -> str:
    """The function's body, one line per step, up to where the tests take over."""
    row = LANGUAGES[language]
    lines = [row.unpack[takes]] if (takes := steps[0].operation.takes) in row.unpack else []
    lines += [CODE[language][step.operation.name].replace("{k}", str(step.number)) for step in steps]
    return "\n".join(row.indent + line for line in lines) + row.closing


def render_tests(language: str, cases: Sequence[tuple[Value, Value]]) -> str:
    """Tests of (argument, expected result), to be put behind prompt, body and a line break."""
    row = LANGUAGES[language]
    lines = [
        _fill(row.test_of.get(type(want), row.test), {"got": row.literal(got), "want": row.literal(want)})
        for got, want in cases
    ]
    return row.before + "\n".join(lines) + row.after


def _fill(template: str, fields: dict[str, str]) -> str:
    """`template` with each `<name>` of `fields` replaced, and nothing inside their values."""
    return re.sub("<(" + "|".join(fields) + ")>", lambda found: fields[found[1]], template)
