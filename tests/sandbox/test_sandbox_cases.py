"""Tests of what a program with several cases finds in each: the files of the first case, and none that another case left."""

import os
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.snapshot import Snapshot
from sandbox.verdicts import Case, Checker, Limits, Program, Result, Verdict
from tests.needs import need_tools

TWO = (Case("", "clean\n"), Case("", "clean\n"))
LEAVES = """
import os, tempfile
places = ['.', os.path.dirname(__file__), os.environ['HOME'], os.environ['TMPDIR'], PLACES]
left = [f'{place}/{name}' for place in places for name in ('left-here', 'left-folder') if os.path.exists(f'{place}/{name}')]
print(left or 'clean')
for place in places:
    try:
        open(f'{place}/left-here', 'w').close()
        os.mkdir(f'{place}/left-folder')
        open(f'{place}/left-folder/file', 'w').close()
        os.chmod(f'{place}/left-folder', 0)
    except OSError:
        continue
"""


def judge(sandbox: Sandbox, source: str, language: str = "py", **more) -> Result:
    (result,) = sandbox.run([Program("x", language, source, **{"cases": TWO, **more})])
    return result


def leaves(sandbox: Sandbox) -> str:
    """`LEAVES`, for the directories that every user may write to where the backend clears them."""
    shared = sandbox.backend != "process" or os.geteuid() == 0
    return LEAVES.replace("PLACES", "'/tmp', '/dev/shm'" if shared else "'.'")


def test_files_of_one_case_are_gone_for_the_next(sandbox: Sandbox) -> None:
    assert judge(sandbox, leaves(sandbox)).stdout == "clean\n"
    assert judge(sandbox, leaves(sandbox), args=("x",)).stdout == "clean\n"
    assert judge(sandbox, leaves(sandbox), files=(("data", "eA=="),)).stdout == "clean\n"


def test_system_v_memory_of_one_case_is_gone_for_the_next(sandbox: Sandbox) -> None:
    source = """
import ctypes
shmget = ctypes.CDLL(None).shmget
print('clean' if shmget(4711, 4096, 0o600) < 0 else 'found')
shmget(4711, 4096, 0o1600)
"""
    assert judge(sandbox, source).verdict is Verdict.passed


@pytest.mark.parametrize(
    "change", ["open(__file__, 'w').write('raise SystemExit(9)')", "os.unlink(__file__)"]
)
def test_a_program_that_changes_its_source_is_written_again(sandbox: Sandbox, change: str) -> None:
    source = f"import os\nprint('clean')\ntry:\n    {change}\nexcept OSError:\n    pass\n"
    assert judge(sandbox, source).verdict is Verdict.passed
    assert judge(sandbox, source, args=("x",)).verdict is Verdict.passed


def test_a_program_that_replaces_its_executable_is_compiled_again(sandbox: Sandbox) -> None:
    if sandbox.backend != "docker":
        need_tools("g++")
    source = """
#include <cstdio>
#include <filesystem>
#include <fstream>
int main() {
    std::error_code error;
    auto own = std::filesystem::read_symlink("/proc/self/exe", error);
    puts("clean");
    if (!std::filesystem::remove(own, error)) return 0;
    std::ofstream(own) << "#!/bin/sh\\necho replaced\\n";
    std::filesystem::permissions(own, std::filesystem::perms::all, error);
}
"""
    result = judge(sandbox, source, "cpp", every_case=True)
    assert [case.verdict for case in result.cases] == [Verdict.passed, Verdict.passed]


def test_given_files_are_there_again_unchanged(sandbox: Sandbox) -> None:
    source = """
print(open('data/input').read())
with open('data/input', 'a') as file: file.write('changed')
with open('output', 'a') as file: file.write('once')
"""
    files = (("data/input", b64encode(b"clean").decode()),)
    result = judge(sandbox, source, files=files, fetch=("output", "data/input"))
    assert result.verdict is Verdict.passed
    assert {name: b64decode(content) for name, content in result.files} == {
        "output": b"once",
        "data/input": b"cleanchanged",
    }


def test_files_of_a_checker_are_gone_for_the_next_case(sandbox: Sandbox) -> None:
    checker = Checker("py", f"{leaves(sandbox)}\nprint('reject' if left else 'accept')")
    result = judge(sandbox, leaves(sandbox), checker=checker, limits=Limits())
    assert (result.verdict, result.stdout) == (Verdict.passed, "clean\n")


def test_a_checker_that_changes_its_source_is_written_again(sandbox: Sandbox) -> None:
    change = "import os\ntry:\n    os.unlink(__file__)\nexcept OSError:\n    pass\nprint('accept')"
    assert judge(sandbox, "print('clean')", checker=Checker("py", change)).verdict is Verdict.passed


def test_a_snapshot_sees_what_has_changed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    taken = Snapshot(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "folder" / "link").symlink_to("/")
    assert taken.restore()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]

    file = tmp_path / "folder" / "file"
    times = file.stat()
    file.write_text("y")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not taken.restore()
    taken = Snapshot(tmp_path)
    file.unlink()
    assert not taken.restore()
