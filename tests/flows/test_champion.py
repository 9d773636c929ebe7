"""Tests of runs that continue from the champion: the real flow, a concurrent run that decides first, changed problems."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.champion import plan_next, prepared, train_challenger
from flows.method import Outline, method
from flows.session import open_run
from selftrain.champion.registry import Contender, Record, Registry, promote_by_hand
from selftrain.configfile import load_config
from selftrain.problems.read import read_problems
from selftrain.store.store import Store
from tasks.run import Run
from tests.command import ROOT, Finished, PrefectServer, selftrain

NEW_ROUND = [
    "sample-ppo-2-rl", "execute-ppo-2-rl", "mine-3", "rm-3", "ppo-3", "sample-ppo-3-evaluation",
    "execute-ppo-3-evaluation", "evaluate", "report",
]  # fmt: skip
"""The stages that a third round adds to a run of two rounds."""


def copied(run: Finished, folder: Path) -> str:
    """The URL of a copy of a finished run's store."""
    return shutil.copytree(run.store, folder / "store").as_posix()


# The real flow


def night(store: str, out: Path, most: int) -> tuple[str, list[str], float]:
    """`selftrain run smoke --champion`: its last line, the stages that were not cached, and its seconds."""
    started = time.monotonic()
    settings = ("--set", f"store={store}", "--set", f"promotion.max_rounds={most}")
    done = selftrain("run", "smoke", "--champion", *settings, "--out", str(out))
    assert done.returncode == 0, done.stderr[-6000:]
    stages = json.loads((out / "run.json").read_text())["stages"]
    cached = json.loads((out / "report.json").read_text())["cached"]
    return (
        done.stdout.splitlines()[-1],
        [name for name in stages if name not in cached],
        time.monotonic() - started,
    )


def last_flow_run(server: PrefectServer) -> tuple[dict[str, Any], set[str]]:
    """The newest flow run, finished, and the states of its tasks."""
    run = server.last_completed()
    return run, {task["state_name"] for task in server.task_runs(run["id"])}


