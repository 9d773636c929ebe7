"""Every setting of a run, with its type, default and meaning. YAML files in `configs/` set them.

Everything but `runtime`, `promotion`, `store` and `name` can change the result and is part of the stages' keys.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from sandbox.languages import LANGUAGES, refusal, short_name
from sandbox.twin import check_audit
from sandbox.verdicts import LARGEST_BYTES, LONGEST_SECONDS
from selftrain.records import PromptStyle

WRITTEN_LANGUAGES = ("py", "cpp", "java", "php", "ts", "cs", "sh", "js")
"""Languages in which this project can write prompts, for the bank and for contests. They are also the default `languages` of
problems from outside."""
STORE_VARIABLE = "SELFTRAIN_STORE"
"""The environment variable that replaces the default of `store`, for all runs and commands of a machine or a pod."""
SPLITS = ("sft", "rl", "validation", "test")

SOURCES = ("bank", "contests", "jsonl", "mixed", "multipl-e")
"""The values of `problems.source`."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Pattern of a run's name."""

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
MOST_ROUNDS, MOST_RESAMPLES, MOST_INPUTS, MOST_PROCESSES = 1000, 100_000, 1000, 4096
"""Largest numbers of rounds, of resamples of a bootstrap, of generated inputs of a problem, and of processes or threads on a machine."""
Place = Annotated[str, AfterValidator(os.path.expanduser)]
"""A file, a folder or a remote address; a leading `~` is the home folder, which no shell replaces within a config or `--set`."""


def _at_most(limit: int, why: str) -> AfterValidator:
    """Refuses whole numbers above `limit`; `why`: what would go wrong."""

    def check(value: int) -> int:
        if value > limit:
            raise ValueError(f"expected at most {limit:,}, got {value:,}: {why}")
        return value

    return AfterValidator(check)


Rounds = Annotated[
    Count, _at_most(MOST_ROUNDS, "the stages of all rounds are planned before the first one starts")
]
Resamples = Annotated[
    Count,
    _at_most(MOST_RESAMPLES, "all are held in memory, and more do not change an interval's printed digits"),
]
INPUTS = _at_most(MOST_INPUTS, "each program is run with each of them")
Processes = Annotated[Count, _at_most(MOST_PROCESSES, "all of them start on one machine")]


def suggestion(name: str, known: Iterable[str]) -> str:
    """The text `; did you mean ...?` if one of `known` resembles `name`; otherwise empty."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _check_splits(name: str, values: Iterable[str]) -> None:
    """Raise ValueError if one of `values` is no split."""
    if unknown := [value for value in values if value not in SPLITS]:
        meant = suggestion(unknown[0], SPLITS)
        raise ValueError(f"{name}: unknown {', '.join(unknown)}{meant}; known: {', '.join(SPLITS)}")


def _check_shares(shares: Mapping[str, float]) -> None:
    """Raise ValueError if a name is no split, or if the shares do not sum to 1."""
    _check_splits("shares", shares)
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares: expected a sum of 1, got {sum(shares.values()):g} from {shares}")


def _check_languages(names: Sequence[str], known: Collection[str]) -> None:
    """Raise ValueError if there is no language, if a language is not in `known`, or if it occurs twice."""
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"languages: {refusal(unknown[0], known)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"languages: expected at least one and none twice, got {list(names)}")


def _check_split_languages(given: Mapping[str, Sequence[str]], languages: Sequence[str]) -> None:
    """Raise ValueError if a name is no split, or if a split has no language or one that is not in `languages`."""
    _check_splits("split_languages", given)
    for split, names in given.items():
        if not names or set(names) - set(languages):
            raise ValueError(
                f"split_languages.{split}: expected some of languages, which are {', '.join(languages)}, got {list(names)}"
            )


Languages = Annotated[tuple[str, ...], AfterValidator(lambda names: tuple(map(short_name, names)))]
"""Short names of languages. Other names that the sandbox's table has, such as `python`, are converted to short names."""


RANKERS = frozenset(
    (
        "random",
        "greedy",
        "oracle",
        "logprob",
        "logprob_sum",
        "majority",
        "examples",
        "agreement",
        "champion",
        "reranker",
        "chosen",
    )
)
"""Names of the other rankers and of columns beside them, which a reward model cannot have; nor can it have a reranker's, `rm-r`."""


def is_reward_model(name: str) -> bool:
    """Whether a ranker's name is one that a reward model of others can have."""
    own = name in RANKERS or name.startswith(("rm-", "ppo-"))
    return not own and re.fullmatch(r"[a-z][a-z0-9._-]*", name) is not None


def _ranker_name(name: str) -> str:
    """`name`. Raises ValueError where a reward model cannot have it."""
    if not is_reward_model(name):
        raise ValueError(
            f"expected a name of small letters, digits and `.`, `_`, `-` that no other ranker has, got {name!r}"
        )
    return name


RankerName = Annotated[str, AfterValidator(_ranker_name)]
"""Name of a reward model in an evaluation."""


