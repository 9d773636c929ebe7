"""Tests of reading data sets: the hub's loader on a local folder in its layout, its client against a local server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selftrain.config import ContestsConfig, MixedConfig, MultiPLEConfig
from selftrain.errors import DataError, RunError
from selftrain.problems.hub import resolve_commit
from selftrain.problems.read import content_digest, read_problems
from tests.selftrain.problems.made import DESCRIPTIONS, py_row, sh_row

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Subsets made-py and made-sh to train on, and held-py, each with a test split, as MultiPL-E has them."""
    folder = tmp_path / "repository"
    subsets = {
        "made-py": [py_row(f"Made_{at}", text) for at, text in enumerate(DESCRIPTIONS[:9])],
        "made-sh": [sh_row(f"Made_{at}", text) for at, text in enumerate(DESCRIPTIONS[:9])],
        "held-py": [py_row("Held_9", DESCRIPTIONS[9])],
    }
    card = ["---", "configs:"]
    for name, rows in subsets.items():
        write_parquet(folder / name / "test-00000-of-00001.parquet", rows)
        card += [f"- config_name: {name}", "  data_files:", "  - split: test", f"    path: {name}/test-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder


def multipl_e(repository: Path, **more: Any) -> MultiPLEConfig:
    return MultiPLEConfig.model_validate(
        {
            "hub": str(repository),
            "languages": ["py", "sh"],
            "train": "made-*",
            "evaluation": "held-py",
            "shares": {"rl": 0.7, "validation": 0.3},
            "seed": 2,
        }
        | more
    )


def test_subsets_of_a_folder_in_the_hubs_layout(repository: Path) -> None:
    problems = read_problems(multipl_e(repository))
    assert len(problems) == 19
    assert {p.id for p in problems if p.split == "test"} == {"Held_9.py"}
    assert problems[0].source == f"{repository}/held-py"
    assert problems[0].prompt == py_row("Held_9", DESCRIPTIONS[9])["prompt"]
    assert problems[0].stop_tokens == ("\ndef", "\n#", "\nif", "\nclass")


def test_a_subset_that_is_not_there(repository: Path) -> None:
    with pytest.raises(DataError, match=r"no subset held-rs; it has .*made-py"):
        read_problems(multipl_e(repository, evaluation="held-rs"))


def test_a_star_stands_for_the_data_sets_own_name_of_a_language(repository: Path) -> None:
    (repository / "made-py").rename(repository / "made-elixir")
    card = repository / "README.md"
    card.write_text(card.read_text().replace("made-py", "made-elixir"))
    (file,) = (repository / "made-elixir").iterdir()
    rows = [py_row(f"Made_{at}", text, language="elixir") for at, text in enumerate(DESCRIPTIONS[:9])]
    pq.write_table(pa.Table.from_pylist(rows), file)
    problems = read_problems(multipl_e(repository, languages=["ex"], evaluation="made-*", train=[]))
    assert {problem.id for problem in problems} == {f"Made_{at}.ex" for at in range(9)}


def test_the_content_of_a_local_folder_counts(repository: Path) -> None:
    before = content_digest(multipl_e(repository))
    assert before["train"] == ["made-*"]
    renamed = repository.rename(repository.with_name("renamed"))
    assert content_digest(multipl_e(renamed)) == before
    with (renamed / "held-py" / "test-00000-of-00001.parquet").open("ab") as file:
        file.write(b"x")
    assert content_digest(multipl_e(renamed))["commit"] != before["commit"]


def test_which_file_of_a_local_folder_holds_what_counts(repository: Path) -> None:
    before = content_digest(multipl_e(repository))
    one, other = sorted(repository.rglob("*.parquet"))[:2]
    one.rename(repository / "aside")
    other.rename(one)
    (repository / "aside").rename(other)
    assert content_digest(multipl_e(repository)) != before


def test_contests_from_a_folder_in_the_hubs_layout(tmp_path: Path) -> None:
    tests = {"input": ["1\n"], "output": ["2\n"]}
    for split, text in (("train", DESCRIPTIONS[0]), ("test", DESCRIPTIONS[1])):
        row = {
            "name": split,
            "description": text,
            "public_tests": tests,
            "private_tests": {"input": ["2\n"], "output": ["4\n"]},
            "generated_tests": tests,
            "solutions": {"language": [3], "solution": ["print(2 * int(input()))"]},
            "input_file": "",
            "time_limit": {"seconds": 1, "nanos": 500_000_000},
            "memory_limit_bytes": 256_000_000,
        }
        again = row | {"name": f"{split} more", "time_limit": None, "memory_limit_bytes": 0}
        write_parquet(tmp_path / split / f"{split}-00000-of-00001.parquet", [row, again])
    (tmp_path / "repository").mkdir()
    for split in ("train", "test"):
        (tmp_path / split).rename(tmp_path / "repository" / split)
    (tmp_path / "repository" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train/*\n"
        "  - split: test\n    path: test/*\n---\n"
    )
    config = ContestsConfig.model_validate(
        {
            "hub": str(tmp_path / "repository"),
            "languages": ["py"],
            "train": "train[:1]",
            "evaluation": "test",
            "shares": {"sft": 1.0},
        }
    )
    problems = read_problems(config)
    assert [p.id for p in problems] == ["test.py", "test more.py", "train.py"]
    assert problems[2].response == "print(2 * int(input()))"
    assert [case["stdout"] for case in problems[2].cases] == ["2\n", "4\n"]
    assert [(p.time_limit, p.memory_limit_bytes) for p in problems[:2]] == [(1.5, 256_000_000), (None, None)]


class Hub(BaseHTTPRequestHandler):
    """Knows the data set `made/problems`, whose branch `main` stands for COMMIT."""

    def do_GET(self) -> None:
        known = self.path.split("?")[0] in (
            "/api/datasets/made/problems/revision/main",
            "/api/datasets/made/problems",
        )
        body = json.dumps({"id": "made/problems", "sha": COMMIT} if known else {"error": "not here"}).encode()
        self.send_response(200 if known else 404)
        if not known:
            self.send_header(
                "X-Error-Code", "RevisionNotFound" if "made/problems" in self.path else "RepoNotFound"
            )
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import huggingface_hub.constants

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("hub")
def test_a_branch_stands_for_its_commit() -> None:
    assert resolve_commit("made/problems", "main") == COMMIT
    config = MultiPLEConfig(hub="made/problems", evaluation=("held-py",))
    assert content_digest(config) == {"commit": COMMIT, "train": [], "evaluation": ["held-py"]}


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "revision"), [("made/problems", "v9"), ("made/nothing", "main"), ("no/such/name", "main")]
)
def test_what_the_hub_does_not_have(name: str, revision: str) -> None:
    with pytest.raises(
        DataError,
        match=f"{name}: neither a local folder nor a data set on the hub with revision '{revision}'",
    ):
        resolve_commit(name, revision)


def test_a_full_commit_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve_commit("made/problems", COMMIT) == COMMIT
    with pytest.raises(
        RunError, match="cannot ask the hub which commit 'made/problems' has at revision 'main'"
    ):
        resolve_commit("made/problems", "main")


def write_set(folder: Path, subset: str, splits: dict[str, list[dict[str, Any]]]) -> Path:
    card = ["---", "configs:", f"- config_name: {subset}", "  data_files:"]
    for split, rows in splits.items():
        path = folder / subset / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
        card += [f"  - split: {split}", f"    path: {subset}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder


def humaneval(number: int, name: str, text: str) -> dict[str, Any]:
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": f'\n\ndef {name}(n: int) -> int:\n    """ {text}\n    """\n',
        "canonical_solution": "    return n + 1\n",
        "test": "\n\ndef check(candidate):\n    assert candidate(1) == 2\n",
        "entry_point": name,
    }


def mbpp(number: int, text: str, code: str, *tests: str) -> dict[str, Any]:
    return {
        "source_file": "made", "task_id": number, "prompt": text, "code": code, "test_imports": [], "test_list": list(tests),
    }  # fmt: skip


MBPP = [
    mbpp(3, "Give the smaller\\none", "import math\r\ndef least(a, b):\r\n  if a < b:\r\n    return a\r\n  return b", "assert least(1, 2) == 1"),
    mbpp(4, "Give two more", "def one(n):\n\treturn n + 1\ndef two(n):\n\treturn one(one(n))", "assert two(1) == 3"),
    mbpp(5, "Give a text of two lines", 'def lines():\n  return """a\n  b"""', 'assert lines() == "a\\n  b"'),
    mbpp(6, "Take one away", "def less(n): return n - 1", "assert less(2) == 1", "assert less(0) == -1"),
    mbpp(7, "A constant is no function", "x = 1", "assert x == 1"),
]  # fmt: skip


@pytest.fixture
def without_python(tmp_path: Path) -> dict[str, Any]:
    """MultiPL-E's data set in the layout that it has, and the two that hold its Python problems."""
    folder = tmp_path / "multipl-e"
    kinds = {
        "humaneval-sh": [sh_row("HumanEval_0_next_one", DESCRIPTIONS[0])],
        "mbpp-sh": [sh_row(f"mbpp_{n}_x", DESCRIPTIONS[n]) for n in range(3, 9)],
    }
    card = ["---", "configs:"]
    for name, rows in kinds.items():
        write_parquet(folder / name / "test-00000-of-00001.parquet", rows)
        card += [f"- config_name: {name}", "  data_files:", "  - split: test", f"    path: {name}/test-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    one = [humaneval(0, "next_one", DESCRIPTIONS[0])]
    return {
        "hub": str(folder),
        "train": "mbpp-*",
        "evaluation": "humaneval-*",
        "humaneval_py": str(write_set(tmp_path / "humaneval", "openai_humaneval", {"test": one})),
        "mbpp_py": str(
            write_set(
                tmp_path / "mbpp",
                "sanitized",
                {"prompt": MBPP[:1], "test": MBPP[1:3], "validation": MBPP[3:4], "train": MBPP[4:]},
            )
        ),
    }


def test_pythons_problems_come_from_where_multipl_e_has_them_from(
    repository: Path, without_python: dict[str, Any]
) -> None:
    config = multipl_e(repository, **without_python, shares={"sft": 1.0})
    problems = {problem.id: problem for problem in read_problems(config) if problem.language == "py"}
    assert list(problems) == [
        "HumanEval_0_next_one.py", "mbpp_3_least.py", "mbpp_4_two.py", "mbpp_5_lines.py", "mbpp_6_less.py",
    ]  # fmt: skip
    first = problems["HumanEval_0_next_one.py"]
    assert (first.split, first.tests[-16:]) == ("test", "\ncheck(next_one)\n"[-16:])
    least = problems["mbpp_3_least.py"]
    assert least.prompt == 'import math\n\ndef least(a, b):\n    """ Give the smaller\\\\none\n    """\n'
    assert least.response == "    if a < b:\n      return a\n    return b"
    assert (least.tests, least.stop_tokens) == (
        "\nassert least(1, 2) == 1\n",
        ("\ndef", "\n#", "\nif", "\nclass"),
    )
    assert problems["mbpp_4_two.py"].response is None, "more than this function"
    assert problems["mbpp_5_lines.py"].response is None, "another indentation is another text"
    assert problems["mbpp_6_less.py"].response is None, "on the line of its signature"
    for problem in problems.values():
        if problem.response:
            exec(f"{problem.prompt}{problem.response}\n{problem.tests}")
    digest = content_digest(config)
    assert digest["python"].keys() == {"humaneval-py", "mbpp-py"}
    assert read_problems(config, digest) == read_problems(config)


def test_names_are_looked_at_before_anything_is_read(
    repository: Path, without_python: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contests = write_set(tmp_path / "contests", "default", {"train": [{"name": "a"}]})
    parts = [
        {"source": "contests", "hub": str(contests), "train": "train[:5]", "languages": ["py"]},
        {"source": "multipl-e", **without_python, "languages": ["py", "rs"]},
    ]
    config = MixedConfig.model_validate({"source": "mixed", "parts": parts})
    monkeypatch.setattr("selftrain.problems.read.read_hub", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(DataError, match="no subset humaneval-rs, mbpp-rs; it has humaneval-sh, mbpp-sh"):
        read_problems(config)
    parts[0]["train"] = "trian[:5]+train"
    with pytest.raises(DataError, match="no split trian; it has train"):
        read_problems(MixedConfig.model_validate({"source": "mixed", "parts": parts}))


def test_where_pythons_problems_would_be_is_told(
    repository: Path, without_python: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = multipl_e(repository, **without_python | {"mbpp_py": "some/set"}, shares={"sft": 1.0})
    with pytest.raises(RunError, match=r"no subset mbpp-py.*`mbpp_py`, a folder or a data set.*'some/set'"):
        read_problems(config)
