"""Reads the documents for tests: their code blocks, the commands in the blocks, and the files that the text names."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.command import ROOT

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *(path for path in [ROOT / "sandbox" / "README.md"] if path.exists()),
    *sorted((ROOT / "docs").glob("*.md")),
]
TOOLS = (
    "apt-get", "cp", "dask", "docker", "export", "git", "infra/", "kubectl", "make", "mkdocs", "pip", "prefect", "python", "rclone", "runuser",
    "selftrain", "source",
)  # fmt: skip
"""What the lines of a block of commands begin with."""
FOLDERS = ("configs", "docs", "flows", "infra", "sandbox", "selftrain", "tasks", "tests")


def blocks(path: Path) -> Iterator[list[str]]:
    """The blocks of code of a Markdown file, fenced or indented by four (in a list by eight), each as its lines."""
    lines = path.read_text().splitlines()
    at, indent = 0, "    "
    while at < len(lines):
        block: list[str] = []
        if re.match(r"\S", lines[at]):
            indent = " " * (8 if re.match(r"- |\d+\. ", lines[at]) else 4)
        if fence := re.match(r" *(```+|~~~+)", lines[at]):
            at += 1
            while at < len(lines) and not lines[at].strip().startswith(fence[1]):
                block.append(lines[at])
                at += 1
        elif lines[at].startswith(indent) and not lines[at - 1].strip():
            while at < len(lines) and (lines[at].startswith(indent) or not lines[at].strip()):
                block.append(lines[at])
                at += 1
            at -= 1  # the text goes on here
        at += 1
        if block:
            yield textwrap.dedent("\n".join(block)).strip().splitlines()


def kind(block: list[str]) -> str:
    """`commands`, `python`, `json`, or the first word of a block that is none of these."""
    first = block[0].removeprefix("$ ")
    if first.startswith(TOOLS):
        return "commands"
    if first.startswith(("from ", "import ")):
        return "python"
    return "json" if first.startswith("{") else first.split()[0]


def commands(block: list[str]) -> list[str]:
    """The command lines of a block of commands, without prompts and comments. With prompts, all other lines are output."""
    lines = re.sub(r"\\\n\s*", "", "\n".join(block)).splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    bare = [re.split(r"(?:^|\s+)#(?:\s|$)", line)[0].strip() for line in lines]
    return [line for line in bare if line]


def inline(path: Path) -> list[str]:
    """What stands between backticks in the text of a Markdown file."""
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", path.read_text())]


def named_files(words: str) -> list[str]:
    """The words that are paths in this repository."""
    paths = [word for word in words.replace("'", " ").split() if re.fullmatch(r"[\w.-]+/[\w./-]*", word)]
    return [path for path in paths if path.split("/")[0] in FOLDERS]
