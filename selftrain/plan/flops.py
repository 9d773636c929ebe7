"""Floating-point operations: two per weight and token forward, twice that backward, and attention.

Counted as torch's FlopCounterMode counts: matrix products only, and all of attention's square, though half of it is masked.
"""

from dataclasses import dataclass

from selftrain.config import LoraConfig, PPOConfig, RuntimeConfig
from selftrain.models.shapes import Shape

ATTENTION_BACKWARD = 2.5
"""Five products against the forward pass's two: scores once more, and four gradients."""
HEAD_PASSES = {"cpu": 3, "cuda": 4}
"""Products of SFT's output layer: forward and two gradients. On GPUs TRL computes the logits again in the backward pass."""


@dataclass(frozen=True)
class Rows:
    """Sequences that are computed together, as averages.

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
    """The trunk's forward and backward pass. Frozen weights need no gradient of their own, adapters do."""
    linear = rows.count * 2 * shape.trunk_linear * rows.width
    squares = rows.count * attention(shape, rows.width)
    passes = 2 if lora else 3
    flops = passes * linear + (1 + ATTENTION_BACKWARD) * squares
    if lora:
        flops += 3 * rows.count * rows.width * 2 * shape.adapters(lora.rank)
    return flops + (linear + squares if runtime.recomputes else 0)


def sft(shape: Shape, rows: Rows, runtime: RuntimeConfig, lora: LoraConfig | None = None) -> float:
    """SFT on `rows`. On GPUs TRL computes the logits of the completions only, on CPU those of all tokens."""
    tokens = rows.tokens if runtime.device == "cpu" else rows.count * rows.completion
    return (
        train(shape, rows, runtime, lora)
        + (HEAD_PASSES[runtime.device] - bool(lora)) * 2 * shape.head * tokens
    )


def reward(shape: Shape, rows: Rows, runtime: RuntimeConfig, lora: LoraConfig | None = None) -> float:
    """Reward training on `rows`, two for each pair."""
    return train(shape, rows, runtime, lora)


def decode(shape: Shape, rows: Rows, sharing: float = 1) -> float:
    """Sampling: the prompt once for each `sharing` rows, then token by token."""
    tokens = max(0.0, rows.completion - 1)  # the prompt's pass gives the first token
    prefill = 2 * shape.trunk_linear * rows.prompt + attention(shape, rows.prompt)
    later = 2 * shape.trunk_linear * tokens + attention(shape, tokens, rows.prompt + rows.completion / 2)
    return rows.count * (prefill / sharing + later + 2 * shape.head * rows.completion)


def score(shape: Shape, problems: float, rows: Rows) -> float:
    """The reranker reads each problem's prompt once, and the completions behind it."""
    prompts = problems * (2 * shape.trunk_linear * rows.prompt + attention(shape, rows.prompt))
    keys = rows.prompt + rows.completion
    each = 2 * shape.trunk_linear * rows.completion + attention(shape, rows.completion, keys)
    return prompts + rows.count * each


def ppo_experience(shape: Shape, judge: Shape, rows: Rows, config: PPOConfig) -> float:
    """Everything between rollout and update: reranker (`judge`), reference, policy and value once over each row."""
    trunks = 2 + (config.value_model == "separate")
    return (
        forward(judge, rows)
        + trunks * forward(shape, rows)
        + 2 * 2 * shape.head * rows.count * rows.completion
    )


def ppo_update(shape: Shape, rows: Rows, config: PPOConfig, runtime: RuntimeConfig) -> float:
    """All passes over one rollout batch."""
    trunks = 1 + (config.value_model == "separate")
    head = (2 if config.lora else 3) * 2 * shape.head * rows.count * rows.completion
    return config.epochs * (trunks * train(shape, rows, runtime, config.lora) + head)
