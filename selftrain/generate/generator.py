"""A generator: any causal language model, here or behind an OpenAI-compatible server, that writes completions of a prompt.

from selftrain import Generator
Generator.load("runs/demo").sample(prompt, n=4, language="py")
Generator.load("qwen2.5-coder", base_url="http://127.0.0.1:11434/v1").sample(prompt, n=4, language="py")
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from selftrain.config import SampleConfig
from selftrain.errors import UsageError
from selftrain.generate import Sampled
from selftrain.problems.bank.languages import LANGUAGES
from selftrain.records import Problem, PromptStyle
from selftrain.rerank.normal import check_prompt, language_name

Draw = Callable[[Sequence[Problem], int, SampleConfig, int], Sequence[Sequence[Sampled]]]
"""(problems, n, settings, seed) -> [problems][n] completions, or the greedy one for n = 0."""
Prompt = tuple[str, str | None, Sequence[str] | None]
"""A prompt, the language of the programs and the texts that end a completion, see `Generator.sample`."""
TOGETHER = 128
"""Completions that a local model writes at once where their number is free: most of a step's time is reading the weights."""


class Generator:
    """A generator.

    draw       samples completions
    style      the prompt style: `chat` for a model that answers in markdown, whose question names the language
    folder     of the checkpoint that samples; None for a server's
    tokenizer  folder of the tokenizer with which prompts are sent to a server; None where they are not, or as text
    """

    def __init__(
        self,
        draw: Draw,
        style: PromptStyle = "completion",
        settings: SampleConfig | None = None,
        folder: Path | None = None,
        tokenizer: Path | None = None,
    ) -> None:
        self.draw, self.style, self.folder, self.tokenizer = draw, style, folder, tokenizer
        self.settings = settings or SampleConfig()

    @classmethod
    def load(
        cls,
        place: str | Path,
        *,
        base_url: str | None = None,
        tokenizer: str | Path | None = None,
        chat: bool = False,
        policy: str = "sft",
        engine: Literal["hf", "ctranslate2"] = "hf",
        compute_type: Literal["float32", "bfloat16", "int8"] = "float32",
        device: str = "cpu",
    ) -> "Generator":
        """Load a generator from a folder, a run, `champion`, a URL or the hub (`selftrain.rerank.places`), or ask a server.

        base_url      address of a server with OpenAI's protocol, such as vLLM's, llama.cpp's or Ollama's; `place` is then the
                      name of the model there. The environment variable OPENAI_API_KEY is its key.
        tokenizer     place of the served model's tokenizer: prompts are then sent as token ids, as a run sends them, which the
                      servers of vLLM and llama.cpp take. Without it they are sent as text.
        chat          with `base_url` and without `tokenizer`: ask for an answer to a question (`/chat/completions`)
        policy        of a run: `sft`, `ppo-N` or `last`
        engine        hf, or ctranslate2, which is faster on CPUs and knows fewer architectures
        compute_type  arithmetic on CPUs, as `sample.compute_type` of a config: bfloat16 with engine hf, int8 with ctranslate2

        Raises UsageError where there is no such generator, or an argument would be without effect.
        """
        if base_url is None and (chat or tokenizer is not None):
            raise UsageError(
                f"{'chat' if chat else 'tokenizer'} is of a model on a server: give base_url too, or leave it out"
            )
        if base_url is not None and compute_type != "float32":
            raise UsageError("compute_type is of a local model: a server chooses its own")
        if chat and tokenizer is not None:
            raise UsageError(
                "got both chat and tokenizer: with its tokenizer, a chat model is asked by its own template"
            )
        if base_url is not None and tokenizer is None:
            from selftrain.generate.endpoint import Endpoint

            return cls(Endpoint(base_url, str(place), chat).draw, "chat" if chat else "completion")
        if engine not in ("hf", "ctranslate2"):
            raise UsageError(f"engine={engine!r}: expected 'hf' or 'ctranslate2'")
        from selftrain.generate.local import Local
        from selftrain.rerank.places import generator_folder

        if base_url is not None and tokenizer is not None:
            settings = SampleConfig(engine="openai", base_url=base_url, served_model=str(place))
            folder = generator_folder(tokenizer, policy)
            local = Local(folder, settings)
            return cls(local.draw, local.style, local.settings, tokenizer=folder)
        settings = _settings({"engine": engine, "compute_type": compute_type})
        folder = generator_folder(place, policy)
        local = Local(folder, settings, device)
        return cls(local.draw, local.style, local.settings, folder)

    def sample(
        self,
        prompt: str,
        n: int = 16,
        temperature: float = 0.8,
        max_new_tokens: int = 256,
        stop: Sequence[str] | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        language: str | None = None,
    ) -> list[Sampled]:
        """`n` completions of `prompt`.

        temperature     by which logits are divided; 0 gives the greedy completion, and then `n` must be 1
        max_new_tokens  longest completion, tokens
        stop            texts that end a completion; None: MultiPL-E's for the language, where it has any
        top_p           probability mass of nucleus sampling
        seed            a local model gives the same completions for the same seed; a server may not
        language        of the programs, such as py; a chat model must be told

        >>> found = Generator.load(FOLDER).sample("def one():\\n", n=4, max_new_tokens=8, language="py")
        >>> len(found), all(one.mean_logprob <= 0 for one in found)
        (4, True)

        Raises UsageError where a value cannot be used or the prompt leaves no room for `max_new_tokens`, RunError where a server
        cannot be reached.
        """
        return self.sample_many([(prompt, language, stop)], n, temperature, max_new_tokens, top_p, seed)[0]

    def together(self, n: int) -> int:
        """How many prompts with `n` completions each are best given to `sample_many` at once. Only engine hf samples a prompt's
        completions, but for rounding, alike whatever is sampled beside them."""
        alike = self.folder is not None and self.settings.engine == "hf"
        return max(1, TOGETHER // max(1, n)) if alike else 1

    def sample_many(
        self,
        prompts: Sequence[Prompt],
        n: int = 16,
        temperature: float = 0.8,
        max_new_tokens: int = 256,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[list[Sampled]]:
        """[prompts][n] completions, as `sample` gives them, and with what it raises for any of them before anything is sampled."""
        if not isinstance(n, int) or n < 1 or (temperature == 0 and n > 1):
            raise UsageError(
                f"n={n!r}: expected at least 1, and 1 at temperature 0, whose completions are all alike"
            )
        problems = [self._problem(*prompt) for prompt in prompts]
        changes = {"temperature": temperature or 1.0, "max_new_tokens": max_new_tokens, "top_p": top_p}
        settings = _settings(self.settings.model_dump() | changes)
        return list(map(list, self.draw(problems, n if temperature else 0, settings, seed)))

    def _problem(self, prompt: str, language: str | None, stop: Sequence[str] | None) -> Problem:
        """The problem that a prompt is. Raises UsageError for what `sample` cannot use."""
        check_prompt(prompt, "the text that is to be continued")
        if self.style == "chat" and not language:
            raise UsageError(
                "this generator is asked for a program in a language; say which, for example language='py'"
            )
        name = language_name(language) or ""
        if stop is None:
            stop = LANGUAGES[name].stop_tokens if name in LANGUAGES else ()
        if (
            isinstance(stop, str)
            or not isinstance(stop, Sequence)
            or not all(isinstance(s, str) and s for s in stop)
        ):
            raise UsageError(f"stop={stop!r}: expected a list of texts, none of them empty")
        return Problem("", "", name, prompt, "", "", "", tuple(stop))


def _settings(given: dict[str, Any]) -> SampleConfig:
    """Settings of sampling. Raises UsageError for values that cannot be, or not together."""
    try:
        return SampleConfig.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        which = f"{first['loc'][0]}={first['input']}: " if first["loc"] else ""
        raise UsageError(which + first["msg"].removeprefix("Value error, ")) from error
