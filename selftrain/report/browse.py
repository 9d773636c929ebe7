"""Collects the data of the report's problem browser: candidates, scores and verdicts, up to a size limit; and a table of all problems."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from selftrain.evaluation.pools import SHUFFLED, Floats, Pool, PoolProblem
from selftrain.units import count_of

MAX_BYTES = 2_300_000
"""Largest size of the data in bytes of JSON; the page and its plots add a few hundred kB, to less than 3 MB."""
MAX_CHARACTERS = 4_000
"""Largest length of a prompt or a program; longer texts are cut."""


def browse_data(
    pools: Sequence[Pool], chosen: str, rival: str = "logprob", max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Problems with their candidates in every pool, as JSON values of at most `max_bytes`.

    chosen  the ranker that the validation split chose
    rival   the way of picking that it is compared with; one that picks none of the candidates becomes `logprob`

    Problems are added from all languages in turn until the limit, the most informative first (`_dullness` in the first pool);
    `left_out` is the number of problems that did not fit. Candidates of a problem with the same text and verdict are one entry
    with a count.
    """
    by_id: dict[str, dict[str, PoolProblem]] = {}
    for pool in pools:
        for problem in pool.problems:
            by_id.setdefault(problem.id, {})[pool.name] = problem
    rankers = _rankers(pools)
    ways = _ways(pools, chosen, rival)
    rival = rival if rival in ways else "logprob"
    verdicts = sorted({str(each) for pool in pools for problem in pool.problems for each in problem.verdicts})
    problems: list[dict[str, Any]] = []
    room = max_bytes
    for of_pools in _languages_in_turn(by_id, chosen, rival):
        entry = _entry(of_pools, rankers, ways, verdicts)
        room -= len(script_json(entry))
        if room < 0:
            break
        problems.append(entry)
    return {
        "pools": [pool.name for pool in pools],
        "rankers": rankers,
        "ways": ways,
        "chosen": chosen,
        "rival": rival,
        "verdicts": verdicts,
        "languages": sorted({entry["language"] for entry in problems}),
        "problems": sorted(problems, key=lambda entry: str(entry["id"])),
        "left_out": len(by_id) - len(problems),
    }


def problem_table(pools: Sequence[Pool], chosen: str, rival: str = "logprob") -> str:
    """All problems of all pools as CSV, one row each: the number of candidates and of those that pass, and for each way of picking
    the verdict of its pick. Arguments as in `browse_data`."""
    ways = _ways(pools, chosen, rival)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["pool", "problem", "language", "candidates", "passing", *ways])
    for pool in pools:
        for problem in pool.problems:
            verdicts = [str(problem.verdicts[problem.picks[way]]) for way in ways]
            counts = [len(problem.completions), int(problem.passed.sum())]
            rows.writerow([pool.name, problem.id, problem.language, *counts, *verdicts])
    return text.getvalue()


def _rankers(pools: Sequence[Pool]) -> list[str]:
    """The rankers that all pools have, without controls."""
    shared = set[str].intersection(*(set(pool.rankers) for pool in pools))
    return [name for name in pools[0].rankers if name in shared and not name.endswith(SHUFFLED)]


def _ways(pools: Sequence[Pool], chosen: str, rival: str) -> list[str]:
    """The ways of picking that are shown: `chosen`, `rival` if it picks one of the candidates (else `logprob`), then the others."""
    plain, rankers = ["logprob", "majority"], _rankers(pools)
    if any(problem.examples_passed is not None for problem in pools[0].problems):
        plain.append("examples")
    return list(
        dict.fromkeys([chosen, rival if rival in (*plain, *rankers) else "logprob", *plain, *rankers])
    )


def script_json(value: Any) -> str:
    """ASCII JSON that is safe within a script element: it can neither close the element nor open an HTML comment."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _languages_in_turn(
    by_id: Mapping[str, dict[str, PoolProblem]], chosen: str, rival: str
) -> Iterator[dict[str, PoolProblem]]:
    def first(of_pools: dict[str, PoolProblem]) -> PoolProblem:
        return next(iter(of_pools.values()))

    by_language: dict[str, list[dict[str, PoolProblem]]] = {}
    for of_pools in sorted(by_id.values(), key=lambda of_pools: _dullness(first(of_pools), chosen, rival)):
        by_language.setdefault(first(of_pools).language, []).append(of_pools)
    for turn in zip_longest(*by_language.values()):
        yield from (of_pools for of_pools in turn if of_pools is not None)


def _dullness(problem: PoolProblem, chosen: str, rival: str) -> int:
    """How little a problem tells about the ranker `chosen`.

    0  one of `chosen` and `rival` picks right, the other wrong
    1  both pick wrong, though a candidate passes
    2  both pick right, though a candidate fails
    3  all candidates pass, or none
    """
    right, before = (bool(problem.passed[problem.picks[way]]) for way in (chosen, rival))
    if problem.passed.all() or not problem.passed.any():
        return 3
    return 0 if right != before else 2 if right else 1


def _entry(
    of_pools: Mapping[str, PoolProblem], rankers: Sequence[str], ways: Sequence[str], verdicts: Sequence[str]
) -> dict[str, Any]:
    """`texts`: the distinct programs of all pools, which the candidates refer to by their place."""
    first = next(iter(of_pools.values()))
    texts: dict[str, int] = {}
    pools = {name: _candidates(problem, rankers, ways, verdicts, texts) for name, problem in of_pools.items()}
    return {
        "id": first.id,
        "language": first.language,
        "prompt": _cut(first.prompt),
        "texts": [_cut(text) for text in texts],
        "pools": pools,
    }


def _candidates(
    problem: PoolProblem,
    rankers: Sequence[str],
    ways: Sequence[str],
    verdicts: Sequence[str],
    texts: dict[str, int],
) -> dict[str, Any]:
    """The distinct programs as columns, which are smaller than one object each; new texts are added to `texts`.

    picks    [ways] the program that each way picks, by its place in the columns
    verdict  [programs] the verdict's place in `verdicts`
    scores   [rankers][programs]
    """
    keys = list(zip(problem.completions, problem.verdicts, strict=True))
    counts = Counter(keys)
    place = {key: at for at, key in enumerate(counts)}
    first = [keys.index(key) for key in counts]

    def column(values: Floats) -> list[float]:
        return [round(float(values[at]), 2) for at in first]

    return {
        "n": len(keys),
        "passed": int(problem.passed.sum()),
        "dull": _dullness(problem, ways[0], ways[1] if len(ways) > 1 else ways[0]),
        "picks": [place[keys[problem.picks[way]]] for way in ways],
        "text": [texts.setdefault(text, len(texts)) for text, _ in counts],
        "verdict": [verdicts.index(str(verdict)) for _, verdict in counts],
        "count": list(counts.values()),
        "logprob": column(problem.mean_logprob),
        "scores": [column(problem.scores[ranker]) for ranker in rankers],
    }


def _cut(text: str) -> str:
    rest = len(text) - MAX_CHARACTERS
    return f"{text[:MAX_CHARACTERS]}\n[{count_of(rest, 'more character')}]" if rest > 0 else text
