"""The reranker that is being served: loads it, scores many problems, counts tokens, shortens texts, replaces it by a newer one."""

import copy
import logging
import math
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from selftrain.errors import UsageError
from selftrain.models.context import context_of
from selftrain.rerank.normal import Normal, check, language_name
from selftrain.rerank.picker import Picker
from selftrain.rerank.places import find_champion, reranker_folder
from selftrain.rerank.ranker import load_ranker
from selftrain.rerank.reranker import Reranker

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Problem:
    """A prompt and its candidates, as the reranker reads them.

    prompt    as the request has it
    forms     [candidates] in normal form
    language  of the programs, if it is known
    ids       normal form -> its token ids, without those that hold nothing to score
    """

    prompt: str
    forms: Sequence[Normal]
    language: str | None
    ids: Mapping[Normal, list[int]]

    def tokens(self, at: int) -> int:
        """Number of tokens of the prompt and candidate `at` together; 0 if it holds nothing to score."""
        return len(self.ids.get(self.forms[at], ()))


@dataclass(frozen=True)
class Ranked:
    """Scores of a problem's candidates.

    scores   [candidates] by the ranking rule; minus infinity where a candidate cannot be scored
    refused  number of each candidate that cannot be scored -> the reason
    far      that the candidates are unlike the run's training, as text for users; empty where they are not, or that is unknown
    close    the same of a pick and a next program that are too close to tell
    """

    scores: list[float]
    refused: Mapping[int, str]
    far: str = ""
    close: str = ""

    def only(self, numbers: Sequence[int]) -> "Ranked":
        """The candidates with these numbers, in this order. Which of them are close is not known."""
        refused = {at: self.refused[number] for at, number in enumerate(numbers) if number in self.refused}
        return Ranked([self.scores[number] for number in numbers], refused, self.far)


class Served:
    """A reranker, or a run's picker, and how its scores become numbers between 0 and 1.

    name        what clients are told as the model
    context     the longest input, prompt and candidate together, tokens; None: no bound
    calibrated  whether `relevance` is the chance that a candidate passes: of a run that ranks by the reranker alone
    """

    def __init__(self, name: str, ranker: Picker | Reranker) -> None:
        self.name = name
        self.picker = ranker if isinstance(ranker, Picker) else None
        self.reranker = ranker.reranker if isinstance(ranker, Picker) else ranker
        self.context = context_of(self.reranker.model.config)
        # Two threads may not use one tokenizer at once: these are for the two threads that read requests.
        self._readers = [
            Reranker(self.reranker.model, copy.deepcopy(self.reranker.tokenizer)) for _ in range(2)
        ]
        fit = self._fit()
        self.scale, self.offset = fit or (1.0, 0.0)
        self.calibrated = fit is not None and self.picker is not None and self.picker.way == self.picker.alone

    def _fit(self) -> tuple[float, float] | None:
        """Scale and offset of the run's fit on its validation problems; None: there is none, or it does not rise."""
        fits = (self.picker.evaluated.get("calibration") or {}) if self.picker else {}
        fit = fits.get(self.picker.alone) if self.picker else None
        return (float(fit["scale"]), float(fit["offset"])) if fit and fit["scale"] > 0 else None

    @property
    def way(self) -> str:
        """The ranking rule, as text for users."""
        return self.picker.description if self.picker else "score of the reranker"

    def relevance(self, score: float) -> float:
        """A number between 0 and 1 that rises with the score: sigmoid(scale x score + offset)."""
        log_odds = self.scale * score + self.offset
        small = math.exp(-abs(log_odds))  # so that low numbers keep their order too
        return (1.0 if log_odds >= 0 else small) / (1 + small)

    def least(self, scores: Sequence[float]) -> float:
        """A score for candidates that cannot be scored: of relevance 0.001, or the lowest of `scores` if that is lower."""
        return min(-(math.log(999) + self.offset) / self.scale, *filter(math.isfinite, scores), math.inf)

    def rank(self, problems: Sequence[Problem]) -> list[Ranked]:
        """The candidates [problems] by the ranking rule. Raises UsageError as `Picker.rank` does."""
        forms = [problem.forms for problem in problems]
        ids = {form: found for problem in problems for form, found in problem.ids.items()}
        if self.picker:
            picker, languages = self.picker, [problem.language for problem in problems]
            return [
                Ranked(list(found.scores), dict(found.refused), picker.far_doubt(found), found.close_doubt)
                for found in picker.rank_forms(forms, languages, ids)
            ]
        return [
            Ranked(list(found.scores), dict(found.refused)) for found in self.reranker.rank_forms(forms, ids)
        ]

    def read(
        self, prompt: str, texts: Sequence[str], language: str | None = None, large: bool = False
    ) -> Problem:
        """The candidates as the reranker reads them. `large`: by which of two threads, which may read at once, this is called.

        Raises UsageError for what is no text, or no language.
        """
        check(prompt, texts)
        language = language_name(language)
        ranker = self.picker or self.reranker
        return self.read_forms(prompt, ranker.forms(prompt, texts, language), language, large)

    def read_forms(
        self, prompt: str, forms: Sequence[Normal], language: str | None, large: bool = False
    ) -> Problem:
        """What `read` does, of candidates in normal form."""
        return Problem(prompt, forms, language, self._readers[large].read(forms))

    def lengths(self, prompt: str, texts: Sequence[str], large: bool = False) -> list[int]:
        """[texts] tokens of the prompt and each text together, as they are."""
        return list(map(len, self._readers[large].encode([(prompt, texts)])[0]))

    def shortened(self, prompt: str, text: str, most: int, keep_end: bool, large: bool = False) -> str | None:
        """A beginning (or end) of `text` with which the input has at most `most` tokens, and with one more character has not.

        None: not even the prompt fits.
        """
        alone = self.lengths("", [""], large)[0]
        room = most - self.lengths(prompt, [""], large)[0]
        if room < 0:
            return None
        kept, over = 0, len(text) + 1
        while over - kept > 1:
            middle = (kept + over) // 2
            part = text[-middle:] if keep_end else text[:middle]
            if self.lengths("", [part], large)[0] - alone <= room:  # the prompt is read only once
                kept = middle
            else:
                over = middle
        return text[len(text) - kept :] if keep_end else text[:kept]

    def split(self, text: str) -> tuple[str, str] | None:
        """Prompt and completion of a text that has the tokenizer's separator between them; None: it has none."""
        separator = self.reranker.tokenizer.sep_token
        if not separator or separator not in text:
            return None
        prompt, _, completion = text.partition(separator)
        return prompt, self.without_end(completion)

    def without_end(self, completion: str) -> str:
        """A completion without the special tokens at its end."""
        tokenizer = self.reranker.tokenizer
        ends = {tokenizer.eos_token, tokenizer.pad_token} - {None, ""}
        at = len(completion)
        while end := next((end for end in ends if completion.endswith(end, 0, at)), None):
            at -= len(end)
        return completion[:at]


