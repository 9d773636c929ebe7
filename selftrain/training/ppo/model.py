"""The policy and its value head, if it has one, in one module, so that one optimizer or one DeepSpeed engine trains both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selftrain.errors import UsageError
from selftrain.models.models import pad
from selftrain.models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Sequences:
    """A batch of prompts with their completions, padded on the right; int64 tensors.

    ids          [rows, width] token ids
    prompts      [rows] length of each prompt, tokens
    completions  [rows] length of each completion, tokens
    """

    ids: Tensor
    prompts: Tensor
    completions: Tensor

    @classmethod
    def of(
        cls, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], device: Any
    ) -> "Sequences":
        """Build a batch from lists of token ids. The padding id is 0; no result depends on the padding."""
        rows = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        return cls(
            pad(rows, 0).to(device),
            torch.tensor([len(p) for p in prompts], device=device),
            torch.tensor([len(c) for c in completions], device=device),
        )

    @property
    def lengths(self) -> Tensor:
        """[rows] length of prompt + completion, tokens."""
        return self.prompts + self.completions

    def take(self, rows: Tensor) -> "Sequences":
        """Select the rows with the numbers in `rows` [n], and cut the width to the longest selected row."""
        prompts, completions = self.prompts[rows], self.completions[rows]
        return Sequences(self.ids[rows, : int((prompts + completions).max())], prompts, completions)

    def predicting(self) -> Tensor:
        """[completion tokens] positions in the flattened `ids` directly before each completion token, row by row."""
        at = torch.arange(self.ids.shape[1], device=self.ids.device)
        chosen = (at >= self.prompts[:, None] - 1) & (at < self.lengths[:, None] - 1)
        return chosen.flatten().nonzero().squeeze(1)

    def targets(self) -> Tensor:
        """[completion tokens] ids of the completion tokens, in the order of `predicting`."""
        return self.ids.flatten()[self.predicting() + 1]


Reference = Callable[[Sequences], tuple[nn.Linear, Tensor]]
"""A batch -> the reference's output layer, and its last hidden states before each completion token. Called within the policy's forward
pass, where the weights are gathered that it shares with the policy under ZeRO stage 3."""


class PolicyWithValue(nn.Module):
    """A causal language model and a linear value head, which reads the policy's trunk or `value_trunk`.

    The value head starts at zero, so that at first it changes neither the trunk nor the advantages. Dropout is off during
    training too, since the old and the new probabilities of a token must come from the same network.

    temperature  sampling temperature of the rollouts
    value_trunk  a separate trunk for the value head; None: the policy's trunk
    values       whether there is a value head
    """

    def __init__(self, policy: Any, temperature: float, value_trunk: Any = None, values: bool = True) -> None:
        super().__init__()
        self.config = policy.config  # DeepSpeed's "auto" settings are derived from it
        self.policy = without_dropout(policy)
        self.value_trunk = None if value_trunk is None else without_dropout(value_trunk)
        self.value_head = nn.Linear(policy.config.hidden_size, 1) if values else None
        if self.value_head is not None:
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        self.vocabulary = Vocabulary(temperature)

    def forward(
        self, batch: Sequences, reference: Reference | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities of the completion tokens and the values before these tokens, both [completion tokens] float32.

        Without a value head the values are None.

        reference  also return [completion tokens, 3] float32, without gradients: the log-probability under the reference, the
                   policy's entropy, and its KL to the reference (`models.vocabulary`); without it the third result is None

        Log-probabilities are those of softmax(logits / temperature), the distribution that rollouts are sampled from.
        """
        states = completion_states(self.policy.base_model, batch)
        head, other = self.policy.get_output_embeddings(), reference and reference(batch)
        logprobs, compared = self.vocabulary(head, states, batch.targets(), other)
        values = None
        if self.value_head is not None:
            if self.value_trunk is not None:
                states = completion_states(self.value_trunk, batch)
            values = self.value_head(states).squeeze(1).float()
        return logprobs, values, compared


def without_dropout(model: Any) -> Any:
    """Set all dropout of `model` to 0. Training mode is set only where activations are recomputed, which requires it."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    return model.train(bool(getattr(model, "is_activation_checkpointing", False)))


def completion_states(trunk: Any, batch: Sequences) -> Tensor:
    """[completion tokens, hidden] the trunk's last hidden states at the positions before each completion token.

    The caller applies the output layers to these positions only. No attention mask is needed: attention is causal, and the
    padding is on the right.
    """
    hidden = trunk(input_ids=batch.ids, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1).index_select(0, batch.predicting())


def check_head(model: Any, ids: Sequence[int]) -> None:
    """Raise UsageError unless the logits of `model` equal its output embedding applied to the trunk's last hidden states.

    PPO computes logits in this way; a model that scales or caps its logits fails this check.

    ids  token ids of a text on which the two are compared
    """
    row = torch.tensor([ids], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=row).logits
        computed = model.get_output_embeddings()(model.base_model(input_ids=row).last_hidden_state)
    if not torch.allclose(logits, computed, rtol=1e-4, atol=1e-4):
        raise UsageError(
            f"PPO cannot train a {type(model).__name__}: its logits are not its output embedding of its last hidden "
            "states (it scales or caps them); use a Llama-like model (Llama, Qwen2, DeepSeek-Coder, Mistral, ...)"
        )
