"""Picks one of n programs with a finished run's last reranker and the ranking rule chosen on the validation split.

from selftrain import Picker
picked = Picker.load("runs/demo").rank(prompt, candidates)
candidates[picked.best]

There are two ranking rules: the reranker's score alone, and the score + weight x mean log-probability per token under the run's
generator. With the second rule, log-probabilities also detect candidates that are out of distribution, that is, texts that the
generator is very unlikely to write. The reranker's scores of such texts mean little.

Whether two candidates are too close to tell is measured: from the run's calibration on validation problems, the difference of two
scores gives the chance that the first is right rather than the second.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sandbox.languages import language as row_of
from selftrain.errors import UsageError
from selftrain.evaluation.comparisons import best_untrained, headline_text, untrained
from selftrain.evaluation.pools import WITH_LOGPROB
from selftrain.rerank.normal import Normal, check, language_of, normal
from selftrain.rerank.places import reranker_folder
from selftrain.rerank.reranker import Ranking, Reranker, checked
from selftrain.stage import ArtifactRef
from selftrain.store.runfile import find_run, read_run
from selftrain.store.store import Store

FAR = 2.0
"""Candidates are out of distribution if their mean log-probability is below FAR x `Picker.lowest`."""
CLOSE = 0.6
"""The pick and the next program are too close to tell below this chance that the pick is right rather than the next."""
_SEEN = 4096
"""Number of the run's candidates that are looked at to see how completions end."""


@dataclass(frozen=True)
class Picked(Ranking):
    """A ranking, and the log-probabilities that it uses.

    scores    [n] scores by the ranking rule
    logprobs  [n] mean log-probability per token under the run's generator, nats; None where the rule does not use them, and for
              candidates that cannot be scored
    lowest    see `Picker.lowest`; None without `logprobs`
    chance    that the pick is right rather than the next program, given that one of them is: sigmoid(scale x difference of their
              scores), with the scale of the run's calibration. None if all candidates are one program, or without calibration
    """

    logprobs: tuple[float | None, ...] | None = None
    lowest: float | None = None
    chance: float | None = None

    @property
    def mean_logprob(self) -> float | None:
        """Mean of `logprobs` over the candidates; None without log-probabilities."""
        known = [logprob for logprob in self.logprobs or () if logprob is not None]
        return sum(known) / len(known) if known else None

    @property
    def far(self) -> bool | None:
        """Whether the candidates are out of distribution for the run's generator; None without log-probabilities."""
        if self.mean_logprob is None or self.lowest is None:
            return None
        return self.mean_logprob < FAR * self.lowest

    @property
    def close(self) -> bool | None:
        """Whether the pick and the next program are too close to tell; None where `chance` is unknown."""
        return None if self.chance is None else self.chance < CLOSE


