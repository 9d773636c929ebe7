"""Estimates FLOPs, memory, time and storage of every stage of a run."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from selftrain.config import PPOConfig, RewardConfig, RunConfig, RuntimeConfig, SftConfig
from selftrain.models import footprint
from selftrain.models.footprint import Memory, world
from selftrain.models.shapes import Shape
from selftrain.plan import flops, memory
from selftrain.plan.corpus import Corpus
from selftrain.plan.flops import Rows
from selftrain.plan.speed import Speed
from selftrain.stage import ArtifactRef
from selftrain.stage import Step as Node  # a stage in the graph of a run; `Step` here is what the stage needs

SANDBOX_MS = {
    "py": 4, "ts": 73, "java": 82, "cpp": 289, "js": 60, "cs": 78, "php": 19, "sh": 8, "go": 370, "rs": 450, "rb": 180,
    "lua": 7, "pl": 90, "r": 180, "ml": 20, "hs": 220, "rkt": 660, "d": 150, "ex": 900, "scala": 7900, "clj": 2900,
}  # fmt: skip
"""Language -> CPU milliseconds per program, measured (docs/results.md, "The sandbox"); from `go` on: compile and run once."""
TIMEOUT_SHARE, TIMEOUT_SECONDS = 0.01, 15
"""Assumed share of programs that reach their CPU limit (not for the bank's problems), and CPU seconds of each such program."""
PAIR_SHARE = 0.5
"""Assumed share of problems with both passing and failing candidates. Each gives half as many pairs as it has candidates."""
DISTINCT = 0.7
"""Assumed share of a problem's candidates that are distinct programs."""
ROW_BYTES = 600
"""Assumed bytes of a problem, a candidate or an execution in a Parquet file."""


Job = tuple[tuple[str, ...], int]
"""Scoring work: splits, and the number of candidates to score."""


@dataclass(frozen=True)
class Step:
    """The needs of one stage of the run.

    name, stage        as in `selftrain run --dry-run`
    parameters         parameters of the stage's model
    tokens             (prompt tokens, completion tokens) that models read or write, over all processes
    flops              kind of work -> FLOPs, over all processes
    memory             memory of one process
    processes          number of processes that share the work
    seconds            wall time
    sandbox_seconds    CPU time of sandboxed programs, over all workers
    shards             number of shards that other machines can process (`runtime.dask`); 0: the stage is not shared
    kept               bytes of the artifact
    passing            bytes of temporary files, such as checkpoints, which are deleted when the stage ends
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
        """Device hours: wall time times processes; 0 for stages without a model."""
        return self.seconds * self.processes / 3600 if self.flops else 0.0


@dataclass(frozen=True)
class Planner:
    """Plans the stages of one run.

    nodes   the run's graph
    shape   the generator's shape
    judge   the reranker's shape
    corpus  the run's problems
    speed   rates that convert FLOPs to seconds
    pairs   pairs that a round adds, if measured; None: estimated
    """

    config: RunConfig
    nodes: Sequence[Node]
    shape: Shape
    judge: Shape
    corpus: Corpus
    speed: Speed
    pairs: float | None = None

    @property
    def runtime(self) -> RuntimeConfig:
        """The config's section `runtime`."""
        return self.config.runtime

    def steps(self) -> Iterator[Step]:
        """The needs of each stage, in the order of the graph."""
        return map(self.step, self.nodes)

    def step(self, node: Node) -> Step:
        """The needs of one stage, from the method below that has the stage's name."""
        planned: Callable[[Node], Step] = getattr(self, node.stage.name)
        return planned(node)

    def maker(self, ref: ArtifactRef) -> Node:
        """The stage that creates the artifact `ref`."""
        return next(node for node in self.nodes if node.ref == ref)

    # Stages

    def prepare(self, node: Node) -> Step:
        """Reads the problems. If they are not the bank's, also compiles their tests."""
        programs = {}
        if self.config.problems.source != "bank":
            programs = self.corpus.languages("rl", "validation", "test")
        rows = self.corpus.count("sft", "rl", "validation", "test")
        return Step(
            node.name,
            "prepare",
            seconds=self.corpus.seconds,
            sandbox_seconds=self.sandbox(programs),
            kept=2 * ROW_BYTES * rows,
        )

    def sft(self, node: Node) -> Step:
        """Fine-tunes the generator; without epochs, copies it."""
        config, shape = self.config.sft, self.shape
        if not config.epochs:
            return Step(
                node.name,
                "sft",
                shape.parameters,
                seconds=self.speed.starts.get("sft", 0.0),
                kept=footprint.FLOAT * shape.parameters,
            )
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
        needed = footprint.sft_memory(config, shape, self.runtime, width)
        return self.training(node, shape.parameters, config, rows, work, needed)

    def train_reward(self, node: Node) -> Step:
        """Trains the reranker of a round on the pairs of all rounds so far."""
        config, shape = node.config.reward, self.judge
        pairs = self.pairs_until(self.maker(node.inputs["pairs"]).config.round)
        updates = optimizer_steps(pairs * (1 - config.holdout), config.epochs, config.batch_size)
        group = footprint.micro_rows(config.batch_size, config.micro_batch_size, self.runtime)
        cap = self.config.sample.max_new_tokens
        rows = self.corpus.sampled_rows(("rl",), 2 * updates * config.batch_size, cap, group, pairs=True)
        looks = updates // config.evaluation_steps if config.evaluation_steps else 0
        looked_at = replace(rows, count=looks * 2 * pairs * config.holdout)
        work = {
            "train_reward": flops.train(shape, rows, self.runtime, config.lora)
            + flops.forward(shape, looked_at)
        }
        longest = min(config.max_tokens, shape.context, max(self.corpus.prompts["rl"]) + cap)
        needed = footprint.reward_memory(config, shape, self.runtime, longest)
        return self.training(node, shape.classifier, config, rows, work, needed)

    def ppo(self, node: Node) -> Step:
        """Trains a policy against a reranker."""
        config, shape = node.config.ppo, self.shape
        cap = self.config.sample.max_new_tokens
        share = min(config.micro_batch, max(1, config.mini_batch // world(self.runtime)))
        rows = self.corpus.sampled_rows(("rl",), config.steps * config.rollout_batch, cap, share)
        probes = config.probe * (1 + config.steps // config.probe_steps) if config.probe else 0
        probe = replace(rows, count=probes)
        work = {
            "rollout": flops.decode(shape, rows) + flops.decode(shape, probe),
            "ppo": flops.ppo_experience(shape, self.judge, rows, config)
            + flops.forward(self.judge, probe)
            + flops.ppo_update(shape, rows, config, self.runtime),
        }
        longest = min(max(self.corpus.prompts["rl"]), shape.context - cap)
        needed = footprint.ppo_memory(config, shape, self.judge, self.runtime, longest, cap)
        step = self.training(node, shape.parameters, config, rows, work, needed)
        executed = probes + (rows.count if config.execution_weight else 0)
        return replace(step, sandbox_seconds=self.sandbox(self.share_of(executed)))

    def training(
        self,
        node: Node,
        parameters: int,
        config: SftConfig | RewardConfig | PPOConfig,
        rows: Rows,
        work: dict[str, float],
        needed: Memory,
    ) -> Step:
        """The needs of a training stage.

        parameters  number of the model's parameters
        config      the stage's section of the config
        rows        rows that the model reads in all steps
        work        kind of work -> FLOPs
        needed      memory of one process
        """
        ranks, stage = world(self.runtime), node.stage.name
        seconds = self.speed.starts.get(stage, 0.0)
        seconds += sum(count / (self.speed.rates[kind] * ranks) for kind, count in work.items())
        shape = self.judge if stage == "train_reward" else self.shape
        trained = shape.adapters(config.lora.rank) if config.lora else parameters
        checkpoint = footprint.FLOAT * (3 * trained if config.lora else parameters + 2 * trained)
        return Step(
            node.name,
            stage,
            parameters,
            (int(rows.count * rows.prompt), int(rows.count * rows.completion)),
            work,
            needed,
            ranks,
            seconds,
            kept=footprint.FLOAT * parameters,
            passing=self.runtime.keep_checkpoints * checkpoint,
        )

    def sample(self, node: Node) -> Step:
        """Samples a pool of candidates."""
        config, shape, splits = self.config.sample, self.shape, node.config.splits
        each = node.config.count + node.config.greedy
        count = self.corpus.count(*splits) * each
        rows = self.corpus.sampled_rows(splits, count, config.max_new_tokens, 1)
        if config.engine == "hf":  # a batch, with its finished rows, is computed until its last row has ended
            longest = min(config.max_new_tokens, max(self.corpus.answers))
            rows = replace(rows, completion=longest)
        # The greedy completion needs its own pass over the prompt.
        work = {"sample": flops.decode(shape, rows, each / (1 + node.config.greedy))}
        processes = self.runtime.processes  # on the first node; each process samples its own shards
        prompt = max(tokens for split in splits for tokens in self.corpus.prompts.get(split, [0]))
        shards = math.ceil(self.corpus.count(*splits) / config.shard)
        longest_share = math.ceil(shards / processes) / shards
        seconds = self.speed.starts.get("sample", 0.0)
        seconds += longest_share * work["sample"] / self.speed.rates["sample"]
        return Step(
            node.name,
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

    def execute(self, node: Node) -> Step:
        """Executes a pool of candidates in the sandbox."""
        drawn = self.maker(node.inputs["candidates"]).config
        each = drawn.count + drawn.greedy
        programs = {language: n * each for language, n in self.corpus.languages(*drawn.splits).items()}
        cases = 1
        if self.config.execute.every_case:
            cases = getattr(self.config.problems, "max_cases", 1)
        cpu = self.sandbox(programs) * DISTINCT * cases
        count = sum(programs.values())
        return Step(
            node.name,
            "execute",
            seconds=self.speed.starts.get("execute", 0.0) + self.speed.sandbox * cpu / self.runtime.workers,
            sandbox_seconds=cpu,
            shards=math.ceil(count / self.config.execute.shard),
            kept=count * ROW_BYTES,
        )

    def agree(self, node: Node) -> Step:
        """Executes the Python programs of a pool on generated inputs; counted as one execution each."""
        drawn = self.maker(node.inputs["candidates"]).config
        programs = {"py": self.corpus.languages(*drawn.splits).get("py", 0) * drawn.count}
        cpu = self.sandbox(programs)
        seconds = self.speed.starts.get("execute", 0.0) + self.speed.sandbox * cpu / self.runtime.workers
        return Step(node.name, "agree", seconds=seconds, sandbox_seconds=cpu)

    def mine(self, node: Node) -> Step:
        """Selects pairs from pools of candidates, which from round 2 on the reranker scores."""
        kept = round(self.pairs_until(node.config.round) * 2 * ROW_BYTES)
        if "reranker" not in node.inputs:
            return Step(node.name, "mine", kept=kept)
        count = self.corpus.count("rl") * self.config.sample.rl * len(node.config.pools)
        return self.scoring(node, [(("rl",), count)], 1, kept)

    def evaluate(self, node: Node) -> Step:
        """Every reranker scores every pool, and the first pool also with shuffled prompts."""
        rerankers, each = len(node.config.rerankers), self.config.sample.evaluation
        both = self.corpus.count("validation", "test") * each
        jobs: list[Job] = [(("validation", "test"), both)] * (rerankers * len(node.config.pools))
        if self.config.evaluate.control:
            jobs += [(("test",), self.corpus.count("test") * each)] * rerankers
        return self.scoring(node, jobs, rerankers, 60 * sum(count for _, count in jobs))

    def report(self, node: Node) -> Step:
        """Writes the report."""
        return Step(node.name, "report")

    def scoring(self, node: Node, jobs: list[Job], rerankers: int, kept: int) -> Step:
        """The needs of a stage that scores candidates; identical programs of a problem are scored once.

        rerankers  number of rerankers in the memory of a process
        kept       bytes of the artifact
        """
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
            node.name,
            node.stage.name,
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
        """CPU seconds of `programs` (language -> count). For the bank's problems no time limits are assumed to be reached."""
        return sandbox_seconds(programs, 0.0 if self.config.problems.source == "bank" else TIMEOUT_SHARE)

    def pairs_until(self, number: int) -> float:
        """Number of pairs of the rounds up to round `number`."""
        added, mine = self.pairs, self.config.mine
        if added is None:
            each = min(mine.pairs_per_problem, self.config.sample.rl / 2)
            added = max(1, round(self.corpus.count("rl") * PAIR_SHARE * each))
        pairs = added * number
        return pairs if mine.max_pairs is None else min(pairs, mine.max_pairs)

    def share_of(self, programs: float) -> dict[str, int]:
        """Language -> share of `programs`, in proportion to the languages of the rl split's problems."""
        languages = self.corpus.languages("rl")
        total = max(1, sum(languages.values()))
        return {language: round(programs * n / total) for language, n in languages.items()}


def optimizer_steps(rows: float, epochs: float, batch: int) -> int:
    """Number of optimizer steps, at least one; only full batches are used, as in `training.common.bucketed_order`."""
    return max(1, round(epochs * rows / batch))


def sandbox_seconds(programs: dict[str, int], endless: float = TIMEOUT_SHARE) -> float:
    """CPU seconds of `programs` (language -> count), if the share `endless` of them reaches its time limit."""
    normal = sum(n * SANDBOX_MS[language] / 1000 for language, n in programs.items())
    return normal + sum(programs.values()) * endless * TIMEOUT_SECONDS


def check_batches(config: RunConfig) -> Iterator[str]:
    """Warnings about batches that cannot be split evenly over the processes: the training stages would refuse them."""
    ranks = world(config.runtime)
    stages: list[tuple[str, SftConfig | RewardConfig]] = [("sft", config.sft)] if config.sft.epochs else []
    for name, part in [*stages, ("reward", config.reward)]:
        step = footprint.micro_rows(part.batch_size, part.micro_batch_size, config.runtime) * ranks
        if part.batch_size % step:
            yield f"{name}.batch_size {part.batch_size} cannot be split evenly on {ranks} processes; use a multiple of {step}"
    if config.policy_rounds:
        yield from config.ppo.misfits(ranks)
