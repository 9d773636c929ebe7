"""A program's standard streams, by name too, and what of bytes arrives."""

import os
import subprocess

import pytest

from sandbox.client import Sandbox
from sandbox.verdicts import Case, Program, Result, Verdict
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
    """They are empty, as a plain compiler's are."""
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
