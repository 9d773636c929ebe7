"""The product: scores programs for a prompt and picks the best of n.

from selftrain import Reranker
ranking = Reranker.load("runs/demo").rank(prompt, candidates)
candidates[ranking.best]
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError
from selftrain.runfile import NAME, read_run

BATCH_TOKENS = 16_384
"""Padded tokens at once."""
SHARE_FROM = 512
"""Tokens that a problem's candidates must save by sharing their prompt's keys and values. Below that, batches over many
problems are faster."""


@dataclass(frozen=True)
class Ranking:
    """Scores of n candidates, in the order they were given; higher is better, and only differences mean something."""

    scores: tuple[float, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Places of the candidates, best first; equal scores keep the order they were given in."""
        return tuple(sorted(range(len(self.scores)), key=lambda at: -self.scores[at]))

    @property
    def best(self) -> int:
        """Place of the pick."""
        return self.order[0]


class Reranker:
    """A one-label sequence classifier that reads prompt + completion and scores the completion."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template: str = getattr(model.config, "prompt_template", None) or "{prompt}"

    @classmethod
    def load(cls, run_or_folder: str | Path, device: str = "cpu") -> "Reranker":
        """The reranker in a checkpoint's folder, or the last one of a run's folder.

        Raises UsageError where there is none, or where the model is not a classifier with one label.
        """
        from selftrain.models import load_classifier, load_tokenizer

        folder = reranker_folder(Path(run_or_folder))
        return cls(load_classifier(folder).to(device).eval(), load_tokenizer(folder))

    def rank(self, prompt: str, candidates: Sequence[str]) -> Ranking:
        """Scores `candidates`, completions of `prompt` (what follows it, not the prompt again)."""
        if not candidates:
            raise UsageError("nothing to rank: expected at least one candidate")
        return Ranking(tuple(self.score_many([(prompt, candidates)])[0]))

    def score_many(self, problems: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Scores per problem and candidate.

        A long prompt with many candidates is read once. The others are batched across problems, sorted by length.
        """
        from selftrain.models import encode_completion, encode_prompt, fill_template

        self.model.config.pad_token_id = self.tokenizer.pad_token_id
        scores: list[list[float]] = []
        rows: list[list[int]] = []
        places: list[tuple[int, int]] = []
        for at, (prompt, candidates) in enumerate(problems):
            head = encode_prompt(self.tokenizer, fill_template(self.template, prompt))
            tails = [encode_completion(self.tokenizer, text) for text in candidates]
            if len(head) * (len(tails) - 1) >= SHARE_FROM:
                scores.append(self._score_rows([head[-1:] + tail for tail in tails], head[:-1]))
                continue
            scores.append([0.0] * len(tails))
            rows += [head + tail for tail in tails]
            places += [(at, number) for number in range(len(tails))]
        for (at, number), score in zip(places, self._score_rows(rows), strict=True):
            scores[at][number] = score
        return scores

    def _score_rows(self, rows: Sequence[Sequence[int]], prompt: Sequence[int] = ()) -> list[float]:
        """The score of each row of token ids, read after `prompt`, which is read once."""
        import torch

        from selftrain.models import pad

        device = next(self.model.parameters()).device
        scores = [0.0] * len(rows)
        with torch.inference_mode():
            cache = None
            if prompt:
                ids = torch.tensor([list(prompt)], device=device)
                cache = self.model.base_model(input_ids=ids, use_cache=True).past_key_values
            for batch in _batches([len(row) for row in rows]):
                ids = pad([rows[at] for at in batch], self.model.config.pad_token_id).to(device)
                mask = pad([[1] * (len(prompt) + len(rows[at])) for at in batch], 0).to(device)
                options = {}
                if cache is not None:  # a call adds to the cache that it is given
                    options = {"past_key_values": copy.deepcopy(cache), "use_cache": True}
                    options["past_key_values"].batch_repeat_interleave(len(batch))
                logits = self.model(input_ids=ids, attention_mask=mask, **options).logits[:, 0].float()
                for at, score in zip(batch, logits.tolist(), strict=True):
                    scores[at] = score
        return scores


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in groups of similar length, each at most BATCH_TOKENS when padded."""
    batches: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: lengths[at]):
        if batches and (len(batches[-1]) + 1) * lengths[at] <= BATCH_TOKENS:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches


def reranker_folder(path: Path) -> Path:
    """The checkpoint that `path` means: itself, or the last reranker of the run in it."""
    if (path / "config.json").is_file():
        return path
    if not (path / NAME).is_file():
        raise UsageError(
            f"{path}: expected a reranker's folder (with config.json) or a run's folder (with {NAME})"
        )
    reranker = read_run(path)["reranker"]
    if not reranker:
        raise UsageError(f"{path}: this run has not trained a reranker yet; finish it with `selftrain run`")
    folder = (path / reranker).resolve()
    if not (folder / "config.json").is_file():
        raise UsageError(f"{path}: its reranker should be in {folder}, which is not there; run it again")
    return folder
