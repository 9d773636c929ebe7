"""Picks one of n programs with a finished run's last reranker, in the way that its validation split chose.

from selftrain import Picker
picked = Picker.load("runs/demo").rank(prompt, candidates)
candidates[picked.best]

The way is the reranker's score, or the score + weight x mean log-probability per token under the run's generator. The
log-probability also shows texts that the generator would hardly write: a reranker's scores of such texts mean little.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError
from selftrain.evaluation.pools import WITH_LOGPROB
from selftrain.rerank.reranker import Ranking, Reranker, reranker_folder
from selftrain.stage import ArtifactRef
from selftrain.store.runfile import find_run, read_run
from selftrain.store.store import Store

FAR = 2.0
"""Texts are far where their mean log-probability is below FAR x the lowest mean of the run's own test problems."""


@dataclass(frozen=True)
class Picked(Ranking):
    """A ranking and the figures that it comes from.

    scores    [n] by the way chosen
    logprobs  [n] mean log-probability per token under the run's generator, nats; None where the way needs none
    lowest    the lowest mean of such a list over the run's own test problems
    """

    logprobs: tuple[float, ...] | None = None
    lowest: float | None = None

    @property
    def mean_logprob(self) -> float | None:
        """Mean of `logprobs` over the candidates."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else None

    @property
    def far(self) -> bool | None:
        """Whether the candidates are unlike the run's own samples; None without log-probabilities."""
        if self.mean_logprob is None or self.lowest is None:
            return None
        return self.mean_logprob < FAR * self.lowest


class Picker:
    """The last reranker of a run, and its generator where log-probabilities are used.

    way     `rm-2`: the score; `rm-2+logprob`: the score + `weight` x mean log-probability
    """

    def __init__(
        self,
        run: Mapping[str, Any],
        reranker: Reranker,
        way: str,
        evaluated: Mapping[str, Any],
        uses_generator: bool,
    ) -> None:
        self.run, self.reranker, self.way, self.evaluated = run, reranker, way, evaluated
        self.uses_generator = uses_generator
        self.alone = way.removesuffix(WITH_LOGPROB)
        self.weight: float = evaluated["logprob_weights"][self.alone] if way != self.alone else 0.0

    @classmethod
    def load(cls, run: str | Path, way: str | None = None, device: str = "cpu") -> "Picker":
        """The picker of a finished run.

        way  instead of the one that the run's validation chose; the reranker alone needs no generator, and detects no far texts

        Raises UsageError where there is no such run or way.
        """
        folder = find_run(run)
        record = read_run(folder)
        checkpoint = reranker_folder(folder)
        result = json.loads((_folder(record, "evaluate") / "evaluation.json").read_text())
        last = result["chosen"].removesuffix(WITH_LOGPROB)
        if way not in (None, last, last + WITH_LOGPROB):
            raise UsageError(
                f"{way!r}: expected {last} or {last + WITH_LOGPROB}, the ways of {folder}'s last reranker"
            )
        return cls(record, Reranker.load(checkpoint, device), way or result["chosen"], result, way != last)

    def rank(self, prompt: str, candidates: Sequence[str]) -> Picked:
        """Ranks `candidates`, completions of `prompt` (without the prompt itself)."""
        scores = self.reranker.rank(prompt, candidates).scores
        if not self.uses_generator:
            return Picked(scores)
        logprobs = self._logprobs(prompt, candidates)
        scores = tuple(score + self.weight * log for score, log in zip(scores, logprobs, strict=True))
        return Picked(scores, logprobs, self.lowest)

    @property
    def description(self) -> str:
        """The way, for people."""
        with_logprob = f" + {self.weight:.3g} x mean log-probability per token under the run's generator"
        return f"score of {self.alone}{'' if self.way == self.alone else with_logprob}"

    @property
    def solved(self) -> str:
        """How often the way picks a right program, for people."""
        found = self.evaluated["evaluation"]["pools"]["sft"]["overall"]
        own, random = found["rankers"][self.way]["value"], found["random"]["value"]
        return (
            f"on the run's {found['problems']} test problems its pick is right for {100 * own:.0f} %, a random one for "
            f"{100 * random:.0f} %"
        )

    @property
    def trained_on(self) -> str:
        """What the reranker was trained on, for people."""
        problems = self.run["config"]["problems"]
        languages = problems.get("languages") or sorted(
            {language for part in problems.get("parts", ()) for language in part.get("languages", ())}
        )
        source = problems["source"]
        what = "the built-in problem bank" if source == "bank" else f"problems of source {source}"
        return f"{what} in {', '.join(languages)}"

    @cached_property
    def lowest(self) -> float:
        """The lowest mean, over the run's test problems, of the mean log-probabilities of a problem's candidates."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        path = _folder(self.run, "sample-sft-evaluation") / "candidates.parquet"
        table = pq.read_table(path, columns=["problem_id", "logprob", "token_ids"])
        tokens = pc.max_element_wise(pc.list_value_length(table["token_ids"]), 1)
        means = table.append_column("mean", pc.divide(table["logprob"], pc.cast(tokens, "float64")))
        return float(pc.min(means.group_by("problem_id").aggregate([("mean", "mean")])["mean_mean"]).as_py())

    @cached_property
    def _generator(self) -> tuple[Any, Any]:
        """The SFT policy on CPU, and its tokenizer."""
        import torch

        from selftrain.models.models import load_generator, load_tokenizer

        folder = _folder(self.run, "sft")
        return load_generator(folder, dtype=torch.float32).eval(), load_tokenizer(folder)

    def _logprobs(self, prompt: str, candidates: Sequence[str]) -> tuple[float, ...]:
        from selftrain.models.logprobs import summed_logprobs
        from selftrain.models.models import encode_completions, encode_prompt, load_context

        model, tokenizer = self._generator
        head, rows = encode_prompt(tokenizer, prompt), encode_completions(tokenizer, candidates)
        context = load_context(_folder(self.run, "sft"))
        longest = len(head) + max(map(len, rows))
        if not head or (context is not None and longest > context):
            raise UsageError(
                f"prompt and candidate have up to {longest} tokens, {len(head)} of them the prompt's; expected at least one of the "
                f"prompt's, and no more than {context} in all, the run's generator's longest input. Shorten the prompt, or rank "
                f"by {self.alone} alone"
            )
        sums = summed_logprobs(model, [head] * len(rows), rows)
        return tuple(total / len(row) for total, row in zip(sums, rows, strict=True))


@dataclass(frozen=True)
class Example:
    """A test problem of a run and what its generator wrote for it: each distinct program once, with the sandbox's verdict."""

    id: str
    prompt: str
    candidates: tuple[str, ...]
    verdicts: tuple[str, ...]


