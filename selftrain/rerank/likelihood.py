"""Log-probabilities of programs under the generator of a finished run, its SFT policy."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError
from selftrain.models.context import context_of
from selftrain.rerank.normal import Normal
from selftrain.rerank.prefixes import Reader
from selftrain.store.runfile import stage_place

Ids = tuple[int, ...]
"""Token ids."""
_SEEN = 4096
"""Number of the run's candidates that are looked at to see how completions end."""


@dataclass
class Asked:
    """A problem whose candidates' log-probabilities are wanted.

    forms     the candidates in normal form
    language  of the programs; None: the run's only one
    refused   number of each candidate that is not to be read -> the reason; `Likelihood.means` adds those that it cannot read
    """

    forms: Sequence[Normal]
    language: str | None
    refused: dict[int, str]


class Likelihood:
    """The generator of a run on the CPU. Several threads may use it at once.

    run        the run's record
    languages  of its problems
    """

    def __init__(self, run: Mapping[str, Any], languages: Sequence[str]) -> None:
        self.run, self.languages = run, languages
        self._lock = threading.Lock()  # two threads may not use one tokenizer at once

    @cached_property
    def folder(self) -> Path:
        """The folder of the generator's checkpoint."""
        return stage_place(self.run, "sft")

    @cached_property
    def lowest(self) -> float:
        """The lowest mean log-probability of a validation or test problem of the run, nats per token.

        The value of a problem is the mean over the SFT policy's candidates, each with its mean log-probability per token.
        """
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        path = stage_place(self.run, "sample-sft-evaluation") / "candidates.parquet"
        # `read_table` and `group_by` would import pandas, a tenth of a cold start.
        table = pq.ParquetFile(path).read(columns=["problem_id", "logprob", "token_ids"])
        tokens = pc.list_value_length(table["token_ids"]).to_pylist()
        means: dict[str, list[float]] = {}
        for id, logprob, count in zip(
            table["problem_id"].to_pylist(), table["logprob"].to_pylist(), tokens, strict=True
        ):
            means.setdefault(id, []).append(logprob / max(1, count))
        return min(sum(found) / len(found) for found in means.values())

    def means(self, problems: Sequence[Asked]) -> list[list[float | None]]:
        """[problems][candidates] mean log-probability per token, nats; None for the refused ones.

        The end token counts where the run's candidates end with it. In prompt style `chat` it is that of an answer which has the
        candidate in a code block, and nothing else.

        Raises UsageError where the generator needs a language that is not said.
        """
        prompts: dict[Ids, dict[Ids, float]] = {}
        places: list[list[tuple[Ids, Ids] | None]] = []
        for asked in problems:
            with self._lock:
                read = self._encoded(asked)
            places.append(read)
            for place in filter(None, read):
                prompts.setdefault(place[0], {})[place[1]] = 0.0
        self._sum(prompts)
        return [
            [None if place is None else prompts[place[0]][place[1]] / len(place[1]) for place in read]
            for read in places
        ]

    def _sum(self, prompts: Mapping[Ids, dict[Ids, float]]) -> None:
        """Fill in the summed log-probability of each row of token ids that continues a prompt."""
        if not prompts:
            return  # without the generator, which is loaded on its first use
        import torch

        from selftrain.models.footprint import chunk_tokens
        from selftrain.models.logprobs import summed_logprobs
        from selftrain.models.models import pad

        model = self._generator[0]
        most = chunk_tokens(model.get_output_embeddings().weight.shape[0])
        for prompt, sums in prompts.items():  # a long row's logits do not fit into memory together
            for row in [row for row in sums if len(row) > most]:
                [sums[row]] = summed_logprobs(model, [prompt], [row])
        rows = [[row for row in sums if len(row) <= most] for sums in prompts.values()]
        before, sums_of = list(prompts), list(prompts.values())
        # The prompt's last token predicts a row's first one.
        inputs = [
            [[prompt[-1], *row[:-1]] for row in found] for prompt, found in zip(before, rows, strict=True)
        ]
        reader = Reader(model, model.device, 0, {"logits_to_keep": 1}, most)
        with torch.inference_mode():
            for read, output in reader.read([prompt[:-1] for prompt in before], inputs):
                chosen = [rows[at][number] for at, number in read]
                ids = pad(chosen, 0).to(model.device)
                own = pad([[1] * len(row) for row in chosen], 0).to(model.device)
                logs = output.logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
                for (at, _), row, total in zip(read, chosen, (logs * own).sum(1).tolist(), strict=True):
                    sums_of[at][row] = total

    def _encoded(self, asked: Asked) -> list[tuple[Ids, Ids] | None]:
        """[candidates] token ids of the prompt and of what continues it; None for refused ones, to which those are added that are
        too long for the generator."""
        from selftrain.models.prompts import encode_answers, encode_problem, style_of

        model, tokenizer = self._generator
        language = asked.language
        if language is None and style_of(tokenizer) == "chat":
            if len(self.languages) > 1:
                raise UsageError(
                    f"the run's generator is asked for programs in a language; say which of {', '.join(self.languages)}"
                )
            [language] = self.languages
        context = context_of(model.config)
        forms: dict[str, dict[str, list[int]]] = {}  # prompt -> completion -> its candidates
        for at, form in enumerate(asked.forms):
            if at not in asked.refused:
                forms.setdefault(form.prompt, {}).setdefault(form.completion, []).append(at)
        found: list[tuple[Ids, Ids] | None] = [None] * len(asked.forms)
        for prompt, texts in forms.items():
            head = tuple(encode_problem(tokenizer, prompt, language or ""))
            rows = encode_answers(tokenizer, prompt, list(texts), language or "")
            for ats, ids in zip(texts.values(), rows, strict=True):
                row = tuple(ids if len(ids) == 1 or self._ends_with_token else ids[:-1])
                if context is not None and len(head) + len(row) > context:
                    reason = f"with the prompt it has {len(head) + len(row)} tokens; the run's generator reads no more than {context}"
                    asked.refused |= dict.fromkeys(ats, reason)
                    continue
                for at in ats:
                    found[at] = head, row
        return found

    @cached_property
    def _ends_with_token(self) -> bool:
        """Whether most of the run's candidates end with an end token, whose log-probability counts then, not at a stop text."""
        import pyarrow.parquet as pq

        from selftrain.models.models import end_ids

        if "sample-sft-evaluation" not in self.run["stages"]:
            return True
        ends = end_ids(self._generator[1], self.folder)
        path = stage_place(self.run, "sample-sft-evaluation") / "candidates.parquet"
        rows = next(pq.ParquetFile(path).iter_batches(_SEEN, columns=["token_ids"]))["token_ids"].to_pylist()
        return 2 * sum(row[-1:] != [] and row[-1] in ends for row in rows) >= len(rows)

    @cached_property
    def _generator(self) -> tuple[Any, Any]:
        """The SFT policy, and its tokenizer."""
        import torch

        from selftrain.models.models import load_generator, load_tokenizer

        return load_generator(self.folder, dtype=torch.float32).eval(), load_tokenizer(self.folder)
