"""What a run is: every setting, its meaning, its default. YAML files in `configs/` fill it in.

Everything but `runtime`, `promotion`, `store` and `name` can change the result and is part of the stages' keys.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, Self

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

WRITTEN_LANGUAGES = ("py", "cpp", "java", "php", "ts", "cs", "sh", "js")
"""Those in which the bank and contests have their prompts written; also the default for problems from outside."""
SPLITS = ("sft", "rl", "validation", "test")

SOURCES = ("bank", "contests", "jsonl", "mixed", "multipl-e")
"""Where problems may come from: `problems.source`."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` where one of `known` is like `name`, else empty."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _refuse_unknown(name: str, values: Iterable[str], known: Sequence[str]) -> None:
    """Raise ValueError for values that are not known."""
    if unknown := [value for value in values if value not in known]:
        raise ValueError(
            f"{name}: unknown {', '.join(unknown)}{suggestion(unknown[0], known)}; known: {', '.join(known)}"
        )


def _check_languages(names: Sequence[str], known: Collection[str]) -> None:
    """Raise ValueError for languages that are not known, for none, and for one twice."""
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"languages: {refusal(unknown[0], known)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"languages: expected at least one and none twice, got {list(names)}")


Languages = Annotated[tuple[str, ...], AfterValidator(lambda names: tuple(map(short_name, names)))]
"""Short names; any other name that the sandbox's table has becomes one."""


