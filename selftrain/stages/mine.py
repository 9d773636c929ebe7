"""Stage `mine`: a pool with verdicts -> pairs of a right and a wrong program, added to the pairs of earlier rounds.

For each problem with passing and failing candidates, up to `pairs_per_problem` new pairs:
- hard negatives, from round 2 on: the reranker scored a failing candidate above a passing one of the same problem, or
  above `threshold`; the largest difference first. With `passing: false` later rounds mine only hard negatives, and take
  their right programs from earlier pairs;
- easy pairs: the failing program crashes, times out or does not compile;
- on-policy pairs: the failing program gives a wrong answer.
Easy and on-policy pairs are drawn at random, depending on the seed. A candidate that the sandbox could not judge
(`sandbox_error`) enters no pair. If there is no pair at all, the stage raises `DataError`; its message counts the problems by the
outcome of their candidates and says what to change.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sandbox.verdicts import Verdict
from selftrain.config import MineConfig, Strict
from selftrain.errors import DataError
from selftrain.records import Candidate, Execution, Pair, Problem, digest, read_records, write_records
from selftrain.rerank.scoring import Job, score_candidates
from selftrain.stage import Context, Outcome, Stage


class MineSlice(Strict):
    """What the pairs depend on besides the pool, the earlier pairs and the reranker that scores the pool."""

    seed: int
    round: int
    mine: MineConfig


@dataclass(frozen=True)
class Program:
    """One distinct program of a problem.

    candidate  the first candidate with this text
    score      the reranker's score; None in round 1, which has no reranker
    pass_rate  share of the test cases that it passes; None if unknown
    """

    candidate: Candidate
    verdict: Verdict
    score: float | None
    pass_rate: float | None = None

    @property
    def id(self) -> str:
        """The id of the candidate."""
        return self.candidate.id


def run(context: Context) -> Outcome:
    """Reads `problems`, `candidates`, `executions`, and from round 2 on `pairs` and `reranker`; writes pairs.parquet."""
    config: MineSlice = context.config
    problems = {p.id: p for p in read_records(context.inputs["problems"] / "problems.parquet", Problem)}
    candidates = read_records(context.inputs["candidates"] / "candidates.parquet", Candidate)
    rows = read_records(context.inputs["executions"] / "executions.parquet", Execution)
    executions = {row.candidate_id: row for row in rows}
    earlier: list[Pair] = []
    scores: dict[str, float] = {}
    if "reranker" in context.inputs:
        earlier = read_records(context.inputs["pairs"] / "pairs.parquet", Pair)
        scores = score_candidates(context, [Job("mine", "reranker", "candidates", splits=("rl",))])["mine"]
    programs = distinct_programs(candidates, executions, scores)
    new = mine_pairs(problems, programs, earlier, config)
    pairs = earlier + new
    found = outcomes(programs)
    if not pairs:
        raise DataError(no_pairs(found, config.mine))
    write_records(context.folder / "pairs.parquet", pairs, Pair)
    metrics = {
        "pairs": len(pairs),
        "new": len(new),
        "kinds": dict(sorted(Counter(pair.kind for pair in new).items())),
        "problems": len({pair.problem_id for pair in new}),
        "tampered": sum(
            program.verdict is Verdict.tampered for each in programs.values() for program in each
        ),
        **{f"problems_{name}": found[name] for name in ("mixed", "passing", "failing")},
    }
    return Outcome(digest(pairs), metrics)


def mine_pairs(
    problems: dict[str, Problem],
    programs: dict[str, list[Program]],
    earlier: Sequence[Pair],
    config: MineSlice,
) -> list[Pair]:
    """The new pairs of this round. `programs`: the result of `distinct_programs`, whose order the pairs keep."""
    known = defaultdict(list)
    for pair in earlier:
        known[pair.problem_id].append(pair)
    pairs = []
    for problem_id, found in programs.items():
        rng = random.Random(f"{config.seed}/{config.round}/{problem_id}")
        pairs += problem_pairs(problems[problem_id], found, known[problem_id], config, rng)
    return pairs


def outcomes(programs: dict[str, list[Program]]) -> Counter[str]:
    """Number of problems whose programs all pass (`passing`), all fail (`failing`), or do both (`mixed`)."""
    kinds = {(True,): "passing", (False,): "failing", (False, True): "mixed"}
    return Counter(
        kinds[tuple(sorted({program.verdict is Verdict.passed for program in found}))]
        for found in programs.values()
    )


def no_pairs(found: Counter[str], mine: MineConfig) -> str:
    """The error message for a stage without pairs: the reason, and what to change. `found`: the result of `outcomes`."""
    said = (
        f"there is no pair to train the reranker on: of {found.total()} problems of the rl split with judged programs "
        f"{found['mixed']} have both passing and failing ones, {found['passing']} only passing, {found['failing']} only "
        "failing. A pair is a passing program over a failing one of the same problem: "
    )
    if found["mixed"]:
        return said + (
            f"the failing ones all crash or do not compile, and of such pairs mine.easy_share={mine.easy_share:g} of "
            f"mine.pairs_per_problem={mine.pairs_per_problem} takes none; raise one of them"
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


def distinct_programs(
    candidates: Iterable[Candidate], executions: dict[str, Execution], scores: dict[str, float]
) -> dict[str, list[Program]]:
    """Problem id -> its distinct sampled programs that the sandbox judged, without the greedy completion."""
    found: dict[str, dict[str, Program]] = defaultdict(dict)
    for candidate in candidates:
        execution = executions[candidate.id]
        if candidate.sample >= 0 and execution.verdict.is_label:
            program = Program(candidate, execution.verdict, scores.get(candidate.id), execution.pass_rate)
            found[candidate.problem_id].setdefault(candidate.completion.rstrip(), program)
    return {problem_id: list(programs.values()) for problem_id, programs in found.items()}


def problem_pairs(
    problem: Problem,
    programs: Sequence[Program],
    earlier: Sequence[Pair],
    config: MineSlice,
    rng: random.Random,
) -> list[Pair]:
    """One problem's new pairs, at most `pairs_per_problem`, none of which is in `earlier`."""
    mine = config.mine
    right = [program for program in programs if program.verdict is Verdict.passed]
    wrong = [program for program in programs if program.verdict is not Verdict.passed]
    pairs = NewPairs(problem, config, earlier)
    if config.round > 1:
        take_hard(pairs, right, wrong, earlier, rng)
        if not mine.passing:
            return pairs.taken
    rest = [(chosen, rejected) for chosen in right for rejected in wrong]
    rng.shuffle(rest)
    easy_cap = round(mine.easy_share * mine.pairs_per_problem)
    for chosen, rejected in rest:
        easy = rejected.verdict not in (Verdict.wrong_answer, Verdict.tampered)
        cap = easy_cap if easy else mine.pairs_per_problem
        pairs.take(as_chosen(chosen), rejected, "easy" if easy else "on_policy", cap)
    return pairs.taken


