"""Tests of the whole loop through the real command line: its artifacts, its cache hits, and its error messages."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import ROOT, Finished, PrefectServer, selftrain
from tests.selftrain.problems.made import py_row, write_jsonl

STAGES = [
    "prepare", "sft", "sample-sft-rl", "execute-sft-rl", "mine-1", "rm-1", "ppo-1", "sample-ppo-1-rl", "execute-ppo-1-rl",
    "mine-2", "rm-2", "ppo-2", "sample-sft-evaluation", "execute-sft-evaluation", "sample-ppo-1-evaluation",
    "execute-ppo-1-evaluation", "sample-ppo-2-evaluation", "execute-ppo-2-evaluation", "evaluate", "report",
]  # fmt: skip
"""The stages of a run of two rounds, in running order."""


# What a run leaves


def is_estimate(value: Any) -> bool:
    """Whether `value` is {"value", "low", "high"} with the value inside the interval."""
    return (
        set(value) >= {"value", "low", "high"}
        and value["low"] - 1e-9 <= value["value"] <= value["high"] + 1e-9
    )


def check_metrics(metrics: dict[str, Any], rankers: set[str]) -> None:
    """Check the metrics of one pool, for all languages together or for one."""
    assert set(metrics) == {
        "problems", "samples", "greedy", "random", "logprob", "logprob_sum", "majority", "examples", "oracle", "best_of", "rankers"
    }  # fmt: skip
    assert metrics["samples"] == 4
    for name in ("greedy", "random", "logprob", "logprob_sum", "majority", "oracle"):
        assert is_estimate(metrics[name])
    assert set(metrics["best_of"]) == {"logprob", "logprob_sum", "oracle"}
    for curve in (
        *metrics["best_of"].values(),
        *(metrics["rankers"][ranker]["best_of"] for ranker in rankers),
    ):
        assert list(curve) == ["1", "2", "4"]
        assert all(is_estimate(found) for found in curve.values())
        assert curve["1"]["value"] == pytest.approx(metrics["random"]["value"])
    assert metrics["best_of"]["oracle"]["4"] == metrics["oracle"]
    assert metrics["examples"] is None or is_estimate(metrics["examples"])
    assert metrics["oracle"]["value"] >= metrics["random"]["value"]
    assert set(metrics["rankers"]) >= rankers
    for figures in metrics["rankers"].values():
        assert is_estimate(figures)
        for name in ("gap_recovered", "auc", "pair_accuracy"):
            assert figures[name] is None or set(figures[name]) >= {"value", "low", "high"}


def test_the_report_has_the_stated_shape(smoke_run: Finished):
    report = smoke_run.report
    assert set(report) == {
        "config", "problems", "seconds", "cached", "pools", "comparisons", "chosen", "headline", "git_commit",
    }  # fmt: skip
    assert report["chosen"] in report["headline"]
    assert set(report["headline"]) == {"rm-2", "rm-2+logprob"}
    assert report["problems"] == {"source": "bank", "train": 144, "validation": 12, "eval": 16}
    assert (report["config"]["name"], report["config"]["rounds"], report["cached"]) == ("smoke", 2, [])
    assert set(report["seconds"]) == {"total", *STAGES}
    assert all(seconds >= 0 for seconds in report["seconds"].values())
    assert set(report["pools"]) == {"sft", "ppo-1", "ppo-2"}
    for pool in report["pools"].values():
        assert pool["overall"]["problems"] == 16
        assert {language: m["problems"] for language, m in pool["languages"].items()} == {"py": 8, "sh": 8}
        for metrics in (pool["overall"], *pool["languages"].values()):
            check_metrics(metrics, {"rm-1", "rm-1+logprob", "rm-2", "rm-2+logprob"})
    names = [row["name"] for row in report["comparisons"]]
    assert len(names) == len(set(names))
    for pool in report["pools"]:
        assert {
            f"{pool}/{a}-{b}" for a in ("rm-1", "rm-2") for b in ("random", "logprob", "majority")
        } <= set(names)
        assert f"{pool}/rm-2-rm-1" in names
    assert "system/2-1" in names
    assert all(set(row) >= {"name", "value", "low", "high"} for row in report["comparisons"])


def test_the_page_and_the_table_are_there(smoke_run: Finished):
    page = (smoke_run.out / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org/", ""), "it opens offline"
    assert f"report: {smoke_run.out / 'report.html'}" in smoke_run.stdout
    assert "rm-2+logprob" in smoke_run.stdout
    assert "Prefect is ready after" in smoke_run.stderr


def test_every_stage_left_a_manifest_that_says_what_made_it(smoke_run: Finished):
    assert list(smoke_run.stages) == STAGES
    commit = json.loads((smoke_run.out / "run.json").read_text())["git_commit"]
    assert f"Its code: commit {commit}." in (smoke_run.out / "report.html").read_text()
    for name in STAGES:
        manifest = smoke_run.manifest(name)
        assert (manifest["name"], manifest["key"]) == (name, smoke_run.stages[name]["key"])
        assert {"config", "inputs", "version", "seed", "git_commit", "libraries", "files", "seconds"} <= set(
            manifest
        )
        assert manifest["records_digest"]
        assert manifest["git_commit"] == commit is not None
        assert "torch" in manifest["libraries"]
    pickles = [
        path for path in smoke_run.store.glob("[a-z]*/**/*") if path.suffix in {".bin", ".pt", ".pth", ".pkl"}
    ]
    assert pickles == []
    assert not list((smoke_run.store / ".local" / "work").glob("*/*")), "no build is left behind"


def test_rounds_after_the_first_add_to_the_pairs(smoke_run: Finished):
    assert (
        smoke_run.manifest("mine-2")["metrics"]["pairs"]
        >= smoke_run.manifest("mine-1")["metrics"]["pairs"]
        > 0
    )
    assert smoke_run.manifest("rm-2")["inputs"]["pairs"] == f"mine/{smoke_run.stages['mine-2']['key']}"
    for round in (1, 2):  # PPO starts from the SFT policy each time
        assert (
            smoke_run.manifest(f"ppo-{round}")["inputs"]["generator"]
            == f"sft/{smoke_run.stages['sft']['key']}"
        )


# Running it again


def test_a_second_run_finds_everything_cached(smoke_run: Finished, server: PrefectServer, tmp_path: Path):
    done = selftrain("run", *smoke_run.arguments, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["cached"] == STAGES
    assert report["pools"] == smoke_run.report["pools"]
    assert json.loads((tmp_path / "run.json").read_text())["stages"] == smoke_run.stages
    tasks = server.task_runs(server.last_completed()["id"])
    assert [task["state_name"] for task in tasks] == ["Cached"] * len(STAGES)


def plan(*arguments: str) -> dict[str, tuple[bool, str]]:
    """The output of a dry run: name of each stage -> whether it is cached, and its key."""
    done = selftrain("run", *arguments, "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("cached ", "to do "))]
    rows = [(line.startswith("cached"), line.split()[-1].split("/")[1]) for line in lines]
    return dict(zip(STAGES, rows, strict=True))


def to_do(planned: dict[str, tuple[bool, str]]) -> list[str]:
    """The stages that are not cached."""
    return [name for name, (cached, _) in planned.items() if not cached]


def test_a_dry_run_knows_all_keys_and_what_is_cached(smoke_run: Finished):
    planned = plan(*smoke_run.arguments)
    assert {name: key for name, (_, key) in planned.items()} == {
        n: ref["key"] for n, ref in smoke_run.stages.items()
    }
    assert to_do(planned) == []


AFTER_MINE_2 = STAGES[STAGES.index("mine-2") : STAGES.index("sample-sft-evaluation")]
AFTER_PPO_2 = ["sample-ppo-2-evaluation", "execute-ppo-2-evaluation", "evaluate", "report"]
EVALUATION = [name for name in STAGES if name.endswith("-evaluation")]
SFT_EVALUATION = ["sample-sft-evaluation", "execute-sft-evaluation"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "mine.threshold=0.5",
            [*AFTER_MINE_2, *AFTER_PPO_2],
        ),
        ("evaluate.bootstrap=300", ["evaluate", "report"]),
        ("sample.evaluation=5", [*EVALUATION, "evaluate", "report"]),
        ("sample.rl=5", [name for name in STAGES if name not in ("prepare", "sft", *SFT_EVALUATION)]),
        ("reward.later_epochs=1", [name for name in AFTER_MINE_2 if name != "mine-2"] + AFTER_PPO_2),
        # the report shows the config
        ("sft.checkpoint_steps=7", ["report"]),
        ("reward.checkpoint_steps=7", ["report"]),
        ("ppo.checkpoint_steps=2", ["report"]),
        ("execute.shard=50", ["report"]),
        ("execute.tolerated_errors=0.5", ["report"]),
        ("runtime.workers=1", []),
        ("runtime.threads=2", []),
    ],
)
def test_a_changed_setting_rebuilds_what_depends_on_it_and_nothing_else(
    smoke_run: Finished, setting: str, expected: list[str]
):
    assert to_do(plan(*smoke_run.arguments, "--set", setting)) == expected


def test_a_damaged_artifact_is_rebuilt_and_what_depends_on_it_stays(smoke_run: Finished, tmp_path: Path):
    store = Path(shutil.copytree(smoke_run.store, tmp_path / "store"))
    weights = next(
        path for path in store.glob("ppo/*/*/*.safetensors") if smoke_run.stages["ppo-2"]["key"] in str(path)
    )
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert to_do(plan("smoke", "--set", f"store={store}")) == ["ppo-2"]


# Content from outside


def problem(number: int, split: str, **changes: Any) -> dict[str, Any]:
    """A row of a file of problems."""
    words = ("apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "harbour")
    text = f"Tell how the {words[number]} of the {words[-number - 1]} grows in {number + 2} days."
    return {
        "task": f"task-{number}",
        "language": "py",
        "prompt": f'def f{number}(n: int) -> int:\n    """ {text}\n    """\n',
        "tests": f"assert f{number}({number}) == {number + 1}\nassert f{number}({number + 50}) == {number + 51}\n",
        "split": split,
        "response": "    return n + 1\n" if split == "sft" else None,
    } | changes


GOOD = [problem(0, "sft"), problem(1, "sft"), problem(2, "rl"), problem(3, "validation"), problem(4, "test")]


def own_config(folder: Path, rows: list[Any], **settings: Any) -> Path:
    """A config on a problem file with `rows` (text as it is, the others as JSON), both in `folder`."""
    folder.mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "problems.jsonl").write_text("".join(f"{line}\n" for line in lines))
    values = yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text())
    values |= {"name": "own", "store": str(folder / "store")} | settings
    values["problems"] = {"source": "jsonl", "languages": ["py"], "files": str(folder / "problems.jsonl")}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def keys(config: Path) -> dict[str, str]:
    """The key of each stage."""
    return {name: key for name, (_, key) in plan(str(config)).items()}


def test_one_byte_of_a_problem_file_changes_every_key_and_its_place_none(tmp_path: Path):
    here = keys(own_config(tmp_path / "here", GOOD))
    there = keys(own_config(tmp_path / "there", GOOD))
    other = keys(
        own_config(
            tmp_path / "here", [*GOOD[:-1], problem(4, "test", tests=GOOD[4]["tests"].replace("54", "55"))]
        )
    )
    assert [name for name in STAGES if here[name] == other[name]] == []
    assert [name for name in STAGES if here[name] != there[name]] == ["report"], "the report shows the config"


def test_one_byte_of_a_weight_file_changes_the_keys_from_sft_on(smoke_run: Finished, tmp_path: Path):
    for name in "abc":
        shutil.copytree(smoke_run.folder("sft"), tmp_path / name)
    weights = (tmp_path / "c" / "model.safetensors").read_bytes()
    (tmp_path / "c" / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    runtime = {"backend": "process", "allow_no_isolation": True}
    found = [
        keys(own_config(tmp_path / "run", GOOD, model={"base": str(tmp_path / name)}, runtime=runtime))
        for name in "abc"
    ]
    assert [name for name in STAGES if found[0][name] != found[1][name]] == ["report"]
    assert [name for name in STAGES if found[0][name] == found[2][name]] == ["prepare"]


# The other commands


def test_runs_lists_what_is_there(smoke_run: Finished, tmp_path: Path):
    done = selftrain("runs", str(smoke_run.out.parent))
    assert done.returncode == 0
    assert done.stdout.split()[:2] == ["out", "finished"]
    assert "20 stages" in done.stdout
    assert "no runs in" in selftrain("runs", str(tmp_path)).stdout


def test_show_gives_stages_keys_and_figures(smoke_run: Finished):
    done = selftrain("show", str(smoke_run.out))
    assert done.returncode == 0
    stages, table = done.stdout.split("\n\n", 1)
    lines = {line.split()[0]: line for line in stages.splitlines()}
    for name, ref in smoke_run.stages.items():
        assert ref["key"] in lines[name]
    assert "loss" in lines["sft"]
    assert "oracle" in table


def test_why_names_the_fields_that_differ(smoke_run: Finished):
    done = selftrain("why", smoke_run.stages["mine-2"]["key"][:12], "--store", str(smoke_run.store))
    assert done.returncode == 0
    assert f"nearest earlier: {smoke_run.stages['mine-1']['key']}" in done.stdout
    assert "    config.round: 1 -> 2\n" in done.stdout
    assert f"  + inputs.reranker = 'train_reward/{smoke_run.stages['rm-1']['key']}'" in done.stdout
    assert "config.seed" not in done.stdout
    first = selftrain("why", smoke_run.stages["prepare"]["key"], "--store", str(smoke_run.store))
    assert "the first of its stage" in first.stdout
    unknown = selftrain("why", "ffff", "--store", str(smoke_run.store))
    assert (unknown.returncode, "no artifact with key ffff" in unknown.stderr) == (2, True)


def test_compare_of_one_run_says_what_its_report_says(smoke_run: Finished, tmp_path: Path):
    out = str(smoke_run.out)
    one = json.loads(selftrain("compare", out, "--json").stdout)
    for pool, metrics in smoke_run.report["pools"].items():
        alone = one["pools"][pool]["overall"]
        assert {name: value for name, value in alone.items() if name != "rankers"} == {
            name: value for name, value in metrics["overall"].items() if name != "rankers"
        }
        rankers = alone["rankers"]
        assert rankers["chosen"] in (rankers["rm-2"], rankers["rm-2+logprob"])
    found = {row["name"]: row for row in one["comparisons"]}
    assert [found[row["name"]] for row in smoke_run.report["comparisons"]] == smoke_run.report["comparisons"]
    assert {"sft/chosen-logprob", "sft/chosen~shuffled-random"} <= found.keys()
    assert not any(name.endswith("/chosen-chosen") for name in found)
    table = selftrain("compare", out)
    assert table.stdout.startswith("16 test problems (py, sh), 4 candidates each")
    assert "paired differences" in table.stdout
    record = json.loads((smoke_run.out / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert "would count twice" in mistake(2, "compare", out, str(tmp_path))
    (tmp_path / "run.json").write_text(json.dumps(record | {"finished": False}))
    assert "not finished" in mistake(2, "compare", out, str(tmp_path))


def test_compare_joins_runs(smoke_run: Finished, tmp_path: Path):
    """The second run is a copy of the first, with its evaluation stored under another key."""
    record = json.loads((smoke_run.out / "run.json").read_text())
    evaluate = record["stages"]["evaluate"]
    there = smoke_run.store / "evaluate" / evaluate["key"]
    other = tmp_path / "store"
    for stage in ("prepare", "sample", "execute"):
        (other / stage).parent.mkdir(exist_ok=True)
        shutil.copytree(smoke_run.store / stage, other / stage)
    copied = other / "evaluate" / ("0" * 32)
    shutil.copytree(there, copied)
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"key": copied.name}))
    record["stages"]["evaluate"] = evaluate | {"key": copied.name}
    (tmp_path / "run.json").write_text(json.dumps(record | {"store": str(other)}))
    two = json.loads(selftrain("compare", str(smoke_run.out), str(tmp_path), "--json").stdout)
    for pool, metrics in smoke_run.report["pools"].items():
        both = two["pools"][pool]["overall"]
        assert both["problems"] == 32
        for name in ("random", "logprob", "oracle"):
            assert both[name]["value"] == metrics["overall"][name]["value"]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A prompt and three completions, as files."""
    texts = {
        "prompt": 'def f(n):\n    """ Add one.\n    """\n',
        "a": "    return n\n",
        "b": "    return n + 1\n",
        "c": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return [str(tmp_path / name) for name in texts]


def test_rank_scores_files_and_picks_one(smoke_run: Finished, files: list[str]):
    prompt, *candidates = files
    out = str(smoke_run.out)
    done = selftrain("rank", out, "--prompt", prompt, *candidates, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["by"] == smoke_run.manifest("evaluate")["metrics"]["chosen"]
    assert answer["far"] in (True, False)
    assert [row["candidate"] for row in answer["candidates"]] == candidates
    *scored, empty = answer["candidates"]
    assert answer["pick"] == max(scored, key=lambda row: row["score"])["candidate"]
    assert (empty["score"], empty["refused"]) == (None, "it is empty, or holds no program")
    assert f"{candidates[2]} is ranked last: it is empty, or holds no program" in done.stderr
    assert answer["close"] is (answer["chance"] < 0.6 if answer["chance"] is not None else None)
    assert ("too close to tell" in done.stderr) is bool(answer["close"])
    assert f"by {answer['by']}: score of rm-2" in done.stderr
    assert ("these texts are unlike what" in done.stderr) is answer["far"]
    alone = selftrain("rank", out, "--by", "rm-2", "--prompt", prompt, *candidates)
    bare = selftrain("rank", str(smoke_run.folder("rm-2")), "--prompt", prompt, *candidates)
    assert alone.stdout == bare.stdout
    assert "WARNING" not in alone.stderr + bare.stderr
    table = bare.stdout.splitlines()
    assert len(table) == 3
    assert table[0].endswith("   <- pick")


def test_rank_shows_an_example_of_the_runs_own(smoke_run: Finished):
    done = selftrain("rank", str(smoke_run.out), "--example")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("<- pick") == 1
    assert re.search(r"(?m)^ *-?\d+\.\d{4}  [a-z_]+ +program 1", done.stdout)
    assert "on the run's 16 test problems rm-2" in done.stderr
    told = json.loads(selftrain("rank", str(smoke_run.out), "--example", "--json").stdout)
    assert {"candidate", "score", "verdict"} <= told["candidates"][0].keys()
    assert "; got both" in mistake(2, "rank", str(smoke_run.out), "--example", "--prompt", "README.md")
    needed = selftrain("rank", str(smoke_run.out), "--prompt", "README.md")
    assert (needed.returncode, "required: CANDIDATE" in needed.stderr) == (2, True)


# Mistakes: the last line says what is wrong, and there is no traceback


def mistake(code: int, *arguments: str, **environment: str) -> str:
    """The error message of `selftrain ARGUMENTS`, which must end with `code`."""
    done = selftrain(*arguments, **environment)
    assert done.returncode == code, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    said = done.stderr[done.stderr.index("selftrain: ") :]
    assert done.stdout == ""
    return said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], "no config 'nope'"),
        (["smoke", "--set", "sft.epoch=2"], "sft.epoch: no such setting"),
        (["smoke", "--set", "sft.epochs=many"], "sft.epochs: Input should be a valid number"),
        (["smoke", "--set", "sft.epochs"], "expected KEY=VALUE"),
        (["smoke", "--rounds", "0"], "rounds: Input should be greater than or equal to 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_config_ends_with_2_before_anything_starts(arguments: list[str], said: str):
    assert said in mistake(2, "run", *arguments, PREFECT_API_URL="http://127.0.0.1:1/api")


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "nope"],
        ["rank", "nope", "--prompt", "README.md", "README.md"],
        ["rank", ".", "--prompt", "nope", "nope"],
    ],
)
def test_a_wrong_path_ends_with_2(arguments: list[str]):
    assert "nope" in mistake(2, *arguments)