class Strict(BaseModel):
    """Frozen; unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    outside_keys: ClassVar[frozenset[str]] = frozenset()
    """Fields that enter no stage's key: where something is (the key holds its content in their stead), and what cannot
    change a result, such as how often progress is kept."""


class BankConfig(Strict):
    """Problems made by the built-in generator (`selftrain.problems.bank`)."""

    source: Literal["bank"] = "bank"
    languages: Languages = ("py", "sh")
    """Some of py, cpp, java, php, ts, cs, sh, js, by these or other names (`python`, `c++`)."""
    families: tuple[Literal["list", "string", "number"], ...] = ("list",)
    """What the problems are about; each family's chains of operations are mixed as they are, unweighted."""
    seed: int = 0
    """Seed of compositions, wordings, tests and bugs."""
    lengths: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2)
    """Numbers of steps before a chain's ending; a family has some 10^(length + 1) chains of each."""
    sizes: dict[str, Count] = {"sft": 4000, "rl": 400, "validation": 50, "test": 80}
    """Tasks per split; each is a problem in every language."""
    shares: dict[str, Share] = {"sft": 0.45, "rl": 0.3, "validation": 0.1, "test": 0.15}
    """Share of the compositions that each split gets; they sum to 1."""
    tests: Annotated[int, Field(ge=2)] = 8
    """Test cases per problem."""
    systematic_share: Share = 0.4
    """Share of the operations that most of the corpus has wrong."""
    systematic_rate: Share = 0.65
    """How much of the corpus has those wrong."""
    stray_rate: Share = 0.08
    """How much of the corpus has the other operations wrong."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_languages(self.languages, WRITTEN_LANGUAGES)
        for name in ("sizes", "shares"):
            _refuse_unknown(name, getattr(self, name), SPLITS)
        for name in ("families", "lengths", "sizes"):
            values = list(getattr(self, name))
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: expected at least one value and none twice, got {values}")
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(
                f"shares: expected a sum of 1, got {sum(self.shares.values()):g} from {self.shares}"
            )
        if empty := [split for split in self.sizes if not self.shares.get(split)]:
            raise ValueError(f"sizes asks for tasks of {', '.join(empty)}, which shares gives nothing")
        return self


Entries = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]


Check = Literal["off", "count", "exclude", "refuse"]


class OutsideConfig(Strict):
    """What all problems from outside share."""

    allowed_languages: ClassVar[Collection[str]] = LANGUAGES
    """Those that can be run, and of contests those in which their prompts can be written."""

    languages: Languages = WRITTEN_LANGUAGES
    """Any that the sandbox runs (`python -m sandbox languages`), by short or other names; problems in other languages, also those
    that can only be read (adb, dart, fs, jl, swift), are left out."""
    seed: int = 0
    """Seed of the split."""
    shares: dict[str, Share] = {"sft": 0.5, "rl": 0.35, "validation": 0.15}
    """Share of the training tasks that each split gets; they sum to 1. A task's split depends on its name and the seed
    only; tasks that are the same problem under two names go to the same split."""
    exclude: tuple[str, ...] = ()
    """Tasks to leave out, by name. Where CodeContests has several of one name (its sources share some), each gets `#` and a
    digest of its text behind it, told in the log: the name alone leaves out all of them."""
    check: Check = "exclude"
    """Stage `prepare` runs each answer on its own problem's tests, an empty function on all tests, and answers on the tests of
    problems like theirs (not CodeContests', which its sites judged). off: none of it; count: what is found is told; exclude:
    told, and wrong answers are not learned from nor measured on, problems whose tests an empty function passes are left out,
    and so are those that are one to evaluate on under another name; refuse: the run ends."""

    @model_validator(mode="after")
    def _check_choices(self) -> Self:
        _check_languages(self.languages, self.allowed_languages)
        _refuse_unknown("shares", self.shares, SPLITS)
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(
                f"shares: expected a sum of 1, got {sum(self.shares.values()):g} from {self.shares}"
            )
        return self

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that must not be empty."""
        return tuple(split for split in SPLITS if self.shares.get(split))


class _TrainAndEvaluation(OutsideConfig):
    """Training tasks, shared out over the splits, and evaluation tasks, all of which are `test`."""

    outside_keys = frozenset({"hub", "revision", "train", "evaluation"})

    hub: str | None = None
    """A data set on the Hugging Face hub, or a local folder in the hub's layout. Null: files."""
    revision: str = "main"
    """Branch, tag or commit of `hub`; a run is keyed by the commit that it stands for."""
    train: Entries = ()
    """Files, folders and globs of .json, .jsonl, .json.gz or .jsonl.gz; with `hub`: parts of the data set."""
    evaluation: Entries = ()
    """The same, for the test split."""

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
    """Problems in MultiPL-E's own fields: name, language, prompt, tests, stop_tokens, and maybe response.

    With `hub: nuprl/MultiPL-E`, `train` and `evaluation` name subsets, such as `mbpp-cpp`; a `*` in them stands for each
    of `languages`. That data set has no subset for Python: `humaneval-py` and `mbpp-py` are read from the data sets that it was
    translated from.
    """

    source: Literal["multipl-e"] = "multipl-e"
    outside_keys = _TrainAndEvaluation.outside_keys | {"humaneval_py", "mbpp_py"}

    humaneval_py: str = "openai/openai_humaneval"
    """Where the problems of `humaneval-py` are: a data set on the hub, with `@REVISION` behind it if need be, or a local folder."""
    mbpp_py: str = "google-research-datasets/mbpp"
    """The same for `mbpp-py`."""


class ContestsConfig(_TrainAndEvaluation):
    """Problems as CodeContests has them: programs that read standard input and write standard output.

    With `hub: deepmind/code_contests`, `train` and `evaluation` name splits of the data set: `train`, `valid`, `test`, or
    a part such as `train[:500]`.
    """

    allowed_languages = WRITTEN_LANGUAGES

    source: Literal["contests"] = "contests"
    max_cases: Count = 20
    """Test cases per problem: public ones first, then private, then generated."""
    pictures: bool = False
    """Whether to keep problems whose text refers to a picture (`<image>`), which no prompt shows."""
    references: Annotated[int, Field(ge=0)] = 3
    """So many of a problem's right solutions are run on its cases, in as many of `languages` as there are, unless it is for sft
    alone. Where they disagree, it has many right answers and is left out, and so it is where none passes; 0: none are run."""


class JsonlConfig(OutsideConfig):
    """One's own problems, in the fields of `selftrain.records.Problem`.

    Needed: task, language, prompt, and tests or cases. A row's own `split` counts; rows without get theirs by `shares`.
    `cases` are compared by the rule `compare`, or by the program `checker`: {language, program} (docs/sandbox.md).
    `time_limit` (seconds) and `memory_limit_bytes` are scaled by `execute.time_scale` and `execute.memory_scale`.
    """

    source: Literal["jsonl"] = "jsonl"
    outside_keys = frozenset({"files"})

    files: Entries = Field(min_length=1)
    """Files, folders and globs of .json, .jsonl, .json.gz or .jsonl.gz."""
    shares: dict[str, Share] = {"sft": 0.45, "rl": 0.3, "validation": 0.1, "test": 0.15}
    """Share of the tasks without a `split` that each split gets; they sum to 1."""


def _source(value: Any) -> str:
    return str(value.get("source", "bank") if isinstance(value, dict) else value.source)


OutsideProblems = (
    Annotated[MultiPLEConfig, Tag("multipl-e")]
    | Annotated[ContestsConfig, Tag("contests")]
    | Annotated[JsonlConfig, Tag("jsonl")]
)


class MixedConfig(Strict):
    """Several sources as one, such as CodeContests to train on and MultiPL-E to evaluate on."""

    source: Literal["mixed"] = "mixed"
    seed: int = 0
    """Added to the seed of each part."""
    parts: tuple[Annotated[OutsideProblems, Discriminator(_source)], ...] = Field(min_length=1)
    """Each shares out its own tasks by its own `shares`."""
    check: Check = "exclude"
    """As that of a source by itself, for all parts together: a part's own is not allowed."""

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if any(part.check != "exclude" for part in self.parts):
            raise ValueError("parts: `check` is set for all parts together, beside `parts`")
        return self

    @property
    def languages(self) -> tuple[str, ...]:
        """Those of all parts."""
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
"""Where problems come from, told apart by `source` (the bank where there is none)."""


class ModelConfig(Strict):
    """The models: a tiny Llama made here, or a pretrained checkpoint."""

    outside_keys = frozenset({"base", "revision"})

    base: str | None = None
    """Folder in the Hugging Face layout or hub id; null makes a tiny Llama and a byte-level BPE of its own."""
    gguf_file: str | None = None
    """File name of a GGUF checkpoint inside `base`."""
    revision: str | None = None
    """Hub commit of `base`."""
    vocabulary: Annotated[int, Field(ge=260)] = 1024
    """Tokens of the BPE that is trained on the training split (base: null)."""
    hidden_size: Count = 128
    layers: Count = 3
    heads: Count = 4
    max_tokens: Count = 256
    """Longest prompt + completion that the tiny Llama takes."""


class LoraConfig(Strict):
    """Low-rank adapters (Hu et al. 2021) on all linear layers of the trunk; the exported model has them merged in."""

    rank: Count = 16
    alpha: Rate = 32
    """Adapters are scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class SftConfig(Strict):
    """Supervised fine-tuning of the generator on (prompt, response)."""

    outside_keys = frozenset({"checkpoint_steps"})

    epochs: Rate = 6
    batch_size: Count = 64
    """Sequences per optimizer step, over all processes."""
    micro_batch_size: Count = 64
    """Sequences at once in one process."""
    learning_rate: Rate = 3e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_tokens: Count = 256
    """Longer sequences are left out, and counted."""
    lora: LoraConfig | None = None
    """Train adapters instead of all weights; needs a pretrained model."""
    evaluation_steps: Count | None = None
    """Steps between evaluations on the validation split's responses; the checkpoint with the lowest loss is the result.
    Null: none, the last one is."""
    patience: Count = 3
    """Evaluations without a better one after which training stops."""
    checkpoint_steps: Count = 200
    """Steps between checkpoints."""


class SampleConfig(Strict):
    """Sampling of candidates."""

    engine: Literal["ctranslate2", "hf", "vllm"] = "ctranslate2"
    compute_type: Literal["float32", "int8"] = "float32"
    """Arithmetic of engine ctranslate2. int8 samples about twice as fast from weights rounded to 8 bits; log-probabilities
    are then those of the rounded model, the one that was sampled from. A processor without VNNI cannot add 8-bit products up
    exactly: there the stage is made, and keyed, in float32, and says so."""
    temperature: Rate = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Below 1, engine ctranslate2 sorts the whole vocabulary for each token: 12 ms each with 49,152 entries."""
    max_new_tokens: Count = 64
    rl: Count = 8
    """Candidates per problem of the rl split."""
    evaluation: Count = 16
    """Candidates per problem of the validation and test splits."""
    shard: Count = 128
    """Problems per shard, the unit of resume; with engine ctranslate2 also what a seed reproduces."""


class ExecuteConfig(Strict):
    """Execution in the sandbox."""

    every_case: bool = False
    """Run all test cases of problems of kind `stdio`, each as a program of its own, instead of up to the first that
    fails: gives the share of cases that a program passes, which `reward.margin` reads. Costs a run per case."""
    outside_keys = frozenset({"shard", "tolerated_errors"})

    cpu_seconds: Rate | None = None
    """CPU time per program, where its problem gives no limit; null: the language's own."""
    memory_bytes: Count | None = None
    """Memory per program, where its problem gives no limit; null: the language's own."""
    time_scale: Rate | None = 2.0
    """What a problem's own limit on time is multiplied by: contests' limits are for compiled programs on their judges'
    machines, and here the start of an interpreter counts too. Null: problems' own limits on time are ignored."""
    memory_scale: Rate | None = 2.0
    """The same for memory; it is never less than 128 MiB, with which the languages of image common start, nor more than 2 GiB. Null:
    problems' own limits on memory are ignored."""
    shard: Count = 2000
    """Candidates per shard, the unit of resume."""
    tolerated_errors: Share = 0.01
    """Share of candidates that the sandbox may fail to judge; they get no label. More fails the stage."""


class MineConfig(Strict):
    """Mining of pairs."""

    pairs_per_problem: Count = 8
    """Cap on the pairs of one problem and round."""
    hard_share: Share = 0.5
    """Share of that cap reserved for hard negatives, from round 2 on."""
    easy_share: Share = 0.25
    """Share of that cap for pairs whose wrong program crashes or does not compile."""
    threshold: float | None = None
    """A failing candidate scored above this is a hard negative too; null: only one above a passing candidate is."""
    passing: bool = True
    """Whether rounds after the first add passing candidates of the new pool as chosen programs (full self-training);
    false takes the chosen programs from the first pool (hard negatives only)."""


class RewardConfig(Strict):
    """Training of the reranker: pairwise Bradley-Terry loss."""

    outside_keys = frozenset({"checkpoint_steps", "base", "base_revision"})

    epochs: Rate = 3
    later_epochs: Rate | None = None
    """Passes in rounds after the first, which then go on from the reranker before; null: each round starts from the SFT
    generator and makes `epochs` passes."""
    later_learning_rate: Rate = 5e-4
    """Learning rate of rounds that go on from the reranker before."""
    batch_size: Count = 64
    micro_batch_size: Count = 64
    learning_rate: Rate = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    token_loss: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the same loss on per-token scores pooled over the completion; 0 leaves the last token's score alone."""
    token_pool: Literal["sum", "mean"] = "sum"  # noqa: S105
    """How those per-token scores become one."""
    last_loss: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the loss on the last token's score, the one that the exported reranker gives."""
    margin: Annotated[float, Field(ge=0)] = 0.0
    """Scores are to differ by this much times the gap in the share of tests passed (Llama 2's margin loss)."""
    template: str = "{prompt}"
    """What the reranker reads before the completion. It goes into the exported config.json as `prompt_template`."""
    base: str | None = None
    """Another model to start from in round 1: folder in the Hugging Face layout or hub id; null: the SFT generator."""
    base_revision: str | None = None
    """Hub commit of `base`."""
    lora: LoraConfig | None = None
    """Train adapters and the score head instead of all weights."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the problems whose pairs are not trained on but evaluated on during training."""
    evaluation_steps: Count | None = None
    """Steps between evaluations on the held-out pairs; the checkpoint with the highest pair accuracy is the result."""
    patience: Count = 3
    """Evaluations without a better one after which training stops."""
    center: Annotated[float, Field(ge=0)] = 0.01
    """Weight of (chosen + rejected)^2, which keeps scores around 0 (Eisenstein et al. 2023)."""
    max_tokens: Count = 256
    checkpoint_steps: Count = 200

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
    """Bounds that end a PPO run gone bad; null: none. The error names the signal, its value and the step."""

    max_kl: Rate | None = 1.0
    """Mean KL to the SFT policy, nats a token."""
    min_entropy: Annotated[float, Field(ge=0)] | None = None
    """Mean entropy, nats a token."""
    max_clip_fraction: Share | None = 0.6
    max_hacking_gap: Rate | None = None
    """How much further the probe's mean score has risen than its pass rate, each in standard deviations of the first
    probe (see `selftrain.training.ppo.health`)."""


class PPOConfig(Strict):
    """PPO of the generator against the reranker (Schulman et al. 2017; Ziegler et al. 2019)."""

    outside_keys = frozenset({"checkpoint_steps"})

    engine: Literal["hf", "ctranslate2", "vllm"] = "hf"
    """What samples the rollouts. `hf`: the trainer's own model, each completion seeded by itself; the others reload the
    policy's weights at every step."""
    lora: LoraConfig | None = None
    """Train adapters instead of all weights; the SFT policy below them is the reference then."""
    steps: Count = 20
    """Rollout batches."""
    rollout_batch: Count = 256
    """Completions per step, over all processes."""
    mini_batch: Count = 128
    """Completions per optimizer step, over all processes."""
    micro_batch: Count = 128
    """Completions at once in one process."""
    epochs: Count = 2
    """Passes over each rollout batch."""
    learning_rate: Rate = 3e-4
    temperature: Rate = 1.0
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    kl_estimator: Literal["k1", "k3", "exact"] = "k1"
    """How KL(policy || SFT policy) is charged per token. k1, k3: Schulman's estimators from the sampled token; k3's gradient
    as a reward is not that of the KL, and a large coefficient does not hold the policy. exact: a token's own log-ratio
    counts for that token only, and those after it by their expectation: the same gradient as k1 with less noise."""
    kl_target: Rate | None = None
    """Nats a token; makes the KL coefficient adaptive (Ziegler et al. 2019); null keeps it fixed."""
    kl_horizon: Rate = 2000
    """Completions over which the adaptive coefficient moves."""
    gamma: Share = 1.0
    gae_lambda: Share = 0.95
    clip: Rate = 0.2
    """Clip range of the probability ratio."""
    value_clip: Rate = 0.2
    value_coefficient: Annotated[float, Field(ge=0)] = 0.1
    missing_end_penalty: float = 1.0
    """Taken from the score of a completion without an end token."""
    length_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Taken from the score per token of the completion."""
    score_clip: Rate | None = None
    """Scores are kept within plus and minus this, before penalties."""
    execution_weight: Share = 0.0
    """Share of the reward that is execution's: (1 - w) * score + w * (1 if the tests pass, else 0)."""
    whiten_rewards: bool = False
    value_model: Literal["shared", "separate"] = "shared"
    """Whether the value head reads the policy's trunk or a copy of the SFT policy's of its own (twice the memory)."""
    probe: Annotated[int, Field(ge=0)] = 0
    """Problems of the validation split that are sampled, scored and executed now and then; 0: none."""
    probe_steps: Count = 5
    """Steps between probes."""
    keep_best: bool = False
    """The result is the policy whose probe passed most often, the SFT policy among them, instead of the last one."""
    health: HealthConfig = HealthConfig()
    max_grad_norm: Rate = 1.0
    checkpoint_steps: Count = 5

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
        return self

    def misfits(self, processes: int) -> Iterator[str]:
        """What is wrong where batch sizes do not divide each other or spread evenly over so many training processes."""
        if self.rollout_batch % self.mini_batch:
            yield f"ppo.rollout_batch {self.rollout_batch} is not a multiple of ppo.mini_batch {self.mini_batch}"
        for name in ("mini_batch", "probe"):
            if getattr(self, name) % processes:
                yield f"ppo.{name} {getattr(self, name)} cannot be spread evenly over {processes} training processes"


class EvaluateConfig(Strict):
    """Evaluation on the test split."""

    bootstrap: Count = 2000
    """Resamples per interval."""
    control: bool = True
    """Also score with prompts shuffled among problems: a reranker that reads the problem loses its gain."""


class PromotionConfig(Strict):
    """When a challenger becomes the champion (see `selftrain.champion.promotion`). None of it enters a key."""

    max_rounds: Count | None = None
    """Rounds that no run goes beyond; null: no bound."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Share of problems: a challenger is promoted if it solves more than the champion by more than this, at the lower end of
    the paired difference's 95 % interval."""
    patience: Count = 1
    """Challengers in a row that were not promoted after which no further round is trained until something else changes: the
    problems, the config or the champion."""


class RuntimeConfig(Strict):
    """Where and how it runs. None of it enters a key."""

    processes: Count = 2
    """Training processes per node."""
    threads: Count = 1
    """CPU threads per process."""
    nodes: Count = 1
    rendezvous: str | None = None
    """host:port of the first node (nodes > 1)."""
    device: Literal["cpu", "cuda"] = "cpu"
    interface: str | None = None
    """Network interface that nodes talk over, e.g. eth0; null: what the libraries choose."""
    launcher: Literal["torchrun", "deepspeed"] = "torchrun"
    """torchrun: each further node runs `selftrain node STORE`. deepspeed: its launcher starts all nodes of `hostfile`."""
    hostfile: str | None = None
    """DeepSpeed's list of nodes, lines `HOST slots=GPUS`."""
    deepspeed: str | None = None
    """A DeepSpeed JSON file: stage 1, 2 or 3 of ZeRO, with or without offload."""
    scoring_shards: bool = False
    """Candidates are scored by a reranker in shards over this machine's processes (DeepSpeed's ZeRO stage 3, for inference):
    for one that is larger than a GPU. False: each process has a copy of its own, which is faster."""
    tracker: Literal["tensorboard", "mlflow", "trackio"] | None = None
    """A tracker that is told each stage's figures and curves, beside the Prefect UI; it has to be installed."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass to save memory; null: on GPUs only."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    """Newest checkpoints of a training stage that are kept while it runs; the newest may be cut short by a kill."""
    share_checkpoints: bool | None = None
    """A training stage's checkpoints are in a remote store, too, while it trains, and another machine goes on from them. null:
    but for DeepSpeed's, which are pickles: with true, whoever may write to the store can run code where they are read."""
    stage_hours: Rate | None = None
    """A training or sampling child that takes longer is ended, and the stage fails (and is retried)."""
    workers: Count = 2
    """Programs that run at once, and sampling processes."""
    dask: str | None = Field(default=None, pattern=r"^(tcp|tls)://.+:\d+$")
    """Address of a Dask scheduler, e.g. tcp://host:8786: its workers share the shards of `sample` and `execute`. All must
    reach the store and the Prefect server."""
    parts: Count | None = None
    """Task runs that each such stage is shared out to; null: one for each Dask worker."""
    cache_gib: Rate = 50.0
    """Most that this machine's copies of a remote store's artifacts may take; what was not used for longest goes first."""
    backend: Literal["auto", "docker", "bubblewrap", "process"] = "auto"
    """The sandbox's. auto: docker where its daemon answers and the image is built, else bubblewrap. `process` isolates
    nothing: for the demo's own tiny models."""
    docker_runtime: str | None = None
    """Another runtime of backend docker, e.g. runsc (gVisor)."""
    allow_no_isolation: bool = False
    """Needed for backend `process` together with pretrained weights."""

    @property
    def recomputes(self) -> bool:
        """Whether activations are recomputed in the backward pass."""
        return self.device == "cuda" if self.gradient_checkpointing is None else self.gradient_checkpointing


class RunConfig(Strict):
    """One run of the method."""

    name: str = Field(default="run", pattern=NAME)
    """Name of the run's folder."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Seed of training, sampling and mining; it is added to the problems' own seed, that of the bank or of the splits."""
    rounds: Count = 2
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
    store: str = "runs/store"
    """Folder or fsspec URL of the artifact store."""
    store_block: str | None = None
    """A Prefect block with the store's storage options (credentials, endpoint), `secret/NAME` or `remote-file-system/NAME`;
    null: from the environment."""

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
        if runtime.launcher == "deepspeed" and not runtime.hostfile:
            raise ValueError("runtime.launcher deepspeed needs runtime.hostfile: lines `HOST slots=GPUS`")
        if self.sft.lora and self.model.base is None:
            raise ValueError("sft.lora adapts pretrained weights, and model.base is null: set one of them")
        return self
