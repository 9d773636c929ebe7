"""Tests of the sandbox on real MultiPL-E problems with a model's answers, most of which are right.

Reads `mbpp-LANG.jsonl` from $MULTIPL_E_DIR: name, prompt, tests, and `response`, a complete function in a
markdown block (py: only its body).
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.verdicts import Limits, Verdict
from tests.needs import need
from tests.sandbox.conftest import EIGHT
from tests.truth import read

ROWS = {"py": 12, "cpp": 6, "java": 4, "php": 12, "ts": 3, "cs": 6, "sh": 12, "js": 8}
"""So many of each language, evenly spread."""
LIMITS = Limits(cpu_seconds=2.0)


@pytest.mark.parametrize("language", EIGHT)
def test_answers_get_the_verdicts_they_deserve(sandbox: Sandbox, language: str) -> None:
    directory = Path(os.environ.get("MULTIPL_E_DIR", ""))
    path = directory / f"mbpp-{language}.jsonl"
    need(path.is_file(), "set MULTIPL_E_DIR to a folder with mbpp-LANG.jsonl files")
    missing = sandbox.missing_tools(language)
    need(not missing, f"{language} needs {', '.join(missing)}")
    programs = [replace(program, limits=LIMITS) for program in read(path, language, ROWS[language])]
    assert all(program.end_marker is not None for program in programs)
    verdicts = {result.id: result.verdict for result in sandbox.run(programs)}
    assert all(verdict.is_label for verdict in verdicts.values())
    passed = sum(verdict is Verdict.passed for verdict in verdicts.values())
    assert passed >= 0.25 * len(programs), verdicts
    if language == "py":  # the reference solutions
        assert passed == len(programs), verdicts
