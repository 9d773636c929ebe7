"""Counts a run's problems by split and language, and their lengths in tokens.

If the problems of a data set on the hub cannot be read, published sizes and average lengths are assumed, and the plan says so.
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from selftrain.config import SPLITS, ContestsConfig, MixedConfig, MultiPLEConfig, RunConfig
from selftrain.errors import RunError, UsageError
from selftrain.plan.flops import Rows
from selftrain.problems import chat
from selftrain.problems.contests import SOLUTION_LANGUAGES
from selftrain.problems.read import content_digest, read_problems
from selftrain.records import Problem, PromptStyle

CHARACTERS_PER_TOKEN = 3.2
"""Assumed where the tokenizer is not available. Typical of code and English with tokenizers of code models."""
MULTIPL_E = {"humaneval": 160, "mbpp": 390}
"""Start of a subset's name in MultiPL-E -> problems per language."""
CONTESTS = {"train": 13_328, "valid": 117, "test": 165}
"""Split of deepmind/code_contests -> number of tasks. A task gives a problem in every language of the config."""
STATED = {"multipl-e": (140, 90), "contests": (650, 450)}
"""Source -> assumed mean tokens of a prompt and of an answer."""
CONVERSATION = 60
"""Assumed tokens that prompt style `chat` adds to a prompt."""
LOOKED_AT = 4000
"""Approximate number of texts whose tokens are counted; a larger set is sampled."""
REMEMBERED = 16
"""Corpora that a process keeps."""


@dataclass(frozen=True)
class Corpus:
    """A run's problems.

    counts       split -> language -> number of problems
    prompts      split -> tokens of each prompt, or of a sample of about LOOKED_AT prompts
    answers      tokens of answers, end token included; sampled completions are assumed to have the same lengths
    learnt       (prompt tokens, answer tokens) of SFT's examples, or of a sample of them
    examples     number of SFT's examples
    vocabulary   number of tokens of the tokenizer; None where it is not available
    seconds      time to read the problems
    assumptions  lines that say which numbers are assumed
    problems     the problems; empty where they are not available
    tokenizer    the generator's tokenizer; None where it is not available
    """

    counts: dict[str, dict[str, int]]
    prompts: dict[str, list[int]]
    answers: list[int]
    learnt: list[tuple[int, int]]
    examples: int
    vocabulary: int | None
    seconds: float
    assumptions: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list, repr=False)
    tokenizer: Any = field(default=None, repr=False)

    def count(self, *splits: str) -> int:
        """Number of problems in these splits."""
        return sum(sum(self.counts.get(split, {}).values()) for split in splits)

    def languages(self, *splits: str) -> dict[str, int]:
        """Language -> number of problems in these splits."""
        total: Counter[str] = Counter()
        for split in splits:
            total.update(self.counts.get(split, {}))
        return dict(total)

    def as_long(self, length: float) -> "Corpus":
        """The corpus with completions whose mean length is `length` tokens."""
        low = int(length)
        high = round(100 * (length - low))
        return replace(self, answers=[low] * (100 - high) + [low + 1] * high)

    def sft_rows(self, longest: int, group: int) -> Rows:
        """SFT's rows of one epoch, padded in groups of `group` rows of similar length, without rows of over `longest` tokens."""
        if not self.learnt:
            raise UsageError(
                "no problem of the sft split has a response; give sft a share in problems.shares, or set sft.epochs to 0"
            )
        kept = [row for row in self.learnt if sum(row) <= longest]
        if not kept:
            raise UsageError(
                f"every prompt + response is longer than sft.max_tokens={longest} (the shortest has "
                f"{min(map(sum, self.learnt))} tokens); raise it"
            )
        count = self.examples * len(kept) / len(self.learnt)
        prompts, answers = zip(*kept, strict=True)
        return Rows(count, mean(prompts), mean(answers), padded([sum(row) for row in kept], group))

    def sampled_rows(
        self, splits: Sequence[str], count: float, cap: int, group: int, pairs: bool = False
    ) -> Rows:
        """`count` rows: prompts of `splits`, each with a sampled completion of at most `cap` tokens.

        group  number of rows of similar length that are padded to the longest of them
        pairs  whether rows come in pairs, two completions of one prompt, padded to the longer completion
        """
        rng = random.Random(0)
        prompts = [tokens for split in splits for tokens in self.prompts.get(split, [])]
        if not prompts:
            raise UsageError(f"no problem in splits {', '.join(splits)}; there is nothing to sample")
        drawn = []
        for prompt in prompts:
            lengths = [min(cap, rng.choice(self.answers)) for _ in range(1 + pairs)]
            drawn.append((prompt, sum(lengths) / len(lengths), max(lengths)))
        drawn.sort(key=lambda row: row[0] + row[2])
        widths = [row[0] + row[2] for row in drawn]
        return Rows(
            count, mean(row[0] for row in drawn), mean(row[1] for row in drawn), padded(widths, group)
        )


