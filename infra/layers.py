"""Lists the packages of this repository and what each may import, for tests/test_imports.py and docs/development.md."""

import ast
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

OWN = {
    "flows": ("flows", "tasks", "selftrain", "sandbox.errors"),
    "tasks": ("tasks", "selftrain", "sandbox.client", "sandbox.errors"),
    "selftrain": (
        "selftrain", "sandbox.assertions", "sandbox.cache", "sandbox.client", "sandbox.compare", "sandbox.completion",
        "sandbox.errors", "sandbox.languages", "sandbox.lexer", "sandbox.libraries", "sandbox.programs",
        "sandbox.serve.connection", "sandbox.serve.guard", "sandbox.twin", "sandbox.verdicts",
    ),
    "sandbox": ("sandbox",),
}  # fmt: skip
"""Which of the project's own modules each package may import."""

LAYERS = (
    (
        "errors",
        "redact",
        "units",
        "records",
        "cache_key",
        "stage",
        "stop",
        "config",
        "schedule",
        "yamlfile",
        "configfile",
        "studyfile",
    ),
    ("problems", "store"),
    ("models", "evaluation"),
    ("launch", "report"),
    ("champion",),
    ("rerank",),
    ("stages", "serve", "export"),
    ("sampling", "examine"),
    ("training", "generate"),
    ("plan", "studio"),
)
"""The packages of `selftrain`, lowest layer first. A package imports itself and packages of lower layers; the lowest layer, the
modules at the top of `selftrain`, counts as one package."""


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Full dotted names of the modules and objects that the import statements among `nodes` import."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def under(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether `name` is one of the modules `prefixes`, or lies in one of the packages `prefixes`."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def imports_of(package: str) -> set[str]:
    """The other packages of `selftrain` that a package, or a module at its top, imports anywhere, in functions too."""
    path = ROOT / "selftrain" / package
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    names = set().union(*(imported(ast.walk(ast.parse(file.read_text()))) for file in files))
    return {name.split(".")[1] for name in names if under(name, ("selftrain",)) and "." in name} - {package}
