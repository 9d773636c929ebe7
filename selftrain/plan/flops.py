"""Floating-point operations: two per weight and token forward, twice that backward, and attention.

Counted as by torch's FlopCounterMode: matrix products only, and the full attention square, although half of it is masked.
"""

from dataclasses import dataclass

from selftrain.config import LoraConfig, PPOConfig, RuntimeConfig
from selftrain.models.shapes import Shape

ATTENTION_BACKWARD = 2.5
"""The backward pass has five products (the scores again, and four gradients), the forward pass two."""
HEAD_PASSES = {"cpu": 3, "cuda": 4}
"""Matrix products of SFT's output layer: forward and two gradients. On GPUs TRL recomputes the logits in the backward pass."""


@dataclass(frozen=True)
class Rows:
    """A batch of sequences, described by averages.

    count       of sequences
    prompt      tokens of each prompt
    completion  tokens of each completion, its end token included
    width       tokens of each row with its padding; at least prompt + completion
    """

    count: float
    prompt: float
    completion: float
    width: float

    @property
    def tokens(self) -> float:
        """Tokens, padding included."""
        return self.count * self.width


def attention(shape: Shape, width: float, keys: float | None = None) -> float:
    """One row's attention forward, `width` queries against `keys` (default: as many) keys."""
    return 4 * shape.layers * shape.heads * shape.head_dim * width * (width if keys is None else keys)


def forward(shape: Shape, rows: Rows) -> float:
    """The trunk's forward pass."""
    return rows.count * (2 * shape.trunk_linear * rows.width + attention(shape, rows.width))


def train(shape: Shape, rows: Rows, runtime: RuntimeConfig, lora: LoraConfig | None = None) -> float:
    """The trunk's forward and backward pass. With `lora` the frozen weights need no weight gradients."""
    linear = rows.count * 2 * shape.trunk_linear * rows.width
    squares = rows.count * attention(shape, rows.width)
    passes = 2 if lora else 3
    flops = passes * linear + (1 + ATTENTION_BACKWARD) * squares
    if lora:
        flops += 3 * rows.count * rows.width * 2 * shape.adapters(lora.rank)
    return flops + (linear + squares if runtime.recomputes else 0)


def sft(shape: Shape, rows: Rows, runtime: RuntimeConfig, lora: LoraConfig | None = None) -> float:
    """SFT on `rows`. TRL computes the logits of the completions only on GPUs, of all tokens on CPU."""
    tokens = rows.tokens if runtime.device == "cpu" else rows.count * rows.completion
    return (
        train(shape, rows, runtime, lora)
        + (HEAD_PASSES[runtime.device] - bool(lora)) * 2 * shape.head * tokens
    )


def reward(shape: Shape, rows: Rows, runtime: RuntimeConfig, lora: LoraConfig | None = None) -> float:
    """Reward training on `rows`, two for each pair."""
    return train(shape, rows, runtime, lora)


def decode(shape: Shape, rows: Rows, sharing: float = 1) -> float:
    """Sampling: the prompt once for every `sharing` rows, then the completion token by token."""
    tokens = max(0.0, rows.completion - 1)  # the first token follows from the prompt's pass
    prefill = 2 * shape.trunk_linear * rows.prompt + attention(shape, rows.prompt)
    later = 2 * shape.trunk_linear * tokens + attention(shape, tokens, rows.prompt + rows.completion / 2)
    return rows.count * (prefill / sharing + later + 2 * shape.head * rows.completion)


def score(shape: Shape, problems: float, rows: Rows) -> float:
    """Scoring: the reranker reads each problem's prompt once, and then its completions."""
    prompts = problems * (2 * shape.trunk_linear * rows.prompt + attention(shape, rows.prompt))
    keys = rows.prompt + rows.completion
    each = 2 * shape.trunk_linear * rows.completion + attention(shape, rows.completion, keys)
    return prompts + rows.count * each


def ppo_experience(shape: Shape, judge: Shape, rows: Rows, config: PPOConfig) -> float:
    """The forward passes between rollout and update: reranker (`judge`), reference, policy and value over each row."""
    trunks = 2 + (config.value_model == "separate")
    return (
        forward(judge, rows)
        + trunks * forward(shape, rows)
        + 2 * 2 * shape.head * rows.count * rows.completion
    )


def ppo_update(shape: Shape, rows: Rows, config: PPOConfig, runtime: RuntimeConfig) -> float:
    """PPO's optimisation on the rollouts `rows`, all epochs."""
    trunks = 1 + (config.value_model == "separate")
    head = (2 if config.lora else 3) * 2 * shape.head * rows.count * rows.completion
    return config.epochs * (trunks * train(shape, rows, runtime, config.lora) + head)
