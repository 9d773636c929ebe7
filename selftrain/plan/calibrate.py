"""How fast this machine is: runs the run's own stages, on its own problems, for some seconds each.

One child, of as many ranks as the run has, goes through sft, train_reward, ppo, sample and scoring with a few rows; the parent
notes when each step was done. FLOPs of those rows over the seconds that they took are the machine's speed. A batch that would
take too long is made of fewer rows; all are near the middle of the run's lengths, but for completions that are scored. A large
model is there with a few of its layers, which are all alike: what goes with its size (conversion, saving, a step of the
optimizer) is measured and scaled. All of it on one machine.
"""

import gc
import itertools
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from selftrain.config import HealthConfig, LoraConfig, RunConfig
from selftrain.errors import UsageError
from selftrain.launch.launch import Child, child_main, launch, parent_request, report_progress
from selftrain.launch.ranks import rank
from selftrain.models.footprint import micro_rows, world
from selftrain.models.models import encode_completion, encode_prompt
from selftrain.models.shapes import Shape, config_of, shape_by
from selftrain.plan import flops
from selftrain.plan.corpus import Corpus, padded
from selftrain.plan.estimate import Speed
from selftrain.plan.flops import Rows
from selftrain.records import Candidate, Pair, Problem, write_records
from selftrain.stage import Context, Outcome, plain
from selftrain.store.store import PROGRESS

GUESS = {"cpu": 50e9, "cuda": 100e12}
"""FLOP/s of a process, to choose how many rows to run."""
SECONDS = 3.0
"""That a step may take, by that guess; of a model that stands for a larger one a third of them, for it takes long to load."""
MOST_STEPS = 12
"""Measured steps of a training stage, after one that warms up: at most so many, at least one."""
SMALL = 20_000_000
"""Models up to so many parameters are there whole, and sample to the end; larger ones with DEPTH layers, the first FEW tokens."""
DEPTH = 4
FEW = 16
STEPPED = 20_000_000
"""Parameters of the optimizer step that is measured; the time of more is in proportion."""
PARTS = ("sft", "train_reward", "ppo", "sample", "score")
NEXT = "calibrate "


@dataclass
class Clock:
    """When the child began each part, and was done with each of its steps; seconds since the start."""

    started: float = field(default_factory=time.monotonic)
    times: dict[str, list[float]] = field(default_factory=dict)
    part: str = ""

    def __call__(self, done: float, total: float, unit: str = "", figures: Any = None, **_: Any) -> None:
        """Called with each progress line."""
        if unit.startswith(NEXT):
            self.part = unit.removeprefix(NEXT)
        self.times.setdefault(self.part, []).append(time.monotonic() - self.started)

    def each(self, part: str) -> float:
        """Seconds of a step, without the first, which warms up."""
        _, first, *_, last = self.times[part]
        return (last - first) / (len(self.times[part]) - 2)

    def before(self, part: str) -> float:
        """Seconds between the part's begin and its first step."""
        return max(0.0, self.times[part][1] - self.times[part][0] - self.each(part))

    def after(self, part: str, following: str) -> float:
        """Seconds between the part's last step and the begin of the next part."""
        return self.times[following][0] - self.times[part][-1]


@dataclass(frozen=True)
class Sizes:
    """How much is run: rows of an SFT step, pairs of a reward step, completions of a rollout and their tokens, problems of
    a shard; measured steps of sft, train_reward and ppo."""

    rows: int
    pairs: int
    rollouts: int
    tokens: int
    shard: int
    steps: tuple[int, int, int] = (2, 2, 2)


