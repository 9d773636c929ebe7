"""Types of a report's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from selftrain.evaluation.comparisons import Evaluation
from selftrain.evaluation.pools import Pool


class ProblemCounts(TypedDict):
    """The source of the problems, and numbers of problems. `train`: sft and rl; `eval`: the test split."""

    source: str
    train: int
    validation: int
    eval: int


@dataclass(frozen=True)
class ReportInputs:
    """All data that a report shows.

    name             name of the run
    config           the resolved config, as JSON values
    problems         numbers of problems
    seconds          stage label (`sft`, `ppo-1`, ...) -> seconds that its artifact took to build, in running order
    pools            candidates for the test problems; `sft` is the first pool
    evaluation       result of `evaluate_pools` for these pools
    ppo              `ppo-1`, ... -> one row per PPO step: `step`, and any of the keys of `page.CURVES`
    pairs            round (`1`, ...) -> kind (easy, on_policy, hard_negative) -> number of pairs mined in that round
    chosen           the ranker chosen on the validation split; one of the pools' rankers
    logprob_weights  ranker R -> weight of R+logprob, chosen on the validation split
    notes            sentences about the run's models and data, and about the limits of its results
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