class Strict(BaseModel):
    """Frozen; unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    outside_keys: ClassVar[frozenset[str]] = frozenset()
    """Fields that enter no stage's key: locations, for which the key contains a digest of the content, and settings that
    cannot change a result, such as the number of steps between checkpoints."""
    keyed_when_set: ClassVar[frozenset[str]] = frozenset()
    """Fields that enter keys only where they are not at their default, so that keys from before the field existed stay valid."""


class BankConfig(Strict):
    """Problems from the built-in generator (`selftrain.problems.bank`)."""

    keyed_when_set = frozenset({"split_languages"})

    source: Literal["bank"] = "bank"
    """Names the bank as the source of problems."""
    languages: Languages = ("py", "sh")
    """Languages of the problems: py, cpp, java, php, ts, cs, sh or js. Other names, such as `python` or `c++`, work too."""
    split_languages: dict[str, Languages] = {}
    """Languages of a split's problems where they are not all of `languages`, e.g. {test: [js, php]}."""
    families: tuple[Literal["list", "string", "number"], ...] = ("list",)
    """Types of values that the problems work on. Problems are drawn from the compositions of all families, unweighted."""
    seed: int = 0
    """Seed of compositions, wordings, tests and mistakes; the run's `seed` is added to it."""
    lengths: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2)
    """Possible numbers of operations before the last one of a composition; a family has about 10^(length + 1) compositions of
    each length."""
    sizes: dict[str, Count] = {"sft": 4000, "rl": 400, "validation": 50, "test": 80}
    """Number of tasks in each split; each task is one problem in every language."""
    shares: dict[str, Share] = {"sft": 0.45, "rl": 0.3, "validation": 0.1, "test": 0.15}
    """Share of the compositions that each split gets; the shares sum to 1."""
    tests: Annotated[int, Field(ge=2), INPUTS] = 8
    """Number of test cases per problem."""
    systematic_share: Share = 0.4
    """Share of the operations that have a systematic mistake: `systematic_rate` of the answers to learn from get them wrong."""
    systematic_rate: Share = 0.65
    """Share of the answers to learn from that get an operation with a systematic mistake wrong."""
    stray_rate: Share = 0.08
    """Share of the answers to learn from that get any other operation wrong."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_languages(self.languages, WRITTEN_LANGUAGES)
        _check_split_languages(self.split_languages, self.languages)
        _check_splits("sizes", self.sizes)
        _check_shares(self.shares)
        for name in ("families", "lengths", "sizes"):
            values = list(getattr(self, name))
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: expected at least one value and none twice, got {values}")
        if empty := [split for split in self.sizes if not self.shares.get(split)]:
            raise ValueError(f"sizes asks for tasks of {', '.join(empty)}, which shares gives nothing")
        return self

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have tasks."""
        return tuple(split for split in SPLITS if split in self.sizes)


