"""Computes log-probabilities over a vocabulary from hidden states, a chunk of tokens at a time.

With 152,000 entries the float32 logits of 3,000 tokens take 1.9 GB, and a loss needs several tensors of that size. So the logits of
few tokens exist at a time (`footprint.LOGIT_BYTES`), and the backward pass computes them anew, as Liger-Kernel does (Hsu et al. 2024,
arXiv 2410.10989).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from selftrain.models.footprint import chunk_tokens


class Vocabulary(nn.Module):
    """Applies output layers (`head`, a linear layer) to hidden states, and computes log-probabilities in float32.

    A module without weights of its own. It is one so that under ZeRO stage 3 DeepSpeed gathers the weights of `head` once for all
    chunks (see `attach`): ranks have different numbers of chunks.

    temperature  the distribution is softmax(logits / temperature)
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def attach(self, head: nn.Linear) -> None:
        """Let DeepSpeed gather the weights of `head` for this module's passes, if they are sharded now."""
        for parameter in head.parameters(recurse=False):
            if hasattr(parameter, "ds_id"):
                from deepspeed.runtime.zero import register_external_parameter

                register_external_parameter(self, parameter)

    def forward(
        self,
        head: nn.Linear,
        states: Tensor,
        targets: Tensor,
        reference: tuple[nn.Linear, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """[tokens] log-probabilities of `targets` in nats, and [tokens, 3] how their distributions differ from a reference's.

        The three are the log-probability under the reference, the entropy, and the KL to the reference; the last two are sums over
        the whole vocabulary. Nothing has gradients where there is a reference; without one, the second result is None.

        head       the output layer
        states     [tokens, hidden] the hidden states before each token
        targets    [tokens] token ids
        reference  another model's output layer, and its states before the same tokens
        """
        if reference is None:
            return chosen_logprobs(states, head.weight, head.bias, targets, self.temperature), None
        size = chunk_tokens(head.weight.shape[0])
        other, others = reference
        found = []
        with torch.no_grad():
            for part, their, ids in zip(*(one.split(size) for one in (states, others, targets)), strict=True):
                policy = _distribution(part, head.weight, head.bias, self.temperature)
                second = _distribution(their, other.weight, other.bias, self.temperature)
                found.append(_compared(policy, second, ids))
        figures = torch.cat(found)
        return figures[:, 0], figures[:, 1:]


def _compared(policy: Tensor, reference: Tensor, targets: Tensor) -> Tensor:
    """[tokens, 4] of two distributions [tokens, vocabulary]: both log-probabilities of `targets`, entropy of the first, KL."""
    own, other = (logs.gather(1, targets[:, None]).squeeze(1) for logs in (policy, reference))
    chances = policy.exp()
    entropy = -(chances * policy).sum(-1)
    return torch.stack([own, other, entropy, -entropy - (chances * reference).sum(-1)], -1)


def chosen_logprobs(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float = 1.0
) -> Tensor:
    """[tokens] log-probabilities of `targets` in nats, float32, with gradients.

    states   [tokens, hidden] the hidden states before each token
    weight   [vocabulary, hidden] of the output layer; `bias` [vocabulary]
    targets  [tokens] token ids
    """
    size = chunk_tokens(len(weight))
    if len(states) <= size:
        return _chosen(states, weight, bias, targets, temperature)
    found: Tensor = _Chunked.apply(states, weight, bias, targets, temperature, size)
    return found


def _distribution(states: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """[tokens, vocabulary] log softmax(logits / temperature), float32."""
    logits = linear(states, weight, bias).float()
    return (logits if temperature == 1 else logits / temperature).log_softmax(-1)


def _chosen(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float
) -> Tensor:
    """[tokens] log-probabilities of `targets`, float32."""
    return _distribution(states, weight, bias, temperature).gather(1, targets[:, None]).squeeze(1)


class _Chunked(torch.autograd.Function):
    """`_chosen`, `size` tokens at a time. The backward pass sums the gradient of the weights over the chunks in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        size: int,
    ) -> Tensor:
        ctx.save_for_backward(states, weight, bias, targets)
        ctx.temperature, ctx.size = temperature, size
        kind = states.device.type
        as_now = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.arithmetic = partial(torch.autocast, *as_now, cache_enabled=False)
        chunks = zip(states.split(size), targets.split(size), strict=True)
        return torch.cat([_chosen(part, weight, bias, ids, temperature) for part, ids in chunks])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, targets = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        # The gradients of the states by chunk, and one sum each for weights and bias.
        found: list[list[Tensor]] = [[], [], []]
        for own, ids, grad in zip(*(one.split(ctx.size) for one in (states, targets, grads[0])), strict=True):
            given: list[Any] = [
                None if one is None else one.detach().requires_grad_(wants)
                for one, wants in zip((own, weight, bias), wanted, strict=True)
            ]
            with torch.enable_grad(), ctx.arithmetic():
                logprobs = _chosen(given[0], given[1], given[2], ids, ctx.temperature)
            asked = [at for at in range(3) if wanted[at]]
            for at, part in zip(
                asked, torch.autograd.grad(logprobs, [given[at] for at in asked], grad), strict=True
            ):
                if at and found[at]:
                    found[at][0] += part
                else:
                    found[at].append(part.float() if at else part)
        whole = [
            torch.cat(parts).to(one.dtype) if parts else None
            for parts, one in zip(found, (states, weight, bias), strict=True)
        ]
        return (*whole, None, None, None)
