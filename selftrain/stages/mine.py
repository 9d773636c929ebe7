"""Stage `mine`: pools with verdicts -> pairs of a right and a wrong program, added to the pairs of earlier rounds.

Round 1 mines the SFT generator's pool; later rounds also those of the policies since (`mine.pools`). All distinct programs of a
problem (`selftrain.stages.distinct`), whatever pool they come from, are one set, which the newest reranker scores from round 2 on.
A pair is a right and a wrong program of the set that no earlier round has paired. It is of one kind:
- hard_negative: the reranker scored the wrong program above the right one, or above `mine.threshold`;
- easy: otherwise, if the wrong program crashes or does not compile. Its fault often shows without a look at the problem. A
  program that exceeds its time, memory or output is not easy: it may be a plausible answer whose loop does not end;
- on_policy: all others.
Hard negatives come in the order of the difference in score, the largest first; the other kinds in an order drawn by the seed. Up
to `mine.pairs_per_problem` pairs of a problem are taken, one after the other. The next pair is always of the kind whose number of
pairs, this one counted, divided by its weight in `mine.kinds` is the smallest. So each kind has a share of the room, and where one
has no more pairs the others fill it. A kind without a weight is left out; so without hard_negative no pair has its programs in
the wrong order. The kind `random` has all pairs of the problem, whatever the scores and verdicts, in an order drawn by the seed.

With `mine.max_pairs` the pairs of all rounds are thinned out together (`bounded`). A pair that is left out may be mined again.

If there is no pair at all, the stage raises `DataError`; its message counts the problems by the outcome of their candidates and
says what to change.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from sandbox.verdicts import Verdict
from selftrain.config import ExecuteConfig, MineConfig, Strict
from selftrain.errors import DataError
from selftrain.records import (
    Candidate,
    CandidateText,
    Execution,
    Pair,
    Problem,
    PromptStyle,
    Writer,
    as_records,
    iter_columns,
    iter_records,
    read_records,
    table,
    write_records,
)
from selftrain.rerank.scoring import Job, score_candidates
from selftrain.stage import Context, Outcome, Stage
from selftrain.stages.assertions import shares_passed
from selftrain.stages.distinct import Program, distinct_programs, form
from selftrain.store.store import PROGRESS
from selftrain.units import count_of

EASY = (Verdict.compile_error, Verdict.runtime_error)
"""Verdicts of the wrong programs of easy pairs."""

Couple = tuple[Program, Program]
"""A right and a wrong program."""


class MineSlice(Strict):
    """What the pairs depend on besides the pools, the earlier pairs and the reranker.

    pools   their names, the oldest first
    thins   whether earlier pairs are thinned out too; true in later rounds with `mine.max_pairs`
    execute, toolchain, prompt_style  as in `ExecuteSlice`, with `mine.assertions`; otherwise at their defaults
    """

    # `thins`: keys from when earlier pairs had the first claim stay apart.
    keyed_when_set = frozenset({"thins", "execute", "toolchain", "prompt_style"})

    seed: int
    round: int
    pools: tuple[str, ...]
    mine: MineConfig
    thins: bool = False
    execute: ExecuteConfig | None = None
    toolchain: dict[str, str] | None = None
    prompt_style: PromptStyle = "completion"


def run(context: Context) -> Outcome:
    """Reads `problems`, `POOL.candidates` and `POOL.executions` of every pool, and from round 2 on `pairs` and `reranker`;
    writes pairs.parquet."""
    config: MineSlice = context.config
    inputs = context.inputs
    problems = {p.id: p for p in read_records(inputs["problems"] / "problems.parquet", Problem)}
    pools = {
        name: PoolRows(inputs[f"{name}.candidates"], inputs[f"{name}.executions"]) for name in config.pools
    }
    counts, found = Counter[str](), Counter[str]()
    verdicts: dict[str, Verdict] = {}

    def counted(programs: Iterable[tuple[str, Sequence[Program]]]) -> Iterator[tuple[str, Sequence[Program]]]:
        for problem_id, each in programs:
            found[outcome(each)] += 1
            counts["tampered"] += sum(program.verdict is Verdict.tampered for program in each)
            if config.mine.assertions:
                verdicts.update((program.id, program.verdict) for program in each)
            yield problem_id, each

    programs = distinct_by_problem(problems, pools, counts)
    earlier: list[Pair] = []
    if "reranker" in inputs:
        earlier = read_records(inputs["pairs"] / "pairs.parquet", Pair)
        programs = scored(context, programs)
    earlier, new = bounded(earlier, mine_pairs(problems, counted(programs), earlier, config), config)
    if config.mine.assertions:
        shares = shares_passed(context, problems, new, verdicts)
        new = [replace(pair, gap=1.0 - shares.get(pair.rejected_id, 1.0 - pair.gap)) for pair in new]
    pairs = earlier + new
    if not pairs:
        raise DataError(no_pairs(found, config))
    records_digest = write_records(context.folder / "pairs.parquet", pairs, Pair)
    metrics = {
        "pairs": len(pairs),
        "new": len(new),
        "kinds": dict(sorted(Counter(pair.kind for pair in new).items())),
        "problems": len({pair.problem_id for pair in new}),
        **{name: counts[name] for name in ("tampered", "doubtful")},
        **({"gap": sum(pair.gap for pair in new) / max(1, len(new))} if config.mine.assertions else {}),
        **{f"problems_{name}": found[name] for name in ("mixed", "passing", "failing")},
    }
    return Outcome(records_digest, metrics)


class PoolRows:
    """The candidates and executions of a pool as columns, of which those of one problem at a time become records."""

    def __init__(self, candidates: Path, executions: Path) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        def read(path: Path, kind: type, names: Sequence[str]) -> Any:
            empty = table([], kind).select(names)
            found = pa.concat_tables([empty, *iter_columns(path, kind, names)], promote_options="default")
            texts = [(f.name, pa.large_string() if f.type == pa.string() else f.type) for f in found.schema]
            return found.cast(pa.schema(texts)).combine_chunks()

        texts = ("id", "problem_id", "sample", "completion")
        self._candidates = read(candidates / "candidates.parquet", Candidate, texts)
        of_executions = ("candidate_id", "problem_id", "verdict", "exit_code", "pass_rate")
        judged = read(executions / "executions.parquet", Execution, of_executions)
        found = pc.index_in(self._candidates["id"], value_set=judged["candidate_id"])
        if found.null_count:
            raise KeyError(self._candidates["id"].filter(found.is_null())[0].as_py())
        self._executions = judged.take(found)
        owner = self._candidates["problem_id"].combine_chunks().dictionary_encode()
        owners = owner.indices.to_numpy(zero_copy_only=False)
        rows = np.argsort(owners, kind="stable")
        names = owner.dictionary.to_pylist()
        self.rows = (
            dict(zip(names, np.split(rows, np.searchsorted(owners[rows], range(1, len(names)))), strict=True))
            if names
            else {}
        )
        """Problem id -> the rows of its candidates, in the order of the file."""

    def of(self, problem_id: str) -> tuple[list[CandidateText], list[Execution]]:
        """The candidates of a problem and their executions; none if the pool has none."""
        rows = self.rows.get(problem_id, np.array([], np.intp))
        candidates, executions = self._candidates.take(rows), self._executions.take(rows)
        return as_records(candidates, CandidateText), as_records(executions, Execution)


def distinct_by_problem(
    problems: Mapping[str, Problem], pools: Mapping[str, PoolRows], counts: Counter[str]
) -> Iterator[tuple[str, Sequence[Program]]]:
    """The result of `distinct_programs`, one problem after the other; those that are left out are added to `counts`."""
    for id in dict.fromkeys(id for pool in pools.values() for id in pool.rows):
        found, doubtful = distinct_programs(problems, {name: pool.of(id) for name, pool in pools.items()})
        counts["doubtful"] += doubtful
        yield from found.items()


def scored(
    context: Context, programs: Iterable[tuple[str, Sequence[Program]]]
) -> Iterator[tuple[str, Sequence[Program]]]:
    """The programs with the reranker's scores. Between scoring and mining they are in a file."""
    folder = context.folder / PROGRESS / "programs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "candidates.parquet"
    with Writer(path, Program) as writer:
        for _, each in programs:
            writer.add(each)
    inputs = {"problems": context.inputs["problems"], "reranker": context.inputs["reranker"]}
    job = Job("mine", "reranker", "programs", splits=("rl",))
    scores = score_candidates(replace(context, inputs=inputs | {"programs": folder}), [job])["mine"]
    rows = (row for rows in iter_records(path, Program) for row in rows)
    for id, found in groupby(rows, key=lambda program: program.problem_id):
        yield id, [replace(program, score=scores[program.id]) for program in found]


