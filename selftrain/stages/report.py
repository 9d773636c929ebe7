"""Stage `report`: the evaluation and the metrics in the stages' manifests -> report.json, report.html and report.csv."""

import json
from collections import Counter
from functools import partial
from typing import Any

from selftrain.config import Strict
from selftrain.evaluation.comparisons import headline
from selftrain.evaluation.pools import WITH_LOGPROB, load_pool, with_agreement, with_logprob
from selftrain.evaluation.scores import read_scores
from selftrain.records import Pair, Problem, read_records
from selftrain.report.build import build_report
from selftrain.report.page import ReportInputs
from selftrain.stage import Context, Outcome, Stage
from selftrain.store.store import sha256_file

BANK_NOTE = "The problems are the built-in bank's: exercise for the method on small models. They say nothing about real-world code."


class ReportSlice(Strict):
    """What the report shows besides its inputs: the run's config without `runtime`, `promotion` and `store`."""

    config: dict[str, Any]
    pools: tuple[str, ...]
    rounds: int


def run(context: Context) -> Outcome:
    """Reads `problems`, each pool's candidates and executions, `evaluation`, and `pairs` if the run mined any; writes the files.

    It also reads `context.manifests`: name of a step (`sft`, `ppo-1`, ...) -> its manifest.
    """
    config: ReportSlice = context.config
    problems = read_records(context.inputs["problems"] / "problems.parquet", Problem)
    result = json.loads((context.inputs["evaluation"] / "evaluation.json").read_text())
    counts = Counter(problem.split for problem in problems)
    source = config.config["problems"]["source"]
    kinds: dict[str, Counter[str]] = {}
    mined = context.inputs.get("pairs")
    for pair in read_records(mined / "pairs.parquet", Pair) if mined else ():
        kinds.setdefault(str(pair.round), Counter())[pair.kind] += 1
    weights = result["logprob_weights"]
    scores_of = partial(read_scores, context.inputs["evaluation"])
    pools = [
        with_agreement(with_logprob(load_pool(context.inputs, pool, "test", scores_of(pool)), weights))
        for pool in config.pools
    ]
    last = result["chosen"].removesuffix(WITH_LOGPROB)
    inputs = ReportInputs(
        name=config.config["name"],
        config=config.config,
        problems={
            "source": source,
            "train": counts["sft"] + counts["rl"],
            "validation": counts["validation"],
            "eval": counts["test"],
        },
        seconds={label: manifest["seconds"] for label, manifest in context.manifests.items()},
        pools=pools,
        evaluation=result["evaluation"],
        ppo={
            label: manifest["metrics"]["curve"]
            + [_probe(row) for row in manifest["metrics"].get("probes", [])]
            for label, manifest in context.manifests.items()
            if manifest["stage"] == "ppo"
        },
        pairs=kinds,
        chosen=result["chosen"],
        headline={way: headline(pools[0], way, result["evaluation"]) for way in (last, last + WITH_LOGPROB)},
        logprob_weights=weights,
        calibration=result.get("calibration", {}),  # an older evaluation has none
        notes=[BANK_NOTE] if source == "bank" else [],
    )
    build_report(inputs, context.folder)
    return Outcome(sha256_file(context.inputs["evaluation"] / "evaluation.json"))


def _probe(row: dict[str, Any]) -> dict[str, float]:
    """A probe's metrics as a row of the PPO curve."""
    return {"step": row["step"], "probe_pass_rate": row["pass_rate"], "hacking_gap": row["hacking_gap"]}


REPORT = Stage("report", 5, run)
