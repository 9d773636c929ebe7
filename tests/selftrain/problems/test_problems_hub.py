"""The hub's border: its own loader on a local folder in its layout, and its own client against a server made here."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selftrain.config import ContestsConfig, MultiPLEConfig
from selftrain.errors import DataError, RunError
from selftrain.problems import content_digest, read_problems
from selftrain.problems.hub import resolve_commit
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
    with pytest.raises(DataError, match=r"held-rs, split 'test': .*held-rs.*made-py"):
        read_problems(multipl_e(repository, evaluation="held-rs"))


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
        }
        write_parquet(
            tmp_path / split / f"{split}-00000-of-00001.parquet", [row, row | {"name": f"{split} more"}]
        )
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
