"""The plan: every stage of a run with what it will need, before anything is trained."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from selftrain.config import RewardConfig, RunConfig, RuntimeConfig, SftConfig
from selftrain.errors import UsageError
from selftrain.models import footprint
from selftrain.models.footprint import Memory, world
from selftrain.models.shapes import Shape
from selftrain.plan import flops, memory
from selftrain.plan.corpus import Corpus
from selftrain.plan.flops import Rows

SANDBOX_MS = {
    "py": 4, "ts": 73, "java": 82, "cpp": 289, "js": 60, "cs": 78, "php": 19, "sh": 8, "go": 370, "rs": 450, "rb": 180,
    "lua": 7, "pl": 90, "r": 180, "ml": 20, "hs": 220, "rkt": 660, "d": 150, "ex": 900, "scala": 7900, "clj": 2900,
}  # fmt: skip
"""CPU milliseconds a program, measured (ARCHITECTURE, "The sandbox, measured"; the later ones: compile and run once)."""
TIMEOUT_SHARE, TIMEOUT_SECONDS = 0.01, 15
"""Programs for problems from outside that run into their CPU limit, and what each of those costs."""
PAIR_SHARE = 0.5
"""Problems with both passing and failing candidates; each is taken to give half as many pairs as it has candidates."""
DISTINCT = 0.7
"""Share of a problem's candidates that are not the same program as an earlier one."""
ROW_BYTES = 600
"""Of a candidate or an execution in a Parquet file."""


Job = tuple[tuple[str, ...], int]
"""Splits that are scored, and their candidates."""


@dataclass(frozen=True)
class Speed:
    """What turns work into time.

    rates   kind of work -> FLOP/s of one process: sft, train_reward, ppo, rollout (in PPO), sample, score
    steps   stage -> seconds of an optimizer step beside its FLOPs: AdamW, and gradients exchanged between ranks
    token   seconds of a decoding step in PPO's rollouts beside its FLOPs
    starts  kind of child (sft, train_reward, ppo, sample, score) -> seconds before its first batch
    saves   stage -> seconds of a checkpoint
    said    where these figures are from
    """

    rates: dict[str, float]
    steps: dict[str, float] = field(default_factory=dict)
    token: float = 0.0
    starts: dict[str, float] = field(default_factory=dict)
    saves: dict[str, float] = field(default_factory=dict)
    said: str = ""


def stated_speed(tflops: float, utilisation: float, sampling_utilisation: float) -> Speed:
    """From a device's peak, and the shares of it that training and sampling reach."""
    whole = dict.fromkeys(("sft", "train_reward", "ppo", "score"), tflops * 1e12 * utilisation)
    one_by_one = dict.fromkeys(("rollout", "sample"), tflops * 1e12 * sampling_utilisation)
    return Speed(
        whole | one_by_one,
        said=f"{tflops:g} TFLOP/s a process at a utilisation of {utilisation:g}, {sampling_utilisation:g} where tokens are "
        "sampled one by one; starts of processes and checkpoints not counted",
    )


@dataclass(frozen=True)
class Step:
    """What one stage of the run needs.

    name, stage        as in `selftrain run --dry-run`
    parameters         that are trained, or that sample and score
    tokens             (prompt, completion) tokens that go through a model, all passes of all processes
    flops              work -> FLOPs, over all processes
    memory             of one process
    processes          that share the work
    seconds            wall time
    sandbox_seconds    CPU time of programs, over all workers
    shards             that other machines can share (`runtime.dask`); 0: none can
    kept, passing      bytes of artifacts, and of checkpoints that are deleted at the stage's end
    """

    name: str
    stage: str
    parameters: int = 0
    tokens: tuple[int, int] = (0, 0)
    flops: dict[str, float] = field(default_factory=dict)
    memory: Memory | None = None
    processes: int = 1
    seconds: float = 0.0
    sandbox_seconds: float = 0.0
    shards: int = 0
    kept: int = 0
    passing: int = 0

    @property
    def hours(self) -> float:
        """Device hours: wall time on all processes."""
        return self.seconds * self.processes / 3600 if self.flops else 0.0