def calibrate(config: RunConfig, shape: Shape, judge: Shape, corpus: Corpus) -> Speed:
    """Run, and turn times into speeds. Raises UsageError where the problems or the tokenizer are not at hand."""
    if not corpus.problems or corpus.tokenizer is None:
        raise UsageError(
            "--calibrate runs the stages on the run's own problems, and they or the model's tokenizer are not here; fetch "
            "them first, or plan with --tflops"
        )
    here = config.runtime.model_copy(update={"nodes": 1, "launcher": "torchrun"})
    config = config.model_copy(update={"runtime": here})
    settings = shallow(config, shape, corpus)
    few = shape if settings is None else shape_by(settings)
    few_of_judge = few if config.reward.base is None else judge
    sizes = choose_sizes(config, few, few_of_judge, corpus, whole=settings is None)
    with tempfile.TemporaryDirectory(prefix="selftrain-plan-") as scratch:
        folder = Path(scratch)
        clock = Clock()
        context = Context(
            config={"run": plain(config, "run"), "sizes": asdict(sizes)},
            inputs={name: folder / name for name in ("base", "problems", "pairs", "pool")},
            folder=folder / "work",
            runtime=config.runtime,
            progress=clock,
        )
        with ThreadPoolExecutor(1) as thread:
            writing = thread.submit(write_inputs, folder, config, corpus, sizes, settings)
            metrics = launch(
                "selftrain.plan.calibrate",
                context,
                distributed=True,
                extra={"being_written": True},  # while the child imports what it needs
                on_request=lambda _: bool(writing.result()),
            ).metrics
            rows = writing.result()
    grow = shape.parameters / few.parameters, judge.parameters / few_of_judge.parameters
    return speeds(config, few, few_of_judge, grow, corpus, clock, rows, metrics)


def shallow(config: RunConfig, shape: Shape, corpus: Corpus) -> Any:
    """The config of the run's model with DEPTH layers; None where that has no more, is small anyway, or cannot be cut."""
    if shape.parameters <= SMALL or shape.layers <= DEPTH:
        return None
    settings = deepcopy(config_of(config.model, corpus.vocabulary))
    text = settings.get_text_config()
    text.num_hidden_layers = DEPTH
    for name, value in vars(text).items():
        if isinstance(value, list) and len(value) == shape.layers:  # what each layer is
            setattr(text, name, value[:DEPTH])
    try:
        shape_by(type(settings).from_dict(settings.to_dict()))
    except Exception:  # whatever an architecture raises that wants more of its layers
        return None
    return settings


