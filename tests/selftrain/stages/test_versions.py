"""Tests that a stage's result changes only with its version: each is built from a tiny fixture, with its digest in versions.json.

Covered are the stages whose result depends only on their rules: prepare, execute, mine, evaluate and report (with invented
scores in place of a reranker's); test_versions_trained.py covers the others. After an intended change, raise the stage's
version and write the digest that the failing test names into versions.json.
"""

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.method import method
from sandbox.verdicts import Verdict
from selftrain.cache_key import fingerprint
from selftrain.config import BankConfig, EvaluateConfig, ExecuteConfig, MineConfig, RunConfig, RuntimeConfig
from selftrain.evaluation.scores import Scores
from selftrain.records import Candidate, Execution, Problem, write_records
from selftrain.stage import Outcome, Stage
from selftrain.stages import evaluate as evaluate_module
from selftrain.stages import mine as mine_module
from selftrain.stages.agree import AGREE, AgreeSlice
from selftrain.stages.evaluate import EVALUATE, EvaluateSlice
from selftrain.stages.execute import EXECUTE, ExecuteSlice
from selftrain.stages.mine import MINE, MineSlice
from selftrain.stages.prepare import PREPARE, PrepareSlice
from selftrain.stages.report import REPORT, ReportSlice
from selftrain.stages.train_reward import TRAIN_REWARD
from selftrain.store.store import Store
from tasks.run import Run
from tests.contexts import judging

TABLE = Path(__file__).with_name("versions.json")
Known = dict[str, dict[str, Any]]

PROBLEMS = [
    Problem(f"{split}-{at}.py", f"{split}-{at}", "py", f"def f{at}():\n", f"assert f{at}() == {at}\n", split, "made")
    for split in ("rl", "validation", "test")
    for at in range(3)
]  # fmt: skip
BODIES = ("    return {at}\n", "    return {at} + 1\n", "    return 1 // 0\n", "    return (\n")


def pool() -> list[Candidate]:
    """Of each problem a program that passes, one that is wrong, one that crashes and one that is not Python; the first is the
    greedy one too."""
    return [
        Candidate(f"{p.id}#{n}", p.id, n, BODIES[max(n, 0)].format(at=p.task[-1]), (1,), -float(n), "stop")
        for p in PROBLEMS
        for n in range(-1, len(BODIES))
    ]


def judged() -> list[Execution]:
    """Their verdicts."""
    verdicts = (Verdict.passed, Verdict.wrong_answer, Verdict.runtime_error, Verdict.compile_error)
    return [
        Execution(c.id, c.problem_id, verdicts[max(c.sample, 0)], int(c.sample > 0))
        for c in pool()
    ]  # fmt: skip


def write_pool(folder: Path) -> None:
    """Problems, candidates and executions, as the stages before write them."""
    write_records(folder / "problems.parquet", PROBLEMS, Problem)
    write_records(folder / "candidates.parquet", pool(), Candidate)
    write_records(folder / "executions.parquet", judged(), Execution)


def made_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage `evaluate` gets scores without a reranker."""
    scores = {c.id: float((c.sample * 2 + len(c.problem_id)) % 5) for c in pool()}
    monkeypatch.setattr(
        evaluate_module, "score_candidates", lambda _, jobs: {job.name: Scores.made(scores) for job in jobs}
    )


def built(folder: Path, stage: Stage, config: Any, **inputs: Path) -> Outcome:
    """The stage's outcome with inputs in `folder`, where its own files go."""
    runtime = RuntimeConfig(backend="process", workers=2)
    return stage.run(judging(config, inputs, folder, runtime))


def prepare(folder: Path) -> Outcome:
    sizes = {"sft": 6, "rl": 4, "validation": 4, "test": 4}
    problems = BankConfig(languages=("py", "sh"), sizes=sizes)
    return built(folder, PREPARE, PrepareSlice(problems=problems, content={}))


def execute(folder: Path) -> Outcome:
    config = ExecuteSlice(execute=ExecuteConfig(), toolchain={})
    return built(folder, EXECUTE, config, problems=folder, candidates=folder)


def mine(folder: Path) -> Outcome:
    config = MineSlice(seed=1, round=1, pools=("sft",), mine=MineConfig())
    inputs = dict.fromkeys(("problems", "sft.candidates", "sft.executions"), folder)
    return built(folder, MINE, config, **inputs)