@dataclass(frozen=True)
class Planner:
    """Makes the steps of one run. `shape`, `judge`: of generator and reranker; `pairs`: new ones per round, where known."""

    config: RunConfig
    shape: Shape
    judge: Shape
    corpus: Corpus
    speed: Speed
    pairs: int | None = None

    @property
    def runtime(self) -> RuntimeConfig:
        """Where it runs."""
        return self.config.runtime

    def steps(self) -> Iterator[Step]:
        """The stages in the order of `flows.method`."""
        rounds = self.config.rounds
        yield self.prepare()
        yield self.sft()
        yield from self.pool("sft", "rl")
        yield self.mine(1)
        for number in range(1, rounds + 1):
            yield self.reward(number)
            yield self.ppo(number)
            if number < rounds:
                yield from self.pool(f"ppo-{number}", "rl")
                yield self.mine(number + 1)
        for name in ["sft", *(f"ppo-{number}" for number in range(1, rounds + 1))]:
            yield from self.pool(name, "evaluation")
        yield self.evaluate()
        yield Step("report", "report")

    # Stages

    def prepare(self) -> Step:
        """Reads the problems, and compiles the tests of those from outside."""
        programs = {}
        if self.config.problems.source != "bank":
            programs = self.corpus.languages("rl", "validation", "test")
        rows = self.corpus.count("sft", "rl", "validation", "test")
        return Step(
            "prepare",
            "prepare",
            seconds=self.corpus.seconds,
            sandbox_seconds=self.sandbox(programs),
            kept=2 * ROW_BYTES * rows,
        )

    def sft(self) -> Step:
        """Fine-tunes the generator."""
        config, shape = self.config.sft, self.shape
        group = footprint.micro_rows(config.batch_size, config.micro_batch_size, self.runtime)
        longest = min(config.max_tokens, shape.context)
        rows = self.corpus.sft_rows(longest, group)
        updates = optimizer_steps(rows.count, config.epochs, config.batch_size)
        rows = replace(rows, count=updates * config.batch_size)
        width = min(longest, max(sum(row) for row in self.corpus.learnt))
        looks = updates // config.evaluation_steps if config.evaluation_steps else 0
        looked_at = replace(rows, count=looks * self.corpus.count("validation"))
        work = {
            "sft": flops.sft(shape, rows, self.runtime, config.lora)
            + flops.forward(shape, looked_at)
            + 2 * shape.head * looked_at.tokens
        }
        return self.training(
            "sft",
            "sft",
            shape.parameters,
            config,
            rows,
            work,
            updates,
            footprint.sft_memory(config, shape, self.runtime, width),
        )

    def reward(self, number: int) -> Step:
        """Trains the reranker of round `number` on the pairs of all rounds so far."""
        config, shape = self.config.reward, self.judge
        epochs = config.epochs if number == 1 else config.later_epochs or config.epochs
        pairs = self.new_pairs() * number
        updates = optimizer_steps(pairs * (1 - config.holdout), epochs, config.batch_size)
        group = footprint.micro_rows(config.batch_size, config.micro_batch_size, self.runtime)
        cap = self.config.sample.max_new_tokens
        rows = self.corpus.sampled_rows(("rl",), 2 * updates * config.batch_size, cap, group, pairs=True)
        looks = updates // config.evaluation_steps if config.evaluation_steps else 0
        looked_at = replace(rows, count=looks * 2 * pairs * config.holdout)
        work = {
            "train_reward": flops.reward(shape, rows, self.runtime, config.lora)
            + flops.forward(shape, looked_at)
        }
        longest = min(config.max_tokens, shape.context, max(self.corpus.prompts["rl"]) + cap)
        return self.training(
            f"rm-{number}",
            "train_reward",
            shape.classifier,
            config,
            rows,
            work,
            updates,
            footprint.reward_memory(config, shape, self.runtime, longest),
        )

    def ppo(self, number: int) -> Step:
        """Trains a policy against the reranker of round `number`."""
        config, shape = self.config.ppo, self.shape
        cap = self.config.sample.max_new_tokens
        share = min(config.micro_batch, max(1, config.mini_batch // world(self.runtime)))
        rows = self.corpus.sampled_rows(("rl",), config.steps * config.rollout_batch, cap, share)
        probes = config.probe * (1 + config.steps // config.probe_steps) if config.probe else 0
        probe = replace(rows, count=probes)
        updates = config.steps * config.epochs * config.rollout_batch // config.mini_batch
        work = {
            "rollout": flops.decode(shape, rows) + flops.decode(shape, probe),
            "ppo": flops.ppo_experience(shape, self.judge, rows, config)
            + flops.forward(self.judge, probe)
            + flops.ppo_update(shape, rows, config, self.runtime),
        }
        prompts = self.corpus.prompts["rl"]
        longest = min(max(prompts), shape.context - cap)
        step = self.training(
            f"ppo-{number}",
            "ppo",
            shape.parameters,
            config,
            rows,
            work,
            updates,
            footprint.ppo_memory(config, shape, self.judge, self.runtime, longest, cap),
        )
        executed = probes + (rows.count if config.execution_weight else 0)
        return replace(
            step,
            seconds=step.seconds + config.steps * cap * self.speed.token,
            sandbox_seconds=self.sandbox(self.share_of(executed, "rl")),
        )

    def training(
        self,
        name: str,
        stage: str,
        parameters: int,
        config: Any,
        rows: Rows,
        work: dict[str, float],
        updates: int,
        needed: Memory,
    ) -> Step:
        """A training stage of `updates` optimizer steps."""
        ranks = world(self.runtime)
        speed = self.speed
        steps = config.steps if stage == "ppo" else updates  # what checkpoints are counted in
        seconds = speed.starts.get(stage, 0.0) + updates * speed.steps.get(stage, 0.0)
        seconds += sum(count / (speed.rates[kind] * ranks) for kind, count in work.items())
        seconds += math.ceil(steps / config.checkpoint_steps) * speed.saves.get(stage, 0.0)
        shape = self.judge if stage == "train_reward" else self.shape
        trained = shape.adapters(config.lora.rank) if config.lora else parameters
        kept = footprint.FLOAT * parameters
        checkpoint = footprint.FLOAT * (3 * trained if config.lora else parameters + 2 * trained)
        return Step(
            name,
            stage,
            parameters,
            (int(rows.count * rows.prompt), int(rows.count * rows.completion)),
            work,
            needed,
            ranks,
            seconds,
            kept=kept,
            passing=self.runtime.keep_checkpoints * checkpoint,
        )

    def pool(self, generator: str, where: str) -> Iterator[Step]:
        """Samples a pool of candidates, and executes it."""
        config, shape = self.config.sample, self.shape
        splits = ("rl",) if where == "rl" else ("validation", "test")
        each = config.rl if where == "rl" else config.evaluation + 1  # and the greedy one
        count = self.corpus.count(*splits) * each
        if not count:
            raise UsageError(f"no problem in splits {', '.join(splits)}; there is nothing to sample")
        rows = self.corpus.sampled_rows(splits, count, config.max_new_tokens, 1)
        if config.engine == "hf":  # a batch goes on, finished rows too, until its last row has ended
            longest = min(config.max_new_tokens, max(self.corpus.answers))
            work = {"sample": flops.decode(shape, replace(rows, completion=longest))}
        else:  # the greedy completion reads the prompt by itself
            work = {"sample": flops.decode(shape, rows, each if where == "rl" else each / 2)}
        processes = self.runtime.processes  # each samples shards of its own, on the first node
        prompt = max(tokens for split in splits for tokens in self.corpus.prompts.get(split, [0]))
        shards = math.ceil(self.corpus.count(*splits) / config.shard)
        longest_share = math.ceil(shards / processes) / shards
        seconds = self.speed.starts.get("sample", 0.0)
        seconds += longest_share * work["sample"] / self.speed.rates["sample"]
        yield Step(
            f"sample-{generator}-{where}",
            "sample",
            shape.parameters,
            (int(count * rows.prompt), int(count * rows.completion)),
            work,
            memory.sampling_memory(config, shape, self.runtime, each, prompt),
            processes,
            seconds,
            shards=shards,
            kept=int(count * (ROW_BYTES + 4 * rows.completion)),
            passing=footprint.FLOAT * shape.parameters if config.engine == "ctranslate2" else 0,
        )
        programs = {language: n * each for language, n in self.corpus.languages(*splits).items()}
        cases = 1
        if self.config.execute.every_case:
            cases = getattr(self.config.problems, "max_cases", 1)
        cpu = self.sandbox(programs) * DISTINCT * cases
        yield Step(
            f"execute-{generator}-{where}",
            "execute",
            seconds=cpu / self.runtime.workers,
            sandbox_seconds=cpu,
            shards=math.ceil(count / self.config.execute.shard),
            kept=count * ROW_BYTES,
        )

    def mine(self, number: int) -> Step:
        """Takes pairs from a pool; from round 2 on the reranker scores it."""
        kept = self.new_pairs() * number * 2 * ROW_BYTES
        if number == 1:
            return Step("mine-1", "mine", kept=kept)
        count = self.corpus.count("rl") * self.config.sample.rl
        return self.scoring(f"mine-{number}", "mine", [(("rl",), count)], 1, kept)

    def evaluate(self) -> Step:
        """Every reranker scores every pool, and the first one with shuffled prompts too."""
        rounds, each = self.config.rounds, self.config.sample.evaluation
        both = self.corpus.count("validation", "test") * each
        jobs: list[Job] = [(("validation", "test"), both)] * (rounds * (rounds + 1))
        if self.config.evaluate.control:
            jobs += [(("test",), self.corpus.count("test") * each)] * rounds
        total = sum(count for _, count in jobs)
        return self.scoring("evaluate", "evaluate", jobs, rounds, 60 * total)

    def scoring(self, name: str, stage: str, jobs: list[Job], rerankers: int, kept: int) -> Step:
        """A stage whose work is scoring; identical programs of a problem are scored once."""
        shape, tokens = self.judge, [0, 0]
        work = 0.0
        for splits, count in jobs:
            rows = self.corpus.sampled_rows(splits, count * DISTINCT, self.config.sample.max_new_tokens, 1)
            problems = self.corpus.count(*splits)
            work += flops.score(shape, problems, rows)
            tokens[0] += int(problems * rows.prompt)
            tokens[1] += int(rows.count * rows.completion)
        processes = self.runtime.processes
        seconds = self.speed.starts.get("score", 0.0) + work / (self.speed.rates["score"] * processes)
        return Step(
            name,
            stage,
            shape.classifier,
            (tokens[0], tokens[1]),
            {"score": work},
            memory.scoring_memory(shape, self.runtime, rerankers),
            processes,
            seconds,
            kept=kept,
        )

    # Counts

    def sandbox(self, programs: dict[str, int]) -> float:
        """CPU seconds of `programs`. What the bank asks for takes no loops that could be endless."""
        return sandbox_seconds(programs, 0.0 if self.config.problems.source == "bank" else TIMEOUT_SHARE)

    def new_pairs(self) -> int:
        """Pairs that each round adds."""
        if self.pairs is not None:
            return self.pairs
        each = min(self.config.mine.pairs_per_problem, self.config.sample.rl / 2)
        return max(1, round(self.corpus.count("rl") * PAIR_SHARE * each))

    def share_of(self, programs: float, split: str) -> dict[str, int]:
        """`programs` over the languages of a split's problems."""
        languages = self.corpus.languages(split)
        total = max(1, sum(languages.values()))
        return {language: round(programs * n / total) for language, n in languages.items()}


def optimizer_steps(rows: float, epochs: float, batch: int) -> int:
    """As `training.common.bucketed_order` makes them: whole batches, at least one."""
    return max(1, round(epochs * rows / batch))


def sandbox_seconds(programs: dict[str, int], endless: float = TIMEOUT_SHARE) -> float:
    """CPU seconds of programs by language; a share `endless` of them runs until it is stopped."""
    normal = sum(n * SANDBOX_MS[language] / 1000 for language, n in programs.items())
    return normal + sum(programs.values()) * endless * TIMEOUT_SECONDS


def check_batches(config: RunConfig) -> Iterator[str]:
    """What the training stages will refuse about batches on so many processes."""
    ranks = world(config.runtime)
    stages: tuple[tuple[str, SftConfig | RewardConfig], ...] = (
        ("sft", config.sft),
        ("reward", config.reward),
    )
    for name, part in stages:
        step = footprint.micro_rows(part.batch_size, part.micro_batch_size, config.runtime) * ranks
        if part.batch_size % step:
            yield f"{name}.batch_size {part.batch_size} cannot be split evenly on {ranks} processes; use a multiple of {step}"
    yield from config.ppo.misfits(ranks)
