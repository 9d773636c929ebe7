"""Tests of stage `agree`, and of the rankers that pick from the largest group."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sandbox.verdicts import Program, Result, Verdict
from selftrain.config import EvaluateConfig, ExecuteConfig, RunConfig, RuntimeConfig
from selftrain.errors import SandboxFailed
from selftrain.evaluation.pools import Pool, PoolProblem, with_agreement
from selftrain.records import Candidate, Problem, write_records
from selftrain.stage import Context
from selftrain.stages.agree import AGREE, AgreeSlice
from selftrain.stages.evaluate import EVALUATE, EvaluateSlice
from tests.contexts import judging

BODIES = (
    "    return sum(xs)\n",
    "    total = 0\n    for x in xs:\n        total += x\n    return total\n",  # equal outputs, another text
    "    return len(xs)\n",
    "    return xs['a']\n",  # raises on every input
    "    import os\n    os._exit(0)\n",  # ends before the last input
    "    return (\n",  # is not Python
    "    if len(xs) == 0:\n        raise ValueError\n    return sum(xs)\n",  # differs for one input
)


def test_programs_with_equal_outputs_are_one_group(tmp_path: Path) -> None:
    prompt = "from typing import List\n\ndef f(xs: List[int]) -> int:\n"
    problems = [
        Problem("a.py", "a", "py", prompt, "assert f([1]) == 1\n", "test", "made"),
        Problem("a.sh", "a", "sh", "f() {\n", "f\n", "test", "made"),
    ]
    rows = [Candidate(f"a.py#{n}", "a.py", n, body, (1,), -1.0, "stop") for n, body in enumerate(BODIES)]
    rows += [
        Candidate("a.py#-1", "a.py", -1, BODIES[0], (1,), -1.0, "stop"),  # the greedy one is in no group
        Candidate("a.sh#0", "a.sh", 0, "true\n}\n", (1,), -1.0, "stop"),
    ]
    write_records(tmp_path / "problems.parquet", problems, Problem)
    write_records(tmp_path / "candidates.parquet", rows, Candidate)
    config = AgreeSlice(seed=1, inputs=12, execute=ExecuteConfig(), toolchain={})
    runtime = RuntimeConfig(backend="process", workers=2)
    outcome = AGREE.run(judging(config, {"problems": tmp_path, "candidates": tmp_path}, tmp_path, runtime))
    sizes = json.loads((tmp_path / "groups.json").read_text())
    assert sizes == {
        "a.py#0": 2, "a.py#1": 2, "a.py#2": 1, "a.py#3": 0, "a.py#4": 0, "a.py#5": 0, "a.py#6": 1, "a.sh#0": 0,
    }  # fmt: skip
    assert outcome.metrics == {"programs": 7, "groups": 3, "without_group": 4}


def groups(folder: Path, bodies: Sequence[str], **config: Any) -> dict[str, int]:
    """Size of each program's group; the programs complete a function of a number."""
    rows = [Candidate(f"a.py#{n}", "a.py", n, body, (1,), -1.0, "stop") for n, body in enumerate(bodies)]
    prompt = "def f(x: int) -> int:\n"
    write_records(
        folder / "problems.parquet", [Problem("a.py", "a", "py", prompt, "", "test", "made")], Problem
    )
    write_records(folder / "candidates.parquet", rows, Candidate)
    slice = AgreeSlice(seed=1, inputs=4, execute=ExecuteConfig(), toolchain={}, **config)
    runtime = RuntimeConfig(backend="process", workers=2)
    AGREE.run(judging(slice, {"problems": folder, "candidates": folder}, folder, runtime))
    found: dict[str, int] = json.loads((folder / "groups.json").read_text())
    return found


def test_whole_programs_of_chat_models_are_in_groups(tmp_path: Path) -> None:
    whole = "```python\nimport operator\n\ndef f(x):\n    return operator.add(x, 1)\n```"
    sizes = groups(tmp_path, ["    return x + 1\n", whole, "    return x\n"], prompt_style="chat")
    assert sizes == {"a.py#0": 2, "a.py#1": 2, "a.py#2": 1}


def test_a_failure_of_the_sandbox_is_no_disagreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object, programs: Sequence[Program], __: str) -> list[Result]:
        return [Result(program.id, Verdict.sandbox_error, stderr="no daemon") for program in programs]

    monkeypatch.setattr(Context, "judge", broken)
    with pytest.raises(SandboxFailed, match=r"failed on 2 of 2 programs.*a\.py#0: no daemon"):
        groups(tmp_path, ["    return x\n", "    return 1\n"])


def test_rankers_pick_from_the_largest_group() -> None:
    one = PoolProblem(
        id="a", task="a", language="py", prompt="", completions=("p", "q", "r", "s"), verdicts=(Verdict.passed,) * 4,
        logprob=np.array([-4.0, -3.0, -1.0, -2.0]), n_tokens=np.ones(4, int), examples_passed=None,
        scores={"rm-1": np.array([0.5, 0.1, 9.0, 9.0]), "agreement": np.array([2.0, 2.0, 1.0, 0.0])}, greedy_passed=True,
    )  # fmt: skip
    picks = with_agreement(Pool("sft", (one,))).problems[0].picks
    assert (picks["agreement"], picks["rm-1+agreement"], picks["rm-1"], picks["logprob"]) == (1, 0, 2, 2)


def test_evaluations_without_agreement_keep_their_key() -> None:
    def key(agreement: int) -> str:
        config = EvaluateConfig(agreement=agreement)
        return EVALUATE.ref(EvaluateSlice(seed=1, evaluate=config, pools=("sft",), rerankers=("rm-1",))).key

    assert key(0) == key(8)  # the groups are an input, which makes the key another where they are used
    assert RunConfig().evaluate.agreement == 0