@dataclass(frozen=True)
class Wanted:
    """Which reranker to serve.

    what    a run, `champion`, or another place of `selftrain.rerank.places`
    by      another ranking rule than the one that validation chose
    device  processor, such as cpu or cuda
    """

    what: str
    by: str | None = None
    device: str = "cpu"

    def identity(self) -> str:
        """What changes when there is a newer reranker to serve. Raises SelftrainError if there is none."""
        if champion := find_champion(self.what):
            return champion[1].model_dump_json()
        return str(reranker_folder(self.what).resolve())

    def load(self) -> Served:
        """Load it, so that it answers its first request as fast as any. Raises SelftrainError if it does not exist."""
        served = self._loaded()
        with suppress(UsageError):  # where a language has to be said
            served.rank([served.read("def one():\n", ["    return 1\n"])])
        return served

    def _loaded(self) -> Served:
        ranker = load_ranker(self.what, self.by, self.device)
        if champion := find_champion(self.what):
            return Served(f"{champion[1].ranker}-{champion[1].reranker}", ranker)
        if isinstance(ranker, Picker):
            # The name of a link to the newest run stays, whichever run that is.
            return Served(f"{os.path.basename(os.path.abspath(self.what))}/{ranker.way}", ranker)
        return Served(reranker_folder(self.what).name, ranker)


class Source:
    """Holds the reranker that is being served, and replaces it. Requests that were read before are scored by the one that read them."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._identity = wanted.identity()
        self.served = wanted.load()
        self._loading = threading.Lock()

    def renew(self, always: bool) -> bool:
        """Load a newer reranker if there is one, or in any case; returns whether it was loaded. On failure the old one stays.

        Raises SelftrainError where the new one cannot be loaded.
        """
        with self._loading:
            identity = self.wanted.identity()
            if not always and identity == self._identity:
                return False
            try:
                self.served = self.wanted.load()
            except UsageError:
                self._identity = identity  # it is wrong: not tried again every minute
                raise
            self._identity = identity
            log.warning("serving %s now: %s", self.served.name, self.served.way)
            return True
