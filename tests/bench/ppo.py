"""Benchmark: PPO samples per CPU second, this project's trainer against TRL 1.12's PPOTrainer.

Both have the same models, batches, lengths and epochs. TRL 1.12 is installed into a separate folder (pip, without
dependencies), and both run in one child process on one thread. There are two policies of the demo's size: one after half a
minute of SFT, most of whose completions end early, and one with random weights, whose completions all have the full length.
TRL's value model is always a separate network; this project's trainer is measured with a shared and with a separate one.
"""

import contextlib
import io
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from selftrain.config import BankConfig, PPOConfig
from selftrain.models.models import encode_prompt, load_classifier, load_generator, make_tiny
from selftrain.problems.read import read_problems
from tests.bench.sft import MODEL, corpus, train

VERSION = "1.12.0"
REPEATS, NEW_TOKENS = 3, 64
SETTINGS = PPOConfig(rollout_batch=128, mini_batch=32, micro_batch=32, learning_rate=1e-7)
"""The learning rate is next to nothing, so that the last turn's completions are as long as the first one's."""


def main() -> None:
    """Install TRL 1.12 and measure in a process that imports that one."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            folder,
            f"trl=={VERSION}",
        ]
        if subprocess.run(pip, check=False).returncode:
            print(f"trl {VERSION} cannot be installed here: nothing to compare with")
            return
        subprocess.run([sys.executable, "-m", "tests.bench.ppo", folder], check=True)


def measure() -> None:
    """Measure and print; turns are taken, so that what else the machine does hits all alike."""
    warnings.simplefilter("ignore")  # of what TRL 1.12 uses that is deprecated by now
    torch.set_num_threads(1)
    sizes = {"sft": 2000, "rl": 1, "validation": 1, "test": 1}
    problems = [p for p in read_problems(BankConfig(sizes=sizes)) if p.split == "sft"]
    rows, tokenizer = corpus(problems)
    prompts = [encode_prompt(tokenizer, p.prompt) for p in problems]
    torch.manual_seed(1)
    policy = make_tiny(MODEL, tokenizer)
    compare("random weights", policy, tokenizer, prompts)
    batches = [rows[at : at + 64] for at in range(0, len(rows) - 63, 64)]
    train(policy, batches * 5)
    compare("after SFT", policy, tokenizer, prompts)


def compare(name: str, policy: Any, tokenizer: Any, prompts: list[list[int]]) -> None:
    """Measure and print one policy."""
    ours, shared = _ours(policy, tokenizer, prompts, separate=False)
    turns: dict[str, Callable[[], None]] = {
        f"trl {VERSION}": _trl(policy, tokenizer, prompts),
        "ours, shared trunk": ours,
        "ours, value model": _ours(policy, tokenizer, prompts, separate=True)[0],
    }
    best = dict.fromkeys(turns, float("inf"))
    for _ in range(REPEATS):
        for turn, step in turns.items():
            started = time.process_time()
            step()
            best[turn] = min(best[turn], time.process_time() - started)
    tokens = shared.state.curve[-1]["tokens"] / SETTINGS.rollout_batch
    print(
        f"{name}: {SETTINGS.rollout_batch} samples of up to {NEW_TOKENS} tokens, {tokens:.0f} on average, mini-batches of "
        f"{SETTINGS.mini_batch}, {SETTINGS.epochs} epochs, best of {REPEATS}"
    )
    theirs = best[f"trl {VERSION}"]
    for turn, seconds in best.items():
        print(
            f"  {turn:<19} {SETTINGS.rollout_batch / seconds:>7.1f} samples/CPU s  {theirs / seconds:.2f} x trl"
        )
    for phase, seconds in shared.state.seconds.items():
        print(f"    {phase:<10} {seconds / shared.state.step:.2f} s a step")


def _copies(policy: Any) -> tuple[Any, Any, Any, Any]:
    """Policy, reference, value model and reward model of one start."""
    with tempfile.TemporaryDirectory() as folder:
        policy.save_pretrained(folder)
        return (
            load_generator(folder),
            load_generator(folder),
            load_classifier(folder, fresh_head=True),
            load_classifier(folder, fresh_head=True),
        )


def _ours(
    policy: Any, tokenizer: Any, prompts: list[list[int]], separate: bool
) -> tuple[Callable[[], None], Any]:
    from accelerate import Accelerator

    from selftrain.training.ppo.score import RerankerScore, Reward
    from selftrain.training.ppo.settings import Models, TrainerSettings
    from selftrain.training.ppo.trainer import Trainer

    model, reference, value, reward = _copies(policy)
    trainer = Trainer(
        TrainerSettings(SETTINGS, 1, NEW_TOKENS, (tokenizer.eos_token_id,)),
        Models(model, reference, value_trunk=value.model if separate else None),
        Reward(RerankerScore(reward, SETTINGS.micro_batch)),
        prompts,
        Accelerator(cpu=True),
    )
    return trainer.step, trainer


def _trl(policy: Any, tokenizer: Any, prompts: list[list[int]]) -> Callable[[], None]:
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig as TrlConfig
    from trl.experimental.ppo import PPOTrainer

    from tests.selftrain.training.ppo.trl_reference import PLAIN

    model, reference, value, reward = _copies(policy)
    tokenizer.padding_side = "left"
    batch = SETTINGS.rollout_batch
    trainer = PPOTrainer(
        args=TrlConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch,
            total_episodes=batch,
            num_mini_batches=batch // SETTINGS.mini_batch,
            num_ppo_epochs=SETTINGS.epochs,
            local_rollout_forward_batch_size=batch,
            response_length=NEW_TOKENS,
            temperature=SETTINGS.temperature,
            missing_eos_penalty=SETTINGS.missing_end_penalty,
            learning_rate=SETTINGS.learning_rate,
            **PLAIN,
        ),
        processing_class=tokenizer,
        model=model,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in prompts]),
    )

    def step() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()

    return step


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    measure()