DUPLICATE = problem(0, "test", task="other", id="other")
DATA_MISTAKES = {
    "empty": ([], r"{file}:1: the file holds no problems"),
    "broken": ([GOOD[0], '{"task": "b", '], r"{file}:2: broken JSON at column"),
    "language": ([GOOD[0], problem(1, "sft", language="cobol")], r"{file}:2: .*cobol"),
    "leak": ([*GOOD, DUPLICATE], "would be evaluated on after training on them"),
    "split": (GOOD[:-1], "test"),
    "tests": (
        [*GOOD[:-1], problem(4, "test", tests="assert f(1) ==\n")],
        "the tests of 1 of 3 problems cannot run, even on an empty function",
    ),
}


@pytest.mark.parametrize("name", DATA_MISTAKES)
def test_wrong_problems_end_with_2_and_name_file_and_line(server: PrefectServer, tmp_path: Path, name: str):
    rows, said = DATA_MISTAKES[name]
    config = own_config(tmp_path / "own", rows)
    message = mistake(2, "run", str(config), "--out", str(tmp_path / "out"))
    expected = said.format(file=tmp_path / "own" / "problems.jsonl").split(".*")
    assert all(part in message for part in expected), message


def test_a_missing_tool_is_told_before_anything_is_trained(server: PrefectServer, tmp_path: Path):
    rows = [row | {"language": language} for row in GOOD for language in ("py", "cs")]
    config = own_config(tmp_path / "own", rows)
    values = yaml.safe_load(config.read_text())
    values["problems"]["languages"] = ["py", "cs"]
    config.write_text(yaml.safe_dump(values))
    said = run_without_mono(config, tmp_path)
    assert "language 'cs' needs mcs, mono" in said
    assert not list((tmp_path / "own" / "store").glob("*/*/manifest.json"))