def choose_sizes(config: RunConfig, shape: Shape, judge: Shape, corpus: Corpus, whole: bool = True) -> Sizes:
    """As many rows as a step of the run has, or as the seconds there are allow. `whole`: nothing larger is meant."""
    runtime, ranks = config.runtime, world(config.runtime)
    able = (SECONDS if whole else SECONDS / 3) * GUESS[runtime.device]
    tokens = config.sample.max_new_tokens
    if not whole or shape.parameters > SMALL:
        tokens = min(tokens, FEW)
    learnt = replace(corpus.sft_rows(min(config.sft.max_tokens, shape.context), 1), count=1)
    drawn = replace(corpus.sampled_rows(("rl",), 1, tokens, 1), completion=tokens)
    drawn = replace(drawn, width=drawn.prompt + tokens)
    once = config.ppo.model_copy(update={"epochs": 1})
    rollout = flops.decode(shape, drawn) + flops.ppo_experience(shape, judge, drawn, once)
    rollout += flops.ppo_update(shape, drawn, once, runtime)

    sharing = 1 if config.sample.engine == "hf" else config.sample.rl

    def many(most: int, cost: float) -> int:
        return max(1, min(most, int(able / cost)))

    def shares(batch: int, micro: int, cost: float) -> int:
        """Rows of one rank: a few micro batches, or part of one."""
        rows = many(max(1, batch // ranks), cost)
        return rows // micro * micro if rows > micro else rows

    def steps(cost: float) -> int:
        return max(1, min(MOST_STEPS, round(2 * able / cost)))

    mini = max(1, config.ppo.mini_batch // ranks)
    one = flops.sft(shape, learnt, runtime, config.sft.lora)
    pair = 2 * flops.reward(judge, learnt, runtime, config.reward.lora)
    rows = shares(config.sft.batch_size, config.sft.micro_batch_size, one)
    pairs = shares(config.reward.batch_size, config.reward.micro_batch_size, pair)
    rollouts = shares(config.ppo.rollout_batch, mini, rollout)
    return Sizes(
        rows=ranks * rows,
        pairs=ranks * pairs,
        rollouts=ranks * rollouts,
        tokens=tokens,
        shard=many(config.sample.shard, config.sample.rl * flops.decode(shape, drawn, sharing)),
        # A step of small rows is more than its FLOPs, and a decoding one much more.
        steps=(steps(2 * rows * one), steps(2 * pairs * pair), min(2, steps(4 * rollouts * rollout))),
    )


def write_inputs(
    folder: Path, config: RunConfig, corpus: Corpus, sizes: Sizes, settings: Any = None
) -> dict[str, Rows]:
    """A model to start from (unless the run has one), some problems, pairs and a pool; the rows that they come to.

    settings: the config of a model to start from instead of the run's own. completion is 0 where it is the child that finds
    out how much it samples.
    """
    ranks = world(config.runtime)
    rng = random.Random(0)
    tokenizer = corpus.tokenizer

    def middle(
        problems: Sequence[Problem], count: int, answers: bool = False
    ) -> list[tuple[Problem, int, int]]:
        """`count` problems of middle length, with the tokens of their prompts and answers; a few again if there are few."""
        rows = [
            (
                p,
                len(encode_prompt(tokenizer, p.prompt)),
                len(encode_completion(tokenizer, p.response or "")) if answers else 0,
            )
            for p in (rng.sample(problems, min(len(problems), 4 * count + 64)))
        ]
        centre = sorted(row[1] + row[2] for row in rows)[len(rows) // 2]
        rows.sort(key=lambda row: abs(row[1] + row[2] - centre))
        return [
            (replace(row[0], id=f"{at}.{row[0].id}"), *row[1:])
            for at, row in enumerate(itertools.islice(itertools.cycle(rows), count))
        ]

    learnt = middle([p for p in corpus.problems if p.split == "sft" and p.response], sizes.rows, True)
    asked = middle([p for p in corpus.problems if p.split == "rl"], sizes.rollouts)
    pooled = middle([p for p in corpus.problems if p.split == "rl"], 2 * ranks * sizes.shard)
    paired = middle([p for p in corpus.problems if p.split == "sft" and p.response], sizes.pairs, True)
    answers = [p.response or "" for p, *_ in paired]
    pairs = [
        Pair(p.id, p.prompt, p.response or "", rng.choice(answers), "a", "b", "on_policy", 1)
        for p, *_ in paired
    ]
    samples, cap = config.sample.rl, config.sample.max_new_tokens
    # Completions of all lengths: those of one batch are as wide as its longest.
    answered = [p.response for p in corpus.problems if p.response]
    some = rng.sample(answered, min(len(answered), 256))
    completions = [one for one in some if len(encode_completion(tokenizer, one)) <= cap] or answers
    pool = [
        Candidate(f"{p.id}#{k}", p.id, k, f"{rng.choice(completions)}{' ' * k}", (), 0.0, "stop")
        for p, *_ in pooled
        for k in range(samples)
    ]
    for name in ("base", "problems", "pairs", "pool"):
        (folder / name).mkdir()
    write_records(folder / "problems" / "problems.parquet", [p for p, *_ in (*learnt, *asked)], Problem)
    write_records(folder / "pairs" / "pairs.parquet", pairs, Pair)
    write_records(folder / "pool" / "problems.parquet", [p for p, *_ in pooled], Problem)
    write_records(folder / "pool" / "candidates.parquet", pool, Candidate)
    if settings is not None or not _is_there(config):
        _write_base(folder / "base", settings or config_of(config.model, corpus.vocabulary), tokenizer)
    tails = [
        max(len(encode_completion(tokenizer, pair.chosen)), len(encode_completion(tokenizer, pair.rejected)))
        for pair in pairs
    ]
    reward_group = micro_rows(config.reward.batch_size, config.reward.micro_batch_size, config.runtime)
    sft_group = micro_rows(config.sft.batch_size, config.sft.micro_batch_size, config.runtime)
    return {
        "sft": Rows(
            len(learnt),
            mean(row[1] for row in learnt),
            mean(row[2] for row in learnt),
            padded([row[1] + row[2] for row in learnt], sft_group),
        ),
        "train_reward": Rows(
            2 * len(pairs),
            mean(row[1] for row in paired),
            mean(tails),
            padded([row[1] + tail for row, tail in zip(paired, tails, strict=True)], reward_group),
        ),
        "ppo": Rows(len(asked), mean(row[1] for row in asked), 0, 0),
        "sample": Rows(sizes.shard * samples, mean(row[1] for row in pooled), 0, 0),
        "score": Rows(
            len(pool) / ranks,
            mean(row[1] for row in pooled),
            mean(len(encode_completion(tokenizer, one.completion)) for one in pool),
            0,
        ),
    }


def _is_there(config: RunConfig) -> bool:
    """Whether the run's model has weights to load."""
    base = config.model.base
    if base is None:
        return False
    return bool(config.model.gguf_file) or not Path(base).is_dir() or any(Path(base).glob("*.safetensors"))


def _write_base(folder: Path, settings: Any, tokenizer: Any) -> None:
    """A model with random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(settings, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def speeds(
    config: RunConfig,
    shape: Shape,
    judge: Shape,
    grow: tuple[float, float],
    corpus: Corpus,
    clock: Clock,
    rows: dict[str, Rows],
    metrics: dict[str, Any],
) -> Speed:
    """From the times of the child's steps, and from what it says that it sampled.

    grow: how many times larger than what was measured (`shape`, `judge`) the run's generator and reranker are.
    """
    runtime, ranks = config.runtime, world(config.runtime)
    larger = dict.fromkeys(PARTS, grow[0]) | dict.fromkeys(("train_reward", "score"), grow[1])
    fixed: dict[str, float] = metrics["steps"]
    learning, training = (clock.times[name][0] for name in ("libraries", "sft"))

    def rate(work: float, seconds: float) -> float:
        return work / max(1e-4, seconds)

    learnt = flops.sft(shape, rows["sft"], runtime, config.sft.lora) / ranks
    paired = flops.reward(judge, rows["train_reward"], runtime, config.reward.lora) / ranks
    scored = rows["score"].count / config.sample.rl  # problems of one rank
    rates = {
        "sft": rate(learnt, without(clock.each("sft"), fixed["sft"])),
        "train_reward": rate(paired, without(clock.each("train_reward"), fixed["train_reward"])),
        "score": rate(flops.score(judge, scored, rows["score"]), clock.each("score")),
    }
    # A PPO step is shared out over its phases as they measured themselves.
    completion = metrics["ppo_tokens"] / rows["ppo"].count
    drawn = replace(rows["ppo"], completion=completion, width=rows["ppo"].prompt + completion)
    phases = {
        name: seconds * clock.each("ppo") / sum(metrics["ppo_seconds"].values())
        for name, seconds in metrics["ppo_seconds"].items()
    }
    once = config.ppo.model_copy(update={"epochs": 1})
    updates = max(1, round(rows["ppo"].count / config.ppo.mini_batch))
    read = flops.ppo_experience(shape, judge, drawn, once) / ranks
    learn = flops.ppo_update(shape, drawn, once, runtime) / ranks
    rates["ppo"] = rate(read, phases["score"] + phases["reference"])
    # Gradients are added up, over micro batches and ranks: of few rows that is more than what the rows themselves cost.
    update = (phases["update"] - learn / rates["ppo"]) / updates
    if update < fixed["ppo"]:
        update = fixed["ppo"]
        rest = phases["score"] + phases["reference"] + without(phases["update"], updates * update)
        rates["ppo"] = rate(read + learn, rest)
    rates["rollout"] = rates["ppo"]
    # On CPUs that is to draw from the vocabulary, on GPUs to launch the kernels of each layer.
    token = (phases["rollout"] - flops.decode(shape, drawn) / ranks / rates["rollout"]) / metrics[
        "ppo_longest"
    ]
    completion = metrics["sample_tokens"] / rows["sample"].count
    drawn = replace(rows["sample"], completion=completion)
    sharing = 1 if config.sample.engine == "hf" else config.sample.rl
    rates["sample"] = rate(flops.decode(shape, drawn, sharing), clock.each("sample"))
    parsed = 1 + bool(config.model.gguf_file)  # once more for the weights
    starts = {
        "sft": training + parsed * corpus.learning,
        "train_reward": training,
        "ppo": learning,
        "sample": learning,
        "score": learning,
    }
    for name in starts:
        converts = name == "sample" and config.sample.engine == "ctranslate2"  # so it grows with the weights
        starts[name] += clock.before(name) * (larger[name] if converts else 1)
    saves = {
        name: larger[name] * clock.after(name, following) for name, following in itertools.pairwise(PARTS[:4])
    }
    return Speed(
        rates,
        {name: larger[name] * seconds for name, seconds in (fixed | {"ppo": update}).items()},
        max(0.0, token) * (larger["ppo"] if runtime.device == "cuda" else 1),
        starts,
        saves,
        f"measured here in {clock.times['end'][-1]:.0f} s: training {rates['sft'] / 1e9:.0f} to "
        f"{rates['train_reward'] / 1e9:.0f} GFLOP/s a process, {ranks} at once; a training stage starts in "
        f"{starts['sft']:.0f} s",
    )


def without(seconds: float, part: float) -> float:
    """What is left of `seconds`; at least a tenth, for `part` was measured by itself and may overlap with the rest."""
    return max(seconds - part, seconds / 10)


# The child's side


def run(child: Child) -> Outcome:
    """All parts, one after the other, each the stage's own function."""
    gc.disable()  # as it is while a stage's own libraries are imported
    from accelerate.state import AcceleratorState, GradientState

    from selftrain.rerank import scoring
    from selftrain.sampling import run as sampling
    from selftrain.training.ppo import train as ppo

    _next("libraries")
    from selftrain.training import reward, sft  # these load more

    config = RunConfig.model_validate(child.config["run"])
    sizes = Sizes(**child.config["sizes"])
    gc.freeze()
    gc.enable()
    if "being_written" in child.extra:
        parent_request(child, "inputs")
    own = any(child.inputs["base"].iterdir())
    model = (
        config.model.model_copy(update={"base": str(child.inputs["base"]), "gguf_file": None})
        if own
        else config.model
    )
    quiet = {"checkpoint_steps": 10**6, "evaluation_steps": None, "warmup_steps": 0}

    def part(name: str, settings: dict[str, Any], **inputs: Path) -> Child:
        AcceleratorState._reset_state(True)
        GradientState._reset_state()  # the last part's batches are at their end: each of ours would be taken for the last
        gc.collect()
        folder = child.folder / name
        (folder / PROGRESS).mkdir(parents=True, exist_ok=True)
        _next(name)
        return Child(
            config={"seed": 1} | settings, inputs=inputs, folder=folder, runtime=child.runtime, extra={}
        )

    settings: Any = config.sft.model_copy(
        update=quiet | {"epochs": 1 + sizes.steps[0], "batch_size": sizes.rows}
    )
    sft.train(
        part(
            "sft",
            {"model": plain(model, "model"), "base_digest": None, "sft": plain(settings, "sft")},
            problems=child.inputs["problems"],
        )
    )
    settings = config.reward.model_copy(
        update=quiet | {"epochs": 1 + sizes.steps[1], "batch_size": sizes.pairs, "holdout": 0.0}
    )
    reward.train(
        part(
            "train_reward",
            {"reward": plain(settings, "reward"), "base_digest": _reward_base(config)},
            pairs=child.inputs["pairs"],
            start=child.folder / "sft",
        )
    )
    settings = config.ppo.model_copy(
        update={
            "steps": 1 + sizes.steps[2],
            "rollout_batch": sizes.rollouts,
            "mini_batch": min(sizes.rollouts, config.ppo.mini_batch),
            "epochs": 1,
            "checkpoint_steps": 10**6,
            "probe": 0,
            "execution_weight": 0.0,
            "health": HealthConfig(max_kl=None, max_clip_fraction=None),
        }
    )
    found = ppo.train(
        part(
            "ppo",
            {"ppo": plain(settings, "ppo"), "max_new_tokens": sizes.tokens},
            problems=child.inputs["problems"],
            generator=child.folder / "sft",
            reranker=child.folder / "train_reward",
        )
    ).metrics
    base, judge = child.folder / "sft", child.folder / "train_reward"  # rank 0 may still be writing PPO's
    trained = {
        "sft": _trained(base, config.sft.lora),
        "train_reward": _trained(judge, config.reward.lora),
        "ppo": _trained(base, config.ppo.lora),
    }
    seconds = {count: step_seconds(count, config) for count in sorted(set(trained.values()))}
    steps = {name: seconds[count] for name, count in trained.items()}
    sample = config.sample.model_copy(update={"shard": sizes.shard, "max_new_tokens": sizes.tokens})
    sampled = part(
        "sample",
        {"sample": plain(sample, "sample"), "splits": ["rl"], "count": sample.rl, "greedy": False},
        problems=child.inputs["pool"],
        generator=child.folder / "sft",
    )
    sampling.sample(sampled)
    jobs = [asdict(scoring.Job(str(at), "reranker", "pool", ("rl",))) for at in range(2)]
    scored = part(
        "score",
        {},
        problems=child.inputs["pool"],
        pool=child.inputs["pool"],
        reranker=child.folder / "train_reward",
    )
    scoring.run(scored.model_copy(update={"extra": {"jobs": jobs}}))
    _next("end")
    if rank():
        return Outcome("")
    shards = sorted(sampled.private.glob("shard-*.parquet"))
    tokens = _tokens(shards[0])
    return Outcome(
        "",
        {
            "steps": steps,
            "ppo_tokens": found["curve"][-1]["tokens"],
            "ppo_seconds": found["seconds"],
            "ppo_longest": sizes.tokens,
            "sample_tokens": tokens,
        },
    )


def _reward_base(config: RunConfig) -> str | None:
    """What the reward stage takes for its base: of a folder any name does, of the hub it is the revision."""
    base = config.reward.base
    if base is None:
        return None
    return "folder" if Path(base).is_dir() else config.reward.base_revision or "main"


def _next(name: str) -> None:
    report_progress(0, 0, NEXT + name)


def _tokens(path: Path) -> int:
    from selftrain.records import read_records

    return sum(len(one.token_ids) for one in read_records(path, Candidate))


def _trained(folder: Path, lora: LoraConfig | None) -> int:
    """Parameters that were trained to make the model in `folder`."""
    from transformers import AutoConfig

    shape = shape_by(AutoConfig.from_pretrained(str(folder)))
    return shape.adapters(lora.rank) if lora else shape.parameters


def step_seconds(trained: int, config: RunConfig) -> float:
    """Seconds of AdamW on so many parameters, and of adding gradients up over all ranks where there are several, all at once."""
    import torch
    from torch import distributed

    count = min(trained, STEPPED)
    device = config.runtime.device
    weights = torch.nn.Parameter(torch.zeros(count, device=device))
    weights.grad = torch.ones_like(weights)
    optimizer = torch.optim.AdamW([weights], fused=True)
    seconds = []
    for _ in range(3):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            distributed.all_reduce(weights.grad)
        optimizer.step()
        torch.nn.utils.clip_grad_norm_([weights], 1.0)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds) * trained / count


if __name__ == "__main__":
    child_main(run)
