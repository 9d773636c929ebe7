"""Tests of the documents: generated pages are up to date, commands work, and links, files and names exist."""

import ast
import builtins
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from flows.cli import parser
from infra.docs import pages
from selftrain.studyfile import read_study
from tests.command import ROOT, Finished
from tests.documents import DOCUMENTS, blocks, commands, inline, kind, named_files
from tests.needs import need_tools

RUN = {
    "selftrain run demo --dry-run": (0, "0 of 20 stages are cached"),
    "selftrain run demo --dry-run --set ppo.kl_coefficient=0.1": (0, "to do   ppo · round 1"),
    "selftrain run docs/own-data/own.yaml --dry-run": (0, "answers to learn from: 22 of 22"),
    "selftrain evaluate docs/own-data/completions.jsonl": (0, "majority        0.333 [0.000, 0.500]"),
    "selftrain study evidence --dry-run": (
        0,
        f"{len(read_study('evidence').cells)} cells of study evidence, 0 finished",
    ),
    "python -m sandbox languages --backend bubblewrap": (0, "Python 3"),
    "python -m sandbox run --language cpp solution.cpp --stdin input.txt --expect output.txt": (0, "passed"),
    "python -m sandbox judge programs.jsonl verdicts.jsonl --audit all": (0, ""),
    "python -m sandbox judge completions.jsonl verdicts.jsonl --workers 8 --resume": (0, ""),
}
"""Commands that need no earlier run, each run by a test: exit code, and what it prints among other things."""

AFTER_A_RUN = {
    "selftrain plan paper-6.7b --gpus 8": (1, "it does not fit"),
    "selftrain plan qwen2.5-coder-0.5b --gpus 1": (0, "it fits"),
    "selftrain runs": (0, "finished"),
    "selftrain show runs/demo": (0, "execute-sft-rl"),
    "selftrain show own": (0, "execute-sft-rl"),
    "selftrain rank runs/demo --example": (0, "<- pick"),
    "selftrain why rm-2": (0, "nearest earlier"),
    "selftrain run demo --set seed=2 --out runs/two": (0, "report: "),
    # In the test these runs differ in more than the seed; tests/flows/test_flow.py pools two that do not.
    "selftrain compare runs/demo runs/two": (0, "comparison of methods"),
    "selftrain evaluate runs/demo --pool ppo-1 --reranker runs/two": (0, "reranker: runs/two, by rm-"),
    "selftrain run demo --set seed=2 --out runs/demo-2": (0, "report: "),
    "selftrain compare runs/demo runs/demo-2": (0, "comparison of methods"),
    "selftrain run prod --champion": (0, "not promoted: there is no champion yet"),
    "selftrain champion": (0, "rm-2"),
    'selftrain promote KEY --reason "too slow"': (0, "promoted"),
    "selftrain drift": (0, "drift.html"),
    "selftrain export runs/demo reranker": (0, "reranker: rm-2 of smoke"),
    "selftrain export runs/demo reranker --push NAME/MODEL": (0, "would be uploaded to NAME/MODEL"),
    "selftrain export champion reranker": (0, "reranker: rm-1 of "),
}
"""Commands that need a finished run or take long; one test runs them in this order: exit code, and what is printed."""

