"""Judges a Python program that passed once more, with its tests in another process than its functions.

A candidate that only answers calls cannot replace the assertions, the comparisons or the runner of its tests, read the expected
values, or return an object that equals everything: only plain values of exact types cross (`servers/split.py`). So a program that
passes is right for these tests, and needs no twin. Where values cannot cross, or tests and candidate share more than calls of
functions with arguments that stay as they are, the program cannot be split.
"""

import ast
import builtins
import re
from dataclasses import replace
from pathlib import Path

from sandbox.encoding import encoded
from sandbox.languages import language
from sandbox.verdicts import Case, Program, Result, Verdict

SPLIT = "split"
"""The name of this audit in `Result.audited`."""

_DRIVER = Path(__file__).parent / "servers" / "split.py"
_WRONG = 70  # an exit code of the driver
_SAFE = {"collections", "functools", "itertools", "math", "re", "typing"}
"""Modules that tests may import: nothing of them reaches into the candidate's process."""
_BEYOND = {
    "open", "input", "print", "exec", "eval", "globals", "locals", "vars", "setattr", "id", "help", "breakpoint",
    "__import__",
}  # fmt: skip
"""Built-in functions with which tests can see or change more than their own values."""


def split(program: Program) -> Program | None:
    """The program that runs `program` in two processes; None if that is impossible (`passes` says so for others)."""
    row = language(program.language)
    if row.name != "py" or program.tests_at is None or program.end_marker is None:
        return None
    if program.cases or program.args or program.exchanges_files:
        return None
    end = f"\n{row.end.format(marker=program.end_marker)}\n"
    candidate = program.source[: program.tests_at]
    tests = program.source[program.tests_at :].removesuffix(end)
    called = calls(tests, set(re.findall(r"\w+", candidate)))
    if called is None:
        return None
    # The driver reads the tests after it has forked the candidate's process.
    parts = [" ".join(sorted(called)), candidate, tests + "\n"]
    sizes = "".join(f"{len(encoded(part)):08x}" for part in parts)
    case = Case(sizes + "".join(parts), None)
    return replace(program, source=_DRIVER.read_text() + end, cases=(case,), tests_at=0, audit=False)


def calls(tests: str, theirs: "set[str]") -> "set[str] | None":
    """The names that `tests` use and do not define. None if the tests may see that there are two processes: if they define one of
    the candidate's names `theirs`, look at more than values, or are no Python."""
    try:
        tree = ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    used: set[str] = set()
    own: set[str] = set()
    for node in ast.walk(tree):
        if _looks_further(node):
            return None
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else own).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
            own.add(node.name or "")
        elif isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.alias):
            own.add((node.asname or node.name).split(".")[0])
    at_top = {
        name.id if isinstance(name, ast.Name) else getattr(name, "name", "")
        for node in tree.body
        for name in (node, *(ast.walk(node) if isinstance(node, (ast.Assign, ast.For, ast.With)) else ()))
        if not isinstance(name, ast.Name) or isinstance(name.ctx, ast.Store)
    }
    if used & _BEYOND or (at_top - {""}) & theirs:
        return None
    return used - own - set(dir(builtins)) - {"__name__"}


def _looks_further(node: ast.AST) -> bool:
    """Whether a piece of the tests may depend on more than values: the identity of objects, their attributes, output, modules."""
    if isinstance(node, ast.Import):
        return not {one.name for one in node.names} <= _SAFE
    if isinstance(node, ast.ImportFrom):
        return node.module not in _SAFE
    if isinstance(node, ast.Attribute):
        return node.attr.startswith("__") or not isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.Compare):
        pairs = zip(node.ops, node.comparators, strict=True)
        return any(
            isinstance(how, (ast.Is, ast.IsNot)) and not isinstance(right, ast.Constant)
            for how, right in pairs
        )
    return isinstance(node, (ast.Global, ast.Nonlocal, ast.AsyncFunctionDef, ast.Await))


def passes(result: Result) -> bool | None:
    """Whether the program of `split` passed; None if it could not be split, or ended for another reason than a failed assertion."""
    if result.verdict is Verdict.passed:
        return True
    return False if result.exit_code == _WRONG else None
