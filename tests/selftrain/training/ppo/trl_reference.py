"""Writes trl_reference.json: what TRL 1.12's PPOTrainer computes on fixed batches of a model of 600 parameters.

    pip install --no-deps --target DIR trl==1.12.0
    python -m tests.selftrain.training.ppo.trl_reference DIR

This file contains no formula: it runs TRL's own train() and reads its local variables from the stack frame at each call of
backward(). The value model shares the policy's trunk, and the optimizer has the epsilon of this project.
"""

import json
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

OUTPUT = Path(__file__).with_name("trl_reference.json")
VOCABULARY, END, PAD = 12, 1, 0
NO_END = VOCABULARY
"""An end token that the model does not have, so that every completion has the full length."""
ARCHITECTURE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
    "initializer_range": 0.4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": PAD,
}
PROMPTS = [[5, 6, 7], [3], [8, 9, 2, 4], [10, 11], [4, 4], [2, 3, 5, 7], [6], [9, 8, 7]]
CASES: dict[str, dict[str, Any]] = {
    "full": {"seed": 2, "end": NO_END, "kl_estimator": "k1", "gamma": 0.99, "lam": 0.9, "whiten_rewards": False},
    "whitened": {"seed": 2, "end": NO_END, "kl_estimator": "k3", "gamma": 1.0, "lam": 0.95, "whiten_rewards": True},
    "ended": {"seed": 32, "end": END, "kl_estimator": "k1", "gamma": 1.0, "lam": 1.0, "whiten_rewards": False},
    "ended, lambda below 1": {
        "seed": 32, "end": END, "kl_estimator": "k3", "gamma": 0.99, "lam": 0.9, "whiten_rewards": False
    },
}  # fmt: skip
WIDTH, EPOCHS = 6, 3
SHARED = {
    "temperature": 0.9,
    "kl_coef": 0.1,
    "missing_eos_penalty": 0.25,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "vf_coef": 0.1,
    "learning_rate": 2e-2,
}


PLAIN: dict[str, Any] = {
    "num_sample_generations": 0,
    "stop_token": "eos",
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
"""Of TRL's arguments: float32 on CPU, and nothing beside the training."""


def models() -> dict[str, Any]:
    """Policy, a reference near it, a value head on the policy's trunk, and a reward model."""
    torch.manual_seed(0)
    config = LlamaConfig(**ARCHITECTURE)
    policy = LlamaForCausalLM(config)
    reference = LlamaForCausalLM(config)
    reference.load_state_dict(policy.state_dict())
    with torch.no_grad():
        reference.model.norm.weight.mul_(1 + 0.3 * torch.randn(config.hidden_size))
    value = LlamaForSequenceClassification(LlamaConfig(**ARCHITECTURE, num_labels=1))
    value.model = policy.model
    reward = LlamaForSequenceClassification(LlamaConfig(**ARCHITECTURE, num_labels=1))
    with torch.no_grad():
        value.score.weight.mul_(0.3)
        reward.score.weight.mul_(0.5)
    return {"policy": policy, "reference": reference, "value": value, "reward": reward}


def run(case: dict[str, Any]) -> dict[str, Any]:
    """One update of TRL's trainer: inputs, what it made of them, and each epoch's losses."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    made = models()
    policy, value, reward = made["policy"], made["value"], made["reward"]
    words = {str(i): i for i in range(VOCABULARY + 1)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="2")),
        pad_token=str(PAD),
        eos_token=str(case["end"]),
        padding_side="left",
    )
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=len(PROMPTS),
            total_episodes=len(PROMPTS),
            num_mini_batches=1,
            num_ppo_epochs=EPOCHS,
            response_length=WIDTH,
            adam_epsilon=1e-5,
            weight_decay=0.0,
            lr_scheduler_type="constant",
            **PLAIN,
            **SHARED,
            **{name: case[name] for name in ("seed", "kl_estimator", "gamma", "lam", "whiten_rewards")},
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=made["reference"],
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in PROMPTS]),
    )
    scores: list[Tensor] = []  # train() takes the penalty off them in place
    get_reward, backward = ppo_trainer.get_reward, trainer.accelerator.backward

    def rewarding(model: Any, *args: Any) -> Any:
        out = get_reward(model, *args)
        if model is reward:
            scores.append(out[1].clone())
        return out

    frames: list[dict[str, Any]] = []

    def looking(loss: Tensor) -> None:
        frame: FrameType = sys._getframe(1)
        frames.append({name: _copy(value) for name, value in frame.f_locals.items()})
        backward(loss)

    ppo_trainer.get_reward = rewarding
    trainer.accelerator.backward = looking
    try:
        trainer.train()
    finally:
        ppo_trainer.get_reward = get_reward
    first = frames[0]
    queries, responses = first["queries"], first["responses"]
    lengths = first["sequence_lengths"] + 1
    completions = [row[:n] for row, n in zip(responses.tolist(), lengths.tolist(), strict=True)]
    whole = [case["end"] in row or len(row) == WIDTH for row in completions]
    assert all(whole), "a sampled pad token ends a completion in TRL: take another seed"
    return {
        "settings": {**SHARED, **case},
        "prompts": [[i for i in row if i != PAD] for row in queries.tolist()],
        "completions": completions,
        "scores": torch.cat(scores).tolist(),
        **{name: first[name].tolist() for name in ("logprobs", "ref_logprobs", "values", "kl", "rewards")},
        **{name: first[name].tolist() for name in ("advantages", "returns")},
        "epochs": [
            {
                "rows": frame["micro_batch_inds"].tolist(),
                **{name: frame[name].tolist() for name in ("new_logprobs", "vpred", "vf_loss_max")},
                **{name: frame[name].tolist() for name in ("pg_loss", "vf_loss", "loss")},
            }
            for frame in frames
        ],
        "trained": _weights(policy),
        "trained_value_head": value.score.weight.tolist(),
    }


def main() -> None:
    """Run every case and write the file."""
    sys.path.insert(0, sys.argv[1])
    import trl

    assert trl.__version__.startswith("1.12."), f"expected trl 1.12 in {sys.argv[1]}, found {trl.__version__}"
    torch.set_num_threads(1)
    made = models()
    content = {
        "trl": trl.__version__,
        "architecture": ARCHITECTURE,
        "policy": _weights(made["policy"]),
        "reference": _weights(made["reference"]),
        "value_head": made["value"].score.weight.tolist(),
        "cases": {name: run(case) for name, case in CASES.items()},
    }
    OUTPUT.write_text(json.dumps(_rounded(content), separators=(",", ":")) + "\n")
    print(f"{OUTPUT}: {OUTPUT.stat().st_size:,} bytes")


def _weights(model: Any) -> dict[str, Any]:
    return {name: weight.tolist() for name, weight in model.state_dict().items() if name != "lm_head.weight"}


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _rounded(value: Any) -> Any:
    """Floats cut to nine digits, which name a float32 exactly."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