ELSEWHERE = {
    "selftrain new my.yaml --source bank --languages py,sh": "tests/flows/test_cli_new.py::test_only_what_differs_is_written",
    "selftrain best-of runs/demo --prompt p.txt --n 8": "tests/flows/test_cli_generate.py::test_best_of",
    "selftrain generate runs/demo in.jsonl --out written.jsonl": "tests/flows/test_cli_generate.py::test_rows_keep_their_fields_and_bad_ones_are_told",
    "selftrain inspect runs/demo sft/PROBLEM#0": "tests/flows/test_cli_inspect.py::test_a_candidate_of_the_evaluation",
    "selftrain rank runs/demo --prompt p.txt candidates/": "tests/flows/test_cli_batch.py::test_a_folder_stands_for_its_files",
    "selftrain rank runs/demo --batch in.jsonl out.jsonl": "tests/flows/test_cli_batch.py::test_a_killed_batch_of_a_reranker_goes_on",
    "selftrain studio runs/demo": "tests/selftrain/studio/test_studio.py::test_a_person_ranks_pasted_and_generated_programs",
    "selftrain check-data docs/own-data/stdio.jsonl": "tests/flows/test_own_data.py::test_its_programs_are_sound",
    "infra/kubernetes/secrets.sh": "tests/test_kubernetes.py::made",
    "make sbom IMAGE=selftrain-worker": "tests/test_sbom.py::test_the_bill_of_an_image_has_its_packages",
    "selftrain champion --store /backup/store": "tests/test_backup.py::test_a_copy_of_a_store_is_a_store",
    "prefect deployment run iterative-selftrain/demo *": "tests/flows/test_deployed.py::test_a_run_of_prod_is_completed",
    "make setup": "tests/test_infra.py::test_make_sets_up_again_where_what_is_wanted_has_changed_and_not_where_it_is_newer",
    "make check": ".ci/run",
    "make test": ".ci/run",
    "make test-slow": ".ci/run",
    "python -m sandbox build": ".ci/run",
    "python -m sandbox build more": ".ci/run",
    "python -m sandbox build --apt *": "tests/sandbox/test_sandbox_choice.py::test_an_image_with_more_libraries",
    "python -m sandbox build common --apt *": "tests/sandbox/test_sandbox_choice.py::test_an_image_with_more_libraries",
    "python -m sandbox languages": "tests/sandbox/test_sandbox_cli.py::test_languages_lists_the_table",
    "python -m sandbox check --backend docker": "tests/sandbox/test_sandbox_check.py::test_a_backend_that_isolates_passes",
    "python -m sandbox multipl-e completions/": "tests/sandbox/test_sandbox_multipl_e_files.py::test_results_are_in_multipl_es_own_terms",
    "python -m sandbox serve *": "tests/sandbox/serving.py::serving",
    "selftrain serve *": "tests/selftrain/serve/test_serve_process.py::serving",
    "pip install --no-deps .": "tests/test_package.py::installed",
    "make server": "tests/conftest.py::server",
    "make deploy": "tests/flows/test_deployed.py::deployed",
    "make worker": "tests/flows/test_deployed.py::deployed",
    "prefect deployment run iterative-selftrain/prod *": "tests/flows/test_deployed.py::test_a_run_of_prod_is_completed",
    "prefect deployment run evaluate/evaluate": "tests/flows/test_champion.py::test_the_champion_is_measured_by_the_flow_evaluate",
    "selftrain run docs/own-data/own.yaml": "tests/flows/test_own_data.py::test_its_files_give_pairs_and_a_report",
    "selftrain run demo --set store=s3:*": "tests/flows/test_flow_s3.py::test_a_run_on_s3_is_found_cached_on_another_machine",
    "selftrain gc s3:*": "tests/flows/test_flow_s3.py::test_a_run_on_s3_is_found_cached_on_another_machine",
    "selftrain export runs/demo reranker --push NAME/MODEL --yes": "tests/selftrain/export/test_card.py::test_push_uploads_the_files_of_the_folder",
    "selftrain export runs/demo reranker --onnx": "tests/selftrain/export/test_onnx.py::test_onnx_runtime_gives_the_rerankers_scores",
    "dask *": "tests/tasks/test_dask.py::test_two_machines_share_the_work_of_a_run_and_its_records_are_those_of_one",
    "selftrain run my.yaml --set runtime.dask=*": "tests/tasks/test_dask.py::test_two_machines_share_the_work_of_a_run_and_its_records_are_those_of_one",
}
"""Commands that another test, a fixture or CI runs, if with smaller sizes or other addresses. A `*` ends a pattern."""

NOT_RUN = {
    "make demo": "ten minutes; the tests run the same command line and stages with configs/smoke.yaml",
    "make evidence": "hours; tests/flows/test_study_command.py runs a small study",
    "make bench": "half an hour, and its figures mean something on an idle machine only",
    "python infra/fetch_smollm2.py *": "downloads 93 MB",
    "selftrain run smollm2-135m *": "an hour, with weights that are downloaded",
    "python -m tests.bench.sandbox *": "minutes, and its figures mean something on an idle machine only",
    "pip install docker": "the development set-up has it",
    "prefect gcl *": "Prefect's own; tests/test_deploy.py reads and changes the same limits through its API",
    "apt-get install *": "changes the machine; .ci/run installs the same packages",
    "runuser *": "changes the machine's database; tests/postgres.py makes one of its own",
    "pip install -c constraints.txt '.[dask]'": "the development set-up has it",
    "pip install '.[serve]'": "the development set-up has it",
    "pip install fastapi *": "the development set-up has them",
    "make worker-image DEBIAN_IMAGE=*": "needs a registry; tests/test_infra.py sees what it starts from",
    "make worker-image": "a quarter of an hour, and 2 GB of packages",
    "docker *": "needs a registry, or Compose's plug-in and the images of one",
    "kubectl *": "needs a cluster",
    "rclone *": "a program of others; tests/test_backup.py copies a store to and from S3",
    "git pull": "needs a repository elsewhere",
    "source *": "changes the shell",
    "export *": "changes the shell",
}
"""Commands that nothing runs, each with the reason."""