class Picker:
    """Ranks programs with the last reranker of a run, and with the run's generator if the ranking rule uses log-probabilities.

    run             the run's record
    way             the ranking rule: `rm-2` is the score of reranker rm-2, `rm-2+logprob` is this score + `weight` x mean
                    log-probability per token
    evaluated       the content of the run's evaluation.json
    uses_generator  whether the rule uses log-probabilities, which are computed where the caller does not give them
    headline        what report.json says about the ranking rule (`selftrain.evaluation.comparisons.Headline`), if it does
    """

    def __init__(
        self,
        run: Mapping[str, Any],
        reranker: Reranker,
        way: str,
        evaluated: Mapping[str, Any],
        uses_generator: bool,
        headline: Mapping[str, Any] | None = None,
    ) -> None:
        self.run, self.reranker, self.way, self.evaluated = run, reranker, way, evaluated
        self.headline = headline
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
        report = folder / "report.json"
        said = json.loads(report.read_text()).get("headline", {}) if report.is_file() else {}
        chosen = way or result["chosen"]
        # Without a given way the generator is used even for the reranker alone: it tells whether texts are far.
        return cls(record, Reranker.load(checkpoint, device), chosen, result, way != last, said.get(chosen))

    def rank(
        self,
        prompt: str,
        candidates: Sequence[str],
        language: str | None = None,
        logprobs: Sequence[float] | None = None,
        exact: bool = False,
    ) -> Picked:
        """Rank `candidates`: completions of `prompt`, whole programs, or answers in markdown (`selftrain.rerank.normal`).

        language  of the programs; the question to a generator with prompt style `chat` names it. None: the run's only language,
                  or what the prompt looks like
        logprobs  [n] mean log-probability per token under the run's generator, nats; None: the generator is loaded and computes
                  them where the ranking rule uses them
        exact     read the texts as they are: they are completions as the run's generator sampled them

        Raises UsageError where no candidate can be scored, an argument is wrong, or the generator needs the language, and the run
        has several.
        """
        check(prompt, candidates)
        language = row_of(language).name if language else None
        if logprobs is not None:
            _check_logprobs(logprobs, len(candidates))
        if exact:
            forms = [Normal(prompt, text) for text in candidates]
            ranking = Ranking(tuple(next(self.reranker.score_many([(prompt, candidates)], exact=True))))
        else:
            forms = self._forms(prompt, candidates, language)
            [ranking] = self.reranker.rank_forms([forms])
        return self._picked(forms, checked(ranking), language, logprobs)

    def rank_many(self, problems: Sequence[tuple[str, Sequence[str], str | None]]) -> list[Picked]:
        """Rank the candidates of several (prompt, candidates, language), as `rank` does, but for candidates none of which can be
        scored."""
        forms, languages = [], []
        for prompt, candidates, language in problems:
            check(prompt, candidates)
            languages.append(row_of(language).name if language else None)
            forms.append(self._forms(prompt, candidates, languages[-1]))
        rankings = self.reranker.rank_forms(forms)
        return [self._picked(*each) for each in zip(forms, rankings, languages, strict=True)]

    def _forms(self, prompt: str, candidates: Sequence[str], language: str | None) -> list[Normal]:
        """The candidates in normal form, cut at the stop texts that the run's problems in this language have in common."""
        if language is None:
            known = self._languages
            language = known[0] if len(known) == 1 else language_of(prompt) or None
        stops = self._stops.get(language or "", ())
        return [normal(prompt, text, language, stops, self.reranker.style) for text in candidates]

    def _picked(
        self,
        forms: Sequence[Normal],
        ranking: Ranking,
        language: str | None,
        logprobs: Sequence[float] | None = None,
    ) -> Picked:
        """The ranking by this picker's rule, from the reranker's alone."""
        refused = dict(ranking.refused)
        if not self.uses_generator or len(refused) == len(forms):
            return Picked(ranking.scores, refused=refused, chance=self._chance(forms, ranking))
        found: list[float | None]
        if logprobs is None:
            found = self._logprobs(forms, refused, language)
        else:
            found = [None if at in refused else log for at, log in enumerate(logprobs)]
        scores = tuple(
            -math.inf if log is None else score + self.weight * log
            for score, log in zip(ranking.scores, found, strict=True)
        )
        both = checked(Ranking(scores, refused=dict(sorted(refused.items()))))
        return Picked(scores, tuple(found), self.lowest, self._chance(forms, both), refused=both.refused)

    def _chance(self, forms: Sequence[Normal], ranking: Ranking) -> float | None:
        """See `Picked.chance`."""
        scale = (self.evaluated.get("calibration") or {}).get(self.alone, {}).get("scale", 0)
        order = [at for at in ranking.order if at not in ranking.refused]
        next_one = next((at for at in order if forms[at] != forms[order[0]]), None)
        if next_one is None or scale <= 0:
            return None
        return (1 + math.tanh(scale * (ranking.scores[order[0]] - ranking.scores[next_one]) / 2)) / 2

    @property
    def description(self) -> str:
        """The ranking rule, as text for users."""
        with_logprob = f" + {self.weight:.3g} x mean log-probability per token under the run's generator"
        return f"score of {self.alone}{'' if self.way == self.alone else with_logprob}"

    @property
    def solved(self) -> str:
        """How often the ranking rule picks a right program on the run's test problems, as text for users."""
        found = self.evaluated["evaluation"]["pools"]["sft"]["overall"]
        if self.headline:
            return f"on the run's {found['problems']} test problems {headline_text(self.way, self.headline)}"
        rival = best_untrained(found)
        return (
            f"on the run's {found['problems']} test problems {self.way} picks a right program on "
            f"{100 * found['rankers'][self.way]['value']:.1f} %, the best way without training, {rival}, on "
            f"{100 * untrained(found)[rival]['value']:.1f} %"
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
    def _stops(self) -> dict[str, tuple[str, ...]]:
        """Language -> the stop texts that all problems of the run in this language have."""
        import pyarrow.parquet as pq

        if "prepare" not in self.run["stages"]:
            return {}
        path = _folder(self.run, "prepare") / "problems.parquet"
        table = pq.ParquetFile(path).read(columns=["language", "stop_tokens"]).to_pydict()
        found: dict[str, set[tuple[str, ...]]] = {}
        for language, stops in zip(table["language"], table["stop_tokens"], strict=True):
            found.setdefault(language, set()).add(tuple(stops))
        return {language: tuple(set.intersection(*map(set, each))) for language, each in found.items()}

    @cached_property
    def _ends_with_token(self) -> bool:
        """Whether most of the run's candidates end with an end token, whose log-probability counts then, not at a stop text."""
        import pyarrow.parquet as pq

        from selftrain.models.models import end_ids

        if "sample-sft-evaluation" not in self.run["stages"]:
            return True
        ends = end_ids(self._generator[1], _folder(self.run, "sft"))
        path = _folder(self.run, "sample-sft-evaluation") / "candidates.parquet"
        rows = next(pq.ParquetFile(path).iter_batches(_SEEN, columns=["token_ids"]))["token_ids"].to_pylist()
        return 2 * sum(row[-1:] != [] and row[-1] in ends for row in rows) >= len(rows)

    @cached_property
    def _generator(self) -> tuple[Any, Any]:
        """The SFT policy on CPU, and its tokenizer."""
        import torch

        from selftrain.models.models import load_generator, load_tokenizer

        folder = _folder(self.run, "sft")
        return load_generator(folder, dtype=torch.float32).eval(), load_tokenizer(folder)

    def _logprobs(
        self, forms: Sequence[Normal], refused: dict[int, str], language: str | None
    ) -> list[float | None]:
        """Mean log-probability per token of each candidate under the run's generator, nats; None for `refused` ones.

        The end token counts where the run's candidates end with it. In prompt style `chat` it is that of an answer which has the
        candidate in a code block, and nothing else. Adds candidates that are too long for the generator to `refused`.
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
        context = load_context(_folder(self.run, "sft"))
        means: dict[Normal, float] = {}
        for form in dict.fromkeys(form for at, form in enumerate(forms) if at not in refused):
            head = encode_problem(tokenizer, form.prompt, language or "")
            [row] = encode_answers(tokenizer, form.prompt, [form.completion], language or "")
            if len(row) > 1 and not self._ends_with_token:
                row = row[:-1]
            if context is not None and len(head) + len(row) > context:
                reason = f"with the prompt it has {len(head) + len(row)} tokens; the run's generator reads no more than {context}"
                refused |= {
                    at: reason for at, other in enumerate(forms) if other == form and at not in refused
                }
            else:
                means[form] = summed_logprobs(model, [head], [row])[0] / len(row)
        return [means.get(form) if at not in refused else None for at, form in enumerate(forms)]


def _check_logprobs(logprobs: Sequence[float], n: int) -> None:
    """Raise UsageError unless `logprobs` is a mean log-probability for each of the `n` candidates."""
    numbers = [log for log in logprobs if isinstance(log, int | float) and math.isfinite(log) and log <= 0]
    if len(logprobs) != n or len(numbers) < n:
        raise UsageError(
            f"logprobs: expected a mean log-probability per token for each of {n} candidates, finite and at most 0, got "
            f"{len(logprobs)} values, {len(numbers)} of them such numbers"
        )


@dataclass(frozen=True)
class Example:
    """A test problem of a run with its generator's programs, each distinct program once.

    candidates  the programs
    verdicts    the sandbox's verdict on each program
    logprobs    the mean log-probability per token of each, as the generator sampled it, nats; the highest of its copies
    """

    id: str
    prompt: str
    language: str
    candidates: tuple[str, ...]
    verdicts: tuple[str, ...]
    logprobs: tuple[float, ...]


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
    means: dict[tuple[str, str], float] = {}
    for row in read_records(_folder(record, "sample-sft-evaluation") / "candidates.parquet", Candidate):
        if row.sample >= 0 and row.problem_id in pool:
            pool[row.problem_id].setdefault(row.completion, verdicts[row.id])
            mean, key = row.logprob / max(1, len(row.token_ids)), (row.problem_id, row.completion)
            means[key] = max(mean, means.get(key, mean))
    mixed = [
        name for name, found in pool.items() if "passed" in found.values() and len(set(found.values())) > 1
    ]
    chosen = id or next(iter(mixed or pool))
    if not pool.get(chosen):
        raise UsageError(
            f"{id}: no test problem of the run; expected one such as {', '.join(mixed[:3] or list(pool)[:3])}"
        )
    problem = next(problem for problem in problems if problem.id == chosen)
    found = pool[chosen]
    logprobs = tuple(means[chosen, text] for text in found)
    return Example(chosen, problem.prompt, problem.language, tuple(found), tuple(found.values()), logprobs)


def _folder(run: Mapping[str, Any], stage: str) -> Path:
    """The artifact folder of one stage of a run. Its files are not verified, which would take minutes for a large generator."""
    if stage not in run["stages"]:
        raise UsageError(f"this run of {run['name']} has no stage {stage}; finish it with `selftrain run`")
    ref = run["stages"][stage]
    return Store(run["store"]).place(ArtifactRef(ref["stage"], ref["key"]))