def example(run: str | Path, id: str = "") -> Example:
    """The test problem `id` of a finished run; by default the first of which some programs pass and some do not.

    Raises UsageError where the run has no such problem.
    """
    from selftrain.records import Candidate, Execution, Problem, read_records

    record = read_run(find_run(run))
    problems = read_records(_folder(record, "prepare") / "problems.parquet", Problem)
    pool: dict[str, dict[str, str]] = {problem.id: {} for problem in problems if problem.split == "test"}
    executions = _folder(record, "execute-sft-evaluation") / "executions.parquet"
    verdicts = {row.candidate_id: str(row.verdict) for row in read_records(executions, Execution)}
    for row in read_records(_folder(record, "sample-sft-evaluation") / "candidates.parquet", Candidate):
        if row.sample >= 0 and row.problem_id in pool:
            pool[row.problem_id].setdefault(row.completion, verdicts[row.id])
    mixed = [
        name for name, found in pool.items() if "passed" in found.values() and len(set(found.values())) > 1
    ]
    chosen = id or next(iter(mixed or pool))
    if not pool.get(chosen):
        raise UsageError(
            f"{id}: no test problem of the run; expected one such as {', '.join(mixed[:3] or list(pool)[:3])}"
        )
    prompt = next(problem.prompt for problem in problems if problem.id == chosen)
    return Example(chosen, prompt, tuple(pool[chosen]), tuple(pool[chosen].values()))


def _folder(run: Mapping[str, Any], stage: str) -> Path:
    """The folder of a run's stage. Its files are not verified: reading a generator may take minutes."""
    if stage not in run["stages"]:
        raise UsageError(f"this run of {run['name']} has no stage {stage}; finish it with `selftrain run`")
    ref = run["stages"][stage]
    return Store(run["store"]).place(ArtifactRef(ref["stage"], ref["key"]))
