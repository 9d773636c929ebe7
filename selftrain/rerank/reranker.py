"""The reranker, which is the result of a run: scores programs for a prompt and picks the best of n.

from selftrain import Reranker
ranking = Reranker.load("runs/demo").rank(prompt, candidates)
candidates[ranking.best]

Prompts and candidates are brought into one form before they are read (`selftrain.rerank.normal`). A candidate that cannot be
scored does not spoil the ranking: it comes last, and the ranking says why.
"""

import gc
import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from selftrain.errors import RunError, UsageError
from selftrain.models.context import context_of
from selftrain.models.precision import tensor_cores
from selftrain.models.prompts import style_of
from selftrain.records import PromptStyle
from selftrain.rerank.normal import Normal, check, language_name, normal, refusal
from selftrain.rerank.places import reranker_folder
from selftrain.rerank.prefixes import Reader


@dataclass(frozen=True)
class Ranking:
    """A ranking of n candidates.

    scores   [n] scores in the order of the candidates; higher is better, and only differences are meaningful. It is minus
             infinity for a candidate that cannot be scored
    refused  index of each candidate that cannot be scored -> the reason: it is empty, holds no program, or is too long

    Raises RunError where a score is NaN or plus infinity, which have no place in an order.
    """

    scores: tuple[float, ...]
    refused: Mapping[int, str] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if any(math.isnan(score) or score == math.inf for score in self.scores):
            raise RunError("the reranker gave a score that is not a finite number: its weights are damaged")

    @property
    def order(self) -> tuple[int, ...]:
        """Indices of the candidates, best first; candidates with equal scores keep their order."""
        return tuple(sorted(range(len(self.scores)), key=lambda at: -self.scores[at]))

    @property
    def best(self) -> int:
        """Index of the best candidate."""
        return self.order[0]


WINDOW = 4096
"""Number of candidates that `Reranker.score_many` scores together."""


