"""Tests that a verdict's identity changes only with tools, rows and `JUDGE_VERSION`.

They also check that the verdicts of the golden table change only with `JUDGE_VERSION`.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from docker.errors import DockerException

from sandbox import languages
from sandbox.backends import docker
from sandbox.compare import same
from sandbox.hostile import HOSTILE
from sandbox.languages import JUDGE_VERSION, LANGUAGES
from sandbox.shapes import ENDINGS, SHAPES
from tests.command import ROOT
from tests.sandbox.conftest import need_backend

VERDICTS = {5: "57ac392ec1d640d2", 6: "6b17a316736db798"}
"""Version of the judge -> digest of `golden_table`. A new version gets a new line; a line that is there is never changed."""

OUTPUTS = (
    b"",
    b"1",
    b"1\n",
    b"1 \n\n",
    b" 1",
    b"1\r\n",
    b"1.0",
    b"1.000001",
    b"1e0",
    b"01",
    b"-0",
    b"nan",
    b"YES",
    b"yes",
    b"a b",
    b"a\nb",
    b"\xff",
    b"\xc3\xbf",
)
EXPECTED = ("", "1", "1\n", "1.0", "0", "nan", "yes", "a b", "a\nb", "\xff", "\ufffd")  # fmt: skip
RULES = (
    "exact",
    "lines",
    "tokens",
    "float:1e-6",
    "code-contests",
    "lines,nocase",
    "tokens,nocase",
    "float:1e-6,nocase",
)


def golden_table() -> str:
    """Digest of programs and their verdicts: all shapes of all languages, all hostile programs, and outputs by each rule.
    `python -m sandbox check` tests that these are the verdicts."""
    shapes = {name: asdict(shape) for name, shape in SHAPES.items()}
    hostile = [[one.name, one.program.source, one.expected, one.may_pass] for one in HOSTILE]
    compared = "".join(
        "01"[same(rule, got, wanted)] for rule in RULES for got in OUTPUTS for wanted in EXPECTED
    )
    table = json.dumps([shapes, ENDINGS, hostile, compared], sort_keys=True)
    return hashlib.sha256(table.encode()).hexdigest()[:16]


def test_no_verdict_changes_without_a_new_version_of_the_judge() -> None:
    assert max(VERDICTS) == JUDGE_VERSION
    assert VERDICTS[JUDGE_VERSION] == golden_table(), (
        "a verdict has changed, or what it is shown by: raise JUDGE_VERSION in sandbox/languages.py, so that verdicts kept from "
        "before count no more, and add a line here (where only programs were added, the version may stay)"
    )


def test_another_version_is_another_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: row.rules() for name, row in LANGUAGES.items()}
    monkeypatch.setattr(languages, "JUDGE_VERSION", JUDGE_VERSION + 1)
    after = {name: row.rules() for name, row in LANGUAGES.items()}
    assert not set(before.values()) & set(after.values())


IDENTITIES = """
import sys
from sandbox.client import Sandbox
with Sandbox(sys.argv[1]) as sandbox:
    print([sandbox.identity(name) for name in ("py", "cpp", "js")])
"""


def identities(folder: Path, backend: str) -> str:
    """The identities of three languages, by the package in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", IDENTITIES, backend], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", ["process", "bubblewrap", "docker"])
def test_a_comment_in_every_file_changes_no_identity(tmp_path: Path, backend: str) -> None:
    need_backend(backend)
    package = Path(
        shutil.copytree(ROOT / "sandbox", tmp_path / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    )
    before = identities(ROOT, backend)
    comment(package, ".py", ".js")
    assert identities(tmp_path, backend) == before  # with docker, in the same image
    comment(package, ".c", ".java", ".cs", "")
    if backend != "docker":
        assert identities(tmp_path, backend) == before
        return
    subprocess.run([sys.executable, "-m", "sandbox", "build"], cwd=tmp_path, capture_output=True, check=True)
    code = "from sandbox.backends import docker; print(docker.tag())"
    tag = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        assert tag != docker.tag()  # what is compiled in the image is compiled anew
        assert identities(tmp_path, backend) == before
    finally:
        with suppress(DockerException):  # its containers may still be on their way out
            docker.connect().images.remove(tag, force=True)


def comment(package: Path, *suffixes: str) -> None:
    """Add a comment to every file of the package with one of these suffixes; the Dockerfile has no suffix."""
    for path in package.rglob("*"):
        if path.is_file() and path.suffix in suffixes:
            mark = "#" if path.suffix in (".py", "") else "//"
            path.write_text(f"{path.read_text()}\n{mark} one comment more\n")


def test_the_code_of_a_container_is_the_workers(tmp_path: Path) -> None:
    """A changed judge gives another verdict in the same image, without a new image."""
    need_backend("docker")
    package = Path(shutil.copytree(ROOT / "sandbox", tmp_path / "sandbox"))
    judge = (package / "judgement.py").read_text()
    right = "return Verdict.passed if checked else Verdict.wrong_answer"
    assert right in judge
    (package / "judgement.py").write_text(judge.replace(right, "return Verdict.wrong_answer"))
    code = """
from sandbox.client import Sandbox
from sandbox.verdicts import Program
with Sandbox("docker") as sandbox:
    print(next(sandbox.run([Program("x", "py", "print(1)")])).verdict)
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
        ).stdout
        for folder in (ROOT, tmp_path)
    ]
    assert said == ["passed\n", "wrong_answer\n"]
