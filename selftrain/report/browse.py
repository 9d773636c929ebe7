"""Collects the data of the report's problem browser: candidates, scores and verdicts, up to a size limit."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from selftrain.evaluation.pools import SHUFFLED, Pool, PoolProblem

MAX_BYTES = 3_500_000
"""Largest size of the data in bytes of JSON; the page and its plots add a few hundred kB."""
MAX_CHARACTERS = 4_000
"""Largest length of a prompt or a program; longer texts are cut."""


def browse_data(pools: Sequence[Pool], chosen: str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Problems with their candidates in every pool, as JSON values of at most `max_bytes`.

    Problems are added from all languages in turn until the limit; `left_out` is the number of problems that did not fit.
    Candidates of a problem with the same text and verdict are one entry with a count. `chosen`: the ranker that the
    validation split chose.
    """
    by_id: dict[str, dict[str, PoolProblem]] = {}
    for pool in pools:
        for problem in pool.problems:
            by_id.setdefault(problem.id, {})[pool.name] = problem
    shared = set[str].intersection(*(set(pool.rankers) for pool in pools))
    rankers = [name for name in pools[0].rankers if name in shared and not name.endswith(SHUFFLED)]
    problems: list[dict[str, Any]] = []
    room = max_bytes
    for of_pools in _languages_in_turn(by_id):
        entry = _entry(of_pools, rankers)
        room -= len(script_json(entry))
        if room < 0:
            break
        problems.append(entry)
    return {
        "pools": [pool.name for pool in pools],
        "rankers": rankers,
        "chosen": chosen,
        "languages": sorted({entry["language"] for entry in problems}),
        "problems": sorted(problems, key=lambda entry: str(entry["id"])),
        "left_out": len(by_id) - len(problems),
    }


def script_json(value: Any) -> str:
    """ASCII JSON that is safe within a script element: it can neither close the element nor open an HTML comment."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _languages_in_turn(by_id: Mapping[str, dict[str, PoolProblem]]) -> Iterator[dict[str, PoolProblem]]:
    by_language: dict[str, list[dict[str, PoolProblem]]] = {}
    for of_pools in by_id.values():
        by_language.setdefault(next(iter(of_pools.values())).language, []).append(of_pools)
    for turn in zip_longest(*by_language.values()):
        yield from (of_pools for of_pools in turn if of_pools is not None)


def _entry(of_pools: Mapping[str, PoolProblem], rankers: Sequence[str]) -> dict[str, Any]:
    first = next(iter(of_pools.values()))
    return {
        "id": first.id,
        "language": first.language,
        "prompt": _cut(first.prompt),
        "pools": {name: _candidates(problem, rankers) for name, problem in of_pools.items()},
    }


def _candidates(problem: PoolProblem, rankers: Sequence[str]) -> dict[str, Any]:
    """`picks`: ranking rule -> whether its pick passes. `candidates`: distinct programs, each with the rules that pick it."""
    shown = {way: problem.picks[way] for way in ("logprob", "majority", *rankers)}
    keys = list(zip(problem.completions, problem.verdicts, strict=True))
    counts = Counter(keys)
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    return {
        "n": len(keys),
        "passed": int(problem.passed.sum()),
        "picks": {way: bool(problem.passed[pick]) for way, pick in shown.items()},
        "candidates": [
            {
                "text": _cut(key[0]),
                "verdict": str(key[1]),
                "count": counts[key],
                "logprob": round(float(problem.mean_logprob[first[key]]), 3),
                "scores": [round(float(problem.scores[ranker][first[key]]), 3) for ranker in rankers],
                "picked_by": [way for way, pick in shown.items() if keys[pick] == key],
            }
            for key in counts
        ],
    }


def _cut(text: str) -> str:
    rest = len(text) - MAX_CHARACTERS
    return f"{text[:MAX_CHARACTERS]}\n[{rest} more characters]" if rest > 0 else text
