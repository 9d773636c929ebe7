"""Runs PPO on the toy model, alone or as a rank of torchrun: `python -m tests.selftrain.training.ppo.ranks OUT ALGORITHM [DEEPSPEED.json]`.

Writes the tokens of a live first rollout, and the curve of 20 updates on stored rollouts, both as rank 0 sees them.
"""

import json
import os
import sys
from pathlib import Path

import torch

from selftrain.config import PPOConfig, RuntimeConfig
from selftrain.launch.launch import keep_until_exit
from selftrain.launch.ranks import world_size
from selftrain.models import footprint
from selftrain.sampling.stopping import Stopping
from selftrain.stages.ppo import PPOSlice
from selftrain.training.ppo.rollout import FromUnshardedCopy, seeded
from selftrain.training.ppo.score import Reward
from selftrain.training.ppo.settings import Models, TrainerSettings
from selftrain.training.ppo.train import _accelerator
from selftrain.training.ppo.trainer import Trainer
from tests.selftrain.training.ppo.tiny import END, VOCABULARY, make_model

WIDTH = 8
PROMPTS = [[i, j] for i in range(2, 10) for j in range(2, 10)]
SETTINGS = PPOConfig(
    steps=5, rollout_batch=16, mini_batch=8, micro_batch=4, epochs=2, learning_rate=1e-3, kl_coefficient=0.1,
    max_grad_norm=0.5,
)  # fmt: skip


class Stored:
    """Fixed rollouts: a completion depends only on the prompt, the step and the row's first random number."""

    def refresh(self, weights):
        pass

    def __call__(self, prompts, uniforms, place, stops):
        rows = []
        for prompt, first in zip(prompts, uniforms[:, 0].tolist(), strict=True):
            generator = seeded("stored", place.rpartition("/")[0], *prompt, str(first))
            length = int(torch.randint(1, WIDTH + 1, (1,), generator=generator))
            rows.append(torch.randint(2, VOCABULARY, (length,), generator=generator).tolist())
            if length < WIDTH:
                rows[-1].append(END)
        return rows


def score(prompts, completions):
    """[rows] share of even tokens."""
    return torch.tensor([sum(t % 2 == 0 for t in row) / len(row) for row in completions])


def main() -> None:
    """Run, and write from rank 0."""
    out, deepspeed = Path(sys.argv[1]), sys.argv[3] if len(sys.argv) > 3 else None
    settings = SETTINGS.model_copy(update={"algorithm": sys.argv[2], "group": 4})
    world = world_size()
    torch.set_num_threads(1)
    footprint.LOGIT_BYTES = 4 * VOCABULARY * 5  # ranks compute their logits in different numbers of chunks
    policy, reference, whole = make_model(), make_model(), make_model()
    runtime = RuntimeConfig(processes=world, deepspeed=deepspeed)
    accelerator = _accelerator(PPOSlice(seed=1, ppo=settings, max_new_tokens=WIDTH), runtime, world)
    models = Models(policy, reference, rollouts=FromUnshardedCopy(whole, 1.0, Stopping(None, (END,))))
    trainer = Trainer(
        TrainerSettings(settings, 1, WIDTH, (END,)), models, Reward(score), PROMPTS, accelerator
    )
    live = trainer.experience().sequences.ids.tolist()
    trainer.collector.rollouts = Stored()
    curve = trainer.run().curve
    keep_until_exit(trainer.model)
    weights = trainer.policy_weights()
    if accelerator.is_main_process:
        total = sum(float(value.double().abs().sum()) for value in weights.values())
        out.write_text(json.dumps({"live": live, "curve": curve, "weights": total}))
    os._exit(0)  # as a stage's child ends: see `selftrain.launch.launch.keep_until_exit`


if __name__ == "__main__":
    main()