class Reranker:
    """A one-label sequence classifier that reads prompt + completion and scores the completion."""

    def __init__(self, model: Any, tokenizer: Any, forward: Any = None, folder: Path | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder
        """Folder of the checkpoint, if it was loaded from one."""
        self.forward = forward or model
        """Callable that makes the forward passes: the model itself, or `sharded.Sharded` where the weights are sharded."""
        self.template: str = getattr(model.config, "prompt_template", None) or "{prompt}"
        self.style: PromptStyle = style_of(tokenizer)
        """The prompt style of the generator whose programs it was trained on, if it started from this generator."""

    @classmethod
    def load(cls, place: str | Path, device: str = "cpu") -> "Reranker":
        """Load a reranker from a folder, a run (its last one), `champion`, a URL or the hub; see `selftrain.rerank.places`.

        It computes in float32 whatever the type of the stored weights, on GPUs with products in TF32, unless it was trained with
        `reward.compute_type` bfloat16: in bfloat16 the score of a program changes by up to 0.02 with the programs that are scored
        beside it.

        Raises UsageError where there is no reranker, the model is not a classifier with one label, or the device cannot be used.
        """
        folder = reranker_folder(place)
        with _without_collector():
            from selftrain.models.models import load_classifier, load_tokenizer
            from selftrain.models.precision import compute_as_trained

            model = compute_as_trained(load_classifier(folder).eval())
            try:
                model.to(device)
            except (RuntimeError, AssertionError) as error:
                reason = str(error).partition("\n")[0]
                raise UsageError(f"the reranker cannot be put on the device {device!r}: {reason}") from error
            return cls(model, load_tokenizer(folder), folder=folder)

    def rank(self, prompt: str, candidates: Sequence[str], language: str | None = None) -> Ranking:
        """Score and rank `candidates` of `prompt`.

        candidates  completions of the prompt, whole programs, or answers in markdown (`selftrain.rerank.normal`)
        language    of the programs; None: what the prompt looks like

        A score does not depend on the other candidates, but for rounding (less than 1e-4 on CPUs in float32).

        Raises UsageError where no candidate can be scored, the prompt or a candidate is no text, or the language is unknown.

        >>> reranker = Reranker.load(RERANKER)
        >>> scores = reranker.score("def one():\\n", ["    return 1\\n", "    return 2\\n"])
        >>> [type(score).__name__ for score in scores]
        ['float', 'float']
        >>> reranker.rank("def one():\\n", ["    return 1\\n", "    return 2\\n"]).best == scores.index(max(scores))
        True
        """
        check(prompt, candidates)
        return checked(self.rank_forms([self.forms(prompt, candidates, language)])[0])

    def score(self, prompt: str, candidates: Sequence[str], language: str | None = None) -> list[float]:
        """[n] the scores of `rank`; higher is better. Minus infinity for candidates that cannot be scored, if all of them too."""
        check(prompt, candidates)
        return list(self.rank_forms([self.forms(prompt, candidates, language)])[0].scores)

    def pick(self, prompt: str, candidates: Sequence[str], language: str | None = None) -> str:
        """The candidate that `rank` puts first."""
        return candidates[self.rank(prompt, candidates, language).best]

    def score_many(
        self, problems: Iterable[tuple[str, Sequence[str]]], window: int = WINDOW, exact: bool = False
    ) -> Iterator[list[float]]:
        """Yields the scores [candidates] of each (prompt, candidates) of `problems`, in their order; see `rank`.

        The problems are read as the scores are asked for, and scored a window at a time, so that memory is bounded.

        window  number of candidates that are scored together; more are only if one problem has more
        exact   read all texts as they are, however long: a run's stages score what its generators sampled

        >>> stream = Reranker.load(RERANKER).score_many((f"x = {number}\\n", ["y = 1\\n"] * 2) for number in range(1000))
        >>> len(next(stream))
        2
        """
        score = self._score_exactly if exact else self._score_window
        several: list[tuple[str, Sequence[str]]] = []
        waiting = 0
        for problem in problems:
            if not exact:
                if not isinstance(problem, Sequence) or isinstance(problem, str) or len(problem) != 2:
                    raise UsageError(
                        "problems: expected pairs of a prompt and its candidates, (prompt, [text, ...])"
                    )
                check(*problem)
            several.append(problem)
            waiting += max(1, len(problem[1]))
            if waiting >= window:
                yield from score(several)
                several, waiting = [], 0
        yield from score(several)

    def _score_exactly(self, problems: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        def read() -> "Iterator[list[array[int]]]":
            """The token ids, in 4 bytes each: a stage scores all candidates of a run together."""
            for start in range(0, len(problems), 64):
                for rows in self.encode(problems[start : start + 64]):
                    yield [array("i", row) for row in rows]

        return self._score_ids(read())

    def _score_window(self, problems: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        forms = [self.forms(prompt, candidates) for prompt, candidates in problems]
        return [list(ranking.scores) for ranking in self.rank_forms(forms)]

    def rank_many(self, problems: Sequence[tuple[str, Sequence[str], str | None]]) -> Sequence[Ranking]:
        """Rankings [problems] of (prompt, candidates, language), as `rank` makes them, but also where no candidate has a score."""
        for prompt, candidates, _ in problems:
            check(prompt, candidates)
        return self.rank_forms([self.forms(*problem) for problem in problems])

    def forms(self, prompt: str, candidates: Sequence[str], language: str | None = None) -> list[Normal]:
        """The candidates in normal form. Raises UsageError for an unknown language."""
        language = language_name(language)
        return [normal(prompt, text, language, style=self.style) for text in candidates]

    def read(self, forms: Iterable[Normal]) -> dict[Normal, list[int]]:
        """Each of `forms` -> the token ids that the model reads of it, without those that hold nothing to score."""
        texts: dict[str, list[str]] = {}  # candidates may have prompts of their own, with imports
        for form in dict.fromkeys(forms):
            if refusal(form) is None:
                texts.setdefault(form.prompt, []).append(form.completion)
        encoded = self.encode(list(texts.items()))
        return {
            Normal(prompt, text): ids
            for (prompt, several), found in zip(texts.items(), encoded, strict=True)
            for text, ids in zip(several, found, strict=True)
        }

    def rank_forms(
        self, problems: Sequence[Sequence[Normal]], ids: Mapping[Normal, list[int]] | None = None
    ) -> list[Ranking]:
        """Rankings [problems] of candidates in normal form; equal ones are scored once. `ids`: what `read` gives for all of them."""
        ids = self.read(form for forms in problems for form in forms) if ids is None else ids
        longest = context_of(self.model.config)
        refused: list[dict[int, str]] = [{} for _ in problems]
        # (problem, prompt) -> completion -> its candidates
        groups: dict[tuple[int, str], dict[str, list[int]]] = {}
        for number, forms in enumerate(problems):
            for at, form in enumerate(forms):
                if form not in ids:
                    refused[number][at] = refusal(form) or "it was not read"
                elif longest is not None and len(ids[form]) > longest:
                    refused[number][at] = (
                        f"with the prompt it has {len(ids[form])} tokens; the reranker reads no more than {longest}"
                    )
                else:
                    groups.setdefault((number, form.prompt), {}).setdefault(form.completion, []).append(at)
        rows = [[ids[Normal(prompt, text)] for text in texts] for (_, prompt), texts in groups.items()]
        scores = [[-math.inf] * len(forms) for forms in problems]
        for ((number, _), texts), given in zip(groups.items(), self._score_ids(rows), strict=True):
            for ats, score in zip(texts.values(), given, strict=True):
                for at in ats:
                    scores[number][at] = score
        return [Ranking(tuple(found), refused=why) for found, why in zip(scores, refused, strict=True)]

    def _score_ids(self, problems: Iterable[Sequence[Sequence[int]]]) -> list[list[float]]:
        """Scores [problems][candidates] of token ids, as `encode` gives them.

        The common prefix of a problem's candidates (usually at least the prompt) is read once (`selftrain.rerank.prefixes`).
        """
        import torch

        self.model.config.pad_token_id = self.tokenizer.pad_token_id
        # The model scores a row at its last token that is not the padding token. If the end token is also the padding token,
        # this is the token before the end token. The prefix must not contain the scored token.
        own = 2 if self.tokenizer.pad_token_id == self.tokenizer.eos_token_id else 1
        heads: list[list[int]] = []
        tails: list[list[Sequence[int]]] = []
        for rows in problems:
            common = _common_prefix(rows)[: max(0, min(map(len, rows), default=0) - own)]
            heads.append(common)
            tails.append([row[len(common) :] for row in rows])
        scores = [[0.0] * len(rows) for rows in tails]
        device = next(self.model.parameters()).device
        with torch.inference_mode(), tensor_cores(device.type):
            reader = Reader(self.forward, device, self.model.config.pad_token_id)
            for places, output in reader.read(heads, tails):
                for (at, number), score in zip(places, output.logits[:, 0].float().tolist(), strict=True):
                    scores[at][number] = score
        return scores

    def encode(self, problems: Sequence[tuple[str, Sequence[str]]]) -> list[list[list[int]]]:
        """Token ids [problems][candidates] of what the model reads, for a list of (prompt, completions)."""
        from selftrain.models.models import encode_completions, encode_prompt, fill_template

        texts = [text for _, candidates in problems for text in candidates]
        written = iter(encode_completions(self.tokenizer, texts))
        found = []
        for prompt, candidates in problems:
            head = encode_prompt(self.tokenizer, fill_template(self.template, prompt))
            found.append([head + next(written) for _ in candidates])
        self._check_ids(found)
        return found

    def _check_ids(self, problems: Sequence[Sequence[Sequence[int]]]) -> None:
        """Raise UsageError where a token id is none of the model's: the folder has another model's tokenizer, or a longer one."""
        known = getattr(self.model.config, "vocab_size", None)
        if known is None or len(self.tokenizer) <= known:
            return
        ids = itertools.chain.from_iterable(itertools.chain.from_iterable(problems))
        if (most := max(ids, default=0)) >= known or (most := self.tokenizer.pad_token_id) >= known:
            raise UsageError(
                f"{self.folder or 'the reranker'}: its tokenizer gives the token {most}, and the model knows {known} tokens: "
                "expected the tokenizer that the reranker was trained with"
            )


Checked = TypeVar("Checked", bound=Ranking)


def checked(ranking: Checked) -> Checked:
    """`ranking`. Raises UsageError where no candidate has a score."""
    if not ranking.scores:
        raise UsageError("nothing to rank: expected at least one candidate")
    if len(ranking.refused) == len(ranking.scores):
        raise UsageError(f"no candidate can be ranked; the first: {ranking.refused[0]}")
    return ranking


def _common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest common prefix of all rows."""
    alike = itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(*rows, strict=False))
    return [ids[0] for ids in alike]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the garbage collector: imports create no garbage, and it would take a fifth of the time of a cold start."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
