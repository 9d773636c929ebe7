"""The inputs of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from selftrain.evaluation.comparisons import Evaluation
from selftrain.evaluation.pools import Pool


class ProblemCounts(TypedDict):
    """The source of the problems, and how many the stages used; `eval` is the test split."""

    source: str
    train: int
    validation: int
    eval: int


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report shows.

    name             name of the run
    config           the resolved config, as JSON values
    problems         numbers of problems
    seconds          stage label (`sft`, `ppo-1`, ...) -> seconds of the build that made its artifact, in
                     running order
    pools            candidates for the test problems, `sft` first
    evaluation       `evaluate_pools` of the same pools
    ppo              `ppo-1`, ... -> one row per step: `step`, and any of the keys of `page.CURVES`
    pairs            round (`1`, ...) -> kind (easy, on_policy, hard_negative) -> number of pairs mined in that
                     round
    chosen           the ranker chosen on the validation split: one of the pools' rankers
    logprob_weights  ranker R -> weight of R+logprob, chosen on the validation split
    notes            sentences about what the run used, and about the limits of its numbers
    """

    name: str
    config: Mapping[str, object]
    problems: ProblemCounts
    seconds: Mapping[str, float]
    pools: Sequence[Pool]
    evaluation: Evaluation
    ppo: Mapping[str, Sequence[Mapping[str, float]]]
    pairs: Mapping[str, Mapping[str, int]]
    chosen: str
    logprob_weights: Mapping[str, float]
    notes: Sequence[str] = ()
