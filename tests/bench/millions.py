"""Benchmark: CPU seconds and peak memory of merge, mine, evaluate and report on large pools of invented candidates.

    python -m tests.bench.millions PROBLEMS CANDIDATES     # of each problem; 10000 100 is a million

Each step runs in its own process. Without arguments: 1,000 problems x 20 candidates. The programs have about 150 tokens each; the
scores of three rerankers are written as the scoring processes write them, since no model is run.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from sandbox.verdicts import Verdict
from selftrain.config import EvaluateConfig, ExecuteConfig, MineConfig, RuntimeConfig, SampleConfig
from selftrain.records import Candidate, CandidateText, Execution, Problem, Writer, iter_records, read_records
from selftrain.stage import Context, Outcome
from selftrain.stages import evaluate, execute, mine, report, sample
from selftrain.store.store import PROGRESS

TOKENS = 150
RERANKERS = ("rm-1", "rm-2", "rm-3")
SPLITS = ("validation", "test")
SAMPLE = sample.SampleSlice(seed=0, sample=SampleConfig(), splits=SPLITS, count=1, greedy=True)
EXECUTE = execute.ExecuteSlice(execute=ExecuteConfig(), toolchain={})


def main() -> None:
    """Print a line for each step."""
    problems, count = map(int, sys.argv[1:3] if sys.argv[1:2] and sys.argv[1].isdigit() else (1000, 20))
    print(f"{problems} problems x {count} candidates")
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            command = [sys.executable, "-m", "tests.bench.millions", step, folder, str(problems), str(count)]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        for name in ("report/report.html", "report/report.json"):
            print(f"  {name} {(Path(folder) / name).stat().st_size / 1e6:.2f} MB")


def step(name: str, folder: Path, problems: int, count: int) -> None:
    """Run one step in this process, and print what it took."""
    started = time.monotonic()
    STEPS[name](folder, problems, count)
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(each.ru_utime + each.ru_stime for each in (own, children))
    peak = max(own.ru_maxrss, children.ru_maxrss) / 1e6
    print(f"  {name:9} {cpu:7.1f} s CPU {time.monotonic() - started:7.1f} s wall {peak:6.2f} GB", flush=True)


def invented(folder: Path, problems: int, count: int) -> None:
    """Write the problems and finished shards of stages `sample` and `execute`; every tenth problem is for validation."""
    rng = np.random.default_rng(0)
    rows = [
        Problem(
            f"p{at:06}",
            f"p{at:06}",
            ("py", "js")[at % 2],
            f"def f{at}(a, b):\n",
            "",
            SPLITS[at % 10 > 0],
            "bank",
        )
        for at in range(problems)
    ]
    for name in ("problems", "candidates", "executions"):
        (folder / name / PROGRESS).mkdir(parents=True)
    _write(folder / "problems/problems.parquet", rows, Problem)
    judged: list[Execution] = []
    for number, group in enumerate(sample.shards(rows, SAMPLE)):
        drawn = [_candidate(problem, k, rng) for problem in group for k in (*range(count), -1)]
        _write(sample.shard_path(folder / "candidates" / PROGRESS, number), drawn, Candidate)
        judged += [_execution(row, rng) for row in drawn]
    size = EXECUTE.execute.shard
    for number, start in enumerate(range(0, len(judged), size)):
        path = folder / "executions" / PROGRESS / execute.shard_name(number)
        _write(path, judged[start : start + size], Execution)


def _candidate(problem: Problem, number: int, rng: np.random.Generator) -> Candidate:
    draws = rng.integers(0, 30, size=(10, 4)).tolist()
    end = "" if problem.language == "py" else ";"
    text = "".join(f"    v{a} = a[{b}] + v{c} * {d} - b{end}\n" for a, b, c, d in draws)
    tokens = tuple(rng.integers(300, 50_000, TOKENS).tolist())
    return Candidate(
        f"{problem.id}#{number}", problem.id, number, text, tokens, -float(rng.gamma(20)), "stop", TOKENS
    )


def _execution(row: Candidate, rng: np.random.Generator) -> Execution:
    passed = rng.random() < (int(row.problem_id[1:]) % 7) / 8
    wrong = (Verdict.wrong_answer, Verdict.runtime_error)[int(rng.integers(2))]
    return Execution(row.id, row.problem_id, Verdict.passed if passed else wrong, int(not passed))


def _write(path: Path, rows: list[Any], kind: type) -> None:
    with Writer(path, kind) as writer:
        writer.add(rows)


def _context(folder: Path, name: str, config: Any, inputs: dict[str, Path], **more: Any) -> Context:
    (folder / name).mkdir(exist_ok=True)
    every = {"problems": folder / "problems", **inputs}
    return Context(config, every, folder / name, RuntimeConfig(), lambda *_, **__: None, **more)


def merge(folder: Path, *_: int) -> None:
    """Merge the shards of `sample`, and those of `execute`."""
    sample.run(_context(folder, "candidates", SAMPLE, {"generator": folder}))
    inputs = {"candidates": folder / "candidates"}
    execute.run(_context(folder, "executions", EXECUTE, inputs, sandbox=nullcontext))


def _pool(folder: Path) -> dict[str, Path]:
    return {"sft.candidates": folder / "candidates", "sft.executions": folder / "executions"}


def mined(folder: Path, *_: int) -> None:
    """Mine the pairs of round 1."""
    config = mine.MineSlice(seed=0, round=1, pools=("sft",), mine=MineConfig())
    mine.run(_context(folder, "pairs", config, _pool(folder)))


def evaluated(folder: Path, *_: int) -> None:
    """Evaluate three rerankers."""
    from selftrain.rerank import scoring

    def launched(_: str, context: Context, distributed: bool, extra: dict[str, Any]) -> Outcome:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([("job", pa.string()), ("candidate_id", pa.string()), ("score", pa.float64())])
        (context.folder / PROGRESS).mkdir(exist_ok=True)
        rng = np.random.default_rng(1)
        split = {p.id: p.split for p in read_records(folder / "problems/problems.parquet", Problem)}
        with pq.ParquetWriter(context.folder / PROGRESS / "scores-0.parquet", schema) as file:
            for job in extra["jobs"]:
                for rows in iter_records(folder / "candidates/candidates.parquet", CandidateText):
                    ids = [row.id for row in rows if split[row.problem_id] in job["splits"]]
                    scores = rng.normal(size=len(ids))
                    file.write_table(pa.table([[job["name"]] * len(ids), ids, scores], schema=schema))
        return Outcome("")

    scoring.launch = launched  # type: ignore[assignment]
    config = evaluate.EvaluateSlice(seed=0, evaluate=EvaluateConfig(), pools=("sft",), rerankers=RERANKERS)
    inputs = _pool(folder) | dict.fromkeys(RERANKERS, folder)
    evaluate.run(_context(folder, "evaluation", config, inputs))


def reported(folder: Path, *_: int) -> None:
    """Write the report."""
    settings = {"name": "millions", "problems": {"source": "bank"}}
    config = report.ReportSlice(config=settings, pools=("sft",), rounds=3)
    inputs = _pool(folder) | {"evaluation": folder / "evaluation", "pairs": folder / "pairs"}
    report.run(_context(folder, "report", config, inputs))
    json.loads((folder / "report/report.json").read_text())


STEPS: dict[str, Callable[[Path, int, int], None]] = {
    "invent": invented,
    "merge": merge,
    "mine": mined,
    "evaluate": evaluated,
    "report": reported,
}


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in STEPS:
        step(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
