"""The command `selftrain evaluate`: judges programs, and measures every way to pick one of them."""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from flows.options import add_command, add_list, add_number, add_sandbox, judging, offline, runtime_of, within
from flows.progress import Progress
from selftrain.errors import UsageError
from selftrain.units import count_of

DESCRIPTION = """\
Measures how often each way to pick one of a problem's programs picks a right one: at random, by log-probability, by majority, by
the prompt's examples, by agreement, by rerankers; with 95 % intervals, by language, and from k programs (pass@k).

PROGRAMS are completions that something else wrote (MultiPL-E's NAME.json.gz, JSON lines with `completions`, or a folder of them),
which are judged in the sandbox; or a finished run, whose pool is judged already."""

EXAMPLES = """\
examples:
  selftrain evaluate completions/                           MultiPL-E's completions, all ways that need no reranker
  selftrain evaluate completions/ --reranker runs/demo      also picked by the reranker of a run
  selftrain evaluate written.jsonl --style chat             answers in markdown, as chat models write them
  selftrain evaluate runs/demo --pool ppo-2                 a pool of a run with its own rerankers
  selftrain evaluate runs/demo --reranker runs/two --json   with the reranker of another run, as JSON

a row of JSON lines is a problem (docs/own-data.md, or MultiPL-E's fields) with its completions:
  {"task": "double", "language": "py", "prompt": "def double(n):\\n", "tests": "assert double(2) == 4\\n",
   "completions": ["    return 2 * n\\n", "    return n\\n"], "mean_logprobs": [-0.2, -0.4]}
mean_logprobs, nats per token, may be left out. A run that picks by score and log-probability takes them for those under its own
generator, and computes these where a row has none: leave them out where another model wrote the completions."""


def add_evaluate(commands: Any) -> None:
    """Add `selftrain evaluate`."""
    about = "judge programs, and measure every way to pick one of them"
    evaluate = add_command(commands, "evaluate", evaluate_command, about, DESCRIPTION, EXAMPLES)
    evaluate.add_argument(
        "programs", nargs="+", metavar="PROGRAMS", help="files or folders with completions; or one run"
    )
    add_list(
        evaluate,
        "--reranker",
        "RUN",
        "a run, or the folder of a reranker, that picks too (may be repeated)",
    )
    evaluate.add_argument("--pool", default="sft", help="pool of a run: sft, ppo-1, ... (default: sft)")
    evaluate.add_argument(
        "--split",
        default="test",
        choices=("test", "validation"),
        help="split of a run's problems (default: test); on validation, where their weights were chosen, ways with +logprob look "
        "better than they are",
    )
    evaluate.add_argument(
        "--style",
        default="completion",
        choices=("completion", "chat"),
        help="what completions are: the text after the prompt, or answers in markdown (default: completion)",
    )
    compared = "generated inputs on which Python programs are compared; 0: without this way"
    add_number(evaluate, "--agreement", 8, "N", compared)
    add_number(evaluate, "--bootstrap", 2000, "N", "resamples")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    add_sandbox(evaluate)


def evaluate_command(options: argparse.Namespace) -> int:
    """`selftrain evaluate`."""
    from selftrain.config import MOST_INPUTS, MOST_RESAMPLES

    offline(*options.reranker)
    from selftrain.evaluation.comparisons import compare_pools
    from selftrain.evaluation.metrics import pool_metrics
    from selftrain.evaluation.pools import with_agreement

    within("--bootstrap", options.bootstrap, 1, MOST_RESAMPLES)
    within("--agreement", options.agreement, 0, MOST_INPUTS)
    runtime = runtime_of(options)
    is_run = _is_run(options.programs[0])
    if is_run and len(options.programs) > 1:
        raise UsageError(
            f"{options.programs[0]} is a run; expected one run, or files and folders with completions"
        )
    pool, lacking, names = of_run(options) if is_run else of_files(options, runtime)
    pool = with_agreement(pool)
    metrics = pool_metrics(pool, options.bootstrap, 0, lacking)
    differences = [
        row
        for row in compare_pools([pool], options.bootstrap)
        if row["name"].rpartition("-")[2] not in lacking
    ]
    if options.json:
        found = {"pool": pool.name, "unjudged": pool.unjudged, "rerankers": names}
        print(json.dumps(found | {"comparisons": differences, **metrics}, indent=1))
    else:
        title = title_of(pool, f"{options.split} problem" if is_run else "problem")
        print(_text(pool, title, metrics, differences, names))
    return 0


def title_of(pool: Any, what: str) -> str:
    """The line over the table. `what`: one of the problems."""
    sizes = sorted({len(problem.passed) for problem in pool.problems})
    first = f"{sizes[0]} to " if len(sizes) > 1 else ""
    languages = ", ".join(sorted({problem.language for problem in pool.problems}))
    return f"{count_of(len(pool.problems), what)} ({languages}), {first}{count_of(max(sizes, default=0), 'candidate')} each"


