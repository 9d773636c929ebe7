"""The equations of PPO, GRPO and RLOO for language models, as pure functions on tensors.

Tensors are float32 unless said otherwise. [rows, tokens] tensors have one entry per token of a completion, padded on the
right. `mask` [rows, tokens] bool is true at a completion's tokens, including the end token. Log-probabilities are those of the
sampled tokens, in nats.

References: Schulman et al. 2017 (PPO, arXiv 1707.06347), Schulman et al. 2016 (GAE, arXiv 1506.02438), Ziegler et al. 2019 (PPO
on language models with a KL penalty, arXiv 1909.08593), Schulman 2020 (KL estimators, joschu.net/blog/kl-approx.html), Shao et
al. 2024 (GRPO, arXiv 2402.03300), Ahmadian et al. 2024 (RLOO, arXiv 2402.14740), Liu et al. 2025 (Dr. GRPO, arXiv 2503.20783), Yu
et al. 2025 (DAPO, arXiv 2503.14476).
"""

from typing import Literal

import torch
from torch import Tensor

LossType = Literal["dapo", "grpo", "dr_grpo"]
LEAST_SPREAD = 1e-4
"""Added to a group's standard deviation before it divides, in score."""


def completion_mask(lengths: Tensor, width: int) -> Tensor:
    """[rows, width] bool mask, true at the first `lengths[row]` tokens of each row; `lengths`: [rows] int64."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[] mean of `values` [rows, tokens] over the entries where `mask` is true."""
    return (values * mask).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor, keep_mean: bool = False) -> Tensor:
    """[rows, tokens] `values` shifted to mean 0 and scaled to unit variance (unbiased) over the mask; 0 outside the mask.

    values     [rows, tokens]
    keep_mean  scale only and keep the mean; used for rewards, whose sign has a meaning
    """
    mean = masked_mean(values, mask)
    count = mask.sum()
    variance = masked_mean((values - mean) ** 2, mask) * count / (count - 1).clamp(min=1)
    white = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (white + mean if keep_mean else white) * mask


def kl_estimate(logprobs: Tensor, reference: Tensor, estimator: Literal["k1", "k3"]) -> Tensor:
    """[rows, tokens] per-token estimates of KL(policy || reference), in nats, from tokens that the policy sampled.

    logprobs, reference  [rows, tokens] log-probabilities under the policy and under the reference
    estimator            k1 or k3

    With r = reference probability / policy probability: k1 = -log r is unbiased and may be negative; k3 = r - 1 - log r
    is unbiased too, never negative, and has less variance near 0. `ppo.kl_estimator` has a third value, `exact`: it sums over the
    vocabulary and is computed in `experience.py`.
    """
    log_ratio = reference - logprobs
    return torch.expm1(log_ratio) - log_ratio if estimator == "k3" else -log_ratio


def mixed_scores(scores: Tensor, passed: Tensor, weight: float) -> Tensor:
    """[rows] mixture of score and test result: (1 - weight) * score + weight * passed.

    scores  [rows] the reranker's scores
    passed  [rows] 1 where the tests pass, 0 where they fail
    """
    return (1 - weight) * scores + weight * passed


def penalised_scores(
    scores: Tensor, ended: Tensor, penalty: float, lengths: Tensor | int = 0, length_penalty: float = 0.0
) -> Tensor:
    """[rows] `scores` minus `penalty` where the completion has no end token, minus `length_penalty` per token.

    scores   [rows]
    ended    [rows] bool, whether the completion has its end token
    lengths  [rows] int64, number of tokens
    """
    return scores - penalty * (~ended) - length_penalty * lengths


def token_rewards(kl: Tensor, scores: Tensor, lengths: Tensor, coefficient: float) -> Tensor:
    """[rows, tokens] rewards: -coefficient * KL at each token, plus the row's score at its last token; 0 at the padding.

    kl       [rows, tokens] nats
    scores   [rows]
    lengths  [rows] int64, number of tokens, at least 1
    """
    rewards = -coefficient * kl * completion_mask(lengths, kl.shape[1])
    return rewards.scatter_add(1, lengths[:, None] - 1, scores[:, None])


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (GAE) and value targets, both [rows, tokens], 0 outside the mask.

    delta_t = r_t + gamma V_{t+1} - V_t,  A_t = delta_t + gamma lam A_{t+1},  target_t = A_t + V_t, where V_t is the
    value before token t. V is 0 after the last token. This also holds for a completion that reached the maximum length: the
    score rates the truncated completion as it is, so no later value is bootstrapped.

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


