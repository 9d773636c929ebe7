"""The loop through the real command line, against a real Prefect server: its report, its cache, its errors."""

import json
import shutil
from pathlib import Path

import pytest

from tests.command import Finished, PrefectServer, selftrain

STAGES = 20
"""Stages of a run of two rounds."""


def rows(path: Path, *problems: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    return path


def problem(task: str, text: str = "Return one.", **fields: object) -> dict[str, object]:
    return {
        "task": task,
        "language": "py",
        "prompt": f'def f():\n    """ {text} {task} """\n',
        "tests": f"assert f() == 1  # {task}\n",
        "response": "    return 1",
        **fields,
    }


def keys(output: str) -> dict[str, str]:
    """Stage label -> key, from `--dry-run`'s lines."""
    lines = [line[8:].rsplit(maxsplit=1) for line in output.splitlines() if line[:6] in ("cached", "to do ")]
    return {label.strip(): ref for label, ref in lines}


def test_report_has_the_documented_shape(smoke_run: Finished):
    report = smoke_run.report
    assert set(report) == {"config", "problems", "seconds", "cached", "pools", "comparisons"}
    assert report["problems"] == {"source": "bank", "train": 144, "validation": 12, "eval": 16}
    assert set(report["pools"]) == {"sft", "ppo-1", "ppo-2"}
    overall = report["pools"]["sft"]["overall"]
    assert (overall["problems"], overall["samples"]) == (16, 4)
    assert set(report["pools"]["sft"]["languages"]) == {"py", "sh"}
    assert set(overall["rankers"]) == {"rm-1", "rm-1+logprob", "rm-2", "rm-2+logprob"}
    assert len(report["seconds"]) == STAGES  # all stages but the report's own, and the total
    html = (smoke_run.out / "report.html").read_text()
    assert "<svg" in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_second_run_is_cached_in_the_report_and_for_prefect(
    smoke_run: Finished, server: PrefectServer, tmp_path: Path
):
    again = selftrain("run", *smoke_run.arguments, "--out", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    report = json.loads((tmp_path / "again" / "report.json").read_text())
    assert len(report["cached"]) == STAGES
    assert report["pools"] == smoke_run.report["pools"]
    flow = server.post("flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]
    tasks = server.post("task_runs/filter", flow_runs={"id": {"any_": [flow["id"]]}}, limit=100)
    assert [task["state"]["name"] for task in tasks] == ["Cached"] * STAGES


def test_a_damaged_artifact_is_rebuilt_and_nothing_else(smoke_run: Finished, tmp_path: Path):
    """In a copy of the store: one flipped byte in the mined pairs."""
    store = tmp_path / "store"
    shutil.copytree(smoke_run.store, store)
    damaged = store / smoke_run.folder("mine-1").relative_to(smoke_run.store) / "pairs.parquet"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(bytes(content))
    planned = selftrain("run", "smoke", "--set", f"store={store}", "--dry-run")
    to_do = [line for line in planned.stdout.splitlines() if line.startswith("to do")]
    assert len(to_do) == 1
    assert "mine · round 1" in to_do[0]
    again = selftrain("run", "smoke", "--set", f"store={store}", "--out", str(tmp_path / "out"))
    assert again.returncode == 0, again.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["cached"]) == STAGES - 1
    assert report["pools"] == smoke_run.report["pools"]


def test_the_mining_threshold_rebuilds_what_depends_on_it_only(smoke_run: Finished):
    before = keys(selftrain("run", *smoke_run.arguments, "--dry-run").stdout)
    after = keys(selftrain("run", *smoke_run.arguments, "--set", "mine.threshold=0.5", "--dry-run").stdout)
    same = {label for label in before if before[label] == after[label]}
    assert same == {
        "prepare", "sft", "sample · sft · rl", "execute · sft · rl", "sample · sft · evaluation",
        "execute · sft · evaluation",
    }  # fmt: skip


def test_one_byte_of_a_problem_file_changes_every_key_and_its_place_none(tmp_path: Path):
    one = rows(tmp_path / "one.jsonl", *(problem(f"t{n}") for n in range(9)))
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(one.read_bytes())
    changed = tmp_path / "changed.jsonl"
    changed.write_bytes(one.read_bytes().replace(b"Return one. t3", b"Return 0ne. t3"))

    def plan(path: Path) -> dict[str, str]:
        source = f"problems={{source: jsonl, languages: [py], files: '{path}'}}"
        found = selftrain(
            "run", "smoke", "--set", f"store={tmp_path / 'store'}", "--set", source, "--dry-run"
        )
        assert found.returncode == 0, found.stderr
        return keys(found.stdout)

    first, second, third = plan(one), plan(moved), plan(changed)
    del first["report"], second["report"], third["report"]  # it shows the config, places included
    assert first == second
    assert not set(first.values()) & set(third.values())


def test_show_why_runs_and_rank(smoke_run: Finished, tmp_path: Path):
    shown = selftrain("show", str(smoke_run.out))
    assert shown.returncode == 0
    assert "rm-2" in shown.stdout
    key = smoke_run.stages["mine-2"]["key"]
    why = selftrain("why", key[:12], "--store", str(smoke_run.store))
    assert why.returncode == 0, why.stderr
    assert "config.round: 1 -> 2" in why.stdout
    runs = selftrain("runs", str(smoke_run.out.parent))
    assert "finished" in runs.stdout
    prompt, good, bad = tmp_path / "p.txt", tmp_path / "a.py", tmp_path / "b.py"
    prompt.write_text('def f():\n    """ Return one. """\n')
    good.write_text("    return 1")
    bad.write_text("    return 2")
    ranked = selftrain("rank", str(smoke_run.out), "--prompt", str(prompt), str(good), str(bad), "--json")
    assert ranked.returncode == 0, ranked.stderr
    answer = json.loads(ranked.stdout)
    scores = {row["candidate"]: row["score"] for row in answer["candidates"]}
    assert answer["pick"] == max(scores, key=lambda name: scores[name])


MISTAKES = {
    "unknown config": (["nosuch"], "no config 'nosuch'"),
    "unknown key": (["smoke", "--set", "sft.epoch=2"], "sft.epoch: no such setting"),
    "wrong type": (["smoke", "--set", "sft.epochs=many"], "sft.epochs"),
    "no value": (["smoke", "--set", "sft.epochs"], "expected KEY=VALUE"),
    "unknown language": (["smoke", "--set", "problems.languages=[py, cobol]"], "cobol"),
    "no such file": (["smoke", "--set", "problems={source: jsonl, files: nosuch.jsonl}"], "nosuch.jsonl"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_without_a_traceback(name: str, tmp_path: Path):
    arguments, message = MISTAKES[name]
    done = selftrain("run", *arguments, "--set", f"store={tmp_path / 'store'}", "--dry-run")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def bad_problems(path: Path, name: str) -> str:
    """Writes problems with a fault; what the message must hold."""
    if name == "empty file":
        path.write_text("")
        return path.name
    if name == "broken line":
        rows(path, problem("t1"), problem("t2"))
        path.write_text(path.read_text() + "{nonsense\n")
        return f"{path.name}:3"
    if name == "no tests":
        rows(path, problem("t1", tests=""))
        return f"{path.name}:1"
    splits = ("sft", "rl", "validation", "test")
    rows(
        path,
        *(problem(f"t{n}", split=splits[n % 4]) for n in range(8)),
        problem("t0", language="js", split="test"),
    )
    return "t0"


@pytest.mark.parametrize("name", ["empty file", "broken line", "no tests", "leak"])
def test_bad_problems_end_the_run_with_their_file_and_line(name: str, server: PrefectServer, tmp_path: Path):
    path = tmp_path / "problems.jsonl"
    message = bad_problems(path, name)
    source = f"problems={{source: jsonl, languages: [py, js], files: '{path}'}}"
    done = selftrain(
        "run",
        "smoke",
        "--set",
        f"store={tmp_path / 'store'}",
        "--set",
        source,
        "--out",
        str(tmp_path / "out"),
    )
    assert done.returncode == 2, done.stderr[-3000:]
    told = [line for line in done.stderr.splitlines() if line.startswith("selftrain: ")]
    assert told
    assert message in done.stderr[done.stderr.index(told[-1]) :]


def test_a_store_that_cannot_be_written_is_a_failed_run(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    done = selftrain("run", "smoke", "--set", f"store={file}/store", "--out", str(tmp_path / "out"))
    assert done.returncode == 1, done.stderr[-3000:]
    assert "store" in done.stderr.splitlines()[-1]


def test_killed_again_and_again_it_ends_as_an_undisturbed_run(tmp_path: Path):
    from tests.kill_at_random import compare

    assert compare(tmp_path, moments=3, seed=1) == 0