Entries = Annotated[
    tuple[Annotated[Place, Field(min_length=1)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]
"""Several texts; a single text counts as a list with one element."""


Check = Literal["off", "count", "exclude", "refuse"]
"""The values of `problems.check`; see `OutsideConfig.check`."""


class OutsideConfig(Strict):
    """Settings that all sources of problems from outside have."""

    allowed_languages: ClassVar[Collection[str]] = LANGUAGES
    """Possible values of `languages`: all that the sandbox runs; for contests, those in which this project can write prompts."""
    keyed_when_set = frozenset({"split_languages"})

    languages: Languages = WRITTEN_LANGUAGES
    """Languages of the problems: any that the sandbox runs (`python -m sandbox languages`), by short or other names. Problems
    in other languages are left out, also in those whose files can be read but not run (adb, dart, fs, jl, swift)."""
    split_languages: dict[str, Languages] = {}
    """Languages of a split's problems where they are not all of `languages`, e.g. {test: [rb, lua]}: problems of the split in other
    languages are left out."""
    seed: int = 0
    """Seed of the split into sft, rl, validation and test; the run's `seed` is added to it."""
    shares: dict[str, Share] = {"sft": 0.5, "rl": 0.35, "validation": 0.15}
    """Share of the training tasks that each split gets; the shares sum to 1. A task's split depends only on its name and the
    seed; tasks that are the same problem under two names go to the same split."""
    exclude: tuple[str, ...] = ()
    """Names of tasks to leave out. CodeContests has several tasks of one name; to each of these names, `#` and a digest
    of the task's text are appended, and the log shows the result. The name alone leaves out all tasks that have it."""
    check: Check = "exclude"
    """What stage `prepare` does about faulty problems. It runs each answer on its own problem's tests, an empty function on
    all tests, and answers on the tests of similar problems (not for CodeContests, whose sites judged the solutions). off: it
    runs none of these; count: it logs what it finds; exclude: it also leaves out problems whose tests an empty function
    passes and training problems that equal an evaluation problem, and ignores wrong answers; refuse: the run ends if
    anything is found."""

    @model_validator(mode="after")
    def _check_choices(self) -> Self:
        _check_languages(self.languages, self.allowed_languages)
        _check_split_languages(self.split_languages, self.languages)
        _check_shares(self.shares)
        return self

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that must not be empty."""
        return tuple(split for split in SPLITS if self.shares.get(split))


class _TrainAndEvaluation(OutsideConfig):
    """Training tasks, which are divided into splits, and evaluation tasks, which all belong to the split `test`."""

    outside_keys = frozenset({"hub", "revision", "train", "evaluation"})

    hub: Place | None = None
    """Id of a data set on the Hugging Face hub, or a local folder in the hub's layout; null: `train` and `evaluation` are
    files."""
    revision: str = "main"
    """Branch, tag or commit of `hub`; cache keys contain the commit that it resolves to."""
    train: Entries = ()
    """Files, folders and globs of .json, .jsonl, .json.gz or .jsonl.gz that hold training tasks; with `hub`, parts of the
    data set."""
    evaluation: Entries = ()
    """Files, folders and globs, or parts of the data set, that hold the tasks of the test split."""

    @model_validator(mode="after")
    def _check_entries(self) -> Self:
        if not self.train and not self.evaluation:
            raise ValueError("expected entries in `train`, `evaluation` or both, got none")
        return self

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that must not be empty."""
        shared = super().splits if self.train else ()
        return tuple(split for split in SPLITS if split in shared or (split == "test" and self.evaluation))


class MultiPLEConfig(_TrainAndEvaluation):
    """Problems with MultiPL-E's fields: name, language, prompt, tests, stop_tokens and, optionally, response.

    With `hub: nuprl/MultiPL-E`, `train` and `evaluation` name subsets, such as `mbpp-cpp`; a `*` in a name stands for
    each of `languages`. That data set has no subset for Python: `humaneval-py` and `mbpp-py` are read from the data sets that
    it was translated from.
    """

    source: Literal["multipl-e"] = "multipl-e"
    """Names MultiPL-E as the source of problems."""
    outside_keys = _TrainAndEvaluation.outside_keys | {"humaneval_py", "mbpp_py"}

    humaneval_py: Place = "openai/openai_humaneval"
    """Where the problems of `humaneval-py` are: a data set on the hub, with `@REVISION` appended if need be, or a local
    folder."""
    mbpp_py: Place = "google-research-datasets/mbpp"
    """Where the problems of `mbpp-py` are: a data set on the hub, with `@REVISION` appended if need be, or a local folder."""


class ContestsConfig(_TrainAndEvaluation):
    """Contest problems in the format of CodeContests: programs read standard input and write standard output.

    With `hub: deepmind/code_contests`, `train` and `evaluation` name splits of the data set: `train`, `valid`, `test`, or
    a part such as `train[:500]`.
    """

    allowed_languages = WRITTEN_LANGUAGES

    source: Literal["contests"] = "contests"
    """Names contests as the source of problems."""
    max_cases: Count = 20
    """Largest number of test cases per problem: public ones first, then private, then generated."""
    pictures: bool = False
    """Whether to keep problems whose text refers to a picture (`<image>`), which a prompt cannot show."""
    references: Annotated[int, Field(ge=0)] = 3
    """Number of a problem's right solutions that stage `prepare` runs on its cases, in as many different `languages` as
    possible; problems of the sft split are skipped. A problem is left out if these solutions disagree, since it then has many
    right answers, or if none passes. 0: no solution is run."""


class JsonlConfig(OutsideConfig):
    """Your own problems, with the fields of `selftrain.records.Problem`.

    Required: task, language, prompt, and tests or cases. A row may name its `split`; other rows get a split by `shares`.
    `cases` are compared by the rule `compare`, or by the program `checker`: {language, program} (docs/sandbox.md).
    `time_limit` (seconds) and `memory_limit_bytes` are scaled by `execute.time_scale` and `execute.memory_scale`.
    """

    source: Literal["jsonl"] = "jsonl"
    """Names your own files as the source of problems."""
    outside_keys = frozenset({"files"})

    files: Entries = Field(min_length=1)
    """Files, folders and globs of .json, .jsonl, .json.gz or .jsonl.gz that hold the problems."""
    shares: dict[str, Share] = {"sft": 0.45, "rl": 0.3, "validation": 0.1, "test": 0.15}
    """Share of the tasks without a `split` of their own that each split gets; the shares sum to 1."""


def _source(value: Any) -> str | None:
    """The source that `value` names; None where it can name none."""
    if isinstance(value, dict):
        return str(value.get("source", "bank"))
    return getattr(value, "source", None)


OutsideProblems = (
    Annotated[MultiPLEConfig, Tag("multipl-e")]
    | Annotated[ContestsConfig, Tag("contests")]
    | Annotated[JsonlConfig, Tag("jsonl")]
)


MixedPart = OutsideProblems | Annotated[BankConfig, Tag("bank")]
"""A source that can be a part of `source: mixed`."""


class MixedConfig(Strict):
    """Several sources together, such as CodeContests to train on and MultiPL-E to evaluate on. The bank can be one of them."""

    source: Literal["mixed"] = "mixed"
    """Names several sources together as the source of problems."""
    seed: int = 0
    """Seed that is added to the seed of each part."""
    parts: tuple[Annotated[MixedPart, Discriminator(_source)], ...] = Field(min_length=1)
    """The sources; each splits its own tasks by its own `shares`."""
    check: Check = "exclude"
    """The setting `check` of a single source, for all parts together; a part must not set it."""

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if any(getattr(part, "check", "exclude") != "exclude" for part in self.parts):
            raise ValueError("parts: `check` is set for all parts together, beside `parts`")
        return self

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of all parts."""
        return tuple(dict.fromkeys(language for part in self.parts for language in part.languages))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that must not be empty."""
        return tuple(split for split in SPLITS if any(split in part.splits for part in self.parts))


def _evaluated(problems: Any) -> Any:
    if not isinstance(problems, BankConfig | JsonlConfig) and "test" not in problems.splits:
        raise ValueError(
            "no problems to evaluate on: name some in `evaluation`, or give `test` a share in `shares`"
        )
    return problems


ProblemsConfig = Annotated[
    Annotated[BankConfig, Tag("bank")] | OutsideProblems | Annotated[MixedConfig, Tag("mixed")],
    Discriminator(_source),
    AfterValidator(_evaluated),
]
"""A source of problems. The field `source` says which class applies; without the field it is the bank."""


class ModelConfig(Strict):
    """The model that training starts from: a tiny Llama with random weights, or a pretrained checkpoint."""

    outside_keys = frozenset({"base", "revision"})
    keyed_when_set = frozenset({"prompt_style", "random"})

    base: Place | None = None
    """Folder in the Hugging Face layout, or hub id, of a pretrained model; null: a tiny Llama with random weights, and a
    byte-level BPE that is trained for it."""
    gguf_file: str | None = None
    """File name of a GGUF checkpoint inside `base`."""
    revision: str | None = None
    """Hub commit of `base`; null: the newest."""
    random: bool = False
    """Whether only the architecture and the tokenizer of `base` are taken, and training starts from random weights."""
    prompt_style: PromptStyle = "completion"
    """How the generator is asked, in SFT, sampling and PPO. completion: it continues the prompt. chat: for instruct models; it
    answers a message that shows the prompt, in the tokenizer's own chat template, and the program is taken from the answer's
    code block."""
    vocabulary: Annotated[int, Field(ge=260)] = 1024
    """Tokens of the BPE that is trained on the training split (`base: null` only)."""
    hidden_size: Count = 128
    """Width of the tiny Llama's hidden states (`base: null` only); a multiple of twice `heads`."""
    layers: Count = 3
    """Number of the tiny Llama's layers (`base: null` only)."""
    heads: Count = 4
    """Number of the tiny Llama's attention heads (`base: null` only)."""
    max_tokens: Count = 256
    """Longest input of the tiny Llama, in tokens: prompt and completion together."""

    @model_validator(mode="after")
    def _divided(self) -> Self:
        if self.base is None and self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of {2 * self.heads}, twice heads: each head has an even part of it; "
                "change one of them"
            )
        return self

    @property
    def options(self) -> dict[str, str]:
        """Arguments of `from_pretrained` besides `base`: the GGUF file, and the revision where `base` is not a folder."""
        revision = None if Path(self.base or "").is_dir() else self.revision
        found = {"gguf_file": self.gguf_file, "revision": revision}
        return {name: value for name, value in found.items() if value}


class LoraConfig(Strict):
    """Low-rank adapters (Hu et al. 2021) on all linear layers of the trunk, merged into the exported model."""

    rank: Count = 16
    """Rank of the adapters' matrices."""
    alpha: Rate = 32
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that an input of an adapter is dropped in training. It has an effect in SFT only: the reranker and the policy are
    trained without dropout."""


class SftConfig(Strict):
    """Supervised fine-tuning of the generator on (prompt, response)."""

    outside_keys = frozenset({"checkpoint_steps"})

    epochs: Annotated[float, Field(ge=0)] = 6
    """Number of passes over the training examples; fractions are allowed. 0: no training, the pretrained model is the generator."""
    batch_size: Count = 64
    """Sequences per optimizer step, over all processes."""
    micro_batch_size: Count = 64
    """Sequences per forward pass of one process."""
    learning_rate: Rate = 3e-3
    """Peak learning rate; it rises linearly over `warmup_steps` and then falls along a cosine to 0."""
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Optimizer steps over which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    max_tokens: Count = 256
    """Longest prompt and response together, in tokens; longer sequences are left out and counted."""
    lora: LoraConfig | None = None
    """Settings of low-rank adapters that are trained in place of all weights, which needs a pretrained model; null trains all
    weights."""
    evaluation_steps: Count | None = None
    """Optimizer steps between evaluations on the validation split's responses; the result is the checkpoint with the lowest
    loss. null: no evaluations, the result is the last checkpoint."""
    patience: Count = 3
    """Number of evaluations in a row without a better loss after which training stops."""
    checkpoint_steps: Count = 200
    """Optimizer steps between checkpoints."""


class SampleConfig(Strict):
    """Sampling of candidates."""

    outside_keys = frozenset({"base_url"})
    keyed_when_set = frozenset({"served_model", "top_k"})

    engine: Literal["ctranslate2", "hf", "vllm", "openai"] = "ctranslate2"
    """What samples candidates: ctranslate2 (CPU), hf (Transformers, CPU or GPU), vllm (GPU), or openai: a server of vLLM or
    llama.cpp with OpenAI's protocol, which serves the generator's model. OPENAI_API_KEY in the environment is its key."""
    base_url: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$")
    """Address of the server of engine openai, e.g. http://127.0.0.1:8000/v1; no password in it."""
    served_model: str | None = None
    """Name of the model at the server of engine openai, in which `{pool}` stands for `sft`, `ppo-1`, ...: each policy is a model
    of its own. If the server lacks the next one, the run ends, and goes on once it is served. The keys contain this name and
    nothing else of what is served: give another version of a model another name."""
    compute_type: Literal["float32", "bfloat16", "int8"] = "float32"
    """Arithmetic on CPUs. int8 (engine ctranslate2) samples about twice as fast from weights rounded to 8 bits; log-probabilities
    are then those of the rounded model. A processor without VNNI cannot add 8-bit products exactly: there the stage uses
    float32, its key says float32, and the log says so. bfloat16 (engine hf) is twice as fast on processors with AVX-512 BF16 or
    AMX, and slower on others. On GPUs engine hf always uses bfloat16."""
    temperature: Rate = 0.8
    """Sampling temperature by which logits are divided."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Probability mass of nucleus sampling; 1 samples from the whole vocabulary. Below 1 and without `top_k`, engine
    ctranslate2 sorts the vocabulary for each token: 10 to 25 ms each with 151,936 entries."""
    top_k: Count | None = None
    """Number of the likeliest tokens that are sampled from, before `top_p`; null: the whole vocabulary."""
    max_new_tokens: Count = 64
    """Longest completion, in tokens."""
    rl: Count = 8
    """Candidates per problem of the rl split."""
    evaluation: Count = 16
    """Candidates per problem of the validation and test splits."""
    shard: Count = 128
    """Problems per shard, the unit of resume. Engine ctranslate2 seeds each shard, so its samples depend on this size too."""

    @model_validator(mode="after")
    def _arithmetic(self) -> Self:
        engine = {"bfloat16": "hf", "int8": "ctranslate2"}.get(self.compute_type, self.engine)
        if self.engine != engine:
            raise ValueError(
                f"compute_type {self.compute_type} is for engine {engine}, not for {self.engine}"
            )
        return self

    @model_validator(mode="after")
    def _server(self) -> Self:
        if len({self.engine == "openai", self.base_url is not None, self.served_model is not None}) > 1:
            raise ValueError(
                "engine openai, base_url and served_model belong together: set all three or none"
            )
        return self


class ExecuteConfig(Strict):
    """Execution in the sandbox."""

    every_case: bool = False
    """Whether to run all test cases of a problem of kind `stdio`, in place of stopping at the first failure. This gives the
    share of cases that a program passes, which `reward.margin` reads."""
    outside_keys = frozenset({"shard", "tolerated_errors"})

    audit: Annotated[str, AfterValidator(check_audit)] = "all"
    """Which programs that pass the tests in their source are run once more with one assertion changed so that it has to fail:
    `all`, `off`, or `sample:P` for a share P. A program that passes again has tampered with its tests and gets the verdict
    `tampered`, which counts as a failure."""
    cpu_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS)] | None = None
    """CPU time limit of a program, in seconds, where its problem sets none; null: the language's own limit."""
    memory_bytes: Annotated[int, Field(ge=1, le=LARGEST_BYTES)] | None = None
    """Memory limit of a program, in bytes, where its problem sets none; null: the language's own limit."""
    time_scale: Rate | None = 2.0
    """Factor that a problem's own time limit is multiplied by: contests set limits for compiled programs on their judges'
    machines, and here the start of an interpreter counts too. null: problems' own time limits are ignored."""
    memory_scale: Rate | None = 2.0
    """Factor that a problem's own memory limit is multiplied by; the product is at least 128 MiB, with which the languages of
    image `common` start, and at most 2 GiB. null: problems' own memory limits are ignored."""
    shard: Count = 2000
    """Number of candidates per shard, the unit of resume."""
    tolerated_errors: Share = 0.01
    """Largest share of candidates that the sandbox may fail to judge; these get no label. A larger share fails the stage."""


