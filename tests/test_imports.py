"""Tests of imports: directions between packages, forbidden modules, and heavy libraries that are loaded only when needed."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from infra.layers import LAYERS, OWN, imported, imports_of, under
from tests.command import ROOT, Finished

PACKAGES = ("flows", "tasks", "selftrain", "sandbox")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

HEAVY = {
    "accelerate", "ctranslate2", "dask", "datasets", "deepspeed", "distributed", "matplotlib", "peft", "prefect",
    "prefect_dask", "pyarrow", "safetensors", "tokenizers", "torch", "transformers", "trl", "vllm",
}  # fmt: skip
FOREIGN = {
    "flows": lambda name: name not in HEAVY - {"prefect"} | {"docker", "s3fs"},
    "tasks": lambda name: name not in HEAVY - {"prefect", "prefect_dask", "distributed"} | {"docker", "s3fs"},
    "selftrain": lambda name: name not in {"prefect", "docker", "s3fs"},
    "sandbox": lambda name: (
        name in {"pydantic", "docker", "fastapi", "prometheus_client", "starlette", "uvicorn"}
    ),
}
"""Which other libraries it may import, anywhere."""

ONLY_IN_CHILDREN = (
    "selftrain/training/", "selftrain/sampling/cache.py", "selftrain/sampling/hf.py", "selftrain/models/lora.py",
    "selftrain/models/vocabulary.py",
)  # fmt: skip
"""Modules that import heavy libraries when they are imported; only child processes import them."""
ONLY_IN_RUNS = (
    "flows/evaluate.py",
    "flows/iterative_selftrain.py",
    "tasks/dask.py",
    "tasks/display.py",
    "tasks/prefect.py",
    "tasks/slots.py",
)
"""Modules that import Prefect when they are imported."""


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not those in functions or under TYPE_CHECKING."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        todo += ast.iter_child_nodes(node)


def label(path: Path) -> str:
    """The path inside the project."""
    return path.relative_to(ROOT).as_posix()


def test_there_is_something_to_check():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)
    assert len(FILES) > 60


@pytest.mark.parametrize("path", FILES, ids=label)
def test_imports_go_one_way(path: Path):
    package = path.relative_to(ROOT).parts[0]
    for name in imported(ast.walk(ast.parse(path.read_text()))):
        root = name.split(".")[0]
        if root in PACKAGES:
            assert under(name, OWN[package]), f"{label(path)} imports {name}"
        elif root not in sys.stdlib_module_names:
            assert FOREIGN[package](root), f"{label(path)} imports {name}"


def room(name: str) -> int:
    """The layer's number of a module in `selftrain`."""
    (found,) = [number for number, rooms in enumerate(LAYERS) if name.split(".")[1] in rooms]
    return found


def test_rooms_import_lower_layers_only():
    for path in (ROOT / "selftrain").rglob("*.py"):
        inside = path.relative_to(ROOT / "selftrain").with_suffix("").parts
        if inside == ("__init__",):  # `selftrain.Reranker` and `selftrain.Picker`, on their first use
            continue
        own = inside[0]
        for name in imported(ast.walk(ast.parse(path.read_text()))):
            if not under(name, ("selftrain",)):
                continue
            other = name.split(".")[1]
            lowest = own in LAYERS[0] and other in LAYERS[0]
            assert other == own or lowest or room(name) < room(f"selftrain.{own}"), (
                f"{label(path)} imports {name}"
            )


def test_no_ring_of_packages():
    top = set(LAYERS[0])
    graph = {name: imports_of(name) for rooms in LAYERS[1:] for name in rooms}
    graph = {name: {"top" if other in top else other for other in others} for name, others in graph.items()}
    graph["top"] = set().union(*map(imports_of, top)) - top
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the ring
    with pytest.raises(CycleError):
        TopologicalSorter(graph | {"store": {"plan"}}).prepare()


def test_no_ring_of_modules():
    """Lazy imports count; those for type checkers alone do not."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in FILES
    }
    graph = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text())
        only_typed = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ]
        names = imported(ast.walk(tree)) - imported(inner for node in only_typed for inner in ast.walk(node))
        found = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module] = (found & set(modules)) - {module}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the ring


def test_every_part_of_selftrain_is_a_room():
    parts = {path.stem for path in (ROOT / "selftrain").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__init__", "__pycache__"} == {name for rooms in LAYERS for name in rooms}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_heavy_libraries_are_imported_where_they_are_needed(path: Path):
    if label(path).startswith(ONLY_IN_CHILDREN):
        return
    allowed = {"prefect"} if label(path) in ONLY_IN_RUNS else set()
    names = {name.split(".")[0] for name in imported(at_import(ast.parse(path.read_text())))}
    assert not names & (HEAVY - allowed)


FORBIDDEN_IMPORTS = ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "pexpect")
# A program's code is hostile as it is: the process that reads it is the program's own, and confined before it does.
COMPILED_PROGRAMS = {ROOT / "sandbox" / "servers" / "compile.py"}
FORBIDDEN_ARGUMENTS = {"shell": True, "trust_remote_code": True, "weights_only": False, "allow_pickle": True}
FORBIDDEN_CALLS = ("os.system", "os.popen", "torch.load", "torch.save", "subprocess.getoutput", "eval")


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_pickle_no_shell_no_remote_code(path: Path):
    tree = ast.parse(path.read_text())
    found = {name for name in imported(ast.walk(tree)) if under(name, FORBIDDEN_IMPORTS)}
    assert found == ({"marshal"} if path in COMPILED_PROGRAMS else set())
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        assert ast.unparse(call.func) not in FORBIDDEN_CALLS
        for keyword in call.keywords:
            if keyword.arg in FORBIDDEN_ARGUMENTS:
                assert isinstance(keyword.value, ast.Constant)
                assert keyword.value.value is not FORBIDDEN_ARGUMENTS[keyword.arg]


def test_the_checks_see_what_they_look_for():
    tree = ast.parse(
        "def f():\n    import torch.nn\n    from prefect import flow\nclass A:\n    import trl\n"
    )
    assert imported(ast.walk(tree)) == {"torch.nn", "prefect.flow", "trl"}
    assert imported(at_import(tree)) == {"trl"}
    assert under("sandbox.verdicts.Verdict", ("sandbox.verdicts",))
    assert not under("sandbox.verdicts_other", ("sandbox.verdicts",))


@pytest.mark.parametrize("arguments", [[], ["run"], ["rank"]], ids=lambda a: "-".join(["selftrain", *a]))
def test_help_loads_nothing_heavy(arguments: list[str]):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flows.cli", *arguments, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: selftrain" in done.stdout
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "flows" in loaded
    assert not loaded & (HEAVY | {"pydantic", "numpy", "docker"})


CACHED_RUN = """
import sys
from flows.local import run_here
run_here("smoke", {"store": sys.argv[1]}, None, sys.argv[2])
assert "prefect" in sys.modules
print("loaded:", sorted({"torch", "transformers", "trl", "datasets", "ctranslate2"} & set(sys.modules)))
"""


def test_a_cached_run_loads_no_torch(smoke_run: Finished, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", CACHED_RUN, str(smoke_run.store), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "loaded: []"
