"""Tests that a full disk, a removed cache, a noexec file system or a strict umask is never counted as a program's failure."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.errors import SandboxError
from sandbox.room import check_compiled
from sandbox.verdicts import Case, Program, Verdict
from tests.command import ROOT
from tests.needs import need, need_tools

SUM = "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b; }\n"
LARGE = f"{SUM}char data[4 << 20] = {{1}};\n"
HUGE = f"{SUM}char data[10000000000] = {{1}};\n"
"""It compiles to more than one file may hold."""
REFUSED = f"{SUM}int x = nothing;\n"


@pytest.fixture
def place(scratch: Path) -> Iterator[Path]:
    """A folder that other users may enter."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def judge(place: Path, backend: str, mount: str, *sources: tuple[str, str]) -> dict[str, dict]:
    """Results by source, judged with temporary files on a separate file system."""
    need(os.geteuid() == 0, "only root mounts")
    need_tools("unshare", "mount", *(["bwrap"] if backend == "bubblewrap" else []))
    rows = [
        {"id": source, "language": language, "program": source, "cases": [{"stdin": "5 6", "stdout": "11"}]}
        for language, source in sources
    ]
    (place / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (place / "disk").mkdir(exist_ok=True)
    script = (
        f'mount -t tmpfs -o mode=1777,{mount} tmpfs "$1/disk" && '
        f'TMPDIR="$1/disk" exec "$2" -m sandbox judge --backend {backend} --workers 1 --cache "$1/known" "$1/in.jsonl" "$1/out.jsonl"'
    )
    subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(place), sys.executable],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    results = map(json.loads, (place / "out.jsonl").read_text().splitlines())
    return {result["id"]: result for result in results}


@pytest.mark.parametrize("backend", ["process", "bubblewrap"])
def test_a_full_disk_is_no_compile_error_and_not_remembered(place: Path, backend: str) -> None:
    tried = (("cpp", SUM), ("cpp", REFUSED), ("py", "print(11"))
    for result in judge(place, backend, "size=64k", *tried).values():
        assert result["verdict"] == "sandbox_error"
        assert "make room, or set TMPDIR" in result["stderr"]
    found = judge(place, backend, "size=2m", ("cpp", LARGE), ("cpp", REFUSED))
    assert (found[LARGE]["verdict"], found[REFUSED]["verdict"]) == ("sandbox_error", "compile_error")
    assert "No space left on device" in found[LARGE]["stderr"]
    found = judge(place, backend, "size=200m", *tried, ("cpp", LARGE), ("cpp", HUGE))
    verdicts = [result["verdict"] for result in found.values()]
    assert verdicts == ["passed", "compile_error", "compile_error", "passed", "compile_error"], found


def test_few_files_left_is_a_full_disk(place: Path) -> None:
    found = judge(place, "process", "nr_inodes=12", ("cpp", SUM))
    assert found[SUM]["verdict"] == "sandbox_error"


def test_a_program_that_fills_its_disk_itself_has_failed(place: Path) -> None:
    source = "with open('x', 'wb') as f:\n    for _ in range(60): f.write(b'x' * (1 << 20))\nprint(11)"
    found = judge(place, "process", "size=20m", ("py", source))
    assert found[source]["verdict"] == "runtime_error"


@pytest.mark.parametrize("backend", ["process", "bubblewrap"])
def test_where_nothing_may_be_executed_only_interpreters_work(place: Path, backend: str) -> None:
    found = judge(place, backend, "noexec", ("cpp", SUM), ("py", "print(11)"))
    assert (found[SUM]["verdict"], found["print(11)"]["verdict"]) == ("sandbox_error", "passed")
    assert "(mounted noexec)" in found[SUM]["stderr"]


def test_what_a_compiler_repeats_of_the_source_says_nothing_of_the_disk(place: Path) -> None:
    source = b'throw "No space left on device"'
    check_compiled(str(place), source, b'main.cpp:1: error: throw "No space left on device"')
    for said in (
        b"cc1plus: error writing to /x: No space left on device",
        b"ld: Disk quota exceeded",
        b"ENOSPC: x",
    ):
        with pytest.raises(SandboxError, match="no room to compile"):
            check_compiled(str(place), b"int main() {}", said)


@pytest.mark.parametrize("before", [0o077, 0o022])
def test_programs_can_read_what_is_made_under_a_careful_umask(place: Path, before: int) -> None:
    """The permissions of prepared files do not depend on the umask under which they were built."""
    need(os.geteuid() == 0, "only root's programs run as another user")
    cache = place / "cache"
    if before == 0o077:
        (cache / "selftrain-sandbox").mkdir(parents=True)
        (cache / "selftrain-sandbox").chmod(0o700)
    code = (
        "from sandbox.client import Sandbox\nfrom sandbox.verdicts import Case, Checker, Program\n"
        "checker = Checker('py', \"print('accept' if open('got').read() == open('expected').read() else 'reject')\")\n"
        f"programs = [Program('a', 'cpp', {SUM!r}, (Case('5 6', '11'),)), Program('b', 'py', 'print(11, end=\"\")', (Case('', '11'),), checker=checker)]\n"
        "with Sandbox('process') as s: print(*sorted(f'{r.id} {r.verdict}{r.stderr}' for r in s.run(programs)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=True,
        umask=0o077,
    )
    assert done.stdout == "a passed b passed\n"
    assert "no prepared" not in done.stderr


def test_what_was_prepared_is_removed_while_programs_are_judged(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_tools("g++", "node")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    programs = [
        Program("cpp", "cpp", SUM, (Case("5 6", "11"),)),
        Program("js", "js", "console.log(11)", (Case("", "11"),)),
    ]
    with Sandbox("process") as sandbox:
        for remove in ("", "selftrain-sandbox", "selftrain-sandbox/*/*.h", "selftrain-sandbox/*/*.blob"):
            for path in place.glob(remove) if remove else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            assert {result.verdict for result in sandbox.run(programs)} == {Verdict.passed}
