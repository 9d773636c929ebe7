"""Tests of the verdict cache (`sandbox.cache`): shared entries, changed keys, results that are not stored, damaged files."""

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


def test_a_damaged_file_is_made_anew(tmp_path: Path):
    (tmp_path / "verdicts.sqlite").write_bytes(b"no database" * 1000)
    (tmp_path / "verdicts.sqlite.md").write_text("not the cache's")
    cache = open_cache(tmp_path)
    assert (tmp_path / "verdicts.sqlite.md").exists()
    cache.keep([(PROGRAM, RESULT)])
    assert open_cache(tmp_path).find([PROGRAM]) == {"a": replace(RESULT, cached=True)}


def test_a_full_disk_costs_the_cache_and_no_verdict(tmp_path: Path):
    cache = open_cache(tmp_path)
    assert cache._db is not None
    cache._db.execute("PRAGMA max_page_count = 8")  # SQLite's own "database or disk is full"
    cache.keep([(PROGRAM, RESULT)])
    many = [Program(str(n), "py", f"print({n})\n") for n in range(400)]
    cache.keep([(program, replace(RESULT, id=program.id)) for program in many])
    assert cache.find([PROGRAM, *many]) == {}
    cache.keep([(PROGRAM, RESULT)])
    assert open_cache(tmp_path).find([PROGRAM]) == {"a": replace(RESULT, cached=True)}


def test_a_place_that_cannot_be_written_costs_the_cache_alone(tmp_path: Path):
    cache = VerdictCache(tmp_path / "nowhere" / "verdicts.sqlite", {"py": "3"})
    cache.keep([(PROGRAM, RESULT)])
    assert cache.find([PROGRAM]) == {}
    cache.close()
