"""Stage `mine`: a judged pool -> pairs of a right program over a wrong one, added to the earlier pairs.

For each problem with passing and failing candidates, up to `pairs_per_problem` new pairs:
- hard negatives, from round 2 on: the reranker scored a failing candidate above a passing one of the same problem, or
  above `threshold`; the largest mistakes first;
- easy pairs: the failing program crashes, times out or does not compile;
- on-policy pairs: the rest, drawn at random under the seed.
A candidate without a verdict of its own (`sandbox_error`) is in no pair.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sandbox.verdicts import Verdict
from selftrain.config import MineConfig, Strict
from selftrain.records import Candidate, Execution, Pair, Problem, digest, read_records, write_records
from selftrain.scoring import Job, score_candidates
from selftrain.stage import Build, Outcome, Stage


class MineSlice(Strict):
    """What the pairs depend on, beside the pool, the earlier pairs and the reranker that scores the pool."""

    seed: int
    round: int
    mine: MineConfig


@dataclass(frozen=True)
class Program:
    """One distinct program of a problem: its first candidate, its verdict, its score where a reranker gave one."""

    candidate: Candidate
    verdict: Verdict
    score: float | None

    @property
    def id(self) -> str:
        """Its candidate's id."""
        return self.candidate.id


def build(build: Build) -> Outcome:
    """Reads `problems`, `candidates`, `executions`, and from round 2 on `pairs` and `reranker`; writes pairs.parquet."""
    config: MineSlice = build.config
    problems = {p.id: p for p in read_records(build.inputs["problems"] / "problems.parquet", Problem)}
    candidates = read_records(build.inputs["candidates"] / "candidates.parquet", Candidate)
    executions = {e.candidate_id: e for e in read_records(build.inputs["executions"] / "executions.parquet", Execution)}
    earlier: list[Pair] = []
    scores: dict[str, float] = {}
    if "reranker" in build.inputs:
        earlier = read_records(build.inputs["pairs"] / "pairs.parquet", Pair)
        scores = score_candidates(build, [Job("mine", "reranker", "candidates", splits=("rl",))])["mine"]
    new = mine_pairs(problems, candidates, executions, scores, earlier, config)
    pairs = earlier + new
    write_records(build.folder / "pairs.parquet", pairs, Pair)
    metrics = {
        "pairs": len(pairs),
        "new": len(new),
        "kinds": dict(sorted(Counter(pair.kind for pair in new).items())),
        "problems": len({pair.problem_id for pair in new}),
    }
    return Outcome(digest(pairs), metrics)


def mine_pairs(
    problems: dict[str, Problem],
    candidates: Iterable[Candidate],
    executions: dict[str, Execution],
    scores: dict[str, float],
    earlier: Sequence[Pair],
    config: MineSlice,
) -> list[Pair]:
    """The new pairs of this round, in the order of the problems."""
    known = defaultdict(list)
    for pair in earlier:
        known[pair.problem_id].append(pair)
    pairs = []
    for problem_id, programs in distinct_programs(candidates, executions, scores).items():
        rng = random.Random(f"{config.seed}/{config.round}/{problem_id}")
        pairs += problem_pairs(problems[problem_id], programs, known[problem_id], config, rng)
    return pairs


def distinct_programs(
    candidates: Iterable[Candidate], executions: dict[str, Execution], scores: dict[str, float]
) -> dict[str, list[Program]]:
    """Per problem its distinct sampled programs that have a verdict of their own."""
    found: dict[str, dict[str, Program]] = defaultdict(dict)
    for candidate in candidates:
        verdict = executions[candidate.id].verdict
        if candidate.sample >= 0 and verdict.is_label:
            found[candidate.problem_id].setdefault(
                candidate.completion.rstrip(), Program(candidate, verdict, scores.get(candidate.id))
            )
    return {problem_id: list(programs.values()) for problem_id, programs in found.items()}


def problem_pairs(
    problem: Problem, programs: Sequence[Program], earlier: Sequence[Pair], config: MineSlice, rng: random.Random
) -> list[Pair]:
    """One problem's new pairs, at most `pairs_per_problem`, none of which is in `earlier`."""
    mine, first = config.mine, config.round == 1
    right = [program for program in programs if program.verdict is Verdict.passed]
    wrong = [program for program in programs if program.verdict is not Verdict.passed]
    seen = {(pair.chosen, pair.rejected) for pair in earlier}
    taken: Counter[str] = Counter()
    pairs: list[Pair] = []

    def take(chosen: tuple[str, str, float | None], program: Program, kind: str, cap: int) -> None:
        chosen_id, text, score = chosen
        key = (text, program.candidate.completion)
        if len(pairs) >= mine.pairs_per_problem or taken[kind] >= cap or key in seen:
            return
        seen.add(key)
        taken[kind] += 1
        pairs.append(
            Pair(
                problem_id=problem.id,
                prompt=problem.prompt,
                chosen=text,
                rejected=program.candidate.completion,
                chosen_id=chosen_id,
                rejected_id=program.id,
                kind=kind,
                round=config.round,
                chosen_score=score,
                rejected_score=program.score,
            )
        )

    def as_chosen(program: Program) -> tuple[str, str, float | None]:
        return program.id, program.candidate.completion, program.score

    hard_cap = 0 if first else max(1, round(mine.hard_share * mine.pairs_per_problem))
    if hard_cap:
        for chosen, rejected in hard_negatives(right, wrong):
            take(as_chosen(chosen), rejected, "hard_negative", hard_cap)
        if mine.threshold is not None:
            known = {pair.chosen: (pair.chosen_id, pair.chosen, None) for pair in earlier}
            options = [as_chosen(p) for p in right] or list(known.values())
            for program in sorted(wrong, key=lambda p: (-(p.score or 0.0), p.id)):
                if options and program.score is not None and program.score > mine.threshold:
                    take(rng.choice(options), program, "hard_negative", hard_cap)
        if not mine.passing:
            return pairs
    rest = [(chosen, rejected) for chosen in right for rejected in wrong]
    rng.shuffle(rest)
    easy_cap = round(mine.easy_share * mine.pairs_per_problem)
    for chosen, rejected in rest:
        easy = rejected.verdict is not Verdict.wrong_answer
        take(as_chosen(chosen), rejected, "easy" if easy else "on_policy", easy_cap if easy else mine.pairs_per_problem)
    return pairs


def hard_negatives(right: Sequence[Program], wrong: Sequence[Program]) -> list[tuple[Program, Program]]:
    """Pairs (right, wrong) whose scores are the wrong way round, the largest gap first."""
    gaps = [
        (chosen.score - rejected.score, chosen.id, rejected.id, chosen, rejected)
        for chosen in right
        for rejected in wrong
        if chosen.score is not None and rejected.score is not None and rejected.score > chosen.score
    ]
    return [(chosen, rejected) for *_, chosen, rejected in sorted(gaps, key=lambda gap: gap[:3])]


MINE = Stage("mine", 1, build)
