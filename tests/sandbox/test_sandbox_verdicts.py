"""Tests of every verdict in the paper's languages on every backend, with the programs of `sandbox.shapes`; of compilers, too."""

from dataclasses import replace

import pytest

from sandbox.client import Sandbox
from sandbox.languages import LANGUAGES
from sandbox.shapes import ENDINGS, program
from sandbox.verdicts import MIB, Case, Program, Result, Verdict
from tests.needs import need
from tests.sandbox.conftest import EIGHT

FEWER = {
    ("process", "ts"): ("passed", "wrong_answer", "early_exit", "compile_error"),
    ("bubblewrap", "ts"): ("passed",),
    ("bubblewrap", "java"): ("passed", "wrong_answer", "timeout", "memory_exceeded", "echo"),
}
"""What of the list is judged where compiling takes seconds (and TypeScript runs as JavaScript does)."""


def wanted(backend: str, language: str, ending: str) -> bool:
    return ending in FEWER.get((backend, language), ENDINGS)


@pytest.fixture(scope="session")
def results(sandbox: Sandbox) -> dict[str, Result]:
    """Results of all shapes in languages that this machine has, judged in one call."""
    programs = [
        program(language, ending)
        for language in EIGHT
        if not sandbox.missing_tools(language)
        for ending in ENDINGS
        if wanted(sandbox.backend, language, ending)
    ]
    return {result.id: result for result in sandbox.run(programs)}


@pytest.mark.parametrize("language", EIGHT)
def test_verdicts(sandbox: Sandbox, results: dict[str, Result], language: str) -> None:
    missing = sandbox.missing_tools(language)
    need(not missing, f"{language} needs {', '.join(missing)}")
    judged = {
        ending: results[f"{language}-{ending}"]
        for ending in ENDINGS
        if wanted(sandbox.backend, language, ending)
    }
    assert {ending: result.verdict for ending, result in judged.items()} == {e: ENDINGS[e] for e in judged}
    for ending, result in judged.items():
        assert (result.exit_code == 0) == (ending in ("passed", "early_exit", "echo", "echo_wrong")) or (
            language == "cs" and ending == "wrong_answer"  # a failed Debug.Assert leaves the exit code alone
        ), result
        assert "end-" not in result.stdout
        assert len(result.stdout) <= 64 << 10
        assert len(result.stderr) <= 64 << 10


@pytest.mark.parametrize("language", EIGHT)
def test_measured_columns(sandbox: Sandbox, results: dict[str, Result], language: str) -> None:
    missing = sandbox.missing_tools(language)
    need(not missing, f"{language} needs {', '.join(missing)}")
    passed = results[f"{language}-passed"]
    assert (passed.compile_seconds > 0) == (LANGUAGES[language].compile is not None)
    assert 0 < passed.run_seconds < 20
    assert 0 < passed.cpu_seconds < 60
    assert MIB < passed.peak_memory_bytes < 300 * MIB
    if wanted(sandbox.backend, language, "timeout"):
        assert results[f"{language}-timeout"].cpu_seconds >= 0.5


@pytest.mark.parametrize("language", [name for name in EIGHT if LANGUAGES[name].compile])
def test_every_copy_of_a_program_is_compiled(sandbox: Sandbox, language: str) -> None:
    missing = sandbox.missing_tools(language)
    need(not missing, f"{language} needs {', '.join(missing)}")
    for _ in range(3):
        (result,) = sandbox.run([program(language, "passed")])
        assert result.compile_seconds > 0


HELLO = {
    "cpp": '#include <iostream>\nint main() { std::cout << "hello" << std::endl; }\n',
    "go": 'package main\nimport "fmt"\nfunc main() { fmt.Println("hello") }\n',
    "rs": 'fn main() { println!("hello"); }\n',
}


def test_a_program_may_have_little_memory_and_its_compiler_much(sandbox: Sandbox) -> None:
    """A low limit would keep the compiler from working, which would look like the program's fault."""
    little = {"memory_bytes": 32 * MIB, "output_bytes": 1000, "file_bytes": 1000}
    limits = {name: replace(LANGUAGES[name].limits, **little) for name in HELLO}
    there = [name for name in HELLO if not sandbox.missing_tools(name)]
    programs = [Program(name, name, HELLO[name], (Case("", "hello"),), None, limits[name]) for name in there]
    assert {result.id: result.verdict for result in sandbox.run(programs)} == dict.fromkeys(
        there, Verdict.passed
    )


NOT_EXECUTABLE = {
    "cpp": 'const char none[] __attribute__((section(".interp"))) = "/nonexistent";\nint main() {}\n',
    "go": "package solution\n\nfunc Solve() {}\n",
    "rs": '#![crate_type = "lib"]\npub fn solve() {}\n',
}


def test_what_compiles_to_a_file_that_cannot_be_executed_is_the_programs_failure(sandbox: Sandbox) -> None:
    """A compiler that accepts a library leaves one in the program's place: a label, with the shell's exit code."""
    there = [name for name in NOT_EXECUTABLE if not sandbox.missing_tools(name)]
    found = {
        result.id: (result.verdict, result.exit_code)
        for result in sandbox.run([Program(name, name, NOT_EXECUTABLE[name]) for name in there])
    }
    codes = {"cpp": 127, "go": 126, "rs": 126}
    assert found == {name: (Verdict.runtime_error, codes[name]) for name in there}