@pytest.fixture(scope="module")
def nights(smoke_run: Finished, server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store after four nightly runs, each of which is checked."""
    folder = tmp_path_factory.mktemp("nights")
    store, out = copied(smoke_run, folder), folder / "out"
    said, built, _ = night(store, out, 2)
    assert said.startswith("rm-2 not promoted: there is no champion yet: solves +0.000 "), said
    assert "more than a random pick and" in said
    assert built == []
    registry = Registry(Store(store), "smoke")
    [first] = registry.records()
    assert (first.champion, first.rival) == (None, None)
    said, built, _ = night(store, out, 2)
    assert said.startswith("nothing to do: challengers in a row that were not promoted: 1"), said
    promote_by_hand(registry, json.loads((out / "run.json").read_text())["stages"]["rm-2"]["key"], "start")

    said, built, seconds = night(store, out, 2)
    assert (said, built) == ("nothing to do: promotion.max_rounds 2 is reached", [])
    assert seconds < 120
    run, states = last_flow_run(server)
    assert (run["state"]["message"], states) == (said, {"Cached"})

    said, built, _ = night(store, out, 3)
    assert said.startswith("rm-3 not promoted: solves +0.000 [+0.000, +0.000]"), said
    assert built == NEW_ROUND
    return folder


def test_four_nights_and_a_promotion_by_hand_leave_three_decisions(nights: Path, server: PrefectServer):
    none, first, second = Registry(Store(str(nights / "store")), "smoke").records()
    assert (none.decision, none.champion, none.rival) == ("not promoted", None, None)
    assert first.champion is not None
    assert (first.decision, first.champion, first.rival) == ("promoted by hand", none.challenger, None)
    assert (second.decision, second.champion, second.rival) == (
        "not promoted",
        first.champion,
        first.champion,
    )
    assert second.challenger is not None
    assert (second.challenger.rounds, second.challenger.generator) == (3, first.champion.generator)
    for name in ("reranker", "generator", "problems", "evaluation"):
        assert (nights / "store" / getattr(second.challenger, name) / "manifest.json").is_file()
    (shown, *_) = server.post(
        "artifacts/filter", artifacts={"key": {"any_": ["smoke-champion"]}}, sort="CREATED_DESC", limit=1
    )
    assert shown["type"] == "markdown"
    assert "| 3: not promoted |" in shown["data"]


def test_the_champion_is_measured_by_the_flow_evaluate(nights: Path, tmp_path: Path):
    code = "import sys; from flows.evaluate import evaluate; evaluate('smoke', {'store': sys.argv[1]}, out=sys.argv[2])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(nights / "store"), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["cached"] == ["prepare", "sample-sft-evaluation", "execute-sft-evaluation"]
    assert list(report["pools"]) == ["sft"]
    assert list(report["pools"]["sft"]["overall"]["rankers"]) == ["rm-2", "rm-2+logprob"]
    page = (tmp_path / "report.html").read_text()
    assert "This run mined no pairs." in page
    assert "This run made no PPO steps." in page


# Who decides meanwhile


def test_two_runs_with_one_challenger_leave_one_decision(smoke_run: Finished, tmp_path: Path):
    store = copied(smoke_run, tmp_path)
    theirs: list[Record] = []

    class Slow(Run):
        """A run during which another run of the same config decides first."""

        def write(self, out: Path, finished: bool) -> None:
            """Start the other run and wait for its decision."""
            super().write(out, finished)
            if finished and not theirs:
                other = train_challenger(
                    lambda: open_run(Run, "smoke", {"store": store}, None, str(tmp_path / "other"))
                )
                assert other[2].record is not None
                theirs.append(other[2].record)

    _, _, decided = train_challenger(
        lambda: open_run(Slow, "smoke", {"store": store}, None, str(tmp_path / "out"))
    )
    assert Registry(Store(store), "smoke").records() == theirs
    assert decided.record == theirs[0]


def test_a_challenger_of_a_champion_that_is_not_champion_any_more_is_compared_with_the_new_one(
    smoke_run: Finished, tmp_path: Path
):
    store = copied(smoke_run, tmp_path)
    registry = Registry(Store(store), "smoke")

    class Slow(Run):
        """A run without a champion, during which somebody promotes rm-1 by hand."""

        def write(self, out: Path, finished: bool) -> None:
            """Promote rm-1."""
            super().write(out, finished)
            if finished and not registry.records():
                promote_by_hand(registry, smoke_run.stages["rm-1"]["key"], "first")

    _, _, decided = train_challenger(
        lambda: open_run(Slow, "smoke", {"store": store}, None, str(tmp_path / "out"))
    )
    first, second = registry.records()
    assert decided.record == second
    assert (first.decision, second.decision) == ("promoted by hand", "not promoted")
    assert second.challenger is not None
    assert second.rival is not None
    assert second.challenger.reranker == f"train_reward/{smoke_run.stages['rm-2']['key']}"
    assert second.rival.reranker == f"train_reward/{smoke_run.stages['rm-1']['key']}"
    assert second.difference is not None
    assert (second.difference.value, second.champion) == (0.0, first.champion)


# New data in the source


def rows(count: int) -> str:
    """A file with `count` problems."""
    row = {
        "language": "py",
        "prompt": "def f(n):\n",
        "tests": "assert f(1) == 2\n",
        "response": "    return n + 1\n",
    }
    return "".join(
        json.dumps({**row, "task": f"t{at}", "prompt": f"def f{at}(n):  # {'abc'[at % 3] * at}\n"}) + "\n"
        for at in range(count)
    )


def test_problems_added_to_the_source_are_noticed_and_move_no_task_to_another_split(tmp_path: Path):
    source, config = tmp_path / "problems.jsonl", tmp_path / "grows.yaml"
    source.write_text(rows(60))
    problems = {"source": "jsonl", "files": str(source), "languages": ["py"]}
    config.write_text(yaml.safe_dump({"problems": problems, "runtime": {"backend": "process"}}))

    def opened() -> Run:
        return open_run(Run, str(config), {"store": str(tmp_path / "store")}, None, None)[0]

    keys = Outline(opened().config, opened().store)
    method(keys)
    champion = Contender(reranker=str(keys.steps["rm-2"].ref), rounds=2, ranker="rm-2")
    _, identity, _ = plan_next(opened())
    Registry(opened().store, "grows").append(
        Record(
            number=1,
            decision="promoted",
            reason="made",
            champion=champion,
            challenger=champion,
            identity=identity,
        )
    )
    attempt, same, _ = plan_next(opened())
    assert (attempt.rounds, attempt.rival, attempt.of_chain, attempt.nothing) == (3, champion, True, None)
    assert (same.problems, same.method) == (identity.problems, identity.method)

    before = {problem.task: problem.split for problem in read_problems(load_config(str(config)).problems)}
    source.write_text(rows(90))
    attempt, other, _ = plan_next(opened())
    assert (attempt.rounds, attempt.rival, attempt.of_chain, attempt.nothing) == (2, champion, False, None)
    assert other.problems != identity.problems
    assert other.method != identity.method
    after = {problem.task: problem.split for problem in read_problems(load_config(str(config)).problems)}
    assert (len(before), len(after)) == (60, 90)
    assert before.items() <= after.items()
    run, foreign = prepared(Outline(opened().config, opened().store), attempt)
    method(run, foreign)
    assert run.steps["evaluate"].config.rerankers == ("champion", "rm-1", "rm-2")
    assert str(run.steps["evaluate"].inputs["champion"]) == champion.reranker
