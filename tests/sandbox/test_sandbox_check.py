"""Tests of `python -m sandbox check`: every backend passes, and a program that escapes its limits is reported."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.hostile import HOSTILE, PROBE, Hostile
from sandbox.languages import LANGUAGES, MORE
from sandbox.shapes import ENDINGS, SHAPES
from sandbox.verdicts import Program, Verdict
from tests.command import ROOT
from tests.needs import need
from tests.sandbox.conftest import EIGHT, build_image, need_backend


def test_the_list_covers_the_table() -> None:
    assert set(SHAPES) == set(LANGUAGES)
    # tests/sandbox/tricks.py has the programs that tamper
    assert set(ENDINGS.values()) == set(Verdict) - {Verdict.sandbox_error, Verdict.tampered}
    assert len(HOSTILE) >= 25
    assert len({attempt.name for attempt in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize(("backend", "languages"), [("bubblewrap", EIGHT), ("docker", LANGUAGES)])
def test_a_backend_that_isolates_passes(backend: str, languages: Sequence[str]) -> None:
    need_backend(backend)
    if backend == "docker":
        build_image(MORE)
    with Sandbox(backend) as sandbox:  # type: ignore[arg-type]
        missing = {language: sandbox.missing_tools(language) for language in languages}
    lacks = [f"{language}: {', '.join(tools)}" for language, tools in missing.items() if tools]
    need(not lacks, f"backend {backend} lacks tools of {'; '.join(lacks)}")
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "check", "--backend", backend, "--languages", ",".join(languages)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    bad = [line for line in done.stdout.splitlines() if not line.startswith("ok ")]
    count = len(languages) * len(ENDINGS) + len(HOSTILE)
    assert bad == [f"backend {backend}: {count} of {count} as they should be"], done.stderr
    assert done.returncode == 0


def test_a_program_that_gets_away_with_it_is_noticed() -> None:
    """`process` isolates nothing: a file left in /tmp is visible to the next program, and `passed` is not contained."""
    left = Path(f"/tmp/left-{os.getpid()}")
    attempt = Hostile("leaves a file", f"open({str(left)!r}, 'w')", may_pass=True)
    try:
        with Sandbox("process") as sandbox:
            results = list(sandbox.run([attempt.program]))
            results += sandbox.run([PROBE])
    finally:
        left.unlink(missing_ok=True)
    assert [result.verdict for result in results] == [Verdict.passed, Verdict.wrong_answer]
    assert attempt.contained(Verdict.passed)
    assert not replace(attempt, may_pass=False).contained(Verdict.passed)
    assert not attempt.contained(Verdict.sandbox_error)
    assert not replace(attempt, expected=Verdict.timeout).contained(Verdict.runtime_error)


def test_the_probe_passes_where_nothing_is_left(boxed: Sandbox) -> None:
    (result,) = boxed.run([replace(PROBE, id="clean")])
    assert result.verdict is Verdict.passed, result
    assert isinstance(result.id, str)
    (other,) = boxed.run([Program("x", "py", "print('end-of-probe')", end_marker="end-of-probe")])
    assert other.verdict is Verdict.passed
