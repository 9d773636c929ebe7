"""The equations of PPO for language models, as pure functions on tensors.

Tensors are float32 unless said otherwise. [rows, tokens] tensors have one entry per token of a completion, padded on the
right; `mask` [rows, tokens] bool is true at a completion's tokens, the end token included. Log-probabilities are those of the
sampled tokens, in nats.

Schulman et al. 2017 (PPO, arXiv 1707.06347), Schulman et al. 2016 (GAE, arXiv 1506.02438), Ziegler et al. 2019 (PPO on
language models with a KL penalty, arXiv 1909.08593), Schulman 2020 (KL estimators, joschu.net/blog/kl-approx.html).
"""

import torch
from torch import Tensor


def completion_mask(lengths: Tensor, width: int) -> Tensor:
    """[rows, width] bool, true at the first `lengths[row]` tokens; `lengths`: [rows] int64."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[] mean of `values` [rows, tokens] where `mask` is true."""
    return (values * mask).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor, keep_mean: bool = False) -> Tensor:
    """[rows, tokens] `values` shifted to mean 0 and scaled to unit variance (unbiased) over the mask; 0 outside it.

    values     [rows, tokens]
    keep_mean  keep the old mean: for rewards, whose sign has a meaning
    """
    mean = masked_mean(values, mask)
    count = mask.sum()
    variance = masked_mean((values - mean) ** 2, mask) * count / (count - 1).clamp(min=1)
    white = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (white + mean if keep_mean else white) * mask


def kl_estimate(logprobs: Tensor, reference: Tensor, estimator: str) -> Tensor:
    """[rows, tokens] per-token estimates of KL(policy || reference), in nats, from tokens that the policy sampled.

    logprobs, reference  [rows, tokens] log-probabilities under policy and reference
    estimator            k1 or k3; else ValueError

    With r = reference probability / policy probability: k1 = -log r is unbiased and may be negative; k3 = r - 1 - log r
    is unbiased too, never negative, and has less variance near 0. The third setting of `ppo.kl_estimator`, `exact`, sums over the
    vocabulary: see `experience.py`.
    """
    log_ratio = reference - logprobs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k3":
        return torch.expm1(log_ratio) - log_ratio
    raise ValueError(f"KL estimator: expected k1 or k3, got {estimator!r}")


def mixed_scores(scores: Tensor, passed: Tensor, weight: float) -> Tensor:
    """[rows] (1 - weight) * score + weight * passed.

    scores  [rows]
    passed  [rows] 1 where the tests pass, 0 where not
    """
    return (1 - weight) * scores + weight * passed


def penalised_scores(
    scores: Tensor, ended: Tensor, penalty: float, lengths: Tensor | int = 0, length_penalty: float = 0.0
) -> Tensor:
    """[rows] `scores`, less `penalty` where the completion has no end token, less `length_penalty` per token.

    scores   [rows]
    ended    [rows] bool
    lengths  [rows] int64, tokens
    """
    return scores - penalty * (~ended) - length_penalty * lengths


def token_rewards(kl: Tensor, scores: Tensor, lengths: Tensor, coefficient: float) -> Tensor:
    """[rows, tokens] rewards: -coefficient * KL at each token, plus the row's score at its last token; 0 after it.

    kl       [rows, tokens] nats
    scores   [rows]
    lengths  [rows] int64, tokens, at least 1
    """
    rewards = -coefficient * kl * completion_mask(lengths, kl.shape[1])
    return rewards.scatter_add(1, lengths[:, None] - 1, scores[:, None])


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and value targets, both [rows, tokens], 0 outside the mask.

    delta_t = r_t + gamma V_{t+1} - V_t,  A_t = delta_t + gamma lam A_{t+1},  target_t = A_t + V_t, where V_t is the
    value before token t. V is 0 after the last token, also where a completion was cut at the longest length: the score judges
    the cut completion, so there is nothing to bootstrap from.

    rewards, values  [rows, tokens]
    """
    values = values * mask
    following = torch.nn.functional.pad(values[:, 1:], (0, 1))
    deltas = (rewards + gamma * following - values) * mask
    advantages = torch.zeros_like(deltas)
    running = torch.zeros_like(deltas[:, 0])
    for t in reversed(range(deltas.shape[1])):
        running = deltas[:, t] + gamma * lam * running
        advantages[:, t] = running
    return advantages, (advantages + values) * mask


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """Per-token loss max(-A r, -A clamp(r, 1 - clip, 1 + clip)) with r = p / p_old, and whether clipping decided it (bool).

    All tensors, arguments and results, have one shape, such as [tokens].
    """
    ratio = torch.exp(logprobs - old_logprobs)
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(unclipped, clipped), clipped > unclipped


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Per-token loss 1/2 max((V - R)^2, (V_c - R)^2), where V_c is V clipped to within `clip` of the old value.

    All tensors, arguments and result, have one shape, such as [tokens].
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def value_scale(returns: Tensor, mask: Tensor) -> Tensor:
    """[] the unit in which the value loss is computed: the root mean square of `returns` [rows, tokens], at least 1.

    Policy and value share a trunk, and advantages are whitened while value targets are not. At returns of 30 the value's
    gradients would dominate the policy's and move it at random. Returns of order 1 keep the unit 1.
    """
    return masked_mean(returns**2, mask).sqrt().clamp(min=1)


def next_kl_coefficient(coefficient: float, kl: float, target: float, rows: int, horizon: float) -> float:
    """The KL coefficient after a batch of `rows` completions with mean KL `kl` (nats), adapted towards `target`.

    Ziegler et al. 2019, section 2.2: e = clamp((kl - target) / target, -0.2, 0.2), coefficient *= 1 + e rows / horizon.
    """
    error = min(max((kl - target) / target, -0.2), 0.2)
    return coefficient * (1 + error * rows / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """[] 1 - Var(R - V) / Var(R) over the mask: 1 for a perfect value head, 0 for a constant one, below 0 for a worse one.

    values, returns  [rows, tokens]
    """
    residual, total = (returns - values)[mask].var(), returns[mask].var()
    return 1 - residual / total.clamp(min=1e-12)