def run_without_mono(config: Path, folder: Path) -> str:
    """The output of a run for which the sandbox finds Python only."""
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to("/usr/bin/python3")
    code = (
        "import sandbox.languages as languages, sys\n"
        f"languages.PATH = {str(folder / 'bin')!r}\n"
        "import sandbox.runner as runner\n"
        "runner.main()\n"
    )
    start = (
        "import sys, functools, sandbox.client as client, sandbox.backends.process as process\n"
        f"process.command = lambda: (sys.executable, '-c', {code!r}, 'process')\n"
        "from flows.cli import main\n"
        f"sys.exit(main(['run', {str(config)!r}, '--out', {str(folder / 'out')!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_built(
    server: PrefectServer, tmp_path: Path
):
    said = mistake(2, "run", "smoke", "--set", f"store={tmp_path / 'store'}", "--out", "/proc/nowhere/out")
    assert "/proc/nowhere" in said
    assert not list((tmp_path / "store").glob("*/*/manifest.json"))


def test_a_damaged_run_file_is_named(tmp_path: Path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").write_text('{"name": "half", ')
    for command in (["show"], ["compare"], ["rank", "--prompt", "README.md"]):
        name, *options = command
        said = mistake(2, name, str(tmp_path / "half"), *options, *(["README.md"] if options else []))
        assert f"{tmp_path / 'half' / 'run.json'}" in said
    assert "damaged" in selftrain("runs", str(tmp_path)).stdout


def test_a_store_that_cannot_be_written_ends_with_1(server: PrefectServer, tmp_path: Path):
    (tmp_path / "file").write_text("")
    said = mistake(
        1, "run", "smoke", "--set", f"store={tmp_path / 'file' / 'store'}", "--out", str(tmp_path / "out")
    )
    assert f"{tmp_path / 'file' / 'store'}" in said
    assert "/proc/nowhere" in mistake(
        1, "run", "smoke", "--set", "store=/proc/nowhere", "--out", str(tmp_path / "out")
    )


def test_a_dry_run_misses_weights_and_files(tmp_path: Path):
    train = write_jsonl(
        tmp_path / "a.jsonl",
        [py_row(f"A_{n}", f"Double {n}", response="    return 2 * n\n") for n in range(20)],
    )
    held = write_jsonl(tmp_path / "b.jsonl", [py_row("B_1", "Double another number")])
    files = ("--set", "problems.source=jsonl", "--set", "problems.files=/nowhere/b.jsonl")
    assert "/nowhere/b.jsonl" in mistake(2, "run", "smoke", "--dry-run", *files)
    data = ("--set", f"problems.train={train}", "--set", f"problems.evaluation={held}")
    said = mistake(2, "run", "smollm2-135m", "--dry-run", *data, "--set", "model.base=/nowhere/weights")
    assert "'/nowhere/weights' is no folder here" in said


def test_a_server_that_does_not_answer_ends_with_1(tmp_path: Path):
    said = mistake(
        1,
        "run",
        "smoke",
        "--set",
        f"store={tmp_path}",
        "--out",
        str(tmp_path),
        PREFECT_API_URL="http://127.0.0.1:1/api",
    )
    assert "http://127.0.0.1:1/api" in said


# Starting again


@pytest.mark.parametrize("flow", ["iterative_selftrain", "evaluate"])
def test_a_run_that_crashed_often_is_not_started_again(
    flow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from flows.deployed import STARTS

    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(STARTS + 1))
    module = importlib.import_module(f"flows.{flow}")
    state = getattr(module, flow).fn("smoke", {"store": str(tmp_path / "store")}, out=str(tmp_path / "out"))
    assert state.is_failed()
    assert f"crashed {STARTS} times" in state.message
    assert not list(tmp_path.iterdir()), "nothing has begun"
