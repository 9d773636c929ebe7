"""One candidate's history in a run: who sampled it, its verdict, its scores, the pairs it was in, and the ways that picked it."""

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.errors import SelftrainError, UsageError
from selftrain.evaluation.pools import SHUFFLED, make_pool, with_agreement, with_logprob
from selftrain.evaluation.scores import read_scores
from selftrain.records import Candidate, Execution, Pair, Problem, read_records
from selftrain.stages.distinct import form
from selftrain.store.runfile import stage_folder, unfinished
from selftrain.units import listed


@dataclass(frozen=True)
class Paired:
    """A pair that the candidate was in. `role`: chosen or rejected; `other`: POOL/ID of the program it was paired with; `score`,
    `other_score`: by the reranker that mined the pair, None in round 1; `copy`: POOL/ID of the candidate with the same program
    that stands in the pair, None where it is the candidate itself."""

    round: int
    kind: str
    role: str
    other: str
    score: float | None
    other_score: float | None
    copy: str | None


@dataclass(frozen=True)
class History:
    """What a run knows about a candidate.

    pool       the policy that sampled it: sft, ppo-1, ...
    policy     STAGE/KEY of its weights
    also_in    other pools with a candidate of this id
    execution  None where the run has not judged it yet
    scores     ranker -> (score, place among the problem's candidates, from 1); no place outside of the evaluation, for which the
               run's rerankers score it now
    of         number of candidates among which the places are
    picked_by  ways to pick that chose this program; None for a candidate that no way picks among (split rl, greedy)
    """

    candidate: Candidate
    problem: Problem
    pool: str
    policy: str
    temperature: float
    also_in: tuple[str, ...]
    execution: Execution | None
    scores: Mapping[str, tuple[float, int | None]]
    of: int
    pairs: tuple[Paired, ...]
    picked_by: tuple[str, ...] | None


def history(record: Mapping[str, Any], wanted: str) -> History:
    """The history of the candidate `wanted`, an id or its first characters, with POOL/ before it where only one pool is meant.

    `record`: the content of run.json. Raises UsageError where no or more than one candidate is meant.
    """
    stages = [name for name in record["stages"] if name.startswith("sample-")]
    if not stages:
        raise UsageError(f"this run of {record['name']} has not sampled any candidate yet")
    by_stage = {stage: _candidates(record, stage) for stage in stages}
    stage, candidate = _found(by_stage, wanted)
    pool, where = _pool_of(stage), stage.rpartition("-")[2]
    problems = read_records(stage_folder(record, "prepare") / "problems.parquet", Problem)
    problem = next(problem for problem in problems if problem.id == candidate.problem_id)
    executions: dict[str, Execution] = {}
    if f"execute-{pool}-{where}" in record["stages"]:
        path = stage_folder(record, f"execute-{pool}-{where}") / "executions.parquet"
        rows = read_records(path, Execution)
        executions = {row.candidate_id: row for row in rows if row.problem_id == problem.id}
    scores: dict[str, tuple[float, int | None]] = {}
    of, picked = 0, None
    if where == "evaluation" and candidate.sample >= 0 and executions and "evaluate" in record["stages"]:
        several = [row for row in by_stage[stage].values() if row.problem_id == problem.id]
        scores, of, picked = _evaluated(record, pool, problem, several, executions, candidate.id)
    if not scores:
        scores = {name: (score, None) for name, score in _scored(record, problem, candidate)}
    policy, temperature = _sampled_by(record, pool)
    return History(
        candidate=candidate,
        problem=problem,
        pool=pool,
        policy=policy,
        temperature=0.0 if candidate.sample < 0 else temperature,
        also_in=tuple(
            _pool_of(other) for other, rows in by_stage.items() if other != stage and candidate.id in rows
        ),
        execution=executions.get(candidate.id),
        scores=scores,
        of=of,
        pairs=tuple(_pairs(record, f"{pool}/{candidate.id}", problem, candidate)),
        picked_by=picked,
    )


def _pool_of(stage: str) -> str:
    """The pool of a sampling stage: ppo-1 of sample-ppo-1-evaluation."""
    return stage.removeprefix("sample-").rpartition("-")[0]


def _sampled_by(record: Mapping[str, Any], pool: str) -> tuple[str, float]:
    """STAGE/KEY of the policy that sampled a pool, and the temperature. Pools sft-2, ... are further samples of the SFT policy."""
    temperature = record["config"]["sample"]["temperature"]
    if re.fullmatch(r"sft-\d+", pool):
        pool = "sft"
        temperature = record["config"]["mine"].get("resample_temperature") or temperature
    policy = record["stages"].get(pool)
    return f"{policy['stage']}/{policy['key']}" if policy else "", temperature


def _candidates(record: Mapping[str, Any], stage: str) -> dict[str, Candidate]:
    try:
        path = stage_folder(record, stage) / "candidates.parquet"
    except SelftrainError:
        if stage in unfinished(record):  # it has no artifact yet
            return {}
        raise
    return {row.id: row for row in read_records(path, Candidate)}


