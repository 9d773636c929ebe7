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
from selftrain.errors import SandboxFailed, UsageError
from selftrain.models.models import all_sound
from selftrain.training.ppo import checkpoint, equations, health
from selftrain.training.ppo.model import PolicyWithValue, Sequences, completion_distribution
from selftrain.training.ppo.rollout import FromPolicy, Rollouts, noise, seeded
from selftrain.training.ppo.score import Execute, Score
from selftrain.training.ppo.weights import whole

PHASES = ("rollout", "score", "execute", "reference", "update")
PROBE = -1
"""Stands for the step in a probe's noise: the same in each of them, and no step's."""
SAMPLED_STEPS, SAMPLED_ROWS = 8, 4
"""Steps, and completions of each, that are kept to be read by people."""


@dataclass
class State:
    """All that a run carries from step to step beside weights and optimizer; JSON values.

    step            steps done; it is the position in the data too (see `rows_of_step`)
    kl_coefficient  for the next step
    curve           one row of metrics per step
    samples         [{"step", "prompt", "completion" (token ids), "score"}]
    probes          one row of figures per probe, see `Trainer.probe`
    seconds         wall seconds per phase
    """

    step: int
    kl_coefficient: float
    curve: list[dict[str, float]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


@dataclass(frozen=True)
class Experience:
    """A whole rollout batch; [rows, tokens] over completion tokens where not said otherwise.

    scores, ended       [rows]: raw scores, and whether the completion has its end token
    passed              [rows]: 1 where the tests pass, 0 where not; None where nothing was executed
    rewards ... returns see `equations`; advantages are whitened
    """

    sequences: Sequences
    mask: Tensor
    scores: Tensor
    ended: Tensor
    passed: Tensor | None
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


def best_step(probes: Sequence[dict[str, float]]) -> int:
    """The step after which the probe passed most often, the first of equals."""
    return int(max(probes, key=lambda probe: probe["pass_rate"])["step"])


def check_batches(config: PPOConfig, world: int) -> None:
    """Raise UsageError unless the batch sizes divide each other and spread evenly over `world` processes."""
    for misfit in config.misfits(world):
        raise UsageError(misfit)


class Trainer:
    """Trains `policy` to raise `score` without moving far from `reference`.

    policy, reference  causal language models with the same weights; `policy` is changed in place
    prompts            token ids, one list per problem
    ends               ids of the tokens that end a completion
    accelerator        made with `accumulation_steps(config, world)`
    checkpoints        folder to save to and resume from; None keeps nothing
    keep               checkpoints that stay there
    on_step            called after each step with its row of the curve
    rollouts           what samples; None: the policy itself
    value_trunk        a trunk of its own for the value head; None: the policy's
    adapters           the PEFT model around `policy` where only adapters are trained; `reference` is None then, for it is
                       the policy without them
    execute            runs completions against their problems' tests; needed for `execution_weight` and for probes
    probe_prompts      token ids of the probe's problems, which `execute` knows as len(prompts), len(prompts) + 1, ...
    on_best            called by every rank with the step whose probe passed more often than any before
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
        ends: Sequence[int],
        accelerator: Any,
        checkpoints: Path | None = None,
        on_step: Callable[[dict[str, float]], None] = lambda row: None,
        *,
        rollouts: Rollouts | None = None,
        value_trunk: Any = None,
        adapters: Any = None,
        execute: Execute | None = None,
        probe_prompts: Sequence[list[int]] = (),
        on_best: Callable[[int], None] = lambda step: None,
        keep: int = 1,
    ) -> None:
        check_batches(config, accelerator.num_processes)
        self.config, self.seed, self.max_new_tokens = config, seed, max_new_tokens
        self.score, self.prompts, self.ends = score, prompts, tuple(ends)
        self.execute, self.probe_prompts = execute, probe_prompts
        self.accelerator, self.on_step, self.on_best = accelerator, on_step, on_best
        self.checkpoints, self.keep = checkpoints, keep
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.own = slice(self.rank, None, self.world)  # this rank's share of a step's rows
        self.adapters = adapters
        self.reference = None
        if adapters is None:
            self.reference = reference.to(accelerator.device).eval().requires_grad_(False)
        self.module = PolicyWithValue(policy, config.temperature, value_trunk)
        self.rollouts = rollouts or FromPolicy(policy, config.temperature, self.ends)
        trained = [p for p in self.module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=config.learning_rate, eps=1e-5, weight_decay=0.0, fused=True
        )
        self.model, self.optimizer = accelerator.prepare(self.module, optimizer)
        self.state = State(step=0, kl_coefficient=config.kl_coefficient)
        self._refreshed: int | None = None  # the step whose weights `rollouts` has

    @property
    def policy(self) -> Any:
        """The causal language model, without value head and wrappers."""
        return self.module.policy

    def policy_weights(self) -> dict[str, Tensor]:
        """The policy's state dict on the first rank, whole even where ranks hold shards of it. Called by every rank."""
        main = self.accelerator.is_main_process
        return {name: value.clone() for name, value in whole(self.policy) if main}

    def run(self) -> State:
        """All steps that are not done yet, from the newest checkpoint on."""
        self._resume()
        while self.state.step < self.config.steps:
            self.step()
            self.on_step(self.state.curve[-1])
            if self.state.step % self.config.checkpoint_steps == 0 or self.state.step == self.config.steps:
                self._save()
        return self.state

    def step(self) -> None:
        """One rollout batch and the updates from it, with a probe before the first one and after each `probe_steps`.

        Raises UsageError where a health signal is beyond its bound.
        """
        if self.probe_prompts and not self.state.probes:
            self.probe()
        experience = self.experience()
        figures = self._figures(experience)
        health.check_finite(self.state.step + 1, figures, self.config.learning_rate)
        with self._timed("update"):
            losses = self.update(experience)
        row = {**figures, **losses}
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
        done = self.state.step
        if self.probe_prompts and (done % self.config.probe_steps == 0 or done == self.config.steps):
            self.probe()
        health.check(done, row, self.state.probes, self.config.health, self.config.learning_rate)

    def probe(self) -> None:
        """Samples, scores and executes the probe's problems, which are not trained on; adds a row to `state.probes`."""
        rows = list(range(len(self.prompts), len(self.prompts) + len(self.probe_prompts)))
        # The same noise each time: what differs between two probes is the policy.
        completions, scores = self._sampled(self.probe_prompts, PROBE)
        passed = self._executed(rows, completions)
        now = {
            "step": self.state.step,
            "problems": len(rows),
            "score": scores.mean().item(),
            "score_std": scores.std().item() if len(rows) > 1 else 0.0,
            "pass_rate": passed.mean().item(),
        }
        now["hacking_gap"] = health.hacking_gap((self.state.probes or [now])[0], now)
        self.state.probes.append(now)
        if best_step(self.state.probes) == self.state.step:
            self.on_best(self.state.step)

    # Experience

    def experience(self) -> Experience:
        """Samples, scores and evaluates the step's rollout batch; the same on every rank."""
        config, width = self.config, self.max_new_tokens
        problems = rows_of_step(self.state.step, config.rollout_batch, len(self.prompts), self.seed)
        prompts = [self.prompts[i] for i in problems]
        completions, scores = self._sampled(prompts, self.state.step)
        passed = self._executed(problems, completions) if config.execution_weight else None
        with self._timed("reference"):
            own = Sequences.of(prompts[self.own], completions[self.own], self.accelerator.device)
            figures = self._whole(self._evaluate(own))
        logprobs, reference, values, entropy, exact = figures.unbind(-1)
        sequences = Sequences.of(prompts, completions, self.accelerator.device)
        last = sequences.ids.gather(1, sequences.lengths[:, None] - 1).squeeze(1)
        ended = torch.isin(last, torch.tensor(self.ends, device=last.device))
        mask = equations.completion_mask(sequences.completions, width)
        of_token = equations.kl_estimate(logprobs, reference, "k3" if config.kl_estimator == "k3" else "k1")
        kl = exact if config.kl_estimator == "exact" else of_token
        rewards = equations.token_rewards(
            kl,
            self._judged(scores, passed, ended, sequences.completions),
            sequences.completions,
            self.state.kl_coefficient,
        )
        scaled = equations.whiten(rewards, mask, keep_mean=True) if config.whiten_rewards else rewards
        advantages, returns = equations.advantages_and_returns(
            scaled, values, mask, config.gamma, config.gae_lambda
        )
        if config.kl_estimator == "exact":
            advantages = advantages - self.state.kl_coefficient * (of_token - exact) * mask
        return Experience(
            sequences,
            mask,
            scores,
            ended,
            passed,
            kl,
            entropy,
            rewards,
            logprobs,
            values,
            equations.whiten(advantages, mask),
            returns,
        )

    def _sampled(self, prompts: Sequence[list[int]], step: int) -> tuple[list[list[int]], Tensor]:
        """Completions of `prompts` and their scores, of all ranks' rows; `step` (or PROBE) decides the draws."""
        uniforms = noise(self.seed, step, len(prompts), self.max_new_tokens)
        with self._timed("rollout"):
            if self.state.step != self._refreshed:
                self.rollouts.refresh(lambda: whole(self.policy))
                self._refreshed = self.state.step
            with self.accelerator.autocast():
                place = (step - PROBE) * self.world + self.rank
                completions = self.rollouts(prompts[self.own], uniforms[self.own], place)
        with self._timed("score"):
            scores = self.score(prompts[self.own], completions).to(self.accelerator.device)
        return self._whole_completions(completions), self._whole(scores)

    def _executed(self, problems: list[int], completions: list[list[int]]) -> Tensor:
        """[rows] 1 where the completion passes, 0 where not; where the sandbox failed, the mean of the others.

        Such a row is neither rewarded nor punished. Rank 0 asks, the others are told.
        """
        assert self.execute is not None, "execution_weight and probes need `execute`"
        passed = torch.zeros(len(problems), device=self.accelerator.device)
        if self.rank == 0:
            with self._timed("execute"):
                found = self.execute(problems, completions)
            known = [float(one) for one in found if one is not None]
            if not known:
                raise SandboxFailed(f"the sandbox judged none of the {len(problems)} completions of a step")
            mean = sum(known) / len(known)
            passed = torch.tensor([mean if one is None else float(one) for one in found]).to(passed)
        if self.world > 1:
            torch.distributed.broadcast(passed, 0)
        return passed

    def _judged(self, scores: Tensor, passed: Tensor | None, ended: Tensor, lengths: Tensor) -> Tensor:
        """[rows] what a completion earns at its last token."""
        config = self.config
        if config.score_clip is not None:
            scores = scores.clamp(-config.score_clip, config.score_clip)
        if passed is not None:
            scores = equations.mixed_scores(scores, passed, config.execution_weight)
        return equations.penalised_scores(
            scores, ended, config.missing_end_penalty, lengths, config.length_penalty
        )

    @torch.no_grad()
    def _evaluate(self, sequences: Sequences) -> Tensor:
        """[rows, tokens, 5]: log-probability, the reference's, value, entropy, KL to the reference.

        Computed as the update computes them, not taken from the rollout, so that the first ratio is 1. Entropy and KL are
        those of the distributions before each token, not estimates from it.
        """
        rows = len(sequences.prompts)
        out = torch.zeros(rows, self.max_new_tokens, 5, device=self.accelerator.device)
        for chunk in sequences.lengths.argsort(stable=True).split(self.config.micro_batch):
            batch = sequences.take(chunk)
            logprobs, values, policy = self.model(batch, whole=True)
            reference = self._reference(batch)
            own = reference.gather(1, batch.ids.flatten()[batch.predicting() + 1][:, None]).squeeze(1)
            chances = policy.exp()
            entropy = -(chances * policy).sum(-1)
            kl = -entropy - (chances * reference).sum(-1)
            figures = torch.zeros(len(chunk), self.max_new_tokens, 5, device=out.device)
            mask = equations.completion_mask(batch.completions, self.max_new_tokens)
            figures[mask] = torch.stack([logprobs, own, values, entropy, kl], -1)
            out[chunk] = figures
        return out

    def _reference(self, batch: Sequences) -> Tensor:
        """[completion tokens, vocabulary] the reference's log-probabilities."""
        if self.reference is None:
            with self.adapters.disable_adapter():
                return self.model(batch, whole=True)[2]
        with self.accelerator.autocast():
            return completion_distribution(self.reference, batch, self.config.temperature)

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
                norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
                # Of all ranks' gradients, so that every rank ends: after a step with such a norm all weights are NaN.
                if norm is not None and not math.isfinite(norm):
                    figures = {
                        "policy_loss": policy_loss.item(),
                        "value_loss": value_loss.item(),
                        "grad_norm": float(norm),
                    }
                    health.check_finite(self.state.step + 1, figures, self.config.learning_rate)
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
        executed = {} if experience.passed is None else {"pass_rate": experience.passed.mean().item()}
        return executed | {
            "step": self.state.step + 1,
            "reward": experience.rewards.sum(1).mean().item(),
            "score": experience.scores.mean().item(),
            "kl": equations.masked_mean(experience.kl, mask).item(),
            "entropy": equations.masked_mean(experience.entropy, mask).item(),
            "kl_coefficient": self.state.kl_coefficient,
            "tokens": int(mask.sum()),
            "missing_end": 1 - experience.ended.float().mean().item(),
            "explained_variance": equations.explained_variance(
                experience.values, experience.returns, mask
            ).item(),
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
        if not all_sound(self.module):
            health.check_finite(self.state.step, {"weights": math.nan}, self.config.learning_rate)
        if self.checkpoints is not None:
            state = asdict(self.state)
            checkpoint.save(
                self.checkpoints,
                self.state.step,
                self.model,
                self.optimizer,
                state,
                self.accelerator,
                self.keep,
            )


def accumulation_steps(config: PPOConfig, world: int) -> int:
    """Micro batches per mini-batch in each of `world` processes."""
    return math.ceil(config.mini_batch / world / config.micro_batch)