PairKind = Literal["hard_negative", "on_policy", "easy", "random"]
"""Kinds of pairs (`selftrain.stages.mine`); where nothing else decides, an earlier one comes first."""
UNSCORED = ("on_policy", "easy")
"""The kinds of round 1."""


class MineConfig(Strict):
    """Mining of pairs."""

    keyed_when_set = frozenset({"resample_temperature", "assertions"})

    pairs_per_problem: Count = 8
    """Largest number of new pairs of one problem in one round."""
    kinds: Annotated[dict[PairKind, Rate], Field(min_length=1)] = {
        "hard_negative": 4,
        "on_policy": 3,
        "easy": 1,
    }
    """Kinds of pairs that are mined, with their weights: how a problem's pairs are shared among the kinds that it has. A kind that
    is not named is not mined. In round 1, which has no scores, only the weights of on_policy and easy count; if neither is
    named, they have their default weights."""
    pools: Literal["all", "newest", "sft", "resampled"] = "all"
    """Pools whose programs rounds after the first mine: all so far, only the newest policy's, or only the SFT generator's.
    resampled: further samples of the SFT generator, as many in each round, in place of those of the policies, as a control."""
    resample_temperature: Rate | None = None
    """Sampling temperature of the further samples of `pools: resampled`; null: `sample.temperature`."""
    threshold: float | None = None
    """Score above which any failing candidate is a hard negative; null: only those are that score above a passing candidate
    of the same problem."""
    max_pairs: Count | None = None
    """Largest number of pairs of all rounds together. If there are more in round r, pairs are left out at random: of the new ones
    down to 1/r of this number, then of the earlier ones. null: no bound."""

    assertions: bool = False
    """Whether the assertions of a pair's wrong program are run one by one, for the share that it passes, which `reward.margin` reads;
    without it, this share is 0. It works where each assertion of the tests has lines of its own."""

    def weights(self, round: int) -> dict[str, float]:
        """The weights that count in `round`, by kind, in the order of `PairKind`."""
        named = {kind: self.kinds[kind] for kind in get_args(PairKind) if kind in self.kinds}
        # Of the type that the defaults have: a key tells 3.0 from 3, and equal weights are to have one key.
        named = {kind: int(weight) if weight == int(weight) else weight for kind, weight in named.items()}
        if round > 1:
            return named
        default = type(self).model_fields["kinds"].default
        unscored = {kind: weight for kind, weight in named.items() if kind in UNSCORED}
        return unscored or {kind: default[kind] for kind in UNSCORED}


