"""Makes a pool of programs that were not sampled by a run: judged by stage `execute`, and grouped by stage `agree` if asked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from selftrain.config import ExecuteConfig
from selftrain.evaluation.pools import AGREEMENT, Pool, load_pool
from selftrain.problems.chat import completion_of
from selftrain.problems.completions import Written
from selftrain.records import Candidate, Problem, PromptStyle, write_records
from selftrain.stage import Context
from selftrain.stages.agree import AGREE, AgreeSlice
from selftrain.stages.execute import EXECUTE, ExecuteSlice, toolchain_of

SPLIT = "test"
"""The split of all problems of such a pool."""


def candidates_of(written: Sequence[Written], style: PromptStyle) -> list[Candidate]:
    """The records of all completions. A known mean log-probability is stored as that of one token, an unknown one as 0."""
    found = []
    for one in written:
        id = one.problem.id
        rows = list(enumerate(one.completions))
        if one.greedy is not None:
            rows.append((-1, one.greedy))
        for sample, text in rows:
            mean = one.mean_logprobs[sample] if one.mean_logprobs is not None and sample >= 0 else 0.0
            text = completion_of(one.problem, text, style)
            found.append(Candidate(f"{id}#{sample}", id, sample, text, (0,), mean, "stop"))
    return found


def unknown(written: Sequence[Written]) -> set[str]:
    """The baselines for which the pool of `written` has no values, for `pool_metrics`."""
    lacking = {"logprob_sum"}  # the numbers of tokens are not given
    if any(one.mean_logprobs is None for one in written):
        lacking.add("logprob")
    if any(one.greedy is None for one in written):
        lacking.add("greedy")
    return lacking


def judged_pool(
    context: Context,
    written: Sequence[Written],
    candidates: Sequence[Candidate],
    scores: Mapping[str, Mapping[str, float]],
    inputs: int = 0,
    style: PromptStyle = "completion",
) -> Pool:
    """Judge `candidates`, the records of `written`, and make the pool `completions` of them. Files are written to `context.folder`.

    scores  ranker -> candidate id -> score
    inputs  number of generated inputs for the ranker `agreement`; 0: without it

    Raises SandboxFailed where the sandbox failed on too many programs.
    """
    problems = [replace(one.problem, split=SPLIT) for one in written]
    write_records(context.folder / "problems.parquet", problems, Problem)
    write_records(context.folder / "candidates.parquet", candidates, Candidate)
    with context.sandbox() as sandbox:
        toolchain = {
            language: toolchain_of(sandbox, language) for language in {one.language for one in problems}
        }
    slice = ExecuteSlice(execute=ExecuteConfig(), toolchain=toolchain, prompt_style=style)
    roles = dict.fromkeys(("problems", "candidates"), context.folder)
    EXECUTE.run(replace(context, config=slice, inputs=roles))
    scores = dict(scores)
    if inputs and any(problem.language == "py" and not problem.cases for problem in problems):
        agree = AgreeSlice(
            seed=0, inputs=inputs, execute=slice.execute, toolchain=toolchain, prompt_style=style
        )
        AGREE.run(replace(context, config=agree, inputs=roles))
        scores[AGREEMENT] = json.loads((context.folder / "groups.json").read_text())
    name = "completions"
    places = dict.fromkeys(("problems", f"{name}.candidates", f"{name}.executions"), context.folder)
    return load_pool(places, name, SPLIT, scores)
