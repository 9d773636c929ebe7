"""Scores pools of candidates with rerankers in child processes; duplicate programs of a problem are scored once."""

import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from selftrain.errors import UsageError
from selftrain.evaluation.scores import Scores
from selftrain.launch import ranks
from selftrain.launch.launch import Child, child_main, launch, report_progress
from selftrain.records import CandidateText, Problem, iter_records, read_records
from selftrain.stage import Context, Outcome
from selftrain.store.store import PROGRESS


@dataclass(frozen=True)
class Job:
    """One pool of candidates to score with one reranker.

    name        key of this job's scores in the result of `score_candidates`
    reranker    name of the stage's input with the reranker
    candidates  name of the stage's input with the pool
    splits      splits whose problems are scored
    shuffled    whether each candidate is scored with another problem's prompt (of the same split and language). This control
                shows whether the reranker reads the problem.
    foreign     whether the reranker is a reward model of others (`selftrain.rerank.reward_model`)
    """

    name: str
    reranker: str
    candidates: str
    splits: tuple[str, ...]
    shuffled: bool = False
    foreign: bool = False


def score_candidates(context: Context, jobs: Sequence[Job]) -> dict[str, Scores]:
    """Run the jobs; returns {job name: scores}. Greedy candidates (sample -1) are not scored."""
    import pyarrow.parquet as pq

    folder = context.folder / PROGRESS
    for old in folder.glob("scores-*.parquet"):
        old.unlink()
    sharded = context.runtime.scoring_shards and context.runtime.processes > 1
    alone = context.runtime.model_copy(update={"nodes": 1, "launcher": "torchrun"})
    launch(
        "selftrain.rerank.scoring",
        replace(context, config={}, runtime=alone),
        distributed=sharded,
        extra={"jobs": [asdict(job) for job in jobs], "sharded": sharded},
    )
    paths = sorted(folder.glob("scores-*.parquet"))
    found = {}
    for job in jobs:
        filters = [("job", "=", job.name)]
        rows = pq.ParquetDataset(paths, filters=filters).read(["candidate_id", "score"]).combine_chunks()
        found[job.name] = Scores(rows["candidate_id"].combine_chunks(), rows["score"].to_numpy())
    return found


def run(child: Child) -> Outcome:
    """Work of the child process: each rank scores its share of the problems of every job, and writes its scores to a file.

    Raises UsageError where a score is NaN or infinite.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from selftrain.rerank.reranker import Reranker
    from selftrain.rerank.reward_model import RewardModel
    from selftrain.rerank.sharded import load_sharded

    sharded = child.extra.get("sharded", False)
    jobs = [Job(**job | {"splits": tuple(job["splits"])}) for job in child.extra["jobs"]]
    rank, world = ranks.rank(), ranks.world_size()
    problems = read_records(child.inputs["problems"] / "problems.parquet", Problem)
    rerankers: dict[str, Reranker] = {}
    schema = pa.schema([("job", pa.string()), ("candidate_id", pa.string()), ("score", pa.float64())])
    written = pq.ParquetWriter(child.private / f"scores-{rank}.parquet", schema)
    for number, job in enumerate(jobs):
        if job.reranker not in rerankers:
            folder, kind = child.inputs[job.reranker], RewardModel if job.foreign else Reranker
            rerankers[job.reranker] = (
                load_sharded(folder, child.runtime, kind)
                if sharded
                else kind.load(folder, child.runtime.device)
            )
        mine = list(_problem_texts(problems, child.inputs[job.candidates], job))[rank::world]
        # In one window: the last bits of a score depend on its batch, and stored scores must not change with WINDOW.
        texts = [(prompt, list(distinct)) for prompt, distinct in mine]
        scores = list(rerankers[job.reranker].score_many(texts, window=sys.maxsize, exact=True))
        if sharded:
            rerankers[job.reranker].forward.finish()
        if not all(math.isfinite(score) for found in scores for score in found):
            raise UsageError(
                f"the reranker {job.reranker} gives scores that are NaN or infinite to candidates of {job.candidates}; "
                "expected finite numbers: its weights are damaged, or too large for the arithmetic"
                f"{'' if job.foreign else '; train it anew at a lower reward.learning_rate'}"
            )
        ids = [id for _, distinct in mine for same in distinct.values() for id in same]
        every = [
            score
            for (_, distinct), found in zip(mine, scores, strict=True)
            for same, score in zip(distinct.values(), found, strict=True)
            for _ in same
        ]
        written.write_table(pa.table([[job.name] * len(ids), ids, every], schema=schema))
        report_progress(number + 1, len(jobs), "rerankings")
    written.close()
    return Outcome("")


def _problem_texts(
    problems: Sequence[Problem], pool: Path, job: Job
) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """For each problem of the job: the prompt, and {completion: ids of the candidates with it} for each distinct completion.

    pool  the folder of its candidates
    """
    wanted = {problem.id for problem in problems if problem.split in job.splits}
    texts: dict[str, dict[str, list[str]]] = {}
    for rows in iter_records(pool / "candidates.parquet", CandidateText):
        for row in rows:
            if row.sample >= 0 and row.problem_id in wanted:
                texts.setdefault(row.problem_id, {}).setdefault(row.completion, []).append(row.id)
    chosen = [problem for problem in problems if problem.split in job.splits and problem.id in texts]
    prompts = shuffled_prompts(chosen) if job.shuffled else {problem.id: problem.prompt for problem in chosen}
    for problem in chosen:
        yield prompts[problem.id], texts[problem.id]


def shuffled_prompts(problems: Sequence[Problem]) -> dict[str, str]:
    """{problem id: prompt of another problem of the same split and language}; the own prompt where there is no other problem."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.split, problem.language), []).append(problem)
    prompts: dict[str, str] = {}
    for group in groups.values():
        order = sorted(group, key=lambda problem: problem.id)
        random.Random(0).shuffle(order)
        prompts |= {one.id: other.prompt for one, other in zip(order, order[1:] + order[:1], strict=True)}
    return prompts


if __name__ == "__main__":
    child_main(run, apart=True)