def _text(pool: Any, title: str, metrics: Any, differences: Sequence[Any], names: Mapping[str, str]) -> str:
    from selftrain.report.terminal import best_of_table, comparison_table, language_table, pool_table

    parts = [pool_table({pool.name: metrics}, title)]
    if len(metrics["languages"]) > 1:
        parts.append(language_table(metrics))
    if metrics["overall"]["samples"] > 1:
        parts.append(best_of_table(metrics["overall"]))
    if differences:
        parts.append(comparison_table(differences))
    notes = [f"{name}: {what}" for name, what in names.items()]
    if pool.tampered:
        notes.append(
            f"{count_of(pool.tampered, 'program')} tampered with the tests, which counts as a failure"
        )
    if pool.unjudged:
        notes.append(
            f"{count_of(pool.unjudged, 'program is', 'programs are')} left out: the sandbox itself failed there"
        )
    return "\n\n".join([*parts, "\n".join(notes)] if notes else parts)


def of_files(options: argparse.Namespace, runtime: Any) -> tuple[Any, set[str], dict[str, str]]:
    """The pool of completions from files, the baselines that it lacks, and what each reranker is."""
    from selftrain.examine.completions import candidates_of, judged_pool, unknown
    from selftrain.problems.completions import read_completions

    written = read_completions(options.programs)
    candidates = candidates_of(written, options.style)
    problems = [one.problem for one in written]
    means = {
        f"{one.problem.id}#{at}": mean for one in written for at, mean in enumerate(one.mean_logprobs or ())
    }
    scores, names = scores_of(options.reranker, problems, candidates, means)
    with judging(runtime) as context:
        pool = judged_pool(context, written, candidates, scores, options.agreement, options.style)
    return pool, unknown(written), names


def _is_run(place: str) -> bool:
    from selftrain.store.runfile import find_run

    with suppress(UsageError):
        find_run(place)
        return True
    return False


def of_run(options: argparse.Namespace) -> tuple[Any, set[str], dict[str, str]]:
    """The pool of a run with the scores of the run's own rerankers, and those of others."""
    from selftrain.evaluation.pools import SHUFFLED, load_pool, with_logprob
    from selftrain.evaluation.scores import read_scores
    from selftrain.records import Candidate, Problem, read_records
    from selftrain.store.runfile import find_run, read_run, stage_folder

    record = read_run(find_run(options.programs[0]))
    inputs = {
        "problems": stage_folder(record, "prepare"),
        f"{options.pool}.candidates": stage_folder(record, f"sample-{options.pool}-evaluation"),
        f"{options.pool}.executions": stage_folder(record, f"execute-{options.pool}-evaluation"),
    }
    evaluated = stage_folder(record, "evaluate")
    scores = read_scores(evaluated, options.pool)
    weights = json.loads((evaluated / "evaluation.json").read_text())["logprob_weights"]
    known: dict[str, Mapping[str, float]] = {
        name: found for name, found in scores.items() if not name.endswith(SHUFFLED)
    }
    problems = [
        row
        for row in read_records(inputs["problems"] / "problems.parquet", Problem)
        if row.split == options.split
    ]
    path = inputs[f"{options.pool}.candidates"] / "candidates.parquet"
    rows = read_records(path, Candidate)
    # Those of other pools are under other policies than the SFT policy, whose log-probabilities a picker reads.
    sft = record["stages"].get("sft", {}).get("key") if options.pool == "sft" else None
    means = {row.id: row.logprob / max(1, len(row.token_ids)) for row in rows} if sft else {}
    more, names = scores_of(options.reranker, problems, rows, means, sft)
    return with_logprob(load_pool(inputs, options.pool, options.split, known | more), weights), set(), names


def scores_of(
    rerankers: Sequence[str],
    problems: Sequence[Any],
    candidates: Sequence[Any],
    means: Mapping[str, float],
    generator: str | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Ranker -> candidate id -> score, by each of `rerankers`; and ranker -> what it is. Of greedy completions there are none.

    means      candidate id -> mean log-probability per token, of those where it is known: pickers need not compute it
    generator  key of the SFT policy under which they are: pickers of runs with another one compute theirs. None: the user says that
               they are under the generator of each picker
    """
    from selftrain.rerank.picker import Picker
    from selftrain.rerank.ranker import load_ranker, rank_many

    of_problem: dict[str, dict[str, str]] = {problem.id: {} for problem in problems}
    for row in candidates:
        if row.sample >= 0 and row.problem_id in of_problem:
            of_problem[row.problem_id][row.id] = row.completion
    show = Progress(sys.stderr)
    scores: dict[str, dict[str, float]] = {}
    names: dict[str, str] = {}
    for number, given in enumerate(rerankers, 1):
        name = "reranker" if len(rerankers) == 1 else f"reranker-{number}"
        ranker = load_ranker(given)
        told = f", by {ranker.way}: {ranker.description}" if isinstance(ranker, Picker) else ""
        names[name] = f"{given}{told}"
        known = means
        if generator and isinstance(ranker, Picker):
            known = means if ranker.run["stages"].get("sft", {}).get("key") == generator else {}
        scores[name] = {}
        for done, problem in enumerate(problems, 1):
            texts = of_problem[problem.id]
            if texts:
                # Not `rank`, which raises where no candidate has a score.
                logprobs = [known[id] for id in texts] if texts.keys() <= known.keys() else None
                asked = (problem.prompt, list(texts.values()), problem.language)
                [ranking] = rank_many(ranker, [asked], [logprobs])
                # A candidate that cannot be scored, such as an empty one, comes last.
                lowest = min(filter(math.isfinite, ranking.scores), default=0.0) - 1
                found = [score if math.isfinite(score) else lowest for score in ranking.scores]
                scores[name] |= dict(zip(texts, found, strict=True))
            show(done, len(problems), f"problems ranked by {name}")
    return scores, names
