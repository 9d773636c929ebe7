"""Tests of a program's arguments and of files passed in and out: unsafe names, links, sizes, programs that write without end."""

import base64
from base64 import b64encode
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.exchange import is_over, read_files, write_files
from sandbox.verdicts import MIB, Case, Limits, Program, Verdict
from tests.needs import need


def named(**contents: bytes) -> tuple[tuple[str, str], ...]:
    """Files by name; `__` stands for `/`, `_` for `.`."""
    return tuple(
        (name.replace("__", "/").replace("_", "."), b64encode(content).decode())
        for name, content in contents.items()
    )


COPY = """import os, sys
text = open('in.txt', 'rb').read()
os.makedirs('made/deep')
open('made/deep/out.bin', 'wb').write(text + bytes([0, 255]))
open('in.txt', 'w').write('changed')
print(os.path.getsize('sub/other.txt'), sys.argv[1:])
"""


def test_files_and_arguments(sandbox: Sandbox) -> None:
    program = Program(
        "a", "py", COPY, args=("one", "two words", ""), files=named(in_txt=b"given\xff", sub__other_txt=b"12345"),
        fetch=("made/deep/out.bin", "in.txt", "never.txt"),
    )  # fmt: skip
    [result] = sandbox.run([program])
    assert (result.verdict, result.stdout) == (Verdict.passed, "5 ['one', 'two words', '']\n"), result
    assert result.files == named(made__deep__out_bin=b"given\xff\x00\xff", in_txt=b"changed")
    assert Program.from_json(program.to_json()) == program
    assert type(result).from_json(result.to_json()) == result


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("cpp", '#include <fstream>\nint main(int n, char** a) { std::ofstream("o") << std::ifstream("i").rdbuf() << a[n - 1]; }'),
        ("sh", 'cat i > o\nprintf %s "$1" >> o'),
        ("js", "const fs = require('fs');\nfs.writeFileSync('o', fs.readFileSync('i', 'utf8') + process.argv[2]);"),
    ],
)  # fmt: skip
def test_files_in_other_languages(sandbox: Sandbox, language: str, source: str) -> None:
    program = Program(
        "a", language, source, (Case("", None),), args=("!",), files=named(i=b"in"), fetch=("o",)
    )
    [result] = sandbox.run([program])
    assert (result.verdict, result.files) == (Verdict.passed, named(o=b"in!")), result


@pytest.mark.parametrize(
    ("language", "source", "files"),
    [
        ("cpp", '#include "x/h.h"\nint main() { puts(S); }', {"x/h.h": b'#include <cstdio>\n#define S "4"\n'}),
        ("java", "class Main { public static void main(String[] a) { System.out.println(H.x); } }",
         {"A.java": b"public class A { static int x = 4; public static void main(String[] a) { System.out.println(9); } }",
          "H.java": b"public class H { static int x = A.x; }", "data/H.class": b"no class", "x.class/H.txt": b""}),
        ("ts", "import { x } from './h';\nconsole.log(x);", {"h.ts": b"export const x: number = 4;", "data/h.txt": b""}),
    ],
)  # fmt: skip
def test_the_compiler_finds_the_files(
    sandbox: Sandbox, language: str, source: str, files: dict[str, bytes]
) -> None:
    missing = sandbox.missing_tools(language)
    need(not missing, f"{language} needs {', '.join(missing)}")
    given = tuple((name, base64.encodebytes(content).decode()) for name, content in files.items())
    [result] = sandbox.run([Program("a", language, source, (Case("", "4"),), files=given)])
    assert result.verdict is Verdict.passed, result


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.symlink('/etc/passwd', 'out')",
        "import os\nos.symlink('/etc', 'folder')\nos.symlink('passwd', 'out')",
        "import os\nos.mkfifo('out')",
        "import os\nos.mkdir('out')",
        "import os\nopen('out', 'w').write('x')\nos.chmod('.', 0)",
        "open('out', 'wb').write(b'x' * (9 << 20))",
        "pass",
    ],
)
def test_only_regular_files_of_its_own_are_returned(sandbox: Sandbox, source: str) -> None:
    fetch = ("out", "folder/passwd")
    [result] = sandbox.run([Program("a", "py", source, fetch=fetch)])
    assert result.verdict is Verdict.passed, result
    assert result.files in ((), named(out=b"x")), "the last where the runner may read what the program closed"


def test_a_program_that_fills_its_directory_is_ended(sandbox: Sandbox) -> None:
    fill = "n = 0\nwhile True:\n    open(f'f{n}', 'wb').write(b'x' * (4 << 20))\n    n += 1\n"
    limits = Limits(file_bytes=16 * MIB, cpu_seconds=20)
    [result] = sandbox.run([Program("a", "py", fill, limits=limits, fetch=("f0",))])
    assert result.verdict is Verdict.output_exceeded, result


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../b", "a/", "nul\0", "x" * 201])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="relative path without"):
        Program("a", "py", "", files=((name, ""),))
    with pytest.raises(ValueError, match="relative path without"):
        Program("a", "py", "", fetch=(name,))


def test_other_wrong_files_are_refused() -> None:
    with pytest.raises(ValueError, match=r"file 'a': its content is not base64"):
        Program("a", "py", "", files=(("a", "?"),))
    with pytest.raises(ValueError, match="two files have the same name"):
        Program("a", "py", "", files=(("a", ""), ("a", "")))


def test_the_programs_source_is_not_replaced(sandbox: Sandbox) -> None:
    program = Program("a", "py", "print(1)", (Case("", "1"),), files=named(main_py=b"print(2)"))
    assert [result.verdict for result in sandbox.run([program])] == [Verdict.passed]


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    write_files(tmp_path, named(a=b"1234", b=b"12345", c=b"1"), None)
    assert [name for name, _ in read_files(tmp_path, ("a", "b", "c"), 6)] == ["a", "c"]


def test_size_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/")
    assert is_over(tmp_path, 50_000)
    assert not is_over(tmp_path, 200_000)
    assert not is_over(tmp_path / "gone", 0)