def mine_pairs(
    problems: Mapping[str, Problem],
    programs: Iterable[tuple[str, Sequence[Program]]],
    earlier: Sequence[Pair],
    config: MineSlice,
) -> list[Pair]:
    """The new pairs of this round, in the order of `programs`: (problem id, its programs)."""
    known = defaultdict(list)
    for pair in earlier:
        known[pair.problem_id].append(pair)
    pairs = []
    for problem_id, found in programs:
        rng = random.Random(f"{config.seed}/{config.round}/{problem_id}")
        pairs += problem_pairs(problems[problem_id], found, known[problem_id], config, rng)
    return pairs


def bounded(earlier: Sequence[Pair], new: Sequence[Pair], config: MineSlice) -> tuple[list[Pair], list[Pair]]:
    """The earlier and the new pairs, not more than `mine.max_pairs` together, drawn at random and in the same order.

    If there are more, round r takes at least 1/r of the room, so that every round has the same share if it finds enough.
    """
    most = config.mine.max_pairs
    if most is None or len(earlier) + len(new) <= most:
        return list(earlier), list(new)
    rng = random.Random(f"{config.seed}/{config.round}")

    def some(pairs: Sequence[Pair], count: int) -> list[Pair]:
        return [pairs[at] for at in sorted(rng.sample(range(len(pairs)), min(count, len(pairs))))]

    kept = some(new, max(most - len(earlier), most // config.round))
    return some(earlier, most - len(kept)), kept


def problem_pairs(
    problem: Problem,
    programs: Sequence[Program],
    earlier: Sequence[Pair],
    config: MineSlice,
    rng: random.Random,
) -> list[Pair]:
    """One problem's new pairs, at most `pairs_per_problem`, none of which is in `earlier`."""
    weights = config.mine.weights(config.round)
    paired = {(form(problem, pair.chosen), form(problem, pair.rejected)) for pair in earlier}
    couples = [
        (chosen, rejected)
        for chosen in programs
        for rejected in programs
        if chosen.passed and not rejected.passed and (chosen.form, rejected.form) not in paired
    ]
    rng.shuffle(couples)
    left = {kind: of_kind(couples, kind, config.mine.threshold) for kind in weights}
    taken: Counter[str] = Counter()
    pairs: dict[tuple[str, str], Pair] = {}
    while len(pairs) < config.mine.pairs_per_problem and any(left.values()):
        kind = min((k for k in weights if left[k]), key=lambda k: (taken[k] + 1) / weights[k])
        chosen, rejected = left[kind].pop()
        if (chosen.id, rejected.id) not in pairs:  # `random` has those of all kinds
            pairs[chosen.id, rejected.id] = as_pair(problem, chosen, rejected, kind, config.round)
            taken[kind] += 1
    return list(pairs.values())


def of_kind(couples: Sequence[Couple], kind: str, threshold: float | None) -> list[Couple]:
    """The couples of a kind; the last one is to be taken first."""
    if kind == "random":
        return list(couples)
    found = [couple for couple in couples if kind_of(*couple, threshold) == kind]
    if kind == "hard_negative":
        found.sort(key=lambda couple: (-hardness(*couple), couple[0].id, couple[1].id), reverse=True)
    return found


def kind_of(chosen: Program, rejected: Program, threshold: float | None) -> str:
    """The kind of the pair of a right and a wrong program, other than random."""
    if rejected.score is not None and (
        hardness(chosen, rejected) > 0 or (threshold is not None and rejected.score > threshold)
    ):
        return "hard_negative"
    return "easy" if rejected.verdict in EASY else "on_policy"


def hardness(chosen: Program, rejected: Program) -> float:
    """By how much the reranker scored the wrong program above the right one; 0 without scores."""
    return (rejected.score or 0.0) - (chosen.score or 0.0)


def as_pair(problem: Problem, chosen: Program, rejected: Program, kind: str, round: int) -> Pair:
    """The record of a pair."""
    return Pair(
        problem_id=problem.id,
        prompt=problem.prompt,
        chosen=chosen.completion,
        rejected=rejected.completion,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        kind=kind,
        round=round,
        chosen_score=chosen.score,
        rejected_score=rejected.score,
        gap=1.0 - (rejected.pass_rate or 0.0),
        task=problem.task,
    )


def outcome(programs: Iterable[Program]) -> str:
    """Whether a problem's programs all pass (`passing`), all fail (`failing`), or do both (`mixed`)."""
    kinds = {(True,): "passing", (False,): "failing", (False, True): "mixed"}
    return kinds[tuple(sorted({program.passed for program in programs}))]


def no_pairs(found: Counter[str], config: MineSlice) -> str:
    """The error message for a stage without pairs: the reason, and what to change. `found`: `outcome` -> number of problems."""
    said = (
        f"there is no pair to train the reranker on: of {count_of(found.total(), 'problem')} of the rl split with judged programs "
        f"{found['mixed']} have both passing and failing ones, {found['passing']} only passing, {found['failing']} only "
        "failing. A pair is a passing program over a failing one of the same problem: "
    )
    if found["mixed"]:
        return said + (
            f"none of those is of a kind that mine.kinds={', '.join(config.mine.kinds)} takes in round {config.round}; the kinds "
            "of round 1 are on_policy and easy: name both, or neither"
        )
    if not found:
        return said + "the generator's candidates have no verdicts; see the figures of stage execute"
    if not found["passing"]:
        return said + (
            "the generator is too weak for these problems; take a stronger one (model.base) or train it longer (sft.epochs), "
            "draw more candidates (sample.rl), or take easier problems"
        )
    if not found["failing"]:
        return said + (
            "the problems are too easy for this generator; take harder ones, or draw more candidates (sample.rl) at a "
            "higher sample.temperature"
        )
    return said + (
        "draw more candidates of each problem (sample.rl), at a higher sample.temperature, or take more problems"
    )


MINE = Stage("mine", 5, run)