def _found(by_stage: Mapping[str, Mapping[str, Candidate]], wanted: str) -> tuple[str, Candidate]:
    """The stage that sampled the candidate, the first of several, and the candidate."""
    pools = {_pool_of(stage) for stage in by_stage}
    pool, slash, rest = wanted.partition("/")
    if not slash or pool not in pools:
        pool, rest = "", wanted
    chosen = {stage: rows for stage, rows in by_stage.items() if not pool or _pool_of(stage) == pool}
    ids = sorted(set().union(*chosen.values()), key=lambda id: (id.rpartition("#")[0], len(id), id))
    matches = [rest] if rest in ids else [id for id in ids if id.startswith(rest)]
    if len(matches) > 1:
        raise UsageError(
            f"{wanted}: {len(matches)} candidates begin with this: {listed(matches, 8)}; give more of the id"
        )
    if not matches:
        parts = [id for id in ids if rest in id]
        near = parts[:5] or difflib.get_close_matches(rest, ids, 5, 0.5) or ids[:3]
        raise UsageError(
            f"{wanted}: no candidate of the run{f' in pool {pool}' if pool else ''}; ids are PROBLEM#NUMBER, such as {listed(near)}; "
            f"pools are {', '.join(sorted(pools))}"
        )
    return next((stage, rows[matches[0]]) for stage, rows in chosen.items() if matches[0] in rows)


def _evaluated(
    record: Mapping[str, Any],
    pool: str,
    problem: Problem,
    candidates: list[Candidate],
    executions: Mapping[str, Execution],
    id: str,
) -> tuple[dict[str, tuple[float, int | None]], int, tuple[str, ...] | None]:
    """Scores with places, the number of candidates, and the ways that pick the candidate `id`."""
    folder = stage_folder(record, "evaluate")
    weights = json.loads((folder / "evaluation.json").read_text())["logprob_weights"]
    scores = {
        name: found
        for name, found in read_scores(folder, pool).items()
        if not name.endswith(SHUFFLED) and id in found
    }
    if not executions[id].verdict.is_label:
        return {}, 0, None
    made = make_pool(pool, [problem], candidates, list(executions.values()), scores)
    [of_problem] = with_agreement(
        with_logprob(made, {name: weights[name] for name in weights if name in scores})
    ).problems
    judged = sorted(
        (row.sample, row.id) for row in candidates if row.sample >= 0 and executions[row.id].verdict.is_label
    )
    at = [other for _, other in judged].index(id)
    places: dict[str, tuple[float, int | None]] = {
        name: (float(values[at]), int((values > values[at]).sum()) + 1)
        for name, values in of_problem.scores.items()
    }
    own = of_problem.completions[at]
    ways = {way: best for way, best in of_problem.picks.items()
            if way != "examples" or of_problem.examples_passed is not None}  # fmt: skip
    picked = tuple(way for way, best in ways.items() if of_problem.completions[best] == own)
    return places, len(judged), picked


def _scored(record: Mapping[str, Any], problem: Problem, candidate: Candidate) -> Iterator[tuple[str, float]]:
    """Name and score of each reranker that the run has finished. A score that is not finite, of an empty program, is left out."""
    from selftrain.rerank.reranker import Reranker

    for name, stage in record["stages"].items():
        if stage["stage"] == "train_reward" and name not in unfinished(record):
            reranker = Reranker.load(stage_folder(record, name))
            [score] = reranker.score(problem.prompt, [candidate.completion], problem.language)
            if math.isfinite(score):
                yield name, score


def _pairs(record: Mapping[str, Any], name: str, problem: Problem, candidate: Candidate) -> list[Paired]:
    """The pairs with the candidate `name`, POOL/ID, or a copy of it; all pairs of the run are looked through, each once."""
    pairs: dict[tuple[str, str], Pair] = {}
    for stage in record["stages"]:
        if stage.startswith("mine-"):
            try:
                path: Path = stage_folder(record, stage) / "pairs.parquet"
            except SelftrainError:
                if record["finished"]:
                    raise
                continue
            pairs |= {
                (pair.chosen_id, pair.rejected_id): pair
                for pair in read_records(path, Pair)
                if pair.problem_id == problem.id
            }
    own = form(problem, candidate.completion) if pairs else ""
    found = []
    for pair in pairs.values():
        chosen = (pair.chosen_id, pair.chosen_score)
        rejected = (pair.rejected_id, pair.rejected_score)
        for role, text, (id, score), (other, other_score) in (
            ("chosen", pair.chosen, chosen, rejected),
            ("rejected", pair.rejected, rejected, chosen),
        ):
            if id == name or form(problem, text) == own:
                copy = None if id == name else id
                found.append(Paired(pair.round, pair.kind, role, other, score, other_score, copy))
    return found
