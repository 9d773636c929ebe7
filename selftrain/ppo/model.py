"""The policy with its value head: one module, so that one optimizer, or one DeepSpeed engine, trains both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selftrain.errors import UsageError


@dataclass(frozen=True)
class Sequences:
    """Prompts and their completions, padded on the right.

    ids          [rows, width] token ids
    prompts      [rows] tokens of each prompt
    completions  [rows] tokens of each completion
    """

    ids: Tensor
    prompts: Tensor
    completions: Tensor

    @classmethod
    def of(
        cls, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], device: Any
    ) -> "Sequences":
        """From lists of token ids; padding is never looked at, so its id is 0."""
        rows = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        width = max(map(len, rows))
        return cls(
            torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device),
            torch.tensor([len(p) for p in prompts], device=device),
            torch.tensor([len(c) for c in completions], device=device),
        )

    @property
    def lengths(self) -> Tensor:
        """[rows] tokens of prompt and completion."""
        return self.prompts + self.completions

    def take(self, rows: Tensor) -> "Sequences":
        """The given rows, no wider than the longest of them."""
        prompts, completions = self.prompts[rows], self.completions[rows]
        return Sequences(self.ids[rows, : int((prompts + completions).max())], prompts, completions)

    def predicting(self) -> Tensor:
        """Positions in the flattened ids whose next token is a completion's, row by row; [completion tokens]."""
        at = torch.arange(self.ids.shape[1], device=self.ids.device)
        chosen = (at >= self.prompts[:, None] - 1) & (at < self.lengths[:, None] - 1)
        return chosen.flatten().nonzero().squeeze(1)


class PolicyWithValue(nn.Module):
    """A causal language model and a linear value head on the trunk that they share.

    The value head starts at zero, so it moves neither the trunk nor the advantages before it has learnt something.
    Dropout is off for good (`eval`): old and new probabilities must come from one and the same network.
    """

    def __init__(self, policy: Any, temperature: float) -> None:
        super().__init__()
        self.policy = policy.eval()
        self.value_head = nn.Linear(policy.config.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.temperature = temperature

    def forward(self, batch: Sequences, entropy: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-probabilities, values before each token and (if asked for) entropies, float32 [completion tokens].

        All of the distribution softmax(logits / temperature), the one that rollouts are sampled from.
        """
        states, targets = completion_states(self.policy, batch)
        logs = _log_distribution(self.policy, states, self.temperature)
        logprobs = logs.gather(1, targets[:, None]).squeeze(1)
        values = self.value_head(states).squeeze(1).float()
        return logprobs, values, -(logs.exp() * logs).sum(-1) if entropy else None


def completion_states(model: Any, batch: Sequences) -> tuple[Tensor, Tensor]:
    """The trunk's last states before each completion token [completion tokens, hidden], and those tokens' ids.

    Nothing is computed past the trunk for prompts and padding. Padding is on the right and attention causal: no mask.
    """
    hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    at = batch.predicting()
    return hidden.flatten(0, 1).index_select(0, at), batch.ids.flatten()[at + 1]


def completion_logprobs(model: Any, batch: Sequences, temperature: float) -> Tensor:
    """The same log-probabilities from a model without value head (the frozen reference), [completion tokens]."""
    states, targets = completion_states(model, batch)
    return _log_distribution(model, states, temperature).gather(1, targets[:, None]).squeeze(1)


def check_head(model: Any, ids: Sequence[int]) -> None:
    """Raise UsageError unless `model`'s logits are its output embedding of its trunk's last states, as assumed here."""
    row = torch.tensor([ids], device=model.device)
    with torch.no_grad():
        whole = model(input_ids=row).logits
        parts = model.get_output_embeddings()(model.base_model(input_ids=row).last_hidden_state)
    if not torch.allclose(whole, parts, rtol=1e-4, atol=1e-4):
        raise UsageError(
            f"PPO cannot train a {type(model).__name__}: its logits are not its output embedding of its last hidden "
            "states (it scales or caps them); use a Llama-like model (Llama, Qwen2, DeepSeek-Coder, Mistral, ...)"
        )


def _log_distribution(model: Any, states: Tensor, temperature: float) -> Tensor:
    """[completion tokens, vocabulary] log softmax(logits / temperature), float32."""
    logits = model.get_output_embeddings()(states).float()
    return (logits if temperature == 1 else logits / temperature).log_softmax(-1)