def padded(lengths: Sequence[int], group: int) -> float:
    """Mean width of rows after sorting by length, and padding every `group` rows to the longest of them."""
    ordered = sorted(lengths)
    group = max(1, group)
    chunks = [ordered[at : at + group] for at in range(0, len(ordered), group)]
    return sum(chunk[-1] * len(chunk) for chunk in chunks) / len(ordered)


def corpus_of(config: RunConfig) -> Corpus:
    """The corpus of a run. Raises UsageError or DataError where the stages of the run would raise it.

    The plans of a study and of earlier runs read the same problems again and again, so the last `REMEMBERED` are remembered.
    """
    source = config.problems.model_copy(update={"seed": config.problems.seed + config.seed})
    started = time.monotonic()
    try:
        content = content_digest(source)
        key = repr((source, content, config.model, config.sample.max_new_tokens))
        if key in _remembered:
            return _remembered[key]
        problems = read_problems(source, content)
    except RunError as error:  # the hub cannot be reached
        reason = str(error).strip().splitlines()[0][:160]
        return _stated(config, [f"problems: not counted, the hub does not answer ({reason})"])
    read = time.monotonic()
    corpus = _counted(config, problems, read - started) if problems else _stated(config, [])
    if len(_remembered) == REMEMBERED:
        del _remembered[next(iter(_remembered))]
    _remembered[key] = corpus
    return corpus


_remembered: dict[str, Corpus] = {}


