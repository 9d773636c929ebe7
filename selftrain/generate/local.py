"""Samples with the engines of `selftrain.sampling`, which read and write token ids."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftrain.config import SampleConfig
from selftrain.errors import UsageError
from selftrain.generate import Sampled
from selftrain.models.context import fits
from selftrain.models.models import load_context, load_tokenizer
from selftrain.models.prompts import encode_problem, style_of
from selftrain.records import Problem
from selftrain.sampling import Sample
from selftrain.sampling.run import candidate
from selftrain.sampling.stopping import Stopping, stop_texts


class Local:
    """The model in `folder`, or that of a server that has the tokenizer in `folder`."""

    def __init__(self, folder: Path, settings: SampleConfig, device: str = "cpu") -> None:
        self.tokenizer, self.longest = load_tokenizer(folder), load_context(folder)
        self.style, self.settings = style_of(self.tokenizer), settings
        self.engine = self._engine(folder, settings, device)

    def _engine(self, folder: Path, settings: SampleConfig, device: str) -> Any:
        if settings.engine == "openai":
            from selftrain.sampling import served

            return served.Engine(folder, settings, named="base_url")
        if settings.engine == "ctranslate2":
            import torch

            from selftrain.sampling import ct2

            self.workspace = tempfile.TemporaryDirectory(prefix="selftrain-")  # deleted with this object
            return ct2.Engine(folder, settings, Path(self.workspace.name), torch.get_num_threads())
        from selftrain.sampling import hf

        try:
            return hf.Engine(folder, settings, device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"the generator cannot be put on the device {device!r}: {reason}") from error

    def draw(
        self, problems: Sequence[Problem], n: int, settings: SampleConfig, seed: int
    ) -> list[list[Sampled]]:
        """See `generator.Draw`."""
        prompts = [self._read(problem, settings.max_new_tokens) for problem in problems]
        self.engine.settings = settings
        names = [f"{seed}/{problem.prompt}" for problem in problems]
        stops = [stop_texts(self.tokenizer, problem) for problem in problems]
        drawn = self.engine.sample(prompts, n, seed, names, stops)
        return [self._sampled(problem, found) for problem, found in zip(problems, drawn, strict=True)]

    def _read(self, problem: Problem, new_tokens: int) -> list[int]:
        """Token ids of the prompt. Raises UsageError where it leaves no room for `new_tokens`."""
        ids = encode_problem(self.tokenizer, problem.prompt, problem.language)
        if not fits(len(ids), self.longest, new_tokens):
            raise UsageError(
                f"the prompt has {len(ids)} tokens and max_new_tokens={new_tokens}; expected at least one token, and no "
                f"more than {self.longest} in all, the generator's longest input"
            )
        return ids

    def _sampled(self, problem: Problem, drawn: Sequence[Sample]) -> list[Sampled]:
        stopping = Stopping(self.tokenizer, self.engine.ends)
        made = [candidate(stopping, problem, at, one) for at, one in enumerate(drawn)]
        return [
            Sampled(
                one.completion,
                one.logprob / max(1, len(one.token_ids)),
                len(one.token_ids),
                one.finish_reason,
            )
            for one in made
        ]
