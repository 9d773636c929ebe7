"""Engine `ctranslate2`: decodes with CTranslate2, on CPU.

It samples 1.6 times as many tokens per second as transformers' generate() in float32, and 2.6 times as many in int8.
"""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftrain.config import SampleConfig
from selftrain.errors import UsageError
from selftrain.sampling import BATCH, Sample
from selftrain.sampling.engine import Prompts, Sampler, Stops
from selftrain.sampling.processor import adds_exactly, flags

SCORED = 4096
"""Number of tokens in a batch of `logprobs`."""


class Engine(Sampler):
    """Converts the checkpoint in `folder` to CTranslate2's format, in `workspace`, and samples from the converted model.

    converts  whether this process converts the checkpoint; if False, it waits for another process to convert it

    CTranslate2 seeds a generator's threads when they start, so each call of `sample` creates a new generator. A seed
    reproduces all samples of a call together, not a single sample.

    Raises UsageError where int8 is asked for and this processor's 8-bit sums are not exact.
    """

    def __init__(
        self, folder: Path, settings: SampleConfig, workspace: Path, threads: int, converts: bool = True
    ) -> None:
        if settings.compute_type == "int8" and not adds_exactly():
            raise UsageError(
                "sample.compute_type is int8, and this machine's processor has no VNNI instructions (it has "
                f"{', '.join(flags()) or 'none that matter'}): its 8-bit sums are cut off, and log-probabilities are wrong by "
                "a tenth of a nat a token; set sample.compute_type=float32"
            )
        super().__init__(folder, settings)
        self.threads = threads
        self.folder = workspace / "ctranslate2"
        self.converts = converts
        while not (self.folder / "model.bin").is_file():
            if converts:
                convert(folder, self.folder, self.tokenizer)
            else:
                # Rank 0 converts. If it dies, the pipe to this process's stdin closes, and this process exits.
                time.sleep(0.1)

    def reload(self, folder: Path) -> None:
        """Sample with the weights of the checkpoint in `folder` from now on.

        If several engines share a workspace, only the engine with `converts` converts the checkpoint. The caller must make the
        other engines wait for it before they sample.
        """
        if self.converts:
            convert(folder, self.folder, self.tokenizer)

    def _sample(
        self, prompts: Prompts, n: int, seed: int, names: Sequence[str], stops: Stops
    ) -> list[list[Sample]]:
        import ctranslate2

        ctranslate2.set_random_seed(seed)
        generator = self._generator()
        drawn: dict[str, Any] = {"sampling_topk": 1}
        if n:
            drawn = {
                "sampling_topk": self.settings.top_k or 0,
                "sampling_topp": self.settings.top_p,
                "sampling_temperature": self.settings.temperature,
                "num_hypotheses": n,
            }
        rows = [Sample([], [], ended=False) for _ in range(len(prompts) * max(1, n))]
        ended: set[int] = set()
        watch = self.stopping.watch([texts for texts in stops for _ in range(max(1, n))])

        def add(step: Any) -> bool:
            """Called for each sampled token; whether the completion ends with it."""
            at = step.batch_id * max(1, n) + step.hypothesis_id
            rows[at].token_ids.append(step.token_id)
            rows[at].logprobs.append(step.log_prob)
            if step.token_id in self.ends or watch(at, step.token_id):
                ended.add(at)
            return at in ended

        generator.generate_batch(
            [self.tokenizer.convert_ids_to_tokens(prompt) for prompt in prompts],
            max_batch_size=max(1, BATCH // max(1, n)),
            max_length=self.settings.max_new_tokens,
            include_prompt_in_result=False,
            end_token=list(self.ends),
            return_end_token=True,
            return_scores=True,  # else steps have no log-probabilities
            callback=add,
            **drawn,
        )
        samples = [row._replace(ended=at in ended) for at, row in enumerate(rows)]
        return [samples[at : at + max(1, n)] for at in range(0, len(samples), max(1, n))]

    def logprobs(self, prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[int]]) -> list[float]:
        """[rows] summed log-probability of each row of token ids, given its prompt, in nats at temperature 1."""
        if not rows:
            return []
        # Use the vocabulary of the converted model, not the tokenizer's: the embedding may have more entries than the tokenizer,
        # and these can be sampled too.
        words = json.loads((self.folder / "vocabulary.json").read_text())
        texts = [
            [words[token] for token in (*prompt, *row)] for prompt, row in zip(prompts, rows, strict=True)
        ]
        results = self._generator().score_batch(
            texts, max_batch_size=SCORED, batch_type="tokens", max_input_length=0
        )
        # A text's first token has no log-probability, so `log_probs` starts at the second token.
        return [
            float(sum(result.log_probs[len(prompt) - 1 :]))
            for prompt, result in zip(prompts, results, strict=True)
        ]

    def _generator(self) -> Any:
        import ctranslate2

        return ctranslate2.Generator(
            str(self.folder),
            device="cpu",
            compute_type=self.settings.compute_type,
            inter_threads=1,
            intra_threads=self.threads,
        )


def convert(folder: Path, target: Path, tokenizer: Any) -> None:
    """Convert the checkpoint in `folder` to CTranslate2's format. The result replaces the folder `target` once it is complete."""
    from ctranslate2.converters import TransformersConverter

    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    TransformersConverter(str(folder)).convert(str(part))
    settings = json.loads((part / "config.json").read_text())
    for name in ("bos_token", "eos_token", "unk_token"):
        settings[name] = settings.get(name) or tokenizer.eos_token  # CTranslate2 needs all three
    (part / "config.json").write_text(json.dumps(settings))
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
