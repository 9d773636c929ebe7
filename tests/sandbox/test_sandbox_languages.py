"""Tests of the language table, row by row: names, patterns for failures, commands, assembled programs, digests of rules."""

import itertools
import os
import re
import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.backends.bubblewrap import wrapped
from sandbox.channel import wait_readable
from sandbox.errors import UsageError
from sandbox.languages import LANGUAGES, MORE, READ_ONLY, heap_mib, language
from sandbox.launch import SPARE_PROCESSES, Command
from sandbox.markdown import Block, blocks
from sandbox.prepared import IN_COMMANDS
from sandbox.programs import assemble
from sandbox.shapes import SHAPES
from sandbox.verdicts import MIB, Case, Limits, Program, Result, Verdict
from tests.sandbox.conftest import EIGHT

ROWS = pytest.mark.parametrize("row", LANGUAGES.values(), ids=LANGUAGES)


def test_the_languages_and_their_images() -> None:
    more = {"r", "d", "rkt", "ml", "hs", "ex", "scala", "clj"}
    assert {name for name, row in LANGUAGES.items() if row.image == MORE} == more
    assert set(LANGUAGES) - more == {*EIGHT, "go", "rs", "rb", "lua", "pl"}


def test_names_in_multipl_es_files_are_known() -> None:
    assert [language(name).name for name in ("go_test.go", "elixir", "go")] == ["go", "ex", "go"]
    assert {name: row.multipl_e for name, row in LANGUAGES.items() if row.multipl_e} == {"ex": "elixir"}


@ROWS
def test_every_name_of_a_language_leads_to_its_row(row) -> None:
    for name in (*row.names, row.title, row.multipl_e or row.name):
        assert language(name) is language(name.upper()) is row
    for name in (*row.names, *row.fences):
        assert blocks("", f"```{name}\nx\n```", row.name) == (Block("x\n", row.name),)


def test_no_name_belongs_to_two_languages() -> None:
    every = [name for row in LANGUAGES.values() for name in (*row.names, *row.fences)]
    every += [name for short, others in READ_ONLY.items() for name in (short, *others)]
    assert len(set(every)) == len(every)
    assert [name.lower() for name in every] == every


@pytest.mark.parametrize("name", READ_ONLY)
def test_languages_that_can_only_be_read_are_refused(name: str) -> None:
    for text in (name, *READ_ONLY[name]):
        with pytest.raises(
            UsageError, match=f"language '{text}' can be read .* but not run; known: py, .*, clj$"
        ):
            language(text)


def test_names_change_no_verdict() -> None:
    row = LANGUAGES["ex"]
    assert replace(row, title="X", aliases=("x",), fences=("y",), multipl_e="z").rules() == row.rules()


def test_a_go_program_is_a_test_package_or_has_a_main() -> None:
    row = LANGUAGES["go"]
    assert row.of(Program("x", "go", "package f_test\n")).file == "main_test.go"
    assert row.of(Program("x", "go", "package main\n")) == row


def test_cpp_programs_with_cases_are_compiled_as_contest_judges_do() -> None:
    tested, contest = (LANGUAGES["cpp"].of(Program("x", "cpp", "", cases)) for cases in ((), (Case("", ""),)))
    assert {*(contest.compile or ())} - {*(tested.compile or ())} == {"-O2", "-DONLINE_JUDGE"}
    assert contest.run == tested.run


@ROWS
def test_templates_hold_known_names_only(row) -> None:
    others = [replace(row, **dict(variant.fields)) for variant in row.variants]
    templates = [part for one in (row, *others) for part in (one.file, *one.run, *(one.compile or ()))]
    templates += [*(row.syntax_check or ()), *dict(row.env).values()]
    names = {name for template in templates for name in re.findall(r"\{(\w+)\}", template)}
    assert names <= {"dir", "name", "entry", "heap", "stack", "openssl", "linker", *IN_COMMANDS}


@ROWS
def test_every_command_is_among_the_needed_tools(row) -> None:
    rows = [row, *(replace(row, **dict(variant.fields)) for variant in row.variants)]
    commands = [argv for one in rows for argv in (one.run, one.compile, one.syntax_check) if argv] + [
        *row.versions
    ]
    assert {argv[0] for argv in commands} - set(row.tools) <= {"{dir}/main"}


@ROWS
def test_patterns_do_not_match_silence(row) -> None:
    for pattern in (
        row.out_of_memory,
        row.failed_quietly,
        row.refused,
        row.speaks_of_syntax,
        row.misnamed,
        row.missing,
    ):
        assert not re.search(pattern, "")
    assert bool(re.search(row.test_failed, "")) == (row.name == "r")  # quit('no', 1)