def leave_one_out(rewards: Tensor, group: int) -> Tensor:
    """[rows] each reward minus the mean of the other rewards of its group (RLOO); exactly 0 in a group of equal rewards.

    rewards  [rows]; `group` (at least 2) consecutive rows are completions of one prompt
    """
    grouped = rewards.view(-1, group)
    # Without the subtraction, rounding would leave a difference between equal rewards.
    apart = grouped - grouped[:, :1]
    return ((apart - apart.mean(1, keepdim=True)) * group / (group - 1)).flatten()


def group_relative(rewards: Tensor, group: int, scale: bool) -> Tensor:
    """[rows] each reward minus its group's mean (GRPO); exactly 0 in a group of equal rewards.

    rewards  [rows]; `group` (at least 2) consecutive rows are completions of one prompt
    scale    whether the difference is divided by the group's standard deviation (unbiased) + LEAST_SPREAD
    """
    grouped = rewards.view(-1, group)
    apart = grouped - grouped[:, :1]
    relative = apart - apart.mean(1, keepdim=True)
    return (relative / (apart.std(1, keepdim=True) + LEAST_SPREAD) if scale else relative).flatten()


def equal_groups(rewards: Tensor, group: int) -> Tensor:
    """[groups] bool, whether all rewards of a group are equal, so that no completion has an advantage over another."""
    grouped = rewards.view(-1, group)
    return (grouped == grouped[:, :1]).all(1)


def token_weights(kind: LossType, lengths: Tensor, mini: Tensor, width: int) -> Tensor:
    """[rows] weight of each token of a row in a mini-batch's loss, relative to the mean over the mini-batch's tokens.

    kind     `ppo.loss_type`: dapo (1 for all tokens), grpo (each completion counts equally) or dr_grpo (each token counts
             1 / (completions * width), whatever the lengths)
    lengths  [rows] int64, number of tokens
    mini     [completions] numbers of the mini-batch's rows
    width    maximum length of a completion, tokens
    """
    mean = lengths[mini].sum() / len(mini)
    if kind == "dapo":
        return torch.ones_like(mean).expand(len(lengths))
    if kind == "grpo":
        return mean / lengths
    return (mean / width).expand(len(lengths))


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """Per-token loss max(-A r, -A clamp(r, 1 - clip, 1 + clip)) with r = p / p_old, and whether the loss is the clipped term.

    The second result is bool. All arguments and results have the same shape, such as [tokens].
    """
    ratio = torch.exp(logprobs - old_logprobs)
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(unclipped, clipped), clipped > unclipped


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Per-token loss 1/2 max((V - R)^2, (V_c - R)^2), where V_c is V clipped to within `clip` of the old value.

    All arguments and the result have the same shape, such as [tokens].
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def value_scale(returns: Tensor, mask: Tensor) -> Tensor:
    """[] the scale by which values and returns are divided in the value loss: root mean square of `returns`, at least 1.

    Policy and value head share a trunk. Advantages are whitened, value targets are not, so at returns of about 30 the gradients
    of the value loss would dominate those of the policy loss. Where returns are of order 1 the scale is 1.

    returns  [rows, tokens]
    """
    return masked_mean(returns**2, mask).sqrt().clamp(min=1)


def next_kl_coefficient(coefficient: float, kl: float, target: float, rows: int, horizon: float) -> float:
    """The adaptive KL coefficient after a batch of `rows` completions with mean KL `kl`; `kl` and `target` in nats per token.

    Ziegler et al. 2019, section 2.2: e = clamp((kl - target) / target, -0.2, 0.2), coefficient *= 1 + e rows / horizon.
    """
    error = min(max((kl - target) / target, -0.2), 0.2)
    return coefficient * (1 + error * rows / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """[] 1 - Var(R - V) / Var(R) over the mask: 1 for perfect values, 0 for constant values, below 0 for worse than constant.

    values, returns  [rows, tokens]
    """
    residual, total = (returns - values)[mask].var(), returns[mask].var()
    return 1 - residual / total.clamp(min=1e-12)
