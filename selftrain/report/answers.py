"""What a reader asks first about a run, with the answers: is it better, by how much, is that sure, and did the last round help."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from selftrain.evaluation.comparisons import Comparison, best_untrained
from selftrain.evaluation.metrics import (
    FEWEST_TASKS,
    RESAMPLES,
    Estimate,
    Metrics,
    few_tasks,
    mean_estimate,
    outcomes,
    pool_weights,
)
from selftrain.evaluation.pools import AGREEMENT, SHUFFLED, WITH_AGREEMENT, WITH_LOGPROB, Pool
from selftrain.report import numbers
from selftrain.report.charts import ways
from selftrain.units import count_of

NAMES = {
    "random": ("a random pick", "Any of the candidates: the mean share that passes."),
    "greedy": ("greedy decoding", "Not one of the candidates: the program that the generator writes at temperature 0."),
    "logprob": ("log-probability", "The candidate with the highest mean log-probability per token under the generator."),
    "logprob_sum": ("summed log-probability", "The candidate that is likeliest as a whole under the generator."),
    "majority": ("majority", "The program that the generator wrote most often; ties by log-probability."),
    "examples": ("the prompt's examples", "A candidate that passes the examples in the prompt; ties by log-probability."),
    AGREEMENT: ("agreement of outputs", "A candidate of the largest group whose programs print the same on generated inputs."),
    "oracle": ("the oracle", "Knows the verdicts: solved if any candidate passes. No way of picking can do better."),
}  # fmt: skip
"""Way of picking -> its name in a sentence, and what it picks."""


class Answer(NamedTuple):
    """`said`: the answer in a word or a number. `tone`: gain, loss or unsure. `text`: one or more sentences."""

    question: str
    said: str
    tone: str
    text: str


def explained(way: str) -> tuple[str, str]:
    """The name of a way of picking in a sentence, and what it picks."""
    if way in NAMES:
        return NAMES[way]
    parts = re.fullmatch(r"rm-(\d+)(.*)", way)
    name, rest = (f"reranker {parts[1]}", parts[2]) if parts else (way, "")
    what = f"The candidate with the highest score of the reranker that round {parts[1]} trained" if parts else (
        "The candidate with the highest score of this reward model"
    )  # fmt: skip
    if rest == WITH_LOGPROB:
        return f"{name} with log-probability", f"{what}, plus a weight times the mean log-probability."
    if rest == WITH_AGREEMENT:
        return f"{name} with agreement", f"{what}, from the largest group of equal outputs."
    return name, f"{what}."


def paired(pool: Pool, way: str, rival: str, found: Mapping[str, Comparison]) -> Estimate | None:
    """Share of the pool's problems that `way` solves minus that of `rival`: from `found`, or computed; None if nothing is known."""
    name = f"{pool.name}/{way}-{rival}"
    if name in found:
        return found[name]
    table = outcomes(pool)
    if way not in table or rival not in table:
        return None
    return mean_estimate(table[way] - table[rival], pool_weights(pool, RESAMPLES))


def answers(pool: Pool, metrics: Metrics, chosen: str, found: Mapping[str, Comparison]) -> list[Answer]:
    """The answers for the way `chosen` on `pool`, with `metrics` of that pool and the run's comparisons by name."""
    rival = best_untrained(metrics)
    pick, best = metrics["rankers"][chosen], ways(metrics)[rival]
    gain = paired(pool, chosen, rival, found)
    assert gain is not None, f"{rival} is a way of the pool's metrics"
    over_random = paired(pool, chosen, "random", found)
    share, name = pick["gap_recovered"], explained(chosen)[0]
    given = [
        Answer(
            "Is it better than picking without training?",
            *_yes(gain, pool),
            f"{name[0].upper()}{name[1:]} picks a right program on {numbers.percent(pick['value'])} of the "
            f"{count_of(metrics['problems'], 'test problem')} {numbers.interval(pick)}. The best way without training here, "
            f"{explained(rival)[0]}, does on {numbers.percent(best['value'])} {numbers.interval(best)}.",
        ),
        Answer(
            "By how much?",
            numbers.points(gain["value"]),
            _tone(gain, pool),
            f"Over {explained(rival)[0]}: {numbers.difference(gain)}."
            + (f" Over a random pick: {numbers.difference(over_random)}." if over_random and rival != "random" else "")
            + (f" Of what any way of picking could gain over a random pick, it gains {numbers.percent(share['value'])} "
               f"{numbers.interval(share)}." if share else ""),
        ),
        _sure(gain, pool, chosen, found),
        *_last_round(pool, metrics, chosen, found),
    ]  # fmt: skip
    few = few_tasks(pool.tasks)
    return [answer._replace(text=f"{answer.text} {few}.") for answer in given] if few else given


def _sure(gain: Estimate, pool: Pool, chosen: str, found: Mapping[str, Comparison]) -> Answer:
    known = _tone(gain, pool) != "unsure"
    control = found.get(f"{pool.name}/{chosen}{SHUFFLED}-random")
    text = (
        f"The interval of the difference {'includes' if _includes_0(gain) else 'does not include'} 0, over other test problems of this kind. "
        "It does not cover another training seed: runs with other seeds, side by side, show that (selftrain compare)."
    )
    if control:
        text += (
            " When the reranker reads each candidate beside another problem's prompt, its gain over a random pick is "
            f"{numbers.difference(control)}."
        )
    return Answer("Is that sure?", "Yes, at 95 %" if known else "No", "gain" if known else "unsure", text)


def _last_round(pool: Pool, metrics: Metrics, chosen: str, found: Mapping[str, Comparison]) -> list[Answer]:
    """Whether the last round's reranker picks better than that of the round before; nothing to say of other rerankers."""
    rounds = [int(match[1]) for way in metrics["rankers"] if (match := re.fullmatch(r"rm-(\d+)", way))]
    if not rounds:
        return []
    last = max(rounds)
    question = f"Did round {last} help?" if last > 1 else "Did a second round help?"
    if last == 1 or f"rm-{last - 1}" not in metrics["rankers"]:
        return [Answer(question, "Not known", "unsure", "The run has the reranker of one round only.")]
    with_logprob = chosen.endswith(WITH_LOGPROB) and f"rm-{last}{WITH_LOGPROB}" in metrics["rankers"]
    suffix = WITH_LOGPROB if with_logprob else ""
    now, before = f"rm-{last}{suffix}", f"rm-{last - 1}{suffix}"
    step = paired(pool, now, before, found)
    if step is None:
        return []
    text = f"On the same candidates, {explained(now)[0]} against {explained(before)[0]}: {numbers.difference(step)}."
    system = found.get(f"system/{last}-{last - 1}")
    if system:
        text += f" With each round's own generator, the two rounds differ by {numbers.difference(system)}."
    return [Answer(question, *_yes(step, pool), text)]


def _yes(difference: Estimate, pool: Pool) -> tuple[str, str]:
    tone = _tone(difference, pool)
    return {"gain": "Yes", "loss": "No, it is worse", "unsure": "Not shown"}[tone], tone


def _tone(difference: Estimate, pool: Pool) -> str:
    """gain, loss or unsure, by the interval of a difference on `pool`; with fewer than FEWEST_TASKS tasks it is unsure."""
    if pool.tasks < FEWEST_TASKS or _includes_0(difference):
        return "unsure"
    return "gain" if difference["low"] > 0 else "loss"


def _includes_0(difference: Estimate) -> bool:
    return difference["low"] <= 0 <= difference["high"]