OTHER_BLOCKS = {
    "README.md": {"problems", "flows/"},
    "ARCHITECTURE.md": {"STORE/STAGE/KEY/manifest.json", "flows/"},
    "serve.md": {"curl"},
    "kubernetes.md": {"work_pool:"},
    "method.md": {"L_list", "L_pair", "kl_t", "K_i"},
    "development.md": {"flows"},
}
"""Pictures, trees and equations: the first word of each block that is neither commands nor Python nor JSON."""

COMMANDS = [
    (path.name, command)
    for path in DOCUMENTS
    for block in blocks(path)
    if kind(block) == "commands"
    for command in commands(block)
]


def environment() -> dict[str, str]:
    """For commands in a folder of their own: this repository's modules."""
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def execute(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the documents in `folder`, by this Python."""
    words = shlex.split(command)
    start = {"selftrain": ["-m", "flows.cli"], "python": []}[words[0]]
    return subprocess.run(
        [sys.executable, *start, *words[1:]],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )


def is_like(command: str, pattern: str) -> bool:
    """Whether a pattern of the tables above names the command."""
    return command.startswith(pattern[:-1]) if pattern.endswith("*") else command == pattern


def test_generated_pages_are_up_to_date():
    found = pages()
    assert {path.name for path in found} == {"configuration.md", "development.md"}
    for path, text in found.items():
        assert path.exists(), "run: python -m infra.docs"
        assert path.read_text() == text, "run: python -m infra.docs"


def test_every_setting_has_a_meaning():
    rows = re.findall(r"(?m)^\| (`.*`) \| .* \| (.*) \|$", (ROOT / "docs" / "configuration.md").read_text())
    assert len(rows) > 130
    assert not [name for name, meaning in rows if not re.search(r"\w.*[.!)]$", meaning)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_is_of_a_known_kind(path: Path):
    for block in blocks(path):
        found = kind(block)
        assert found in {"commands", "python", "json"} | OTHER_BLOCKS.get(path.name, set()), block
        if found == "python":
            ast.parse("\n".join(block))


def test_documents_have_commands():
    assert {name for name, _ in COMMANDS} >= {"README.md", "tutorial.md", "deploy.md", "own-data.md"}
    assert len(COMMANDS) > 50


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_command_is_run_or_it_is_said_why_not(name: str, command: str):
    found = [
        pattern
        for table in (RUN, AFTER_A_RUN, ELSEWHERE, NOT_RUN)
        for pattern in table
        if is_like(command, pattern)
    ]
    assert len(found) == 1, (
        f"{name}: expected one row for `{command}` in the tables of tests/test_docs.py, got {found}"
    )


def test_the_tables_have_no_other_commands():
    for pattern in [*RUN, *AFTER_A_RUN, *ELSEWHERE, *NOT_RUN]:
        assert any(is_like(command, pattern) for _, command in COMMANDS), f"no document has `{pattern}`"


@pytest.mark.parametrize("where", sorted(set(ELSEWHERE.values())))
def test_what_runs_a_command_elsewhere_exists(where: str):
    file, _, name = where.partition("::")
    text = (ROOT / file).read_text()
    if name:
        assert re.search(rf"^def {name}\(", text, re.MULTILINE)
        return
    for command in (command for command, place in ELSEWHERE.items() if place == where):
        target = {"python -m sandbox build": "make image"}.get(command, command)
        assert re.search(rf"^ *(\.venv/bin/)?{target}( &)?$", text, re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_name_what_exists(path: Path):
    """Targets of make, modules, files, subcommands and options of `selftrain`; in the text too."""
    for command in [command for name, command in COMMANDS if name == path.name] + inline(path):
        missing = not_there(command)
        assert not missing, f"`{command}` names {missing}"


def not_there(command: str) -> str:
    """What a command, or other code, names and this repository does not have; empty where it has all."""
    words = command.split()
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        found = [word for word in words[1:] if "=" not in word and word not in targets]
    elif words[:2] == ["python", "-m"] and len(words) > 2:
        found = [] if find_spec(words[2]) else [words[2]]
    elif words[0] == "selftrain" and len(words) > 1:
        (subcommands,) = [action.choices for action in parser()._actions if action.choices]
        options = subcommands[words[1]]._option_string_actions
        found = [word for word in words if word.startswith("--") and word not in options]
    else:
        found = []
    return ", ".join(found + [file for file in named_files(command) if not (ROOT / file).exists()])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_names_of_modules_exist(path: Path):
    """`selftrain.store.store`, or with the name of something in the module behind it."""
    for name in [
        code for code in inline(path) if re.fullmatch(r"(flows|tasks|selftrain|sandbox)(\.\w+)+", code)
    ]:
        module = ROOT / name.replace(".", "/")
        known = module.is_dir() or module.with_suffix(".py").exists()
        parent = module.parent / "__init__.py" if module.parent.is_dir() else module.parent.with_suffix(".py")
        assert known or re.search(rf"\b{module.name}\b", parent.read_text()), f"`{name}` does not exist"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that commands of the documents name."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "solution.cpp").write_text(
        "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << n + 1; }\n"
    )
    (tmp_path / "input.txt").write_text("1\n")
    (tmp_path / "output.txt").write_text("2\n")
    row = json.dumps({"id": "a", "language": "py", "program": "print(1)"})
    for name in ("programs.jsonl", "completions.jsonl"):
        (tmp_path / name).write_text(row + "\n")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, marks=[pytest.mark.slow] if "study" in command else []) for command in RUN],
)
def test_a_command_that_needs_no_earlier_run(folder: Path, command: str):
    if "sandbox" in command:
        need_tools("bwrap", "g++")
    elif "own-data/completions" in command:
        need_tools("bwrap")
    code, said = RUN[command]
    done = execute(command, folder)
    assert done.returncode == code, done.stderr
    assert said in done.stdout


@pytest.fixture
def after_a_run(folder: Path, smoke_run: Finished) -> Path:
    """A folder in which `make demo` might have run: runs/demo and runs/own are the run of configs/smoke.yaml, and the configs
    `demo` and `prod` are tiny ones. Files by these names come before the shipped configs."""
    store = shutil.copytree(smoke_run.store, folder / "runs" / "store")
    for name in ("demo", "own"):
        shutil.copytree(smoke_run.out, folder / "runs" / name)
        record = json.loads((smoke_run.out / "run.json").read_text()) | {"store": str(store)}
        (folder / "runs" / name / "run.json").write_text(json.dumps(record))
    smoke, own = ROOT / "configs" / "smoke.yaml", ROOT / "docs" / "own-data" / "own.yaml"
    (folder / "prod").write_text(smoke.read_text().replace("name: smoke", "name: prod"))
    # At seed 2 too its model writes right programs and wrong ones, of which there are pairs.
    (folder / "demo").write_text(own.read_text().replace("rounds: 1", "rounds: 2"))
    return folder


def test_commands_after_a_run(after_a_run: Path, smoke_run: Finished):
    for command, (code, said) in AFTER_A_RUN.items():
        done = execute(command.replace("KEY", smoke_run.stages["rm-1"]["key"][:12]), after_a_run)
        assert done.returncode == code, f"{command}: {done.stderr[-3000:]}"
        assert said in done.stdout, command


SNIPPETS = [
    (path.name, "\n".join(block)) for path in DOCUMENTS for block in blocks(path) if kind(block) == "python"
]


@pytest.mark.parametrize(("name", "snippet"), SNIPPETS, ids=lambda text: text[:20])
def test_a_snippet_runs_as_it_is_copied(name: str, snippet: str):
    """It defines every name that it uses."""
    names = [node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Name)]
    known = {*dir(builtins), *(name.id for name in names if not isinstance(name.ctx, ast.Load))}
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(one.asname or one.name).partition(".")[0] for one in node.names}
        elif isinstance(node, ast.FunctionDef):
            known |= {node.name, *(one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg))}
    assert not {name.id for name in names} - known


@pytest.mark.parametrize(
    ("name", "snippet"), [pair for pair in SNIPPETS if "runs/" in pair[1]], ids=lambda text: text[:20]
)
def test_python_after_a_run(after_a_run: Path, name: str, snippet: str):
    run_python(snippet, after_a_run)


@pytest.mark.parametrize(
    ("name", "snippet"), [pair for pair in SNIPPETS if "runs/" not in pair[1]], ids=lambda text: text[:20]
)
def test_python_by_itself(tmp_path: Path, name: str, snippet: str):
    need_tools("bwrap")
    run_python(snippet, tmp_path)


def run_python(snippet: str, folder: Path) -> None:
    """Run a snippet of the documents in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
