"""Stage C: trains the SFT policy against the reranker with PPO; the result is a policy in the same layout.

Run as a child process: `python -m selftrain.training.ppo resolved.json`, or under torchrun. The method is in
`selftrain.ppo`.
"""

import json
from typing import Any

from accelerate import Accelerator, DeepSpeedPlugin, DistributedType, InitProcessGroupKwargs

from selftrain.config import RuntimeConfig
from selftrain.errors import DataError, UsageError
from selftrain.launch import Child, child_main, report_progress
from selftrain.models import digest_weights, encode_prompt, load_classifier, load_generator, load_tokenizer
from selftrain.ppo.model import check_head
from selftrain.ppo.score import RerankerScore
from selftrain.ppo.trainer import State, Trainer, accumulation_steps, check_batches
from selftrain.records import Problem, read_records
from selftrain.stage import Outcome
from selftrain.stages.ppo import PPOSlice


def train(child: Child) -> Outcome:
    """Train, and write the policy, its tokenizer and a table of samples into the child's folder."""
    config = PPOSlice.model_validate(child.config)
    runtime = RuntimeConfig.model_validate(child.runtime)
    world = runtime.processes * runtime.nodes
    check_batches(config.ppo, world)
    generator, reranker = child.inputs["generator"], child.inputs["reranker"]
    tokenizer = load_tokenizer(generator)
    if load_tokenizer(reranker).get_vocab() != tokenizer.get_vocab():
        raise UsageError(
            f"the tokenizers of {generator} and {reranker} differ; PPO hands token ids from one to the other"
        )
    policy, judge = load_generator(generator), load_classifier(reranker)
    problems = [
        p for p in read_records(child.inputs["problems"] / "problems.parquet", Problem) if p.split == "rl"
    ]
    longest = min(m.config.max_position_embeddings for m in (policy, judge)) - config.max_new_tokens
    encoded = [encode_prompt(tokenizer, p.prompt) for p in problems]
    prompts = [ids for ids in encoded if 0 < len(ids) <= longest]
    if not prompts:
        raise DataError(
            f"none of the {len(problems)} problems of the rl split has a prompt of 1 to {longest} tokens (the models' "
            f"longest input less max_new_tokens={config.max_new_tokens}); PPO needs prompts to sample from"
        )
    check_head(policy, prompts[0])
    accelerator = _accelerator(config, runtime, world)
    trainer = Trainer(
        config.ppo,
        config.seed,
        config.max_new_tokens,
        policy,
        load_generator(generator),
        RerankerScore(judge.to(accelerator.device), config.ppo.micro_batch),
        prompts,
        tokenizer.eos_token_id,
        accelerator,
        child.private / "checkpoints",
        lambda row: report_progress(
            row["step"], config.ppo.steps, "steps", **{name: row[name] for name in ("score", "kl", "entropy")}
        ),
    )
    state = trainer.run()
    weights = trainer.policy_weights()
    outcome = Outcome("", {})
    if accelerator.is_main_process:
        trainer.policy.save_pretrained(child.folder, state_dict=weights)
        tokenizer.save_pretrained(child.folder)
        (child.folder / "samples.json").write_text(
            json.dumps(_samples(state, tokenizer), indent=1, ensure_ascii=False)
        )
        outcome = Outcome(
            digest_weights(child.folder), _metrics(state, len(prompts), len(problems) - len(prompts))
        )
    accelerator.end_training()
    return outcome


def _accelerator(config: PPOSlice, runtime: RuntimeConfig, world: int) -> Accelerator:
    cpu = runtime.device == "cpu"
    plugin = None
    if runtime.deepspeed:
        plugin = DeepSpeedPlugin(hf_ds_config=runtime.deepspeed)
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.ppo.micro_batch
        if plugin.zero_stage == 3:
            raise UsageError(
                f"{runtime.deepspeed}: ZeRO stage 3 shards the weights, and PPO's rollouts need them whole in each "
                "process; use stage 1 or 2"
            )
    accelerator = Accelerator(
        cpu=cpu
        and plugin is None,  # accelerate's `cpu` passes DeepSpeed over, and without it takes no CPU backend
        mixed_precision="no" if cpu else "bf16",
        gradient_accumulation_steps=accumulation_steps(config.ppo, world),
        deepspeed_plugin=plugin,
        kwargs_handlers=[InitProcessGroupKwargs(backend="gloo")] if cpu and plugin is not None else [],
    )
    if plugin is not None and accelerator.distributed_type != DistributedType.DEEPSPEED:
        raise UsageError(
            f"runtime.deepspeed is set, but accelerate chose {accelerator.distributed_type.value}; "
            "unset ACCELERATE_USE_CPU, or set runtime.deepspeed to null"
        )
    return accelerator


def _samples(state: State, tokenizer: Any) -> list[dict[str, Any]]:
    return [
        {**row, "prompt": tokenizer.decode(row["prompt"]), "completion": tokenizer.decode(row["completion"])}
        for row in state.samples
    ]


def _metrics(state: State, prompts: int, too_long: int) -> dict[str, Any]:
    first, last = state.curve[0], state.curve[-1]
    return {
        "prompts": prompts,
        "too_long": too_long,
        "steps": state.step,
        "score_first": first["score"],
        "score": last["score"],
        "kl": last["kl"],
        "entropy": last["entropy"],
        "curve": state.curve,
        "seconds": state.seconds,
    }


if __name__ == "__main__":
    child_main(train)