def _counted(config: RunConfig, problems: list[Problem], seconds: float) -> Corpus:
    """The corpus of `problems`, which took `seconds` to read."""
    assumptions: list[str] = []
    by_split = {split: [p for p in problems if p.split == split] for split in SPLITS}
    answered = [p for p in by_split["sft"] if p.response is not None]
    tokenizer = _tokenizer(config, [text for p in answered for text in (p.prompt, p.response or "")])
    vocabulary = len(tokenizer) if tokenizer is not None else None
    if tokenizer is None:
        assumptions.append(
            f"tokens: {config.model.base} has no tokenizer here, {CHARACTERS_PER_TOKEN:g} characters taken as one"
        )
    # The sample is spread evenly over the rows, since files may be sorted.
    looked_at = answered[:: max(1, len(answered) // LOOKED_AT)]
    style = config.model.prompt_style
    learnt = [(_prompt_length(tokenizer, p, style), _answer_length(tokenizer, p, style)) for p in looked_at]
    prompts = {
        split: [_prompt_length(tokenizer, p, style) for p in rows[:: max(1, len(rows) // LOOKED_AT)]]
        for split, rows in by_split.items()
    }
    answers = [answer for _, answer in learnt]
    if answers:
        assumptions.append(
            "completions: as long as the answers that SFT learns from, and no longer than sample.max_new_tokens"
        )
    else:
        answers = [config.sample.max_new_tokens]
        assumptions.append(
            "completions: all of sample.max_new_tokens, there are no answers to measure them by"
        )
    return Corpus(
        {split: dict(Counter(p.language for p in rows)) for split, rows in by_split.items()},
        prompts,
        answers,
        learnt,
        len(answered),
        vocabulary,
        seconds,
        tuple(assumptions),
        problems,
        tokenizer,
    )


def _tokenizer(config: RunConfig, texts: list[str]) -> Any:
    """The generator's tokenizer; without a base model it is trained on `texts`. None where a pretrained one is not available."""
    from selftrain.models.models import load_tokenizer, train_tokenizer
    from selftrain.models.prompts import check_chat, set_style

    model = config.model
    if model.base is None:
        return train_tokenizer(texts, model.vocabulary)
    folder = Path(model.base)
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    if folder.is_dir() and not model.gguf_file and not any((folder / name).is_file() for name in names):
        return None
    try:
        tokenizer = load_tokenizer(model.base, **model.options)
    except UsageError:
        if folder.is_dir():
            raise
        return None
    if model.prompt_style == "chat":
        check_chat(tokenizer, model.base)
    set_style(tokenizer, model.prompt_style)
    return tokenizer


def _prompt_length(tokenizer: Any, problem: Problem, style: PromptStyle) -> int:
    """Tokens that the generator reads before it writes a completion; without a tokenizer, an estimate."""
    from selftrain.models.prompts import encode_problem

    if tokenizer is not None:
        return len(encode_problem(tokenizer, problem.prompt, problem.language))
    text = chat.question(problem.prompt, problem.language) if style == "chat" else problem.prompt
    return max(1, round(len(text) / CHARACTERS_PER_TOKEN))


def _answer_length(tokenizer: Any, problem: Problem, style: PromptStyle) -> int:
    """Tokens of what SFT learns from the problem's response, with the end token; without a tokenizer, an estimate."""
    from selftrain.models.prompts import encode_answers

    text = problem.response or ""
    if tokenizer is not None:
        return len(encode_answers(tokenizer, problem.prompt, [text], problem.language)[0])
    text = chat.answer(problem.prompt, text, problem.language) if style == "chat" else text
    return max(1, round(len(text) / CHARACTERS_PER_TOKEN)) + 1


def _stated(config: RunConfig, assumptions: list[str]) -> Corpus:
    """The corpus from published sizes and average lengths, for data sets on the hub that cannot be read."""
    source = config.problems
    counts: dict[str, Counter[str]] = {}
    prompts: dict[str, list[int]] = {}
    learnt: list[tuple[int, int]] = []
    answers: list[int] = []
    examples = 0
    for part in source.parts if isinstance(source, MixedConfig) else (source,):
        if not isinstance(part, MultiPLEConfig | ContestsConfig) or part.hub is None:
            assumptions.append(f"problems: those of {part.source} files beside a data set are not counted")
            continue
        train = sum(_stated_size(part, entry) for entry in part.train)
        sizes = {split: round(train * part.shares.get(split, 0)) for split in SPLITS}
        sizes["test"] += sum(_stated_size(part, entry) for entry in part.evaluation)
        sizes = {split: size for split, size in sizes.items() if size}
        prompt, answer = STATED[part.source]
        if config.model.prompt_style == "chat":  # the answer repeats the prompt
            prompt, answer = prompt + CONVERSATION, prompt + answer
        for split, size in sizes.items():
            counts.setdefault(split, Counter()).update(dict.fromkeys(part.languages, size))
            prompts.setdefault(split, []).append(prompt)
        answers.append(min(answer, config.sample.max_new_tokens))
        # CodeContests has solutions in these languages only.
        answering = [name for name in part.languages if name in SOLUTION_LANGUAGES.values()]
        if sizes.get("sft"):
            learnt.append((prompt, answer))
            examples += sizes["sft"] * len(answering if part.source == "contests" else part.languages)
        said = ", ".join(f"{split} {size}" for split, size in sizes.items())
        assumptions += [
            f"problems per language, by the published sizes of {part.hub}: {said}",
            f"tokens: {prompt} a prompt, {answer} an answer or completion (stated averages of {part.source})",
        ]
    return Corpus(
        {split: dict(of_language) for split, of_language in counts.items()},
        prompts,
        answers,
        learnt,
        examples,
        None,
        0.0,
        tuple(assumptions),
    )


def _stated_size(source: MultiPLEConfig | ContestsConfig, entry: str) -> int:
    """Problems per language of one entry in the config's `train` or `evaluation`."""
    if isinstance(source, ContestsConfig):
        name, _, part = entry.partition("[")
        size = CONTESTS.get(name, 0)
        limit = part.strip("[]: ")
        return min(size, int(limit)) if limit.isdigit() else size
    size = next((size for name, size in MULTIPL_E.items() if entry.startswith(name)), 0)
    return size if "*" in entry else round(size / len(source.languages))
