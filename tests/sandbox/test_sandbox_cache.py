"""The verdict cache: what is the same program, what is not, and what is never kept."""

from dataclasses import replace
from pathlib import Path

from sandbox.cache import VerdictCache
from sandbox.verdicts import Case, Limits, Program, Result, Verdict

PROGRAM = Program("a", "py", "print(1)\n", end_marker="end-1")
RESULT = Result("a", Verdict.passed, exit_code=0, cpu_seconds=0.25, stdout="1\n")


def open_cache(folder: Path, versions: str = "python3 3.11") -> VerdictCache:
    return VerdictCache(folder / "verdicts.sqlite", {"py": versions})


def test_a_kept_verdict_is_found_under_any_id_and_marked_cached(tmp_path: Path):
    cache = open_cache(tmp_path)
    cache.keep([(PROGRAM, RESULT)])
    cache.close()
    again = open_cache(tmp_path)  # from the file, not from memory
    assert again.find([replace(PROGRAM, id="b")]) == {"b": replace(RESULT, id="b", cached=True)}


def test_whatever_can_change_the_verdict_makes_another_program(tmp_path: Path):
    cache = open_cache(tmp_path)
    cache.keep([(PROGRAM, RESULT)])
    others = [
        replace(PROGRAM, source="print(2)\n"),
        replace(PROGRAM, end_marker="end-2"),
        replace(PROGRAM, cases=(Case("", "1"),)),
        replace(PROGRAM, limits=Limits(cpu_seconds=1.0)),
    ]
    assert cache.find(others) == {}
    assert open_cache(tmp_path, "python3 3.12").find([PROGRAM]) == {}


def test_a_failure_of_the_sandbox_is_not_kept(tmp_path: Path):
    cache = open_cache(tmp_path)
    cache.keep([(PROGRAM, replace(RESULT, verdict=Verdict.sandbox_error))])
    assert cache.find([PROGRAM]) == {}


def test_more_programs_than_one_statement_takes(tmp_path: Path):
    cache = open_cache(tmp_path)
    many = [Program(str(n), "py", f"print({n})\n") for n in range(1201)]
    cache.keep([(program, replace(RESULT, id=program.id)) for program in many])
    assert len(cache.find(many)) == 1201
