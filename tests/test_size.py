"""Tests that files, functions and the two first documents stay short enough to be read whole."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import ROOT

FUNCTION_LINES = 60
FILE_LINES = 400
PARAMETERS = 8  # of __init__, without self
DOCUMENT_LINES = {"README.md": 150, "ARCHITECTURE.md": 200}
TABLES = {"selftrain/config.py", "sandbox/hostile.py", "sandbox/languages.py", "sandbox/shapes.py"}
"""Files that hold a table, which is looked up and not read whole."""


def faults(name: str, text: str) -> Iterator[str]:
    """What is too long in the Python file `name`, whose source is `text`."""
    if name not in TABLES and (lines := text.count("\n")) > FILE_LINES:
        yield f"{name}: {lines} lines, allowed {FILE_LINES}"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        where = f"{name}:{node.lineno} {node.name}"
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES:
            yield f"{where}: {lines} lines, allowed {FUNCTION_LINES}"
        parameters = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) - 1
        if node.name == "__init__" and parameters > PARAMETERS:
            yield f"{where}: {parameters} parameters, allowed {PARAMETERS}; take an object that holds the settings"


def test_files_and_functions_can_be_read_whole():
    paths = [
        path for top in ("flows", "tasks", "selftrain", "sandbox") for path in (ROOT / top).rglob("*.py")
    ]
    found = [fault for path in paths for fault in faults(path.relative_to(ROOT).as_posix(), path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "most"), DOCUMENT_LINES.items(), ids=DOCUMENT_LINES)
def test_first_documents_are_short(name: str, most: int):
    assert Path(ROOT, name).read_text().count("\n") <= most


def test_the_check_sees_what_is_too_long():
    assert not list(faults("a.py", "def f():\n" + "    x = 1\n" * 59))
    [fault] = faults("a.py", "def f():\n" + "    x = 1\n" * 60)
    assert fault == "a.py:1 f: 61 lines, allowed 60"
    assert len(list(faults("a.py", "x = 1\n" * 401))) == 1
    assert not list(faults("sandbox/languages.py", "x = 1\n" * 401))
    names = ", ".join(f"a{number}" for number in range(8))
    assert not list(faults("a.py", f"class A:\n    def __init__(self, {names}): ...\n"))
    assert len(list(faults("a.py", f"class A:\n    def __init__(self, {names}, *, b): ...\n"))) == 1