class RewardConfig(Strict):
    """Training of the reranker on pairs of a right and a wrong program."""

    outside_keys = frozenset({"checkpoint_steps", "base", "base_revision"})
    keyed_when_set = frozenset({"compute_type", "lm_loss", "magnitude", "packed", "random"})

    epochs: Rate = 3
    """Number of passes over the pairs in round 1, and in later rounds where `later_epochs` is null; fractions are allowed."""
    later_epochs: Rate | None = None
    """Number of passes in rounds after the first, which then start from the previous reranker; null: each round starts from
    the SFT generator and makes `epochs` passes."""
    later_learning_rate: Rate | None = None
    """Peak learning rate of rounds that start from the previous reranker; null: half of `learning_rate`."""
    batch_size: Count = 64
    """Pairs per optimizer step, over all processes."""
    micro_batch_size: Count = 64
    """Pairs per forward pass of one process."""
    packed: bool = False
    """Whether the programs of a pair are one row, in which they read their prompt once. The scores are the same; it saves time where
    prompts are long."""
    learning_rate: Rate = 1e-3
    """Peak learning rate; it rises linearly over `warmup_steps` and then falls along a cosine to 0."""
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    """Optimizer steps over which the learning rate rises."""
    head_learning_rate: Rate | None = None
    """Peak learning rate of the score head in rounds that do not start from the previous reranker; null: `learning_rate`. A
    new head on pretrained weights starts at zero; as these move slowly, ten times `learning_rate` lets it follow sooner."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    token_loss: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the pairwise loss on per-token scores that are pooled over the completion; 0 leaves only the loss on the last
    token's score."""
    token_pool: Literal["sum", "mean"] = "sum"  # noqa: S105
    """How per-token scores are pooled into one."""
    last_loss: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the pairwise loss on the last token's score, which is the score of the exported reranker."""
    margin: Annotated[float, Field(ge=0)] = 0.0
    """Margin between the scores of a pair, per unit of difference in the share of tests passed (Llama 2's margin loss). The share of
    a wrong program is 0 without `execute.every_case` (problems with cases) or `mine.assertions` (others)."""
    template: str = "{prompt}"
    """Text that the reranker reads before the completion, with `{prompt}` in it once. The exported config.json contains it as
    `prompt_template`."""
    base: Place | None = None
    """Another model to start from in round 1: folder in the Hugging Face layout, or hub id; null: the SFT generator."""
    base_revision: str | None = None
    """Hub commit of `base`; null: the newest."""
    random: bool = False
    """Whether only the architecture and the tokenizer of the model to start from are taken, and training starts from random weights;
    not in rounds that start from the previous reranker."""
    layers: Count | None = None
    """Number of layers that the reranker keeps of the model that it starts from, the first ones; fewer train and score faster.
    null: all."""
    lora: LoraConfig | None = None
    """Settings of low-rank adapters that are trained with the score head in place of all weights; null trains all weights."""
    compute_type: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic on CPUs, in training and where the reranker scores. bfloat16 is twice as fast on processors with AVX-512 BF16 or
    AMX, and slower on others; the weights that are trained stay float32. On GPUs training always uses bfloat16, and scoring what
    is set here, with float32's products in TF32, which round inputs to 10 bits."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the tasks whose pairs, in all languages, are held out from training and evaluated on while it runs."""
    evaluation_steps: Count | None = None
    """Optimizer steps between evaluations on the held-out pairs; the result is the checkpoint with the highest pair accuracy.
    null: no evaluations, the result is the last checkpoint."""
    patience: Count = 3
    """Number of evaluations in a row without a better pair accuracy after which training stops."""
    center: Annotated[float, Field(ge=0)] = 0.01
    """Weight of (chosen + rejected)^2, which keeps scores around 0 (Eisenstein et al. 2023)."""
    magnitude: Annotated[float, Field(ge=0)] = 0.0
    """Weight of (chosen^2 + rejected^2) / 2, which keeps scores small."""
    lm_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the language model's loss on the chosen program, the mean of -log p over its tokens in nats, with the embedding as
    the head (Yang et al. 2024, GRM). It needs a model with tied embeddings."""
    max_tokens: Count = 256
    """Longest prompt and completion together, in tokens; longer pairs are left out and counted."""
    checkpoint_steps: Count = 200
    """Optimizer steps between checkpoints."""

    @property
    def model(self) -> ModelConfig:
        """`base` as the config of a model."""
        return ModelConfig(base=self.base, revision=self.base_revision)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.template.count("{prompt}") != 1:
            raise ValueError(f"template: expected the text {{prompt}} once, got {self.template!r}")
        if not self.last_loss and not self.token_loss:
            raise ValueError("last_loss and token_loss are both 0: there is nothing to learn")
        if self.evaluation_steps and not self.holdout:
            raise ValueError("evaluation_steps needs pairs to evaluate on: set holdout above 0")
        return self


class HealthConfig(Strict):
    """Bounds that end a diverged PPO run; null: no bound. The error names the metric, its value and the step."""

    max_kl: Rate | None = 1.0
    """Largest mean KL to the SFT policy, in nats per token."""
    min_entropy: Annotated[float, Field(ge=0)] | None = None
    """Smallest mean entropy, in nats per token."""
    max_clip_fraction: Share | None = 0.6
    """Largest share of tokens whose probability ratio is clipped in a step."""
    max_hacking_gap: Rate | None = None
    """Largest gap between the rise of the probe's mean score and that of its pass rate, each in standard deviations of the
    first probe (see `selftrain.training.ppo.health`)."""


class PPOConfig(Strict):
    """The policy step: training of the generator against the reranker, with PPO, GRPO or RLOO."""

    outside_keys = frozenset({"checkpoint_steps"})
    keyed_when_set = frozenset({"problems"})

    algorithm: Literal["ppo", "grpo", "rloo"] = "ppo"
    """What a completion's reward is compared with. ppo: the estimate of a value head (Schulman et al. 2017; Ziegler et al.
    2019). grpo: the mean of its group, the `group` completions of one prompt (Shao et al. 2024). rloo: the mean of the others
    of its group (Ahmadian et al. 2024). grpo and rloo have no value head, and the settings of it have no effect."""
    group: Annotated[int, Field(ge=2)] = 8
    """Completions per prompt and step with algorithm grpo and rloo; it must divide `rollout_batch`. ppo: always 1."""
    scale_rewards: Literal["group", "none"] = "group"
    """Whether algorithm grpo divides a score's distance from its group's mean by the group's standard deviation; none: it does
    not (Liu et al. 2025, Dr. GRPO), so that prompts whose scores hardly differ do not weigh as much as the others."""
    loss_type: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
    """How the loss of a mini-batch is averaged. dapo: over its tokens. grpo: over each completion's tokens, then over the
    completions, so that tokens of long completions weigh less. dr_grpo: the sum over all tokens, divided by the number of
    completions times `sample.max_new_tokens`."""
    start: Literal["sft", "previous"] = "sft"
    """The policy that training starts from after round 1. sft: the SFT policy, as in round 1; previous: the policy of the
    previous round. The KL penalty is that to the SFT policy in both cases."""
    problems: Literal["all", "mixed"] = "all"
    """Problems of the rl split whose prompts are trained on. mixed: only those of which the SFT generator's samples for mining both
    passed and failed; the others are too hard or too easy for it."""

    engine: Literal["hf", "ctranslate2", "vllm"] = "hf"
    """Engine that samples the rollouts. hf: the trainer's own model, each completion with its own seed. The other engines
    reload the policy's weights at every step."""
    lora: LoraConfig | None = None
    """Settings of low-rank adapters that are trained in place of all weights; null trains all weights. Where training starts
    from the SFT policy, the model without its adapters is the reference."""
    steps: Count = 20
    """Number of rollout batches."""
    rollout_batch: Count = 256
    """Completions per step, over all processes."""
    mini_batch: Count = 128
    """Completions per optimizer step, over all processes."""
    micro_batch: Count = 128
    """Completions per forward pass of one process."""
    epochs: Count = 2
    """Number of passes over each rollout batch."""
    learning_rate: Rate = 3e-4
    """Learning rate of AdamW, constant over all steps."""
    temperature: Rate = 1.0
    """Sampling temperature of the rollouts; log-probabilities and KL are those of the distribution at this temperature."""
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    """Weight β of the KL penalty in the reward, in score per nat; the first value where `kl_target` is set."""
    kl_estimator: Literal["k1", "k3", "exact"] = "k1"
    """Estimator of the per-token penalty for KL(policy || SFT policy). k1, k3: Schulman's estimators from the sampled token;
    the gradient of a k3 reward is not that of the KL, so even a large coefficient does not keep the policy close. exact: the
    penalty is the KL itself, summed over the vocabulary; the sampled token's own log-ratio enters only that token's advantage.
    Its expected gradient is that of k1, with less noise."""
    kl_target: Rate | None = None
    """Target of the KL, in nats per token, for an adaptive coefficient (Ziegler et al. 2019); null keeps the coefficient
    fixed."""
    kl_horizon: Rate = 2000
    """Number of completions over which the adaptive coefficient changes; a larger one makes it change more slowly."""
    gamma: Share = 1.0
    """Discount γ of rewards per token, with a value head."""
    gae_lambda: Share = 0.95
    """λ of generalised advantage estimation, with a value head."""
    clip: Rate = 0.2
    """Clip range ε of the probability ratio."""
    value_clip: Rate = 0.2
    """Clip range of the change of a value since the rollout, in the unit in which the value loss is computed."""
    value_coefficient: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the value loss beside the policy loss."""
    missing_end_penalty: float = 1.0
    """Amount that is subtracted from the score of a completion that neither an end token nor a stop text ended."""
    length_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Amount that is subtracted from the score for each token of the completion."""
    score_clip: Rate | None = None
    """Bound of the scores' absolute value, applied before penalties; null: no bound."""
    execution_weight: Share = 0.0
    """Weight w of execution in the reward: (1 - w) * score + w * (1 if the tests pass, else 0)."""
    whiten_rewards: bool = False
    """Whether algorithm ppo scales the rewards of a rollout batch to unit variance, with their mean kept."""
    value_model: Literal["shared", "separate"] = "shared"
    """What the value head reads: shared: the policy's trunk; separate: a second copy of the trunk that training starts from, for
    twice the memory."""
    probe: Annotated[int, Field(ge=0)] = 0
    """Number of problems of the validation split that are sampled, scored and executed every `probe_steps` steps; 0: none."""
    probe_steps: Count = 5
    """PPO steps between probes."""
    keep_best: bool = False
    """Whether the result is the policy whose probe passed most often (the policy before the first step counts
    too) in place of the last one."""
    health: HealthConfig = HealthConfig()
    max_grad_norm: Rate = 1.0
    """Largest norm of the gradient; a larger one is scaled down to it."""
    checkpoint_steps: Count = 5
    """PPO steps between checkpoints."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kl_estimator == "exact" and self.whiten_rewards:
            raise ValueError(
                "kl_estimator exact cannot be used with whiten_rewards; choose k1, or set it to false"
            )
        if self.keep_best and not self.probe:
            raise ValueError(
                "keep_best goes by the probe's pass rate, and probe is 0: set probe, or keep_best to false"
            )
        if self.rollout_batch % self.per_prompt:
            raise ValueError(
                f"rollout_batch {self.rollout_batch} is not a multiple of group {self.group}, the number of completions per "
                "prompt; change one of them"
            )
        return self

    @property
    def critic(self) -> Literal["shared", "separate"] | None:
        """What the value head reads (see `value_model`); None: `algorithm` has no value head."""
        return self.value_model if self.algorithm == "ppo" else None

    @property
    def per_prompt(self) -> int:
        """Number of completions per prompt and step."""
        return 1 if self.algorithm == "ppo" else self.group

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the settings that have no effect with this `algorithm`."""
        if self.algorithm == "ppo":
            return ("group", "scale_rewards")
        of_values = (
            "gamma",
            "gae_lambda",
            "value_clip",
            "value_coefficient",
            "value_model",
            "whiten_rewards",
        )
        return of_values if self.algorithm == "grpo" else (*of_values, "scale_rewards")

    def misfits(self, processes: int) -> Iterator[str]:
        """Messages about batch sizes that do not divide each other, or cannot be spread evenly over `processes` processes."""
        if self.rollout_batch % self.mini_batch:
            yield f"ppo.rollout_batch {self.rollout_batch} is not a multiple of ppo.mini_batch {self.mini_batch}"
        for name in ("mini_batch", "probe"):
            if getattr(self, name) % processes:
                yield f"ppo.{name} {getattr(self, name)} cannot be spread evenly over {processes} training processes"


