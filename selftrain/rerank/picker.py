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
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError
from selftrain.evaluation.comparisons import best_untrained, headline_text, untrained
from selftrain.evaluation.metrics import few_tasks
from selftrain.evaluation.pools import WITH_LOGPROB
from selftrain.rerank.likelihood import Asked, Likelihood
from selftrain.rerank.normal import Normal, check, language_name, language_of, normal
from selftrain.rerank.places import find_champion, reranker_folder
from selftrain.rerank.reranker import Ranking, Reranker, checked
from selftrain.stage import ArtifactRef
from selftrain.store.runfile import find_run, read_run, stage_place
from selftrain.units import count_of

FAR = 2.0
"""Candidates are out of distribution if their mean log-probability is below FAR x `Picker.lowest`."""
CLOSE = 0.6
"""The pick and the next program are too close to tell below this chance that the pick is right rather than the next."""


@dataclass(frozen=True)
class Picked(Ranking):
    """A ranking, and the log-probabilities that it uses.

    scores    [n] scores by the ranking rule
    logprobs  [n] mean log-probability per token under the run's generator, nats; None for candidates that cannot be scored, and in
              place of all where they were not needed
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

    @property
    def close_doubt(self) -> str:
        """That the pick and the next program are too close to tell, as text for users; empty where they are not."""
        if not self.close:
            return ""
        return (
            "the pick and the next program are too close to tell: if one of them is right, it is the pick with a chance of "
            f"{100 * (self.chance or 0):.0f} %, by the calibration on the run's validation problems"
        )


@dataclass
class _Ranked(Asked):
    """A problem, with the reranker's ranking and the candidates' mean log-probabilities, once they are known."""

    ranking: Ranking
    logprobs: Sequence[float | None] | None


class Picker:
    """Ranks programs with the last reranker of a run, and with the run's generator if the ranking rule uses log-probabilities.

    run             the run's record
    way             the ranking rule: `rm-2` is the score of reranker rm-2, `rm-2+logprob` is this score + `weight` x mean
                    log-probability per token
    evaluated       the content of the run's evaluation.json
    tells_far       whether `rank` computes log-probabilities also for a rule that does not use them: they tell whether texts are
                    out of distribution
    headline        what report.json says about the ranking rule (`selftrain.evaluation.comparisons.Headline`), if it does
    """

    def __init__(
        self,
        run: Mapping[str, Any],
        reranker: Reranker,
        way: str,
        evaluated: Mapping[str, Any],
        tells_far: bool = False,
        headline: Mapping[str, Any] | None = None,
    ) -> None:
        self.run, self.reranker, self.way, self.evaluated = run, reranker, way, evaluated
        self.headline = headline
        # A reranker that started from `reward.base` does not know the style of the generator.
        if style := run.get("config", {}).get("model", {}).get("prompt_style"):
            reranker.style = style
        self.tells_far = tells_far
        self.alone = way.removesuffix(WITH_LOGPROB)
        self.weight: float = evaluated["logprob_weights"][self.alone] if way != self.alone else 0.0

    @classmethod
    def load(cls, run: str | Path, way: str | None = None, device: str = "cpu") -> "Picker":
        """Load the picker of a finished run, or of the champion (`champion[:NAME][@STORE]`).

        way  ranking rule to use in place of the rule that was chosen on the validation split. If the rule with the reranker alone
             is given, the generator is not loaded, so `Picked.far` is None.

        Raises UsageError where the run or the ranking rule does not exist, or the champion was never evaluated.
        """
        said: Mapping[str, Any] = {}
        if found := find_champion(str(run)):
            from selftrain.champion.registry import champion_record

            store, champion = found
            record, best, place = champion_record(store, champion), champion.ranker, str(run)
            checkpoint = store.place(ArtifactRef.parse(champion.reranker))
            result = _evaluated(record)
        else:
            folder = find_run(run)
            record, checkpoint, place = read_run(folder), reranker_folder(folder), str(folder)
            result = _evaluated(record)
            best, report = result["chosen"], folder / "report.json"
            said = json.loads(report.read_text()).get("headline", {}) if report.is_file() else {}
        last = best.removesuffix(WITH_LOGPROB)
        if way not in (None, last, last + WITH_LOGPROB):
            raise UsageError(
                f"{way!r}: expected {last} or {last + WITH_LOGPROB}, the ways of {place}'s last reranker"
            )
        chosen = way or best
        return cls(record, Reranker.load(checkpoint, device), chosen, result, way is None, said.get(chosen))

    def rank(
        self,
        prompt: str,
        candidates: Sequence[str],
        language: str | None = None,
        mean_logprobs: Sequence[float] | None = None,
        exact: bool = False,
    ) -> Picked:
        """Rank `candidates`: completions of `prompt`, whole programs, or answers in markdown (`selftrain.rerank.normal`).

        language       of the programs; the question to a generator with prompt style `chat` names it. None: the run's only
                       language, or what the prompt looks like
        mean_logprobs  [n] mean log-probability per token under the run's generator, nats; None: the generator is loaded and
                       computes them where the ranking rule uses them
        exact          read the texts as they are: they are completions as the run's generator sampled them

        Raises UsageError where no candidate can be scored, an argument is wrong, or the generator needs the language, and the run
        has several.
        """
        check(prompt, candidates)
        language = language_name(language)
        if mean_logprobs is not None:
            check_logprobs(mean_logprobs, len(candidates))
        if exact:
            forms = [Normal(prompt, text) for text in candidates]
            ranking = Ranking(tuple(next(self.reranker.score_many([(prompt, candidates)], exact=True))))
        else:
            forms = self.forms(prompt, candidates, language)
            [ranking] = self.reranker.rank_forms([forms])
        ranked = _Ranked(forms, language, dict(ranking.refused), checked(ranking), mean_logprobs)
        return checked(self._picked([ranked], self.tells_far)[0])

    def rank_many(
        self,
        problems: Sequence[tuple[str, Sequence[str], str | None]],
        mean_logprobs: Sequence[Sequence[float] | None] | None = None,
    ) -> list[Picked]:
        """Rank the candidates of several (prompt, candidates, language), as `rank` does, but also where no candidate can be scored,
        and without telling whether they are out of distribution, where the rule does not use log-probabilities.

        mean_logprobs  [problems] as in `rank`; None: of no problem
        """
        given = [None] * len(problems) if mean_logprobs is None else mean_logprobs
        forms, languages = [], []
        for (prompt, candidates, language), logprobs in zip(problems, given, strict=True):
            check(prompt, candidates)
            if logprobs is not None:
                check_logprobs(logprobs, len(candidates))
            languages.append(language_name(language))
            forms.append(self.forms(prompt, candidates, languages[-1]))
        return self.rank_forms(forms, languages, mean_logprobs=given)

    def rank_forms(
        self,
        problems: Sequence[Sequence[Normal]],
        languages: Sequence[str | None],
        ids: Mapping[Normal, list[int]] | None = None,
        mean_logprobs: Sequence[Sequence[float] | None] | None = None,
    ) -> list[Picked]:
        """What `rank_many` does, of candidates in normal form. `ids`: what the reranker's `read` gives for all of them."""
        given = [None] * len(problems) if mean_logprobs is None else mean_logprobs
        rankings = self.reranker.rank_forms(problems, ids)
        return self._picked(
            [
                _Ranked(forms, language, dict(ranking.refused), ranking, logprobs)
                for forms, ranking, language, logprobs in zip(
                    problems, rankings, languages, given, strict=True
                )
            ]
        )

    def forms(self, prompt: str, candidates: Sequence[str], language: str | None = None) -> list[Normal]:
        """The candidates in normal form, cut at the stop texts that the run's problems in this language have in common."""
        if language is None:
            known = self._languages
            language = known[0] if len(known) == 1 else language_of(prompt) or None
        stops = self._stops.get(language or "", ())
        return [normal(prompt, text, language, stops, self.reranker.style) for text in candidates]

    def _picked(self, problems: Sequence["_Ranked"], tell: bool = False) -> list[Picked]:
        """The rankings [problems] by this picker's rule. `tell`: use log-probabilities also where the rule does not."""
        alone = self.way == self.alone
        if tell or not alone:
            unknown = [
                ranked
                for ranked in problems
                if ranked.logprobs is None and len(ranked.refused) < len(ranked.forms)
            ]
            # The rule with the reranker alone holds whatever the generator cannot read.
            with suppress(*((UsageError,) if alone else ())):
                for ranked, means in zip(unknown, self.likelihood.means(unknown), strict=True):
                    ranked.logprobs = means
        return [self._decided(ranked, tell) for ranked in problems]

    def _decided(self, ranked: "_Ranked", tell: bool) -> Picked:
        """The ranking of one problem, whose log-probabilities are there if they are used."""
        forms, ranking, alone = ranked.forms, ranked.ranking, self.way == self.alone
        if ranked.logprobs is None or (alone and not tell) or len(ranking.refused) == len(forms):
            return Picked(ranking.scores, refused=ranking.refused, chance=self._chance(forms, ranking))
        logs = tuple(None if at in ranked.refused else log for at, log in enumerate(ranked.logprobs))
        lowest = None
        with suppress(*((UsageError,) if alone else ())):
            lowest = self.lowest
        if alone:
            return Picked(ranking.scores, logs, lowest, self._chance(forms, ranking), refused=ranking.refused)
        scores = tuple(
            -math.inf if log is None else score + self.weight * log
            for score, log in zip(ranking.scores, logs, strict=True)
        )
        both = Ranking(scores, refused=dict(sorted(ranked.refused.items())))
        return Picked(scores, logs, lowest, self._chance(forms, both), refused=both.refused)

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

    def far_doubt(self, picked: Picked) -> str:
        """That the candidates are out of distribution, as text for users; empty where they are not."""
        if not picked.far:
            return ""
        return (
            f"these texts are unlike what {self.way} was trained on, {self.trained_on}: their mean log-probability under the run's "
            f"generator is {picked.mean_logprob:.2f} nats per token, and on no test problem of the run is it below "
            f"{picked.lowest:.2f}. Do not rely on this order"
        )

    @property
    def solved(self) -> str:
        """How often the ranking rule picks a right program on the run's test problems, as text for users."""
        found = self.evaluated["evaluation"]["pools"]["sft"]["overall"]
        if self.headline:
            return f"on the run's {count_of(found['problems'], 'test problem')} {headline_text(self.way, self.headline)}"
        rival, few = best_untrained(found), few_tasks(found["problems"])  # each task is one problem or more
        return (
            f"on the run's {count_of(found['problems'], 'test problem')} {self.way} picks a right program on "
            f"{100 * found['rankers'][self.way]['value']:.1f} %, the best way without training, {rival}, on "
            f"{100 * untrained(found)[rival]['value']:.1f} %" + (f". {few}" if few else "")
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
    def likelihood(self) -> Likelihood:
        """The run's generator, which gives log-probabilities."""
        return Likelihood(self.run, self._languages)

    @property
    def lowest(self) -> float:
        """See `Likelihood.lowest`."""
        return self.likelihood.lowest

    @cached_property
    def _stops(self) -> dict[str, tuple[str, ...]]:
        """Language -> the stop texts that all problems of the run in this language have."""
        import pyarrow.parquet as pq

        if "prepare" not in self.run["stages"]:
            return {}
        path = stage_place(self.run, "prepare") / "problems.parquet"
        table = pq.ParquetFile(path).read(columns=["language", "stop_tokens"]).to_pydict()
        found: dict[str, set[tuple[str, ...]]] = {}
        for language, stops in zip(table["language"], table["stop_tokens"], strict=True):
            found.setdefault(language, set()).add(tuple(stops))
        return {language: tuple(set.intersection(*map(set, each))) for language, each in found.items()}


def check_logprobs(logprobs: Any, n: int) -> None:
    """Raise UsageError unless `logprobs` is a mean log-probability for each of the `n` candidates."""
    given = list(logprobs) if isinstance(logprobs, Sequence) and not isinstance(logprobs, str) else None
    numbers = [log for log in given or () if type(log) is not bool and isinstance(log, int | float)]
    numbers = [log for log in numbers if -sys.float_info.max <= log <= 0]
    if given is None or len(given) != n or len(numbers) < n:
        got = "no list" if given is None else f"{len(given)} values, {len(numbers)} of them such numbers"
        raise UsageError(
            f"mean_logprobs: expected a mean log-probability per token for each of {n} candidates, finite and at most 0, got {got}"
        )


def _evaluated(record: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a run's evaluation.json."""
    return dict(json.loads((stage_place(record, "evaluate") / "evaluation.json").read_text()))
