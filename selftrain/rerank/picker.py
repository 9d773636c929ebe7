"""Picks one of n programs with a finished run's last reranker and the ranking rule chosen on the validation split.

from selftrain import Picker
picked = Picker.load("runs/demo").rank(prompt, candidates)
candidates[picked.best]

There are two ranking rules: the reranker's score alone, and the score + weight x mean log-probability per token under the run's
generator. With the second rule, log-probabilities also detect candidates that are out of distribution, that is, texts that the
generator is very unlikely to write. The reranker's scores of such texts mean little.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sandbox.languages import language as row_of
from selftrain.errors import UsageError
from selftrain.evaluation.pools import WITH_LOGPROB
from selftrain.rerank.places import reranker_folder
from selftrain.rerank.reranker import Ranking, Reranker
from selftrain.stage import ArtifactRef
from selftrain.store.runfile import find_run, read_run
from selftrain.store.store import Store

FAR = 2.0
"""Candidates are out of distribution if their mean log-probability is below FAR x `Picker.lowest`."""


@dataclass(frozen=True)
class Picked(Ranking):
    """A ranking, and the log-probabilities that it uses.

    scores    [n] scores by the ranking rule
    logprobs  [n] mean log-probability per token under the run's generator, nats; None where the rule does not use them
    lowest    see `Picker.lowest`; None without `logprobs`
    """

    logprobs: tuple[float, ...] | None = None
    lowest: float | None = None

    @property
    def mean_logprob(self) -> float | None:
        """Mean of `logprobs` over the candidates; None without log-probabilities."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else None

    @property
    def far(self) -> bool | None:
        """Whether the candidates are out of distribution for the run's generator; None without log-probabilities."""
        if self.mean_logprob is None or self.lowest is None:
            return None
        return self.mean_logprob < FAR * self.lowest


class Picker:
    """Ranks programs with the last reranker of a run, and with the run's generator if the ranking rule uses log-probabilities.

    run             the run's record
    way             the ranking rule: `rm-2` is the score of reranker rm-2, `rm-2+logprob` is this score + `weight` x mean
                    log-probability per token
    evaluated       the content of the run's evaluation.json
    uses_generator  whether log-probabilities are computed
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
        """Load the picker of a finished run.

        way  ranking rule to use in place of the rule that was chosen on the validation split. The rule with the reranker alone
             does not load the generator, so `Picked.far` is None.

        Raises UsageError where the run or the ranking rule does not exist.
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

    def rank(self, prompt: str, candidates: Sequence[str], language: str | None = None) -> Picked:
        """Rank `candidates`, which are completions of `prompt` (without the prompt itself).

        language  of the programs; the question to a generator with prompt style `chat` names it. None: the run's only language

        Raises UsageError where the generator needs the language, and the run has several.
        """
        language = row_of(language).name if language else None
        scores = self.reranker.rank(prompt, candidates).scores
        if not self.uses_generator:
            return Picked(scores)
        logprobs = self.logprobs(prompt, candidates, language)
        scores = tuple(score + self.weight * log for score, log in zip(scores, logprobs, strict=True))
        return Picked(scores, logprobs, self.lowest)

    @property
    def description(self) -> str:
        """The ranking rule, as text for users."""
        with_logprob = f" + {self.weight:.3g} x mean log-probability per token under the run's generator"
        return f"score of {self.alone}{'' if self.way == self.alone else with_logprob}"

    @property
    def solved(self) -> str:
        """How often the ranking rule picks a right program on the run's test problems, as text for users."""
        found = self.evaluated["evaluation"]["pools"]["sft"]["overall"]
        own, random = found["rankers"][self.way]["value"], found["random"]["value"]
        return (
            f"on the run's {found['problems']} test problems its pick is right for {100 * own:.0f} %, a random one for "
            f"{100 * random:.0f} %"
        )

    @property
    def trained_on(self) -> str:
        """The problems that the reranker was trained on, as text for users."""
        source = self.run["config"]["problems"]["source"]
        what = "the built-in problem bank" if source == "bank" else f"problems of source {source}"
        return f"{what} in {', '.join(self._languages)}"

    @property
    def _languages(self) -> Sequence[str]:
        """The languages of the run's problems."""
        problems = self.run["config"]["problems"]
        return problems.get("languages") or sorted(
            {language for part in problems.get("parts", ()) for language in part.get("languages", ())}
        )

    @cached_property
    def lowest(self) -> float:
        """The lowest mean log-probability of a validation or test problem of the run, nats per token.

        The value of a problem is the mean over the SFT policy's candidates, each with its mean log-probability per token.
        """
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        path = _folder(self.run, "sample-sft-evaluation") / "candidates.parquet"
        # `read_table` and `group_by` would import pandas, a tenth of a cold start.
        table = pq.ParquetFile(path).read(columns=["problem_id", "logprob", "token_ids"])
        tokens = pc.list_value_length(table["token_ids"]).to_pylist()
        means: dict[str, list[float]] = {}
        for id, logprob, count in zip(
            table["problem_id"].to_pylist(), table["logprob"].to_pylist(), tokens, strict=True
        ):
            means.setdefault(id, []).append(logprob / max(1, count))
        return min(sum(found) / len(found) for found in means.values())

    @cached_property
    def _generator(self) -> tuple[Any, Any]:
        """The SFT policy on CPU, and its tokenizer."""
        import torch

        from selftrain.models.models import load_generator, load_tokenizer

        folder = _folder(self.run, "sft")
        return load_generator(folder, dtype=torch.float32).eval(), load_tokenizer(folder)

    def logprobs(self, prompt: str, candidates: Sequence[str], language: str | None) -> tuple[float, ...]:
        """Mean log-probability per token of each candidate under the run's generator, nats.

        In prompt style `chat` it is that of an answer which has the candidate in a code block, and nothing else.
        """
        from selftrain.models.logprobs import summed_logprobs
        from selftrain.models.models import load_context
        from selftrain.models.prompts import encode_answers, encode_problem, style_of

        model, tokenizer = self._generator
        if language is None and style_of(tokenizer) == "chat":
            if len(self._languages) > 1:
                raise UsageError(
                    f"the run's generator is asked for programs in a language; say which of {', '.join(self._languages)}"
                )
            [language] = self._languages
        head = encode_problem(tokenizer, prompt, language or "")
        rows = encode_answers(tokenizer, prompt, candidates, language or "")
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
    """A test problem of a run with its generator's programs, each distinct program once.

    candidates  the programs
    verdicts    the sandbox's verdict on each program
    """

    id: str
    prompt: str
    language: str
    candidates: tuple[str, ...]
    verdicts: tuple[str, ...]


def example(run: str | Path, id: str = "") -> Example:
    """The test problem `id` of a finished run; by default the first problem for which some programs pass and others do not.

    Raises UsageError where the run has no such test problem.
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
    problem = next(problem for problem in problems if problem.id == chosen)
    return Example(
        chosen, problem.prompt, problem.language, tuple(pool[chosen]), tuple(pool[chosen].values())
    )


def _folder(run: Mapping[str, Any], stage: str) -> Path:
    """The artifact folder of one stage of a run. Its files are not verified, which would take minutes for a large generator."""
    if stage not in run["stages"]:
        raise UsageError(f"this run of {run['name']} has no stage {stage}; finish it with `selftrain run`")
    ref = run["stages"][stage]
    return Store(run["store"]).place(ArtifactRef(ref["stage"], ref["key"]))
