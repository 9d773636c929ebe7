"""The product: scores programs for a prompt and picks the best of n.

from selftrain import Reranker
ranking = Reranker.load("runs/demo").rank(prompt, candidates)
candidates[ranking.best]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError
from selftrain.runfile import NAME, read_run

BATCH_TOKENS = 16_384
"""Padded tokens at once."""


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
        """Scores per problem and candidate; batches are filled across problems, sorted by length."""
        import torch

        from selftrain.models import encode_completion, encode_prompt, pad

        rows: list[list[int]] = []
        for prompt, candidates in problems:
            head = encode_prompt(self.tokenizer, prompt)
            rows += [head + encode_completion(self.tokenizer, text) for text in candidates]
        fill = self.tokenizer.pad_token_id
        self.model.config.pad_token_id = fill
        scores = [0.0] * len(rows)
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            for batch in _batches([len(row) for row in rows]):
                ids = pad([rows[at] for at in batch], fill).to(device)
                mask = pad([[1] * len(rows[at]) for at in batch], 0).to(device)
                logits = self.model(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()
                for at, score in zip(batch, logits, strict=True):
                    scores[at] = score
        found = iter(scores)
        return [[next(found) for _ in candidates] for _, candidates in problems]


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