class Chosen(NamedTuple):
    """The right program of a pair; `score` is None where the reranker has not scored it."""

    id: str
    text: str
    score: float | None


class NewPairs:
    """The pairs taken so far for one problem: no duplicates and none from `earlier`; trailing white space is ignored."""

    def __init__(self, problem: Problem, config: MineSlice, earlier: Sequence[Pair]) -> None:
        self.problem = problem
        self.config = config
        self.seen = {(pair.chosen.rstrip(), pair.rejected.rstrip()) for pair in earlier}
        self.taken: list[Pair] = []

    def take(self, chosen: Chosen, rejected: Program, kind: str, cap: int) -> None:
        """Add a pair unless it is a duplicate, or `cap` of its kind or `pairs_per_problem` in all are taken."""
        text = rejected.candidate.completion
        key = (chosen.text.rstrip(), text.rstrip())
        full = len(self.taken) >= self.config.mine.pairs_per_problem
        if full or key in self.seen or sum(pair.kind == kind for pair in self.taken) >= cap:
            return
        self.seen.add(key)
        self.taken.append(
            Pair(
                problem_id=self.problem.id,
                prompt=self.problem.prompt,
                chosen=chosen.text,
                rejected=text,
                chosen_id=chosen.id,
                rejected_id=rejected.id,
                kind=kind,
                round=self.config.round,
                chosen_score=chosen.score,
                rejected_score=rejected.score,
                gap=1.0 - (rejected.pass_rate or 0.0),
                task=self.problem.task,
            )
        )


def as_chosen(program: Program) -> Chosen:
    """A program of the pool as the right one of a pair."""
    return Chosen(program.id, program.candidate.completion, program.score)


def take_hard(
    pairs: NewPairs,
    right: Sequence[Program],
    wrong: Sequence[Program],
    earlier: Sequence[Pair],
    rng: random.Random,
) -> None:
    """Take hard negatives: first wrong programs scored above a right one, largest gap first; then those above `threshold`.

    If `passing` is false, the right programs come from earlier pairs. Some of them are in the new pool too and have a score: for
    a hard negative of the first kind, a right program that scored above the wrong one is not used.
    """
    mine = pairs.config.mine
    cap = max(1, round(mine.hard_share * mine.pairs_per_problem)) if mine.hard_share else 0
    scores = {program.candidate.completion: program.score for program in right}
    known = [Chosen(pair.chosen_id, pair.chosen, scores.get(pair.chosen)) for pair in earlier]
    known = list({chosen.text: chosen for chosen in known}.values())
    new = [as_chosen(program) for program in right] if mine.passing else []
    for chosen, rejected in hard_negatives(right, wrong):
        if mine.passing:
            pairs.take(as_chosen(chosen), rejected, "hard_negative", cap)
        elif options := below(known, rejected):
            pairs.take(rng.choice(options), rejected, "hard_negative", cap)
    if mine.threshold is None:
        return
    for rejected in sorted(wrong, key=lambda program: (-(program.score or 0.0), program.id)):
        if rejected.score is not None and rejected.score > mine.threshold and (options := new or known):
            pairs.take(rng.choice(options), rejected, "hard_negative", cap)


def below(known: Sequence[Chosen], rejected: Program) -> list[Chosen]:
    """The programs in `known` that the reranker scored below `rejected` or did not score."""
    return [
        chosen
        for chosen in known
        if chosen.score is None or rejected.score is None or chosen.score < rejected.score
    ]


def hard_negatives(right: Sequence[Program], wrong: Sequence[Program]) -> list[tuple[Program, Program]]:
    """Pairs (right, wrong) in which the reranker scored the wrong program higher, the largest difference first."""
    gaps = [
        (chosen.score - rejected.score, chosen.id, rejected.id, chosen, rejected)
        for chosen in right
        for rejected in wrong
        if chosen.score is not None and rejected.score is not None and rejected.score > chosen.score
    ]
    return [(chosen, rejected) for *_, chosen, rejected in sorted(gaps, key=lambda gap: gap[:3])]


MINE = Stage("mine", 5, run)