@ROWS
def test_patterns_are_done_with_a_line_after_one_look(row) -> None:
    """CPU seconds. The bound allows for a slow machine; a pattern of quadratic time would take many times as long."""
    begins = (
        "Assertion `",
        "expected: ",
        "Uncaught ",
        "Fatal error: ",
        "Exception in thread ",
        "\n",
        " ",
        "a:1: error: class a ",
        ": fatal error: ",
        ": error: package a.",
        "error TS2307: Cannot find module 'a",
        "(1,7): error CS0246: The type or namespace name `a",
        "Can't locate a",
        "a: line 1: ",
        "collection not found\n  for module path: ",
    )
    patterns = (
        row.test_failed,
        row.failed_quietly,
        row.out_of_memory,
        row.refused,
        row.misnamed,
        row.speaks_of_syntax,
        row.missing,
    )
    started = time.process_time()
    for text, pattern in itertools.product((begin * (MIB // 2 // len(begin)) for begin in begins), patterns):
        re.search(pattern, text)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cpp", "x\nmain: Assertion `a' held, b: Assertion `c == d' failed.\n"),
        ("lua", "x\nmain: expected: 1, but expected: 2, actual: 3\n"),
        ("ex", "\n\n     Assertion with == failed\n"),
    ],
)
def test_failed_tests_are_known_in_the_middle_of_what_is_said(name: str, said: str) -> None:
    assert re.search(language(name).test_failed, said)
    assert not re.search(
        language(name).test_failed, said.replace(" failed", "\nfailed").replace("actual", "\nactual")
    )


@ROWS
def test_the_rules_digest_is_its_own_and_stable(row) -> None:
    assert [other.name for other in LANGUAGES.values() if other.rules() == row.rules()] == [row.name]


def test_an_unknown_language_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown language 'cobol'; known: py, cpp"):
        language("cobol")
    with pytest.raises(UsageError, match=r"unknown language 'elixr'; did you mean elixir\?; known: py, cpp"):
        language("elixr")


def test_a_heap_takes_three_quarters_of_the_memory() -> None:
    assert heap_mib(Limits(memory_bytes=400 * MIB)) == 300


@pytest.mark.parametrize("name", ["py", "php", "ts", "sh", "js", "pl", "r", "rkt", "ml", "clj"])
def test_the_marker_comes_after_tests_at_top_level(name: str) -> None:
    source, marker, _ = assemble(name, "PROMPT", "COMPLETION", "TESTS")
    assert source.startswith("PROMPTCOMPLETION\nTESTS\n")
    assert marker is not None
    assert marker in source.split("TESTS\n")[1]


@pytest.mark.parametrize("name", ["java", "cs"])
def test_the_marker_is_the_last_statement_of_main(name: str) -> None:
    source, marker, _ = assemble(name, "P{", "C", "    }\n    main() {\n    assert;\n    }\n\n}\n")
    body, _, closing = source.partition("assert;\n")
    assert body == "P{C\n    }\n    main() {\n    "
    assert marker is not None
    assert marker in closing.split("}")[0]
    assert closing.endswith("}\n\n}\n")


@pytest.mark.parametrize("name", [name for name, row in LANGUAGES.items() if row.closing])
def test_the_marker_is_inside_of_what_closes_the_tests(name: str) -> None:
    shape = SHAPES[name]
    source, marker, _ = assemble(name, shape.prompt, shape.passed, shape.tests)
    assert marker is not None
    before, _, after = source.partition(marker)
    said = LANGUAGES[name].end.partition("{marker}")
    added = said[0].replace("{{", "{") + marker + said[2]
    assert source.replace(added, "").split() == f"{shape.prompt}{shape.passed}\n{shape.tests}".split()
    assert len(before) > len(shape.prompt + shape.passed)
    assert re.search(r"\}|\bend\b|pure", after)


@pytest.mark.parametrize(
    "tests", ["}\nint main() {\n    assert(1);\n    return 0;\n}\n", "}\n// no main", ""]
)
def test_there_is_no_marker_where_the_end_of_main_is_unclear(tests: str) -> None:
    assert assemble("cpp", "int f() {", "", tests) == ("int f() {\n" + tests, None, 10)


def test_the_marker_depends_on_every_part() -> None:
    parts = ("py", "p", "c", "t")
    others = [("js", "p", "c", "t"), ("py", "x", "c", "t"), ("py", "p", "x", "t"), ("py", "p", "c", "x")]
    assert len({assemble(*pieces)[1] for pieces in (parts, *others)}) == 5
    assert assemble(*parts) == assemble(*parts)


def test_only_sandbox_error_is_no_label() -> None:
    assert [verdict for verdict in Verdict if not verdict.is_label] == [Verdict.sandbox_error]


def test_programs_and_results_survive_json() -> None:
    program = Program("a", "py", "x", limits=Limits(cpu_seconds=2.5), end_marker="e")
    assert Program.from_json(program.to_json()) == program
    result = Result("a", Verdict.timeout, None, 0.1, 0.2, 0.3, 4, "out", "err", True)
    assert Result.from_json(result.to_json()) == result


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_have_to_be_above_zero(value: float) -> None:
    with pytest.raises(ValueError, match="cpu_seconds must be greater than 0"):
        Limits(cpu_seconds=value)


def test_another_cpu_limit_raises_the_wall_limit_with_it() -> None:
    assert Limits(wall_seconds=30).with_cpu(5).wall_seconds == 30
    assert Limits(wall_seconds=30).with_cpu(20).wall_seconds == 60


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("cpu_seconds", 1e300),
        ("wall_seconds", 300_000.0),
        ("memory_bytes", 2**51),
        ("file_bytes", 2**64),
        ("processes", 2**40),
    ],
)
def test_limits_are_no_larger_than_a_kernel_takes(limit: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{limit} must be greater than 0 and at most"):
        Limits(**{limit: value})


def test_a_heap_is_no_larger_than_a_runtime_takes() -> None:
    assert heap_mib(Limits(memory_bytes=2**50)) == 1 << 20
    assert heap_mib(Limits(memory_bytes=2**31)) == 1536


def test_a_box_does_not_raise_a_lower_limit_on_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """prlimit would fail in the box, which would look like a failure of the program."""
    command = Command(("true",), Path("/nowhere"), {}, {})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (50, 50))
    assert "--nproc=50" in wrapped(command, Limits(processes=2**20), writable=False)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert f"--nproc={256 + SPARE_PROCESSES}" in wrapped(command, Limits(), writable=False)


def test_a_wait_of_weeks_is_no_error() -> None:
    """poll takes at most 24 days; the patience for a program with many cases and long limits is more."""
    readable, writable = os.pipe()
    os.write(writable, b"x")
    wait_readable(readable, time.monotonic() + 1e9)
    os.close(readable)
    os.close(writable)
