"""Stage `evaluate`: ranks every pool with every reranker and computes the metrics on the test split.

Two choices are made on the validation split, with the SFT policy's candidates: the weight of the log-probability in
`rm-r+logprob`, and which of the last round's two rankers (with or without log-probability) is recommended. The chance of
passing is fitted there too (`selftrain.evaluation.calibration`).
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from selftrain.config import EvaluateConfig, Strict
from selftrain.evaluation.calibration import calibrate
from selftrain.evaluation.comparisons import evaluate_pools
from selftrain.evaluation.metrics import choose_logprob_weight, choose_ranker
from selftrain.evaluation.pools import (
    AGREEMENT,
    SHUFFLED,
    WITH_LOGPROB,
    load_pool,
    with_agreement,
    with_logprob,
)
from selftrain.evaluation.scores import Scores, scores_digest, write_scores
from selftrain.rerank.reward_model import reward_model_folder
from selftrain.rerank.scoring import Job, score_candidates
from selftrain.stage import Context, Outcome, Stage


class EvaluateSlice(Strict):
    """What the evaluation depends on: `pools` (`sft`, `ppo-1`, ...) and `rerankers` (`rm-1`, ...), in the order of rounds.

    reward_models  name of each of `evaluate.reward_models` -> its digest or hub commit
    """

    keyed_when_set = frozenset({"reward_models"})

    seed: int
    evaluate: EvaluateConfig
    pools: tuple[str, ...]
    rerankers: tuple[str, ...]
    reward_models: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it


def run(context: Context) -> Outcome:
    """Reads `problems`, each pool's `POOL.candidates` and `POOL.executions`, each reranker, and `POOL.agreement` where
    it is there; writes evaluation.json and the scores of each pool (`agreement`: size of the group)."""
    config: EvaluateSlice = context.config
    first = config.pools[0]
    folders = {
        name: reward_model_folder(config.evaluate.reward_models[name], digest)
        for name, digest in config.reward_models.items()
    }
    judges = (*folders, *config.rerankers)  # the last reranker stays the last of all
    jobs = _jobs(config, judges)
    found = score_candidates(replace(context, inputs={**context.inputs, **folders}), jobs)
    scores: dict[str, dict[str, Scores]] = {pool: {} for pool in config.pools}
    for name, by_candidate in found.items():
        pool, ranker = name.split("/", 1)
        scores[pool][ranker] = by_candidate
    for pool in config.pools:
        if (groups := context.inputs.get(f"{pool}.{AGREEMENT}")) is not None:
            scores[pool][AGREEMENT] = Scores.made(json.loads((groups / "groups.json").read_text()))
    write_scores(context.folder, scores)
    kept = {ranker: scores[first][ranker] for ranker in judges}
    validation = load_pool(context.inputs, first, "validation", kept)
    weights = {ranker: choose_logprob_weight(validation, ranker) for ranker in judges}
    last = config.rerankers[-1]
    chosen = choose_ranker(with_logprob(validation, weights), [last, last + WITH_LOGPROB])
    pools = [
        with_agreement(with_logprob(load_pool(context.inputs, pool, "test", scores[pool]), weights))
        for pool in config.pools
    ]
    evaluation = evaluate_pools(pools, config.evaluate.bootstrap, config.seed)
    calibration = {ranker: calibrate(validation, pools[0], ranker) for ranker in config.rerankers}
    result = {
        "evaluation": evaluation,
        "logprob_weights": weights,
        "chosen": chosen,
        "calibration": calibration,
    }
    (context.folder / "evaluation.json").write_text(json.dumps(result, indent=1))
    overall = evaluation["pools"][first]["overall"]
    metrics = {
        "chosen": chosen,
        "unjudged": sum(pool.unjudged for pool in pools),
        "random": overall["random"]["value"],
        "picked": overall["rankers"][chosen]["value"],
        "oracle": overall["oracle"]["value"],
        "ece_raw": calibration[last]["ece_raw"],
        "ece": calibration[last]["ece"],
    }
    return Outcome(scores_digest(scores, result), metrics)


def _jobs(config: EvaluateSlice, judges: Sequence[str]) -> list[Job]:
    """What is scored: every pool by each of `judges`; and the first pool by the rerankers with the prompts of other problems."""
    first, foreign = config.pools[0], config.reward_models
    jobs = [
        Job(f"{pool}/{judge}", judge, f"{pool}.candidates", ("validation", "test"), foreign=judge in foreign)
        for pool in config.pools
        for judge in judges
    ]
    if config.evaluate.control:
        jobs += [
            Job(f"{first}/{ranker}{SHUFFLED}", ranker, f"{first}.candidates", ("test",), shuffled=True)
            for ranker in config.rerankers
        ]
    return jobs


EVALUATE = Stage("evaluate", 4, run)
