"""Collects a step's rollout batch: completions, scores, log-probabilities, KL, rewards and advantages.

Every rank samples and scores its share of the rows. Then all ranks gather the whole rollout batch, so rewards and advantages do
not depend on the number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selftrain.config import PPOConfig
from selftrain.errors import SandboxFailed
from selftrain.models.weights import unsharded_parameters
from selftrain.sampling.stopping import Stopping
from selftrain.training.ppo import equations
from selftrain.training.ppo.model import Sequences, completion_states
from selftrain.training.ppo.rollout import FromPolicy, noise, seeded
from selftrain.training.ppo.score import Reward
from selftrain.training.ppo.settings import Models, TrainerSettings
from selftrain.training.ppo.state import State
from selftrain.units import none_of

PROBE = -1
"""Step number that seeds the random draws of every probe; no training step has this number."""


@dataclass(frozen=True)
class Experience:
    """A rollout batch, the same on every rank. Tensors are [rows, tokens] float32 over completion tokens unless said otherwise.

    mask         [rows, tokens] bool, true at a completion's tokens
    scores       [rows] as `Reward.score` returns them
    ended        [rows] bool, whether an end token or a stop text ended the completion
    passed       [rows] 1 where the tests pass, 0 where they fail, see `Collector.execute`; None where nothing was executed
    kl           KL to the reference at each token, in nats, by the estimator `ppo.kl_estimator`
    entropy      entropy of the policy's distribution before each token, in nats
    earned       [rows] score after clipping, execution and penalties, without the KL penalty
    rewards      KL penalty at each token, and what the row earned at the last token (`equations.token_rewards`)
    logprobs     log-probabilities of the sampled tokens, in nats
    advantages   with a value head: generalised advantage estimates, whitened; without: see `_group_advantages`
    values       the value head's estimate before each token; None without a value head
    returns      targets of the value head; None without a value head
    """

    sequences: Sequences
    mask: Tensor
    scores: Tensor
    ended: Tensor
    passed: Tensor | None
    kl: Tensor
    entropy: Tensor
    earned: Tensor
    rewards: Tensor
    logprobs: Tensor
    advantages: Tensor
    values: Tensor | None = None
    returns: Tensor | None = None


def rows_of_step(step: int, rows: int, problems: int, seed: int, group: int = 1) -> list[int]:
    """Numbers of the problems of step `step` (0, 1, ...), one for each of `rows` rows; `group` rows in a row have the same.

    The steps together go through an endless sequence of seeded shuffles of all problems.
    """
    rows //= group
    first, last = step * rows, (step + 1) * rows
    passes = range(first // problems, (last - 1) // problems + 1)
    shuffled = [torch.randperm(problems, generator=seeded("order", seed, p)).tolist() for p in passes]
    start = first - passes[0] * problems
    chosen = [row for shuffle in shuffled for row in shuffle][start : start + rows]
    return [row for row in chosen for _ in range(group)]


def with_means(passed: Sequence[bool | None], group: int) -> list[float]:
    """`passed` as numbers; a row without a verdict has the mean of the rows that it is compared with, which neither rewards nor
    punishes it.

    group  number of consecutive rows that are compared with each other; 1: all rows are. A group without any verdict has the
           mean of all rows
    """

    def mean(rows: Sequence[bool | None], otherwise: float) -> float:
        known = [float(one) for one in rows if one is not None]
        return sum(known) / len(known) if known else otherwise

    overall = mean(passed, 0.0)
    size = len(passed) if group == 1 else group
    means = [mean(passed[at : at + size], overall) for at in range(0, len(passed), size)]
    return [means[at // size] if one is None else float(one) for at, one in enumerate(passed)]


class Collector:
    """Collects rollout batches. Every rank must call each method, and gets the same result.

    prompts  token ids, one list per problem; `count` of them are trained on, the others are the probe's
    model    `PolicyWithValue`, wrapped by accelerate
    """

    def __init__(
        self,
        settings: TrainerSettings,
        models: Models,
        reward: Reward,
        prompts: Sequence[list[int]],
        count: int,
        model: Any,
        accelerator: Any,
    ) -> None:
        self.config, self.seed = settings.config, settings.seed
        self.width, self.stops = settings.max_new_tokens, settings.stops
        self.stopping = Stopping(settings.tokenizer, settings.ends)
        self.reward, self.prompts, self.count = reward, prompts, count
        self.model, self.accelerator = model, accelerator
        self.policy, self.adapters = models.policy, models.adapters
        self.reference = None
        if models.reference is not None:
            self.reference = models.reference.to(accelerator.device).eval().requires_grad_(False)
        self.rollouts = models.rollouts or FromPolicy(models.policy, self.config.temperature, self.stopping)
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.share = slice(self.rank, None, self.world)  # this rank's rows of a batch
        self._refreshed: int | None = None  # the step whose weights `rollouts` has loaded

    def collect(self, state: State) -> Experience:
        """Sample and score the next step's completions, and compute their rewards and advantages."""
        config = self.config
        problems = rows_of_step(state.step, config.rollout_batch, self.count, self.seed, config.per_prompt)
        prompts = [self.prompts[i] for i in problems]
        completions, scores = self.sample(problems, state, state.step)
        passed = None
        if config.execution_weight:
            passed = self.execute(problems, completions, state, config.per_prompt)
        device = self.accelerator.device
        with state.timed("reference"):
            own = Sequences.of(prompts[self.share], completions[self.share], device)
            figures = self._gather(self._evaluate(own))
        sequences = Sequences.of(prompts, completions, device)
        ends = zip(completions, self._stops(problems), strict=True)
        ended = torch.tensor([self.stopping.ends_by_itself(ids, stops) for ids, stops in ends], device=device)
        return _experience(config, sequences, figures, scores, passed, ended, state.kl_coefficient)

    def sample(self, problems: list[int], state: State, step: int) -> tuple[list[list[int]], Tensor]:
        """One completion per problem, as token ids, and the scores, [rows]. `step` (or PROBE) seeds the random draws.

        A completion has all tokens up to the one that ended it: the tokens of a stop text are what the policy did to end it,
        as an end token is. The reranker reads the completion's text without the stop text, as it does in training.
        """
        uniforms = noise(self.seed, step, len(problems), self.width)[self.share]
        own = problems[self.share]
        prompts, stops = [self.prompts[i] for i in own], self._stops(own)
        with state.timed("rollout"):
            if state.step != self._refreshed:
                self.rollouts.refresh(lambda: unsharded_parameters(self.policy))
                self._refreshed = state.step
            with self.accelerator.autocast():
                place = f"{self.seed}/{step}/{self.rank}"
                completions = self.rollouts(prompts, uniforms, place, stops)
        with state.timed("score"):
            read = [self.stopping.written(ids, texts) for ids, texts in zip(completions, stops, strict=True)]
            scores = self.reward.score(prompts, read).to(self.accelerator.device)
        return self._gather_completions(completions), self._gather(scores)

    def _stops(self, problems: Sequence[int]) -> list[Sequence[str]]:
        """The stop texts of each of these problems."""
        return [self.stops[i] if self.stops else () for i in problems]

    def execute(
        self, problems: list[int], completions: list[list[int]], state: State, group: int = 1
    ) -> Tensor:
        """[rows] 1 where the completion passes its tests, 0 where it fails; see `with_means` for rows without a verdict.

        group  number of consecutive rows that are compared with each other; 1: all rows are

        Rank 0 executes and broadcasts the result.

        Raises SandboxFailed where the sandbox gave no verdict for any row.
        """
        assert self.reward.execute is not None, "execution_weight and probes need `Reward.execute`"
        passed = torch.zeros(len(problems), device=self.accelerator.device)
        if self.rank == 0:
            with state.timed("execute"):
                found = self.reward.execute(problems, completions)
            if all(one is None for one in found):
                raise SandboxFailed(f"the sandbox judged {none_of(len(problems), 'completion')} of a step")
            passed = torch.tensor(with_means(found, group)).to(passed)
        if self.world > 1:
            torch.distributed.broadcast(passed, 0)
        return passed

    @torch.no_grad()
    def _evaluate(self, sequences: Sequences) -> Tensor:
        """[rows, tokens, 5]: log-probability under the policy, log-probability under the reference, value (0 without a value
        head), entropy, KL.

        Log-probabilities are computed by the forward pass of the update, not taken from the sampler, so that the probability
        ratio of the first update is 1. Entropy and KL are exact: sums over the distribution before each token.
        """
        rows = len(sequences.prompts)
        out = torch.zeros(rows, self.width, 5, device=self.accelerator.device)
        for chunk in sequences.lengths.argsort(stable=True).split(self.config.micro_batch):
            batch = sequences.take(chunk)
            logprobs, values, compared = self.model(batch, reference=self._reference)
            own, entropy, kl = compared.unbind(-1)
            values = torch.zeros_like(own) if values is None else values
            figures = torch.zeros(len(chunk), self.width, 5, device=out.device)
            mask = equations.completion_mask(batch.completions, self.width)
            figures[mask] = torch.stack([logprobs, own, values, entropy, kl], -1)
            out[chunk] = figures
        return out

    def _reference(self, batch: Sequences) -> tuple[Any, Tensor]:
        """See `model.Reference`."""
        if self.reference is None:
            with self.adapters.disable_adapter():
                return self.policy.get_output_embeddings(), completion_states(self.policy.base_model, batch)
        with self.accelerator.autocast():
            states = completion_states(self.reference.base_model, batch)
        return self.reference.get_output_embeddings(), states

    def _gather(self, share: Tensor) -> Tensor:
        """Gather every rank's share; returns all rows of the batch, in the batch's order."""
        if self.world == 1:
            return share
        ranks = self.accelerator.gather(share).view(self.world, -1, *share.shape[1:])
        return ranks.transpose(0, 1).flatten(0, 1)

    def _gather_completions(self, share: list[list[int]]) -> list[list[int]]:
        if self.world == 1:
            return share
        padded = torch.full((len(share), self.width), -1, device=self.accelerator.device)
        for row, ids in zip(padded, share, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return [[i for i in row if i >= 0] for row in self._gather(padded).tolist()]


def _experience(
    config: PPOConfig,
    sequences: Sequences,
    figures: Tensor,
    scores: Tensor,
    passed: Tensor | None,
    ended: Tensor,
    kl_coefficient: float,
) -> Experience:
    """Compute a rollout batch's rewards, advantages and value targets; `figures` is the result of `Collector._evaluate`."""
    returns = None
    logprobs, reference, values, entropy, exact = figures.unbind(-1)
    lengths = sequences.completions
    mask = equations.completion_mask(lengths, figures.shape[1])
    of_token = equations.kl_estimate(logprobs, reference, "k3" if config.kl_estimator == "k3" else "k1")
    kl = exact if config.kl_estimator == "exact" else of_token
    earned = _final_scores(config, scores, passed, ended, lengths)
    rewards = equations.token_rewards(kl, earned, lengths, kl_coefficient)
    if config.critic is None:
        advantages = _group_advantages(config, earned, kl_coefficient * (kl * mask).sum(1))[:, None] * mask
    else:
        scaled = equations.whiten(rewards, mask, keep_mean=True) if config.whiten_rewards else rewards
        advantages, returns = equations.advantages_and_returns(
            scaled, values, mask, config.gamma, config.gae_lambda
        )
    if config.kl_estimator == "exact":
        advantages = advantages - kl_coefficient * (of_token - exact) * mask
    if config.critic is None:
        values = None
    else:
        advantages = equations.whiten(advantages, mask)
    return Experience(
        sequences, mask, scores, ended, passed, kl, entropy, earned, rewards, logprobs, advantages, values,
        returns,
    )  # fmt: skip


def _group_advantages(config: PPOConfig, earned: Tensor, penalties: Tensor) -> Tensor:
    """[rows] advantage of a completion, the same at all its tokens, from its group.

    earned     [rows] scores after clipping, execution and penalties
    penalties  [rows] KL penalty of the whole completion, in score

    GRPO scales what is earned, but not the KL penalty. Otherwise, in a group that earned almost or exactly the same, the noise of
    the KL estimates would be scaled up to the size of an advantage.
    """
    group = config.group
    if config.algorithm == "grpo":
        relative = equations.group_relative(earned, group, config.scale_rewards == "group")
    else:
        relative = equations.leave_one_out(earned, group)
    return relative - equations.leave_one_out(penalties, group)


def _final_scores(
    config: PPOConfig, scores: Tensor, passed: Tensor | None, ended: Tensor, lengths: Tensor
) -> Tensor:
    """[rows] reward at a completion's last token, without the KL penalty: clipped, mixed with `passed`, less penalties."""
    if config.score_clip is not None:
        scores = scores.clamp(-config.score_clip, config.score_clip)
    if passed is not None:
        scores = equations.mixed_scores(scores, passed, config.execution_weight)
    return equations.penalised_scores(
        scores, ended, config.missing_end_penalty, lengths, config.length_penalty
    )
