"""Tests that a reranker split over two ranks gives the scores of a whole reranker, however unevenly the ranks are loaded."""

import json
import shutil
from pathlib import Path

import pytest

from selftrain.config import RuntimeConfig
from selftrain.records import Candidate, write_records
from selftrain.rerank.reranker import Reranker
from selftrain.rerank.scoring import Job, score_candidates
from selftrain.stage import Context
from tests.selftrain.conftest import make_problems


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
def test_shards_over_two_ranks_give_the_scores_of_a_whole_reranker(
    problems: Path, reranker: Path, tmp_path: Path, arithmetic: str
):
    """Also of one that was trained in bfloat16, and so computes in it."""
    shutil.copytree(reranker, tmp_path / "rm")
    config = json.loads((reranker / "config.json").read_text())
    (tmp_path / "rm" / "config.json").write_text(json.dumps(config | {"compute_type": arithmetic}))
    pool = tmp_path / "pool"
    pool.mkdir()
    rl = [problem for problem in make_problems() if problem.split == "rl"]
    texts = ["    return n + 7\n", "    return n\n", "    pass\n" * 8]
    candidates = [
        Candidate(f"{problem.id}#{sample}", problem.id, sample, text, (), 0.0, "stop")
        for problem in rl[:5]  # three problems for one rank, two for the other
        for sample, text in enumerate(texts)
    ]
    write_records(pool / "candidates.parquet", candidates, Candidate)

    def scores(folder: str, **runtime: object) -> dict[str, float]:
        (tmp_path / folder).mkdir()
        build = Context(
            config=None,
            inputs={"problems": problems, "pool": pool, "rm": tmp_path / "rm"},
            folder=tmp_path / folder,
            runtime=RuntimeConfig(processes=2, **runtime),
            progress=lambda **_: None,
        )
        job = Job("job", "rm", "pool", ("rl",))
        return score_candidates(build, [job, Job("control", "rm", "pool", ("rl",), shuffled=True)])["job"]

    whole = scores("whole")
    assert len(whole) == len(candidates)
    assert scores("sharded", scoring_shards=True) == pytest.approx(whole, rel=1e-5)
    exact = Reranker.load(reranker).score_many([(problem.prompt, texts) for problem in rl[:5]], exact=True)
    about = [whole[candidate.id] for candidate in candidates]
    assert (about == pytest.approx([score for scores in exact for score in scores], rel=1e-5)) is (
        arithmetic == "float32"
    )