class EvaluateConfig(Strict):
    """Evaluation on the test split."""

    outside_keys = frozenset({"agreement", "reward_models", "pools"})

    pools: tuple[str, ...] | None = None
    """Policies whose candidates are ranked and reported: `sft`, which has to be among them, `ppo-1`, ...; null: all. A policy that is
    neither named here nor mined is not trained."""
    bootstrap: Resamples = 2000
    """Number of bootstrap resamples per interval, at most 100,000."""
    control: bool = True
    """Whether candidates are also scored with the prompts of other problems. A reranker that reads the problem then loses
    its gain."""
    agreement: Annotated[int, Field(ge=0), INPUTS] = 0
    """Number of generated inputs per problem on which Python programs are run to compare their outputs, at most 1,000; 0: none. The
    ranker `agreement` picks from the largest group of programs with equal outputs by log-probability, `rm-r+agreement` by score."""
    reward_models: dict[RankerName, Place] = {}
    """Reward models of others as rankers to compare with: name of the ranker -> folder in the Hugging Face layout, or hub id,
    with `@COMMIT` for a commit that is not the newest. A model with a chat template reads the prompt as the user's message and
    the completion as the assistant's, another one the prompt and the completion."""


class PromotionConfig(Strict):
    """When a challenger becomes the champion (see `selftrain.champion.promotion`). These settings enter no key."""

    max_rounds: Rounds | None = None
    """Largest number of rounds that a run trains; null: no bound."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Share of problems by which the lower end of the paired difference's 95 % interval, challenger minus champion, has to
    exceed 0 for a promotion."""
    patience: Count = 1
    """Number of challengers in a row that are not promoted before training pauses, until the problems, the config or the
    champion change."""


