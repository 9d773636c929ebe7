"""Counts floating-point operations: two per weight and token forward, four backward, and those of attention.

As in torch's FlopCounterMode, only matrix products count, and attention counts in full, although half of it is masked.
All functions return FLOPs.
"""

from dataclasses import dataclass

from selftrain.config import LoraConfig, PPOConfig, RuntimeConfig
from selftrain.models.footprint import chunk_tokens
from selftrain.models.shapes import Shape

ATTENTION_BACKWARD = 2.5
"""Backward / forward FLOPs of attention: five products (the scores again, and four gradients) against two."""
HEAD_PASSES = {"cpu": 3, "cuda": 4}
"""Matrix products of SFT's output layer: forward and two gradients; on GPUs TRL recomputes the logits in the backward pass."""


@dataclass(frozen=True)
class Rows:
    """A batch of sequences, described by averages.

    count       number of sequences
    prompt      mean tokens of a prompt
    completion  mean tokens of a completion, end token included
    width       mean tokens of a row with padding; at least prompt + completion
    """

    count: float
    prompt: float
    completion: float
    width: float

    @property
    def tokens(self) -> float:
        """Tokens of all rows, padding included."""
        return self.count * self.width


def attention(shape: Shape, width: float, keys: float | None = None) -> float:
    """Forward pass of attention for one row with `width` queries and `keys` keys (default: `width`)."""
    return 4 * shape.layers * shape.heads * shape.head_dim * width * (width if keys is None else keys)


def forward(shape: Shape, rows: Rows) -> float:
    """Forward pass of the trunk (all layers without the output head)."""
    return rows.count * (2 * shape.trunk_linear * rows.width + attention(shape, rows.width))


def train(shape: Shape, rows: Rows, runtime: RuntimeConfig, lora: LoraConfig | None = None) -> float:
    """Forward and backward pass of the trunk. With `lora`, frozen weights have no weight gradients."""
    linear = rows.count * 2 * shape.trunk_linear * rows.width
    squares = rows.count * attention(shape, rows.width)
    passes = 2 if lora else 3
    flops = passes * linear + (1 + ATTENTION_BACKWARD) * squares
    if lora:
        flops += 3 * rows.count * rows.width * 2 * shape.adapters(lora.rank)
    return flops + (linear + squares if runtime.recomputes else 0)


def sft(shape: Shape, rows: Rows, runtime: RuntimeConfig, lora: LoraConfig | None = None) -> float:
    """SFT on `rows`. TRL computes logits for all tokens on a CPU, but only for the completions on a GPU."""
    tokens = rows.tokens if runtime.device == "cpu" else rows.count * rows.completion
    return (
        train(shape, rows, runtime, lora)
        + (HEAD_PASSES[runtime.device] - bool(lora)) * 2 * shape.head * tokens
    )


def decode(shape: Shape, rows: Rows, sharing: float = 1) -> float:
    """Sampling: one pass over the prompt for every `sharing` rows, then the completion token by token."""
    tokens = max(0.0, rows.completion - 1)  # the pass over the prompt gives the first token
    prefill = 2 * shape.trunk_linear * rows.prompt + attention(shape, rows.prompt)
    later = 2 * shape.trunk_linear * tokens + attention(shape, tokens, rows.prompt + rows.completion / 2)
    return rows.count * (prefill / sharing + later + 2 * shape.head * rows.completion)


def score(shape: Shape, problems: float, rows: Rows) -> float:
    """Scoring: the reranker reads the prompt of each problem once, and then all completions (`rows`)."""
    prompts = problems * (2 * shape.trunk_linear * rows.prompt + attention(shape, rows.prompt))
    keys = rows.prompt + rows.completion
    each = 2 * shape.trunk_linear * rows.completion + attention(shape, rows.completion, keys)
    return prompts + rows.count * each


def ppo_experience(shape: Shape, judge: Shape, rows: Rows, config: PPOConfig) -> float:
    """PPO's forward passes between rollout and update: reranker (`judge`), reference, policy and value model, on all rows."""
    trunks = 2 + (config.critic == "separate")
    return (
        forward(judge, rows)
        + trunks * forward(shape, rows)
        + 2 * 2 * shape.head * rows.count * rows.completion
    )


def ppo_update(shape: Shape, rows: Rows, config: PPOConfig, runtime: RuntimeConfig) -> float:
    """PPO's updates on the rollouts `rows`, in all epochs. Logits that are computed in chunks are computed again for the gradients."""
    trunks = 1 + (config.critic == "separate")
    again = config.micro_batch * rows.completion > chunk_tokens(shape.vocabulary)
    head = ((2 if config.lora else 3) + again) * 2 * shape.head * rows.count * rows.completion
    return config.epochs * (trunks * train(shape, rows, runtime, config.lora) + head)
