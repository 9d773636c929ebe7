"""The cases of `infra.gpu_check`: models with random weights, and for each stage its inputs, config slice, and what the plan says of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_letters
from typing import Any, Literal

from selftrain.config import (
    LoraConfig,
    ModelConfig,
    PPOConfig,
    RewardConfig,
    RuntimeConfig,
    SampleConfig,
    SftConfig,
)
from selftrain.configfile import CONFIGS
from selftrain.models import footprint
from selftrain.models.shapes import Shape, measure
from selftrain.plan import flops
from selftrain.plan.memory import sampling_memory, scoring_memory
from selftrain.records import Candidate, Pair, Problem, write_records
from selftrain.rerank.scoring import Job, score_candidates
from selftrain.stage import Context, Outcome
from selftrain.stages import ppo, sample, sft, train_reward

QWEN = {"vocab_size": 151_936, "num_key_value_heads": 2}
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"vocab_size": 1_000, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 128,
             "num_hidden_layers": 2, "num_attention_heads": 4},
    "0.5B": QWEN | {"hidden_size": 896, "intermediate_size": 4_864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5B": QWEN | {"hidden_size": 1_536, "intermediate_size": 8_960, "num_hidden_layers": 28, "num_attention_heads": 12},
}  # fmt: skip
"""The sizes of Qwen2.5's models of that name, whose output layer is the embedding."""
DISTINCT = 4
"""Different texts among a batch's rows: their number is what checking on a CPU costs."""
PREFIX = "def f(x):  # "


@dataclass(frozen=True)
class Load:
    """How much a case computes.

    prompt, completion  length in tokens, end tokens not counted
    batch, micro        rows of a step (pairs in reward training), and of a forward pass
    steps, updates      steps of SFT and reward training, and of PPO
    samples             samples of each problem
    """

    prompt: int
    completion: int
    batch: int
    micro: int
    steps: int
    updates: int
    samples: int

    @property
    def width(self) -> int:
        """Tokens of a row: the prompt with its separator, and the completion with its end."""
        return self.prompt + self.completion + 2


FULL = Load(prompt=254, completion=255, batch=32, micro=8, steps=6, updates=2, samples=16)
TINY = Load(prompt=24, completion=15, batch=4, micro=2, steps=3, updates=1, samples=2)


@dataclass(frozen=True)
class Case:
    """One stage to run.

    stage    the stage's function
    config   its config slice
    inputs   folders of its inputs
    runtime  of the run
    memory   the plan's memory of one process
    flops    phase -> FLOPs of a unit of progress of all processes; PPO has several phases, in units of the whole stage
    tokens   tokens of such a unit, which models read or write
    """

    stage: Callable[[Context], Any]
    config: Any
    inputs: Mapping[str, Path]
    runtime: RuntimeConfig
    memory: footprint.Memory
    flops: Mapping[str, float]
    tokens: float