class SlotsConfig(Strict):
    """How many steps of a run go on at the same time. A step starts when its inputs are there and slots are free."""

    train: Count = 1
    """Number of steps at a time that use the devices of models: training, sampling and scoring. They share the same devices."""
    sandbox: Count = 1
    """Number of steps at a time that judge programs, each with `runtime.workers` workers."""
    steps: Count | None = None
    """Number of steps at a time in all; 1: one after the other, for machines whose memory holds no two; null: no bound."""


class RuntimeConfig(Strict):
    """Where and how a run is executed. These settings enter no key."""

    processes: Processes = 2
    """Number of training, sampling and scoring processes per node, at most 4,096."""
    threads: Processes = 1
    """Number of CPU threads per process, at most 4,096."""
    nodes: Count = 1
    """Number of machines that train one model together."""
    rendezvous: str | None = None
    """HOST:PORT of the first node; needed where `nodes` is above 1."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of training, sampling and scoring."""
    interface: str | None = None
    """Network interface between nodes, e.g. eth0; null: the libraries choose it."""
    launcher: Literal["torchrun", "deepspeed"] = "torchrun"
    """What starts training processes on several nodes. torchrun: each further node runs `selftrain node STORE`; deepspeed:
    DeepSpeed's launcher starts all nodes of `hostfile`."""
    hostfile: Place | None = None
    """DeepSpeed's file of nodes, with lines `HOST slots=GPUS`; needed with launcher deepspeed."""
    deepspeed: Place | None = None
    """A DeepSpeed JSON file, or the name of a shipped file: zero1, zero2, zero3, zero3-offload; null: no DeepSpeed."""
    scoring_shards: bool = False
    """Whether a reranker is split over this machine's processes when it scores (DeepSpeed's ZeRO stage 3, for inference), for
    rerankers larger than a GPU. false: each process has a full copy, which is faster."""
    tracker: Literal["tensorboard", "mlflow", "trackio"] | None = None
    """An installed experiment tracker that receives each stage's metrics and curves, in addition to the Prefect UI; null:
    none."""
    gradient_checkpointing: bool | None = None
    """Whether activations are recomputed in the backward pass to save memory; null: on GPUs only."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    """Number of newest checkpoints of a training stage that are kept while it runs; at least 2, since a kill can leave the
    newest incomplete."""
    share_checkpoints: bool | None = None
    """Whether a training stage's checkpoints are copied to a remote store while it trains, so that another machine can resume
    it. null: yes, except for DeepSpeed's, which are pickles. true: DeepSpeed's too; whoever can write to the store can
    then run code on machines that resume from them."""
    stage_hours: Rate | None = None
    """Longest time, in hours, of a training or sampling child process. After that the run ends the child, and the stage fails
    and is retried. null: no bound."""
    workers: Processes = 2
    """Number of programs that the sandbox runs at once, at most 4,096."""
    slots: SlotsConfig = SlotsConfig()
    """How many steps of the run go on at the same time, by what they use."""
    dask: str | None = Field(default=None, pattern=r"^(tcp|tls)://.+:\d+$")
    """Address of a Dask scheduler, e.g. tcp://host:8786, whose workers share the shards of `sample` and `execute`. All
    workers must reach the store and the Prefect server. null: this machine works alone."""
    parts: Count | None = None
    """Number of task runs into which `sample` and `execute` are each split for `dask`; null: one for each Dask worker."""
    cache_gib: Rate = 50.0
    """Largest size, in GiB, of this machine's cache of a remote store's artifacts; the least recently used are evicted first."""
    backend: Literal["auto", "docker", "bubblewrap", "process"] = "auto"
    """Backend of the sandbox. auto: docker where its daemon answers and the image is built, else bubblewrap. process: no
    isolation, only for programs of the demo's own tiny models."""
    docker_runtime: str | None = None
    """Runtime of backend docker, e.g. runsc (gVisor); null: the daemon's default."""
    allow_no_isolation: bool = False
    """Whether backend `process` may be used with pretrained weights, although it isolates nothing."""

    @property
    def recomputes(self) -> bool:
        """Whether activations are recomputed in the backward pass."""
        return self.device == "cuda" if self.gradient_checkpointing is None else self.gradient_checkpointing