def agree(folder: Path) -> Outcome:
    with_argument = [replace(p, prompt=p.prompt.replace("()", "(x: int)")) for p in PROBLEMS]
    write_records(folder / "problems.parquet", with_argument, Problem)
    config = AgreeSlice(seed=1, inputs=4, execute=ExecuteConfig(), toolchain={})
    return built(folder, AGREE, config, problems=folder, candidates=folder)


def evaluate(folder: Path) -> Outcome:
    config = EvaluateSlice(
        seed=1, evaluate=EvaluateConfig(bootstrap=100, control=False), pools=("sft",), rerankers=("rm-1",)
    )
    inputs = {"problems": folder, "sft.candidates": folder, "sft.executions": folder, "rm-1": folder}
    return built(folder, EVALUATE, config, **inputs)


def report(folder: Path) -> Outcome:
    """Its digest here is that of report.json, without the config and as far as processors agree."""
    evaluate(folder)
    shown = RunConfig(name="versions").model_dump(mode="json", exclude={"runtime", "promotion", "store"})
    config = ReportSlice(config=shown, pools=("sft",), rounds=1)
    inputs = dict.fromkeys(("problems", "sft.candidates", "sft.executions", "evaluation"), folder)
    built(folder, REPORT, config, **inputs)
    return Outcome(fingerprint(rounded(json.loads((folder / "report.json").read_text()) | {"config": None})))


def rounded(value: Any) -> Any:
    """`value` with six decimals of its numbers."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


STAGES: dict[str, tuple[Stage, Callable[[Path], Outcome]]] = {
    "prepare": (PREPARE, prepare),
    "execute": (EXECUTE, execute),
    "mine": (MINE, mine),
    "agree": (AGREE, agree),
    "evaluate": (EVALUATE, evaluate),
    "report": (REPORT, report),
}


def check(known: Known, stage: Stage, name: str, value: Any) -> None:
    """Fail where `value` (the digest, or the figures) is another than the one known for the stage, or the version is."""
    before = known[stage.name]
    if before["version"] == stage.version and before[name] == value:
        return
    file = Path(inspect.getsourcefile(stage.run) or "").name
    first = f"raise its version in {file}, then write" if before["version"] == stage.version else "write"
    now = json.dumps({"version": stage.version, name: getattr(value, "expected", value)})
    pytest.fail(f"stage {stage.name}'s result or version has changed: {first} into {TABLE.name}: {now}")


@pytest.mark.parametrize("name", STAGES)
def test_a_result_changes_only_with_its_stages_version(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_pool(tmp_path)
    made_scores(monkeypatch)
    stage, make = STAGES[name]
    check(json.loads(TABLE.read_text()), stage, "digest", make(tmp_path).records_digest)


def test_a_changed_result_fails_and_says_which_version_to_raise():
    known = {"mine": {"version": MINE.version, "digest": "before"}}
    check(known, MINE, "digest", "before")
    with pytest.raises(pytest.fail.Exception, match=r"stage mine's .* raise its version in mine.py"):
        check(known, MINE, "digest", "after")


def test_a_changed_rule_of_mining_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_pool(tmp_path)
    kept = mine_module.mine_pairs
    monkeypatch.setattr(mine_module, "mine_pairs", lambda *arguments: kept(*arguments)[1:])
    with pytest.raises(pytest.fail.Exception, match=r"raise its version in mine.py"):
        check(json.loads(TABLE.read_text()), MINE, "digest", mine(tmp_path).records_digest)


def keys(folder: Path) -> dict[str, str]:
    """The key of each step of a run of two rounds, by the step's name; nothing is built."""
    config = RunConfig.model_validate(
        {"name": "keys", "rounds": 2, "store": str(folder), "model": {"hidden_size": 32, "heads": 2}}
        | {"runtime": {"backend": "process"}, "problems": {"source": "bank", "languages": ["py"]}}
    )
    run = Run(config, Store(str(folder)))
    method(run)
    return {name: step.ref.key for name, step in run.steps.items()}


def test_a_raised_version_rebuilds_from_there_on_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = keys(tmp_path)
    assert keys(tmp_path) == before
    monkeypatch.setattr("tasks.stages.TRAIN_REWARD", replace(TRAIN_REWARD, version=99))
    after = keys(tmp_path)
    kept = {"prepare", "sft", "sample-sft-rl", "execute-sft-rl", "mine-1"}
    kept |= {"sample-sft-evaluation", "execute-sft-evaluation"}
    assert {name for name in before if after[name] == before[name]} == kept
