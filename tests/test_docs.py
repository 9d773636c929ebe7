"""The generated pages are what the code says, and the documents' commands exist."""

import re
import shlex
from pathlib import Path

import pytest

from flows.cli import parser
from infra.docs import pages
from tests.command import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "sandbox" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b|\.\.\.|\$")
LINES = [
    (document.name, line.split("  #")[0].strip().removeprefix("$ "))
    for document in DOCUMENTS
    for line in document.read_text().splitlines()
    if re.match(r"(?: {4}|\t)?(?:\$ )?(?:selftrain|make) \S", line)
]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_generated_pages_are_up_to_date(path: Path):
    assert path.exists(), "run: python -m infra.docs"
    assert path.read_text() == pages()[path], "run: python -m infra.docs"


def test_documents_have_commands():
    assert {name for name, _ in LINES} >= {"README.md", "tutorial.md", "deploy.md", "own-data.md"}
    assert len(LINES) > 25


@pytest.mark.parametrize(("name", "line"), LINES)
def test_commands_in_documents_are_understood(name: str, line: str):
    command, *arguments = shlex.split(line)
    if command == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif not PLACEHOLDER.search(line) and not line.endswith("\\"):
        parser().parse_args(arguments)