class RunConfig(Strict):
    """One run of the method."""

    name: str = Field(default="run", pattern=NAME)
    """Name of the run's folder, of its flow run and its artifacts in Prefect's UI, and of the registry of champions."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Seed of training, sampling and mining; it is added to the problems' own seed."""
    rounds: Rounds = 2
    """Number of rounds of reranker training and PPO, at most 1,000."""
    problems: ProblemsConfig = BankConfig()
    model: ModelConfig = ModelConfig()
    sft: SftConfig = SftConfig()
    sample: SampleConfig = SampleConfig()
    execute: ExecuteConfig = ExecuteConfig()
    mine: MineConfig = MineConfig()
    reward: RewardConfig = RewardConfig()
    ppo: PPOConfig = PPOConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promotion: PromotionConfig = PromotionConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    store: Place = "runs/store"
    """Folder or fsspec URL (`s3://BUCKET/PATH`) of the artifact store. The environment variable SELFTRAIN_STORE replaces this
    default, here and in the commands that read a store."""
    store_block: str | None = None
    """Prefect block with the store's storage options (credentials, endpoint): `secret/NAME` or `remote-file-system/NAME`;
    null: the options come from the environment."""

    @property
    def policy_rounds(self) -> set[int]:
        """The rounds whose policy step is carried out: those whose policy is evaluated, mined or trained on by a needed one."""
        rounds = range(1, self.rounds + 1)
        evaluated = self.evaluate.pools
        needed = {round for round in rounds if evaluated is None or f"ppo-{round}" in evaluated}
        if self.mine.pools in ("all", "newest"):
            needed |= set(rounds[:-1])
        if self.ppo.start == "previous" and needed:
            needed = set(range(1, max(needed) + 1))
        return needed

    @model_validator(mode="after")
    def _isolated(self) -> Self:
        runtime = self.runtime
        if runtime.backend == "process" and self.model.base is not None and not runtime.allow_no_isolation:
            raise ValueError(
                "runtime.backend is `process`, which isolates nothing, and model.base is a pretrained model; "
                "use backend docker or bubblewrap, or set runtime.allow_no_isolation: true if you accept the risk"
            )
        if runtime.nodes > 1 and runtime.launcher == "torchrun" and not runtime.rendezvous:
            raise ValueError("runtime.nodes > 1 needs runtime.rendezvous: host:port of the first node")
        if runtime.nodes > 1 and runtime.slots.train > 1:
            raise ValueError(
                f"runtime.slots.train is {runtime.slots.train}, and runtime.nodes > 1 machines train one model at a time: set it to 1"
            )
        if runtime.launcher == "deepspeed" and not runtime.hostfile:
            raise ValueError("runtime.launcher deepspeed needs runtime.hostfile: lines `HOST slots=GPUS`")
        if self.model.prompt_style == "chat" and self.model.base is None:
            raise ValueError(
                "model.prompt_style chat needs a tokenizer with a chat template, and model.base is null: name an instruct model"
            )
        known = ["sft", *(f"ppo-{round}" for round in range(1, self.rounds + 1))]
        if unknown := sorted(set(self.evaluate.pools or ()) - set(known)):
            raise ValueError(f"evaluate.pools: no pool {unknown[0]!r}; there are: {', '.join(known)}")
        if self.evaluate.pools is not None and "sft" not in self.evaluate.pools:
            raise ValueError("evaluate.pools: sft is missing; the ranker is chosen on its candidates")
        pretrained = self.model.base is not None and not self.model.random
        if self.model.random and self.model.base is None:
            raise ValueError(
                "model.random takes the architecture of model.base, which is null: set one of them"
            )
        if not self.sft.epochs and not pretrained:
            raise ValueError(
                "sft.epochs is 0, and the model has random weights: train it, or set model.base to a pretrained model"
            )
        if self.sft.lora and not pretrained:
            raise ValueError(
                "sft.lora adapts pretrained weights, and "
                + ("model.random is set" if self.model.random else "model.base is null")
                + ": set one of them"
            )
        return self


def default_store() -> str:
    """The store of runs and commands that name none."""
    return os.path.expanduser(os.environ.get(STORE_VARIABLE, "")) or str(
        RunConfig.model_fields["store"].default
    )
