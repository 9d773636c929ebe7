"""The PPO loop: rollout, score, compare with the reference, update.

Every rank samples and scores its share of a step's prompts, then all ranks gather the whole rollout batch, so rewards,
advantages and mini-batches are those of one process, however many there are; each mini-batch's gradient is computed in
shares again. The policy is wrapped by accelerate: one process, DDP or DeepSpeed.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftrain.config import PPOConfig
from selftrain.errors import RunError, UsageError
from selftrain.ppo import checkpoint, equations
from selftrain.ppo.model import PolicyWithValue, Sequences, completion_logprobs
from selftrain.ppo.rollout import noise, sample, seeded
from selftrain.ppo.score import Score

PHASES = ("rollout", "score", "reference", "update")
SAMPLED_STEPS, SAMPLED_ROWS = 8, 4
"""Steps, and completions of each, that are kept to be read by people."""


@dataclass
class State:
    """All that a run carries from step to step beside weights and optimizer; JSON values.

    step            steps done; it is the position in the data too (see `rows_of_step`)
    kl_coefficient  for the next step
    curve           one row of metrics per step
    samples         [{"step", "prompt", "completion" (token ids), "score"}]
    seconds         wall seconds per phase
    """

    step: int
    kl_coefficient: float
    curve: list[dict[str, float]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


@dataclass(frozen=True)
class Experience:
    """A whole rollout batch; [rows, tokens] over completion tokens where not said otherwise.

    scores, ended       [rows]: raw scores, and whether the completion has its end token
    rewards ... returns see `equations`; advantages are whitened
    """

    sequences: Sequences
    mask: Tensor
    scores: Tensor
    ended: Tensor
    kl: Tensor
    entropy: Tensor
    rewards: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


def rows_of_step(step: int, rows: int, problems: int, seed: int) -> list[int]:
    """The problems of step `step` (0, 1, ...): the next `rows` of a sequence of seeded shuffles of all of them."""
    first, last = step * rows, (step + 1) * rows
    passes = range(first // problems, (last - 1) // problems + 1)
    shuffled = [torch.randperm(problems, generator=seeded("order", seed, p)).tolist() for p in passes]
    start = first - passes[0] * problems
    return [row for shuffle in shuffled for row in shuffle][start : start + rows]


def check_batches(config: PPOConfig, world: int) -> None:
    """Raise UsageError unless the batch sizes divide each other and spread evenly over `world` processes."""
    if config.rollout_batch % config.mini_batch:
        raise UsageError(
            f"ppo.rollout_batch {config.rollout_batch} is not a multiple of ppo.mini_batch {config.mini_batch}"
        )
    if config.mini_batch % world:
        raise UsageError(
            f"ppo.mini_batch {config.mini_batch} cannot be spread evenly over {world} training processes"
        )


class Trainer:
    """Trains `policy` to raise `score` without moving far from `reference`.

    policy, reference  causal language models with the same weights; `policy` is changed in place
    prompts            token ids, one list per problem
    end                id of the end token
    accelerator        made with `accumulation_steps(config, world)`
    checkpoints        folder to save to and resume from; None keeps nothing
    on_step            called after each step with its row of the curve
    """

    def __init__(
        self,
        config: PPOConfig,
        seed: int,
        max_new_tokens: int,
        policy: Any,
        reference: Any,
        score: Score,
        prompts: Sequence[list[int]],
        end: int,
        accelerator: Any,
        checkpoints: Path | None = None,
        on_step: Callable[[dict[str, float]], None] = lambda row: None,
    ) -> None:
        check_batches(config, accelerator.num_processes)
        self.config, self.seed, self.max_new_tokens = config, seed, max_new_tokens
        self.score, self.prompts, self.end = score, prompts, end
        self.accelerator, self.checkpoints, self.on_step = accelerator, checkpoints, on_step
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.reference = reference.to(accelerator.device).eval().requires_grad_(False)
        self.module = PolicyWithValue(policy, config.temperature)
        optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=config.learning_rate, eps=1e-5, weight_decay=0.0, fused=True
        )
        self.model, self.optimizer = accelerator.prepare(self.module, optimizer)
        self.state = State(step=0, kl_coefficient=config.kl_coefficient)

    @property
    def policy(self) -> Any:
        """The causal language model, without value head and wrappers."""
        return self.module.policy

    def policy_weights(self) -> dict[str, Tensor]:
        """The policy's state dict, whole even where ranks hold shards of it. Called by every rank."""
        weights = self.accelerator.get_state_dict(self.model) or {}
        copies: dict[int, Tensor] = {}  # tied weights stay tied: saved once
        return {
            name.removeprefix("policy."): copies.setdefault(value.data_ptr(), value.clone())
            for name, value in weights.items()
            if name.startswith("policy.")
        }

    def run(self) -> State:
        """All steps that are not done yet, from the newest checkpoint on."""
        self._resume()
        while self.state.step < self.config.steps:
            self.step()
            if self.state.step % self.config.checkpoint_steps == 0 or self.state.step == self.config.steps:
                self._save()
            self.on_step(self.state.curve[-1])
        return self.state

    def step(self) -> None:
        """One rollout batch and the updates from it."""
        experience = self.experience()
        with self._timed("update"):
            losses = self.update(experience)
        row = {**self._figures(experience), **losses}
        if not all(map(math.isfinite, row.values())):
            raise RunError(
                f"PPO diverged at step {self.state.step + 1}: {row}; lower ppo.learning_rate or raise ppo.kl_coefficient"
            )
        self._keep_samples(experience)
        self.state.step += 1
        self.state.curve.append(row)
        if self.config.kl_target is not None:
            self.state.kl_coefficient = equations.next_kl_coefficient(
                self.state.kl_coefficient,
                row["kl"],
                self.config.kl_target,
                self.config.rollout_batch,
                self.config.kl_horizon,
            )

    # Experience

    def experience(self) -> Experience:
        """Samples, scores and evaluates the step's rollout batch; the same on every rank."""
        config, width = self.config, self.max_new_tokens
        problems = rows_of_step(self.state.step, config.rollout_batch, len(self.prompts), self.seed)
        prompts = [self.prompts[i] for i in problems]
        own = slice(self.rank, None, self.world)
        uniforms = noise(self.seed, self.state.step, config.rollout_batch, width)
        with self._timed("rollout"), self.accelerator.autocast():
            completions = sample(self.policy, prompts[own], uniforms[own], config.temperature, self.end)
        with self._timed("score"):
            scores = self.score(prompts[own], completions).to(self.accelerator.device)
        with self._timed("reference"):
            figures = self._evaluate(Sequences.of(prompts[own], completions, self.accelerator.device))
        logprobs, reference, values, entropy = self._whole(figures).unbind(-1)
        scores = self._whole(scores)
        sequences = Sequences.of(prompts, self._whole_completions(completions), self.accelerator.device)
        ended = sequences.ids.gather(1, sequences.lengths[:, None] - 1).squeeze(1) == self.end
        mask = equations.completion_mask(sequences.completions, width)
        kl = equations.kl_estimate(logprobs, reference, config.kl_estimator)
        rewards = equations.token_rewards(
            kl,
            equations.penalised_scores(scores, ended, config.missing_end_penalty),
            sequences.completions,
            self.state.kl_coefficient,
        )
        scaled = equations.whiten(rewards, mask, keep_mean=True) if config.whiten_rewards else rewards
        advantages, returns = equations.advantages_and_returns(
            scaled, values, mask, config.gamma, config.gae_lambda
        )
        return Experience(
            sequences,
            mask,
            scores,
            ended,
            kl,
            entropy,
            rewards,
            logprobs,
            values,
            equations.whiten(advantages, mask),
            returns,
        )

    @torch.no_grad()
    def _evaluate(self, sequences: Sequences) -> Tensor:
        """[rows, tokens, 4]: log-probability, the reference's, value, entropy.

        Computed as the update computes them, not taken from the rollout, so that the first ratio is 1.
        """
        rows = len(sequences.prompts)
        out = torch.zeros(rows, self.max_new_tokens, 4, device=self.accelerator.device)
        for chunk in sequences.lengths.argsort(stable=True).split(self.config.micro_batch):
            batch = sequences.take(chunk)
            logprobs, values, entropy = self.model(batch, entropy=True)
            with self.accelerator.autocast():
                reference = completion_logprobs(self.reference, batch, self.config.temperature)
            figures = torch.zeros(len(chunk), self.max_new_tokens, 4, device=out.device)
            mask = equations.completion_mask(batch.completions, self.max_new_tokens)
            figures[mask] = torch.stack([logprobs, reference, values, entropy], -1)
            out[chunk] = figures
        return out

    def _whole(self, share: Tensor) -> Tensor:
        """The tensor over all rows of the rollout batch, from every rank's share of the rows."""
        if self.world == 1:
            return share
        ranks = self.accelerator.gather(share).view(self.world, -1, *share.shape[1:])
        return ranks.transpose(0, 1).flatten(0, 1)

    def _whole_completions(self, share: list[list[int]]) -> list[list[int]]:
        if self.world == 1:
            return share
        padded = torch.full((len(share), self.max_new_tokens), -1, device=self.accelerator.device)
        for row, ids in zip(padded, share, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return [[i for i in row if i >= 0] for row in self._whole(padded).tolist()]

    # Update

    def update(self, experience: Experience) -> dict[str, float]:
        """`epochs` passes in mini-batches; mean losses and clip fraction over all their tokens."""
        lengths = experience.sequences.lengths
        sums = torch.zeros(4, device=self.accelerator.device)  # tokens, policy loss, value loss, clipped
        for epoch in range(self.config.epochs):
            generator = seeded("epoch", self.seed, self.state.step, epoch)
            order = torch.randperm(self.config.rollout_batch, generator=generator).to(lengths.device)
            for mini in order.split(self.config.mini_batch):
                tokens = experience.sequences.completions[mini].sum()
                # Dealt out by length: equal work for the ranks, little padding in micro batches.
                own = mini[lengths[mini].argsort(stable=True)][self.rank :: self.world]
                for micro in own.split(self.config.micro_batch):
                    sums += self._accumulate(experience, micro, tokens)
        tokens, policy_loss, value_loss, clipped = self.accelerator.reduce(sums, "sum").tolist()
        return {
            "policy_loss": policy_loss / tokens,
            "value_loss": value_loss / tokens,
            "clip_fraction": clipped / tokens,
        }

    def _accumulate(self, experience: Experience, rows: Tensor, tokens: Tensor) -> Tensor:
        """Adds the gradient of `rows`, part of a mini-batch of `tokens` tokens; the mini-batch's last part steps."""
        with self.accelerator.accumulate(self.model):
            policy_loss, value_loss, clipped = self.losses(experience, rows)
            loss = policy_loss + self.config.value_coefficient * value_loss
            # A mean over the mini-batch's tokens, whatever its parts: wrappers divide by ranks and parts.
            self.accelerator.backward(
                loss / tokens * self.world * self.accelerator.gradient_accumulation_steps
            )
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        count = experience.sequences.completions[rows].sum()
        return torch.stack([count, policy_loss.detach(), value_loss.detach(), clipped])

    def losses(self, experience: Experience, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Policy loss, value loss and number of clipped tokens, each summed over the tokens of `rows`."""
        config, mask = self.config, experience.mask[rows]
        logprobs, values, _ = self.model(experience.sequences.take(rows))
        policy_losses, clipped = equations.clipped_policy_loss(
            logprobs, experience.logprobs[rows][mask], experience.advantages[rows][mask], config.clip
        )
        unit = equations.value_scale(experience.returns, experience.mask)
        value_losses = equations.clipped_value_loss(
            values / unit,
            experience.values[rows][mask] / unit,
            experience.returns[rows][mask] / unit,
            config.value_clip,
        )
        return policy_losses.sum(), value_losses.sum(), clipped.sum()

    # Bookkeeping

    def _figures(self, experience: Experience) -> dict[str, float]:
        mask = experience.mask
        return {
            "step": self.state.step + 1,
            "reward": experience.rewards.sum(1).mean().item(),
            "score": experience.scores.mean().item(),
            "kl": equations.masked_mean(experience.kl, mask).item(),
            "entropy": equations.masked_mean(experience.entropy, mask).item(),
            "kl_coefficient": self.state.kl_coefficient,
            "tokens": int(mask.sum()),
            "missing_end": 1 - experience.ended.float().mean().item(),
        }

    def _keep_samples(self, experience: Experience) -> None:
        every = max(1, self.config.steps // SAMPLED_STEPS)
        if self.state.step % every and self.state.step != self.config.steps - 1:
            return
        sequences = experience.sequences
        for row in range(min(SAMPLED_ROWS, self.config.rollout_batch)):
            ids = sequences.ids[row, : sequences.lengths[row]].tolist()
            split = int(sequences.prompts[row])
            self.state.samples.append(
                {
                    "step": self.state.step + 1,
                    "prompt": ids[:split],
                    "completion": ids[split:],
                    "score": experience.scores[row].item(),
                }
            )

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.state.seconds[phase] += time.monotonic() - started

    def _resume(self) -> None:
        if self.checkpoints is not None:
            state = checkpoint.resume(self.checkpoints, self.model, self.optimizer, self.accelerator)
            self.state = State(**state) if state else self.state

    def _save(self) -> None:
        if self.checkpoints is not None:
            state = asdict(self.state)
            checkpoint.save(
                self.checkpoints, self.state.step, self.model, self.optimizer, state, self.accelerator
            )


def accumulation_steps(config: PPOConfig, world: int) -> int:
    """Micro batches per mini-batch in each of `world` processes."""
    return math.ceil(config.mini_batch / world / config.micro_batch)
