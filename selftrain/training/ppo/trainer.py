"""The PPO training loop: sample rollouts, score them, compare with the reference, update the policy.

A rollout batch is the same on every rank (see `experience`); each rank computes the gradient of its share of a mini-batch.
Accelerate wraps the model for a single process, DDP or DeepSpeed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from selftrain.models.weights import all_sound, unsharded_parameters
from selftrain.training.ppo import checkpoint, equations, health
from selftrain.training.ppo.experience import PROBE, Collector, Experience
from selftrain.training.ppo.model import PolicyWithValue
from selftrain.training.ppo.rollout import seeded
from selftrain.training.ppo.score import Reward
from selftrain.training.ppo.settings import Models, TrainerSettings
from selftrain.training.ppo.state import State, best_step

SAMPLED_STEPS, SAMPLED_ROWS = 8, 4
"""Number of steps from which completions are kept for people to read, and number of completions per such step."""


class Trainer:
    """Trains a policy to raise a score while a KL penalty keeps it near the reference.

    prompts        token ids, one list per problem
    accelerator    created with `accumulation_steps(config, world)` as its gradient accumulation steps
    probe_prompts  token ids of the probe's problems; their numbers for `reward.execute` start at len(prompts)
    on_step        called after each step with the step's row in `State.curve`
    on_best        called on every rank with the number of finished steps when a probe has a better pass rate than all before
    """

    def __init__(
        self,
        settings: TrainerSettings,
        models: Models,
        reward: Reward,
        prompts: Sequence[list[int]],
        accelerator: Any,
        probe_prompts: Sequence[list[int]] = (),
        on_step: Callable[[dict[str, float]], None] = lambda row: None,
        on_best: Callable[[int], None] = lambda step: None,
    ) -> None:
        config = settings.config
        self.config, self.seed, self.width = config, settings.seed, settings.max_new_tokens
        self.checkpoints, self.keep = settings.checkpoints, settings.keep
        self.prompts, self.probe_prompts = prompts, probe_prompts
        self.accelerator, self.on_step, self.on_best = accelerator, on_step, on_best
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.module = PolicyWithValue(
            models.policy, config.temperature, models.value_trunk, config.critic is not None
        )
        trained = [p for p in self.module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=config.learning_rate, eps=1e-5, weight_decay=0.0, fused=True
        )
        self.model, self.optimizer = accelerator.prepare(self.module, optimizer)
        self.module.vocabulary.attach(models.policy.get_output_embeddings())
        self.collector = Collector(
            settings, models, reward, [*prompts, *probe_prompts], len(prompts), self.model, accelerator
        )
        self.state = State(step=0, kl_coefficient=config.kl_coefficient)

    @property
    def policy(self) -> Any:
        """The causal language model, without value head and without accelerate's wrappers."""
        return self.module.policy

    def policy_weights(self) -> dict[str, Tensor]:
        """The policy's unsharded parameters by name on rank 0, {} on other ranks. Every rank must call this."""
        main = self.accelerator.is_main_process
        return {name: value.clone() for name, value in unsharded_parameters(self.policy) if main}

    def run(self) -> State:
        """Resume from the newest checkpoint, if there is one, and run the remaining steps."""
        if self.checkpoints is not None:
            state = checkpoint.resume(self.checkpoints, self.model, self.optimizer, self.accelerator)
            self.state = State(**state) if state else self.state
        while self.state.step < self.config.steps:
            self.step()
            self.on_step(self.state.curve[-1])
            if self.state.step % self.config.checkpoint_steps == 0 or self.state.step == self.config.steps:
                self._save()
        return self.state

    def step(self) -> None:
        """Collect one rollout batch and update the model on it.

        Probes, where there are any, run before the first step, after every `probe_steps` steps and after the last step.

        Raises UsageError where a metric is not finite or violates its bound in `ppo.health`.
        """
        if self.probe_prompts and not self.state.probes:
            self.probe()
        experience = self.experience()
        figures = self._figures(experience)
        health.check_finite(self.state.step + 1, figures, self.config.learning_rate)
        with self.state.timed("update"):
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
        """Measure the policy on the probe's problems, which it is not trained on, and append the metrics to `state.probes`."""
        rows = list(range(len(self.prompts), len(self.prompts) + len(self.probe_prompts)))
        # All probes use the same random draws, so that only the policy differs between probes.
        completions, scores = self.collector.sample(rows, self.state, PROBE)
        passed = self.collector.execute(rows, completions, self.state)
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

    def experience(self) -> Experience:
        """Collect the next step's rollout batch; it is the same on every rank."""
        return self.collector.collect(self.state)

    # Update

    def update(self, experience: Experience) -> dict[str, float]:
        """Make `epochs` passes over the rollout batch in mini-batches; returns mean losses and clip fraction over all tokens."""
        lengths, completions = experience.sequences.lengths, experience.sequences.completions
        sums = torch.zeros(4, device=self.accelerator.device)  # tokens, policy loss, value loss, clipped
        for epoch in range(self.config.epochs):
            generator = seeded("epoch", self.seed, self.state.step, epoch)
            order = torch.randperm(self.config.rollout_batch, generator=generator).to(lengths.device)
            for mini in order.split(self.config.mini_batch):
                tokens = completions[mini].sum()
                weights = equations.token_weights(self.config.loss_type, completions, mini, self.width)
                # Deal the rows out to the ranks by length: the ranks have equal work, and micro batches have little padding.
                own = mini[lengths[mini].argsort(stable=True)][self.rank :: self.world]
                for micro in own.split(self.config.micro_batch):
                    sums += self._accumulate(experience, micro, tokens, weights)
        tokens, policy_loss, value_loss, clipped = self.accelerator.reduce(sums, "sum").tolist()
        of_values = {} if self.config.critic is None else {"value_loss": value_loss / tokens}
        return {"policy_loss": policy_loss / tokens, **of_values, "clip_fraction": clipped / tokens}

    def _accumulate(self, experience: Experience, rows: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
        """Accumulate the gradient of a micro batch; the last micro batch of a mini-batch also makes the optimizer step.

        rows     [n] row numbers of the micro batch
        tokens   [] number of completion tokens of the whole mini-batch
        weights  weights of all rows' tokens, see `losses`

        Returns [4], sums over `rows`: tokens, policy loss, value loss, clipped tokens.
        """
        with self.accelerator.accumulate(self.model):
            policy_loss, value_loss, clipped = self.losses(experience, rows, weights)
            loss = policy_loss + self.config.value_coefficient * value_loss
            # The mean over the mini-batch's tokens. The gradient is divided by the number of ranks and the number of
            # accumulation steps, so the loss is multiplied by both.
            self.accelerator.backward(
                loss / tokens * self.world * self.accelerator.gradient_accumulation_steps
            )
            if self.accelerator.sync_gradients:
                norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
                # A step with a NaN or infinite norm would make all weights NaN. All ranks see the same norm, so all raise.
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

    def losses(
        self, experience: Experience, rows: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Policy loss, value loss and number of clipped tokens, [] each: sums over the tokens of the rows `rows` [n].

        weights  [all rows] by which the losses of a row's tokens are multiplied (`equations.token_weights`); None: 1

        Without a value head the value loss is 0.
        """
        config, mask = self.config, experience.mask[rows]
        each = torch.ones_like(experience.scores) if weights is None else weights
        each = each[rows].repeat_interleave(experience.sequences.completions[rows])
        logprobs, values, _ = self.model(experience.sequences.take(rows))
        policy_losses, clipped = equations.clipped_policy_loss(
            logprobs, experience.logprobs[rows][mask], experience.advantages[rows][mask], config.clip
        )
        policy_loss = (policy_losses * each).sum()
        if values is None or experience.values is None or experience.returns is None:
            return policy_loss, torch.zeros_like(policy_loss), clipped.sum()
        unit = equations.value_scale(experience.returns, experience.mask)
        value_losses = equations.clipped_value_loss(
            values / unit,
            experience.values[rows][mask] / unit,
            experience.returns[rows][mask] / unit,
            config.value_clip,
        )
        return policy_loss, (value_losses * each).sum(), clipped.sum()

    # Bookkeeping

    def _figures(self, experience: Experience) -> dict[str, float]:
        mask = experience.mask
        more = {} if experience.passed is None else {"pass_rate": experience.passed.mean().item()}
        if experience.values is not None and experience.returns is not None:
            explained = equations.explained_variance(experience.values, experience.returns, mask)
            more["explained_variance"] = explained.item()
        else:
            grouped = experience.earned.view(-1, self.config.group)
            equal = equations.equal_groups(experience.earned, self.config.group)
            more["reward_std"] = grouped.std(1).mean().item()
            more["frac_reward_zero_std"] = equal.float().mean().item()
        return more | {
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
        for row in range(0, self.config.rollout_batch, self.config.per_prompt)[:SAMPLED_ROWS]:
            ids = sequences.ids[row, : sequences.lengths[row]].tolist()
            split = int(sequences.prompts[row])
            self.state.samples.append(
                {
                    "step": self.state.step + 1,
                    "prompt": ids[:split],
                    "completion": ids[split:],
                    "score": experience.scores[row].item(),
                    "ended": bool(experience.ended[row]),
                }
            )

    def _save(self) -> None:
        if not all_sound(self.module):
            health.check_finite(self.state.step, {"weights": math.nan}, self.config.learning_rate)
        if self.checkpoints is not None:
            state, step = asdict(self.state), self.state.step
            checkpoint.save(
                self.checkpoints, step, self.model, self.optimizer, state, self.accelerator, self.keep
            )