class Cases:
    """Builds the cases of one size in `folder`.

    Models have random weights. Each character is a token of their tokenizer, whose tokens are the first of the model's vocabulary.
    """

    def __init__(self, size: str, load: Load, folder: Path, device: str, processes: int) -> None:
        self.load, self.folder, self.device, self.processes = load, folder, device, processes
        self.generator, self.reranker, self.data = (
            folder / name for name in ("generator", "reranker", "data")
        )
        self.shape = self._models(SIZES[size])
        self.data.mkdir()
        write_records(self.data / "problems.parquet", self._problems(), Problem)
        write_records(self.data / "pairs.parquet", self._pairs(), Pair)
        write_records(self.data / "candidates.parquet", self._candidates(), Candidate)

    def runtime(self, deepspeed: str | None = None) -> RuntimeConfig:
        """Runs on one process, under DeepSpeed on all GPUs; activations are recomputed."""
        return RuntimeConfig(
            device="cuda" if self.device == "cuda" else "cpu",
            processes=self.processes if deepspeed else 1,
            threads=1 if self.device == "cpu" else 4,
            deepspeed=deepspeed and str(CONFIGS / "deepspeed" / f"{deepspeed}.json"),
            gradient_checkpointing=True,
        )

    def sft(self, deepspeed: str | None = None, lora: LoraConfig | None = None, steps: int = 0) -> Case:
        """SFT of one batch, again and again."""
        load, runtime = self.load, self.runtime(deepspeed)
        config = SftConfig(
            epochs=steps or load.steps, batch_size=load.batch, micro_batch_size=load.micro, learning_rate=1e-4,
            warmup_steps=0, max_tokens=load.width, checkpoint_steps=10_000, lora=lora,
        )  # fmt: skip
        rows = flops.Rows(load.batch, load.prompt + 1, load.completion + 1, load.width)
        return Case(
            sft.run,
            sft.SftSlice(
                seed=1, model=ModelConfig(base=str(self.generator)), base_digest="random", sft=config
            ),
            {"problems": self.data},
            runtime,
            footprint.sft_memory(config, self.shape, runtime, load.width),
            {"sft": flops.sft(self.shape, rows, runtime, lora)},
            rows.tokens,
        )

    def reward(self, deepspeed: str | None = None) -> Case:
        """Reward training with the pairwise loss on the last token alone, from the reranker with a random head."""
        load, runtime = self.load, self.runtime(deepspeed)
        config = RewardConfig(
            epochs=load.steps, batch_size=load.batch, micro_batch_size=load.micro, learning_rate=1e-5, warmup_steps=0,
            max_tokens=load.width, checkpoint_steps=10_000, token_loss=0, center=0,
        )  # fmt: skip
        rows = flops.Rows(2 * load.batch, load.prompt + 1, load.completion + 1, load.width)
        return Case(
            train_reward.run,
            train_reward.RewardSlice(seed=1, reward=config, continues=True),
            {"pairs": self.data, "start": self.reranker},
            runtime,
            footprint.reward_memory(config, self.shape, runtime, load.width),
            {"reward": flops.train(self.shape, rows, runtime)},
            rows.tokens,
        )

    def ppo(self, deepspeed: str | None = None, lora: LoraConfig | None = None) -> Case:
        """PPO from the generator against the reranker."""
        load, runtime = self.load, self.runtime(deepspeed)
        config = PPOConfig(
            steps=load.updates, rollout_batch=2 * load.batch, mini_batch=load.batch, micro_batch=load.micro, epochs=1,
            learning_rate=1e-6, checkpoint_steps=10_000, lora=lora,
        )  # fmt: skip
        rows = flops.Rows(
            load.updates * config.rollout_batch, load.prompt + 1, load.completion + 1, load.width
        )
        return Case(
            ppo.run,
            ppo.PPOSlice(seed=1, ppo=config, max_new_tokens=load.completion + 1),
            {"problems": self.data, "generator": self.generator, "reranker": self.reranker},
            runtime,
            footprint.ppo_memory(
                config, self.shape, self.shape, runtime, load.prompt + 1, load.completion + 1
            ),
            {
                "rollout": flops.decode(self.shape, rows),
                "update": flops.ppo_update(self.shape, rows, config, runtime),
            },
            rows.count * rows.completion,
        )

    def sample(self, engine: Literal["hf", "vllm"] = "hf") -> Case:
        """Sampling in two shards, so that one of them runs warm."""
        load, runtime = self.load, self.runtime()
        config = SampleConfig(
            engine=engine, temperature=1.0, max_new_tokens=load.completion + 1, shard=load.batch // 2
        )
        rows = flops.Rows(config.shard * load.samples, load.prompt + 1, load.completion + 1, load.width)
        return Case(
            sample.run,
            sample.SampleSlice(seed=1, sample=config, splits=("rl",), count=load.samples, greedy=False),
            {"problems": self.data, "generator": self.generator},
            runtime,
            sampling_memory(config, self.shape, runtime, load.samples, load.prompt + 1),
            {"sample": flops.decode(self.shape, rows, load.samples)},
            rows.count * rows.completion,
        )

    def score(self) -> Case:
        """Scoring the same candidates twice, so that one time runs warm."""
        load, runtime = self.load, self.runtime()
        jobs = [Job(name, "reranker", "candidates", ("rl",)) for name in ("cold", "warm")]
        rows = flops.Rows(load.batch * load.samples, load.prompt + 1, load.completion + 1, load.width)
        return Case(
            partial(_score, jobs=jobs),
            {},
            {"problems": self.data, "candidates": self.data, "reranker": self.reranker},
            runtime,
            scoring_memory(self.shape, runtime),
            {"score": flops.score(self.shape, load.batch, rows)},
            rows.count * rows.completion + load.batch * rows.prompt,
        )

    # Models and data

    def _models(self, sizes: dict[str, int]) -> Shape:
        import torch
        from transformers import AutoModelForSequenceClassification, Qwen2Config, Qwen2ForCausalLM

        from selftrain.models.models import train_tokenizer

        tokenizer = train_tokenizer([PREFIX], 259)
        torch.manual_seed(1)
        settings = {
            "tie_word_embeddings": True,
            "max_position_embeddings": 4_096,
            "pad_token_id": tokenizer.pad_token_id,
        }
        config = Qwen2Config(**sizes, **settings, bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
        model = Qwen2ForCausalLM(config)
        shape = measure(model)
        model.save_pretrained(self.generator)
        del model
        config.num_labels = 1
        classifier = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        classifier.save_pretrained(self.reranker)
        for folder in (self.generator, self.reranker):
            tokenizer.save_pretrained(folder)
        return shape

    def _text(self, number: int, length: int, kind: str = "") -> str:
        """A text of `length` tokens; there are DISTINCT ones of each length and kind."""
        return (f"{PREFIX}{kind}{number % DISTINCT}" * length)[:length]

    def _problems(self) -> list[Problem]:
        def problem(split: str, number: int) -> Problem:
            prompt, response = self._text(number, self.load.prompt), self._text(number, self.load.completion)
            name = f"{split}-{number}"
            return Problem(name, name, "py", prompt, "", split, "check", response=response)

        return [problem(split, number) for split in ("sft", "rl") for number in range(self.load.batch)]

    def _pairs(self) -> list[Pair]:
        size = self.load.completion
        return [
            Pair(
                f"rl-{at}", self._text(at, self.load.prompt), self._text(at, size, "+"), self._text(at, size, "-"),
                f"sft/rl-{at}#0", f"sft/rl-{at}#1", "on_policy", 1,
            )
            for at in range(self.load.batch)
        ]  # fmt: skip

    def _candidates(self) -> list[Candidate]:
        """Different programs of each problem: the reranker reads equal ones once."""
        size = self.load.completion
        return [
            Candidate(f"rl-{at}#{k}", f"rl-{at}", k, self._text(at, size, ascii_letters[k]), (), 0.0, "stop")
            for at in range(self.load.batch)
            for k in range(self.load.samples)
        ]


def _score(context: Context, jobs: list[Job]) -> Outcome:
    return Outcome("", {"scores": score_candidates(context, jobs)["warm"]})
