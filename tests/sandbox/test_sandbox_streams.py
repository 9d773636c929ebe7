"""Tests that a program can open its standard streams by name, and that bytes of sources, input and output are unchanged."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from sandbox.cli import main
from sandbox.client import Sandbox
from sandbox.encoding import decoded, encoded
from sandbox.verdicts import Case, Program, Result, Verdict
from tests.bench.plain import Plain
from tests.command import ROOT
from tests.needs import need, need_tools

BY_NAME = {
    "py": "import os\nfor i, o in (('/dev/stdin', '/dev/stdout'), ('/dev/fd/0', '/dev/fd/1'), ('/proc/self/fd/0', '/proc/self/fd/1')):\n"
    "    print(open(i).read().strip(), file=open(o, 'w'))\n    open(i, 'w').write('again')\n"
    "    open('/dev/stderr', 'w').write('.')\n",
    "sh": "read a < /dev/stdin\necho $a > /dev/stdout\nfor i in 0 0; do echo again | cat /dev/fd/$i - > /proc/self/fd/1; done\nprintf ... >> /dev/stderr\n",
    "js": "const fs = require('fs');\nfs.writeFileSync('/dev/stdout', fs.readFileSync('/dev/stdin', 'utf8'));\n"
    "fs.appendFileSync('/proc/self/fd/1', 'again\\nagain\\n');\nfs.writeFileSync('/dev/fd/2', '...');\n",
    "cpp": '#include <fstream>\n#include <iostream>\n#include <string>\nint main() {\n    std::ifstream in("/proc/self/fd/0");\n'
    '    std::string word;\n    in >> word;\n    std::ofstream("/dev/fd/1") << word << "\\nagain\\n";\n'
    '    std::ofstream("/dev/stderr") << "...";\n    freopen("/dev/stdout", "w", stdout);\n    puts("again");\n}\n',
}
"""Each prints its first word, then "again" twice, and three dots on stderr."""


def judge(sandbox: Sandbox, language: str, source: str, stdin: str, stdout: str | None, **more) -> Result:
    cases = (Case(stdin, stdout),)
    (result,) = sandbox.run([Program("x", language, source, cases, **more)])
    return result


@pytest.mark.parametrize("language", BY_NAME)
def test_standard_streams_open_by_name(sandbox: Sandbox, language: str) -> None:
    result = judge(sandbox, language, BY_NAME[language], "first\n", "first\nagain\nagain\n")
    assert (result.verdict, result.stderr) == (Verdict.passed, "..."), result


def test_a_compiler_may_read_its_own_streams_by_name(sandbox: Sandbox) -> None:
    """They are empty, as those of a plain compiler are."""
    assert judge(sandbox, "cpp", '#include "/dev/stdin"\nint main() {}\n', "", "").verdict is Verdict.passed


def test_a_program_of_an_ordinary_user_opens_them_too() -> None:
    need(os.geteuid() == 0, "only root becomes another user")
    need_tools("setpriv", "python3")
    code = (
        "import sys; sys.dont_write_bytecode = True\nfrom sandbox.client import Sandbox\nfrom sandbox.verdicts import Case, Program\n"
        f"with Sandbox('process') as s: print(*(r.verdict for r in s.run([Program('x', 'py', {BY_NAME['py']!r}, (Case('a', 'a\\nagain\\nagain'),))])))"
    )
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TMPDIR": "/tmp"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "passed\n", done.stderr


BYTES = "import sys\ndata = sys.stdin.buffer.read()\nsys.stdout.buffer.write(data)\nsys.stderr.write(data.hex())\n"


@pytest.mark.parametrize(
    "data", [b"a\r\nb\r\n", b"\0\xff\r\n\xe2\x82", b"\xef\xbb\xbf1\n", b"a\rb", "\u2028\x85é\n".encode()]
)
def test_bytes_arrive_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sandbox: Sandbox, data: bytes
) -> None:
    (tmp_path / "in").write_bytes(data)
    (tmp_path / "a.py").write_bytes(BYTES.replace("\n", "\r\n").encode())
    options = ["--stdin", str(tmp_path / "in"), "--expect", str(tmp_path / "in"), "--compare", "exact"]
    assert (
        main(["run", "--backend", sandbox.backend, "--language", "py", *options, str(tmp_path / "a.py")]) == 0
    )
    assert json.loads(capsys.readouterr().out)["stderr"] == data.hex()
    text = json.loads(json.dumps(data.decode("utf-8", "surrogateescape")))
    result = judge(sandbox, "py", BYTES, text, text, compare="exact")
    assert (result.verdict, result.stderr) == (Verdict.passed, data.hex())


def test_what_stands_for_no_byte_is_a_question_mark() -> None:
    assert encoded("a\ud800\udcff\udfff") == b"a?\xff?"
    assert encoded("\ud83d\ude00") == b"??"
    assert decoded(b"\xff\xe9") == "\udcff\udce9"


RIGHT = "a, b = map(int, input().split())\nprint(a + b)\n"
ODD = {
    "a byte order mark": ("\ufeff" + RIGHT, True),
    "a mark and a coding": ("\ufeff# coding: utf-8\n" + RIGHT, True),
    "a mark and another coding": ("\ufeff# coding: latin-1\n" + RIGHT, False),
    "two marks": ("\ufeff\ufeff" + RIGHT, False),
    "CRLF": (RIGHT.replace("\n", "\r\n"), True),
    "CR": (RIGHT.replace("\n", "\r"), True),
    "form feeds": ("\f" + RIGHT + "if 1:\n \f pass\n", True),
    "a coding": ("# -*- coding: latin-1 -*-\nassert '\udce9' == chr(233)\n" + RIGHT, True),
    "a coding in the second line": (
        "#!python\n# vim: fileencoding=cp1252\nassert '\udc80' == chr(0x20ac)\n" + RIGHT,
        True,
    ),
    "no coding any more": ("\n\n# coding: latin-1\nx = '\udce9'\n" + RIGHT, False),
    "no such coding": ("# coding: nonesuch\n" + RIGHT, False),
    "a byte in a comment": (RIGHT + "# \udcff\n", False),
    "half a character": (RIGHT + "# \udce2\udc82\n", False),
    "NUL in a string": ("x = 'a\0b'\n" + RIGHT, False),
    "UTF-16": (RIGHT.encode("utf-16").decode("utf-8", "surrogateescape"), False),
    "an end without newline": (RIGHT + "if 1: pass #", True),
}
"""Python sources, and whether a plain interpreter takes them."""


def test_odd_sources_are_what_plain_python_makes_of_them(sandbox: Sandbox) -> None:
    case = (Case("3 4\n", "7\n"),)
    programs = [Program(name, "py", source, case) for name, (source, _) in ODD.items()]
    found = {result.id: result for result in sandbox.run(programs)}
    for name, (_, right) in ODD.items():
        assert found[name].verdict is (Verdict.passed if right else Verdict.compile_error), found[name]


def test_a_nul_in_a_comment_is_read_as_by_plain_python(sandbox: Sandbox) -> None:
    """Versions of Python differ in this."""
    plain = Plain(sandbox.backend, 1)
    programs = [Program(str(n), "py", source, (Case("3 4\n", "7\n"),)) for n, source in enumerate(NUL)]
    wanted = {id: said == ["passed"] for id, said in plain.run(programs)}
    plain.close()
    assert {result.id: result.verdict is Verdict.passed for result in sandbox.run(programs)} == wanted


NUL = (RIGHT + "# a\0b\n", RIGHT + "\0", "\0" + RIGHT, RIGHT + "\0\nprint(3)\n")


def test_a_byte_that_is_no_utf_8_is_refused_by_javac(sandbox: Sandbox) -> None:
    source = "public class Main { public static void main(String[] a) { System.out.print(1); } } // "
    programs = [Program(end, "java", source + end, (Case("", "1"),)) for end in ("\u00e9", "\udcff")]
    assert {r.id: r.verdict for r in sandbox.run(programs)} == {
        "\u00e9": Verdict.passed,
        "\udcff": Verdict.compile_error,
    }
