"""Real MultiPL-E problems with a model's answers, most of which pass.

Reads `mbpp-LANG.jsonl` from $MULTIPL_E_DIR: name, prompt, tests, and `response`, a whole function in a
markdown block (py: its body alone).
"""

import json
import os
import re
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.programs import assemble
from sandbox.verdicts import Limits, Program, Verdict
from tests.needs import need
from tests.sandbox.conftest import EIGHT

ROWS = {"py": 12, "cpp": 6, "java": 4, "php": 12, "ts": 3, "cs": 6, "sh": 12, "js": 8}
"""So many of each language, evenly spread."""
LIMITS = Limits(cpu_seconds=2.0)

HEADER = re.compile(r"#include|import |using ")
CLOSED_BY_THE_TESTS = {"cpp": 1, "sh": 1, "java": 2, "cs": 2}


def answer(language: str, row: dict[str, str]) -> str:
    """The program without its tests: the prompt's imports, and the response's function left open."""
    if language == "py":
        return row["prompt"] + row["response"]
    block = re.search(r"```\S*\n(.*?)```", row["response"], re.DOTALL)
    code = re.sub(r"\?>\s*$", "", (block[1] if block else row["response"]).rstrip())
    for _ in range(CLOSED_BY_THE_TESTS.get(language, 0)):
        code = code[: code.rindex("}")]
    if language in ("cpp", "java", "cs"):
        header = [line for line in row["prompt"].splitlines() if HEADER.match(line)]
        code = "\n".join([*header, *(line for line in code.splitlines() if not HEADER.match(line))])
    return code


@pytest.mark.parametrize("language", EIGHT)
def test_answers_get_the_verdicts_they_deserve(sandbox: Sandbox, language: str) -> None:
    directory = Path(os.environ.get("MULTIPL_E_DIR", ""))
    path = directory / f"mbpp-{language}.jsonl"
    need(path.is_file(), "set MULTIPL_E_DIR to a folder with mbpp-LANG.jsonl files")
    missing = sandbox.missing_tools(language)
    need(not missing, f"{language} needs {', '.join(missing)}")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = rows[:: len(rows) // ROWS[language]][: ROWS[language]]
    programs = []
    for row in rows:
        source, marker = assemble(language, "", answer(language, row), row["tests"])
        assert marker is not None
        programs.append(Program(row["name"], language, source, end_marker=marker, limits=LIMITS))
    verdicts = {result.id: result.verdict for result in sandbox.run(programs)}
    assert all(verdict.is_label for verdict in verdicts.values())
    passed = sum(verdict is Verdict.passed for verdict in verdicts.values())
    assert passed >= 0.25 * len(rows), verdicts
    if language == "py":  # the reference solutions
        assert passed == len(rows), verdicts
