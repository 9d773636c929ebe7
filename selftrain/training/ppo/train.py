"""Stage C: trains a policy against the reranker with PPO, GRPO or RLOO; the result is a checkpoint in the same format.

This module loads the inputs and creates the trainer of `selftrain.training.ppo.trainer`.
Run as a child process, also under a launcher: `python -m selftrain.training.ppo.train resolved.json`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin, DistributedType, InitProcessGroupKwargs
from transformers.integrations import unset_hf_deepspeed_config

from selftrain.config import LoraConfig, PPOConfig, RuntimeConfig, SampleConfig
from selftrain.errors import DataError, UsageError
from selftrain.launch.launch import Child, child_main, keep_until_exit, parent_request, report_progress
from selftrain.models import lora
from selftrain.models.context import fits
from selftrain.models.deepspeed_ops import build_operators
from selftrain.models.footprint import world
from selftrain.models.models import (
    context_of,
    decode_completion,
    end_ids,
    load_classifier,
    load_generator,
    load_tokenizer,
)
from selftrain.models.precision import compute_as_trained, narrowed
from selftrain.models.prompts import encode_problem
from selftrain.models.weights import digest_weights
from selftrain.models.zero import zero_of
from selftrain.records import Execution, Problem, read_records
from selftrain.sampling.stopping import Stopping, stop_texts
from selftrain.stage import Outcome
from selftrain.stages.ppo import PPOSlice
from selftrain.training.ppo.export import Export, write_samples
from selftrain.training.ppo.model import check_head
from selftrain.training.ppo.rollout import FromEngine, FromUnshardedCopy, Rollouts
from selftrain.training.ppo.score import Execute, RerankerScore, Reward
from selftrain.training.ppo.settings import Models, TrainerSettings, accumulation_steps, check_batches
from selftrain.training.ppo.state import State
from selftrain.training.ppo.trainer import Trainer
from selftrain.training.ppo.translate import translation
from selftrain.units import none_of


def train(child: Child) -> Outcome:
    """Train the policy, and write it, its tokenizer and samples.json into the child's folder."""
    config = PPOSlice.model_validate(child.config)
    settings, runtime = config.ppo, child.runtime
    check_batches(settings, world(runtime))
    generator, reranker = child.inputs["generator"], child.inputs["reranker"]
    tokenizer = load_tokenizer(generator)
    stopping = Stopping(tokenizer, ends := end_ids(tokenizer, generator))
    models, judge, copy = _load(config, child)
    prompts = _prompts(child, config, tokenizer, (models.policy.config, judge.config))
    check_head(models.policy, prompts.trained[0])
    if settings.lora:
        models, copy = _with_adapters(models, copy, settings.lora)
    if runtime.recomputes:
        _recompute(models)
    translate = translation(tokenizer, ends, reranker, judge.config, prompts.problems)
    accelerator = _accelerator(config, runtime, world(runtime))
    export = Export(child, config, models.policy, tokenizer, accelerator.is_main_process)
    score = RerankerScore(judge.to(accelerator.device), settings.micro_batch, translate)
    trainer = Trainer(
        TrainerSettings(
            config=settings,
            seed=config.seed,
            max_new_tokens=config.max_new_tokens,
            ends=ends,
            checkpoints=child.private / "checkpoints",
            keep=runtime.keep_checkpoints,
            tokenizer=tokenizer,
            stops=[stop_texts(tokenizer, problem) for problem in prompts.problems],
        ),
        replace(models, rollouts=_rollouts(config, child, copy, stopping, accelerator, export)),
        Reward(score, _execute(child, tokenizer, prompts.problems, ends)),
        prompts.trained,
        accelerator,
        probe_prompts=prompts.probed,
        on_step=Progress(settings.steps),
        on_best=lambda step: export.keep(step, trainer.policy_weights()) if settings.keep_best else None,
    )
    state = trainer.run()
    keep_until_exit(trainer.model)
    # Every rank must call this: under ZeRO stage 3 the ranks gather the weights together.
    weights = trainer.policy_weights()
    if not accelerator.is_main_process:
        return Outcome("", {})
    kept = export.write(state, weights)
    write_samples(state, tokenizer, ends, child.folder)
    return Outcome(digest_weights(child.folder), _metrics(state, prompts) | kept)


def _load(config: PPOSlice, child: Child) -> tuple[Models, Any, Any]:
    """The models to train, the reranker, and a copy of the policy for rollouts (under ZeRO stage 3; else None).

    Call this before `_accelerator`: under ZeRO stage 3, models that are loaded later are sharded.
    """
    generator, settings = child.inputs["generator"], config.ppo
    start = child.inputs.get("start", generator)
    frozen = {"dtype": torch.bfloat16} if child.runtime.device == "cuda" else {}
    torch.manual_seed(config.seed)
    policy = load_generator(start)
    judge = load_classifier(child.inputs["reranker"])
    judge = narrowed(judge) if frozen else compute_as_trained(judge)
    copy = load_generator(start, **frozen) if zero_of(child.runtime).stage == 3 else None
    trunk = load_generator(start).base_model if settings.critic == "separate" else None
    reference = None if settings.lora and start == generator else load_generator(generator, **frozen)
    return Models(policy, reference, value_trunk=trunk), judge, copy


def _with_adapters(models: Models, copy: Any, settings: LoraConfig) -> tuple[Models, Any]:
    """`models` and `copy` with adapters added to the policy and to its copy for rollouts."""
    adapters = lora.add(models.policy, settings)
    copy = copy and lora.add(copy, settings).get_base_model()
    return replace(models, policy=adapters.get_base_model(), adapters=adapters), copy


def _recompute(models: Models) -> None:
    """Turn on activation checkpointing in the trained models, which then recompute activations in the backward pass."""
    for model in filter(None, (models.policy, models.value_trunk)):
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()


@dataclass(frozen=True)
class Prompts:
    """Token ids of the prompts that fit into the policy and the reranker (`models.fits`).

    trained   prompts of the rl split
    probed    prompts of the validation split, `ppo.probe` of them
    problems  the problems of `trained`, then those of `probed`
    too_long  number of problems of the rl split whose prompts do not fit
    unmixed   number of problems of the rl split that `ppo.problems: mixed` leaves out
    """

    trained: list[list[int]]
    probed: list[list[int]]
    problems: list[Problem]
    too_long: int
    unmixed: int = 0


def _prompts(child: Child, config: PPOSlice, tokenizer: Any, models: Sequence[Any]) -> Prompts:
    """Select and encode the prompts to train on and to probe with.

    models  transformers configs of the models that read prompt + completion

    Raises DataError where no prompt of the rl split is left or fits, UsageError where fewer than `ppo.probe` validation prompts fit.
    """
    every = read_records(child.inputs["problems"] / "problems.parquet", Problem)
    problems = _mixed(child, every) if config.ppo.problems == "mixed" else every
    contexts = [found for model in models if (found := context_of(model)) is not None]
    context, new = min(contexts, default=None), config.max_new_tokens
    trained, too_long = _fitting(tokenizer, problems, "rl", context, new)
    if not trained:
        raise DataError(
            f"{none_of(too_long, 'problem')} of the rl split has a prompt that fits: it needs 1 token at least, and room for "
            f"sample.max_new_tokens={new} more in the models' longest input of {context} tokens; lower"
            " sample.max_new_tokens"
        )
    count = config.ppo.probe
    probed = _fitting(tokenizer, problems, "validation", context, new)[0] if count else []
    if len(probed) < count:
        raise UsageError(
            f"ppo.probe is {count}, but the validation split has {len(probed)} problems with a prompt that fits; "
            "lower ppo.probe, or add validation problems"
        )
    probed = probed[:count]
    chosen = [problem for problem, _ in (*trained, *probed)]
    unmixed = len(every) - len(problems)
    return Prompts([ids for _, ids in trained], [ids for _, ids in probed], chosen, too_long, unmixed)


def _mixed(child: Child, problems: Sequence[Problem]) -> list[Problem]:
    """`problems` without those of the rl split whose samples all failed, all passed, or have no verdict. Raises DataError where the
    rl split has no other."""
    outcomes: dict[str, set[bool]] = {}
    for row in read_records(child.inputs["executions"] / "executions.parquet", Execution):
        if row.verdict.is_label:
            outcomes.setdefault(row.problem_id, set()).add(row.passed)
    kept = [p for p in problems if p.split != "rl" or len(outcomes.get(p.id, ())) == 2]
    if not any(problem.split == "rl" for problem in kept):
        raise DataError(
            "ppo.problems is mixed, and no problem of the rl split has both passing and failing samples: set it to all, or draw "
            "more samples (sample.rl)"
        )
    return kept


def _fitting(
    tokenizer: Any, problems: Sequence[Problem], split: str, context: int | None, new: int
) -> tuple[list[tuple[Problem, list[int]]], int]:
    """The split's problems whose prompts fit, each with its prompt's token ids, and the number of problems that do not fit."""
    chosen = [problem for problem in problems if problem.split == split]
    encoded = [(problem, encode_problem(tokenizer, problem.prompt, problem.language)) for problem in chosen]
    kept = [(problem, ids) for problem, ids in encoded if fits(len(ids), context, new)]
    return kept, len(chosen) - len(kept)


def _execute(child: Child, tokenizer: Any, problems: Sequence[Problem], ends: Sequence[int]) -> Execute:
    """A function that asks the parent process to execute completions of `problems`, which it gets by their numbers."""

    def execute(numbers: Sequence[int], completions: Sequence[list[int]]) -> list[bool | None]:
        asked = [
            [problems[number].id, decode_completion(tokenizer, ids, ends)]
            for number, ids in zip(numbers, completions, strict=True)
        ]
        passed: list[bool | None] = parent_request(child, asked)
        return passed

    return execute


class Progress:
    """Reports each training step to the parent process."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.last = time.monotonic()

    def __call__(self, row: dict[str, float]) -> None:
        """Report the metrics of a step; `row`: the step's row in `State.curve`."""
        now = time.monotonic()
        shown = ("score", "pass_rate", "kl", "entropy", "policy_loss")
        figures = {name: row[name] for name in shown if name in row}
        rate = row["tokens"] / max(now - self.last, 1e-9)
        self.last = now
        report_progress(row["step"], self.steps, "steps", **figures, tokens_per_second=rate)


def _rollouts(
    config: PPOSlice, child: Child, copy: Any, stopping: Stopping, accelerator: Any, export: Export
) -> Rollouts | None:
    """Create the sampler of rollouts; None: the trainer samples with the policy itself."""
    if config.ppo.engine != "hf":
        return FromEngine(
            lambda folder: _engine(config, child, folder, accelerator.is_main_process),
            export.save,
            child.private / "policy",
            accelerator.is_main_process,
            accelerator.wait_for_everyone,
        )
    if copy is not None:
        return FromUnshardedCopy(copy.to(accelerator.device).eval(), config.ppo.temperature, stopping)
    return None


def _engine(config: PPOSlice, child: Child, folder: Path, main: bool) -> Any:
    """Create the sampling engine of the rollouts, which loads the checkpoint in `folder`; `main`: whether this is rank 0."""
    settings = SampleConfig(temperature=config.ppo.temperature, max_new_tokens=config.max_new_tokens)
    if config.ppo.engine == "vllm":
        from selftrain.sampling import vllm

        return vllm.Engine(folder, settings)
    from selftrain.sampling import ct2

    workspace = child.private / "rollouts"
    workspace.mkdir(exist_ok=True)
    return ct2.Engine(folder, settings, workspace, child.runtime.threads, converts=main)


def _accelerator(config: PPOSlice, runtime: RuntimeConfig, world: int) -> Accelerator:
    """Create the accelerator for a single process, DDP or DeepSpeed, over `world` ranks."""
    cpu = runtime.device == "cpu"
    plugin = None
    if runtime.deepspeed:
        build_operators()
        plugin = _plugin(config.ppo, runtime.deepspeed, world)
    accelerator = Accelerator(
        # cpu=True disables DeepSpeed. Without it, accelerate chooses no CPU backend, so gloo is passed below.
        cpu=cpu and plugin is None,
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
    unset_hf_deepspeed_config()  # else models loaded later, for the export, would be sharded under ZeRO stage 3
    return accelerator


def _plugin(settings: PPOConfig, file: str, world: int) -> DeepSpeedPlugin:
    """DeepSpeed's settings in `file`, with the batch sizes and the largest gradient norm of `settings`."""
    plugin = DeepSpeedPlugin(hf_ds_config=file)
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": settings.micro_batch,
        # Without this entry in the file, accelerate would make an optimizer step for each micro batch.
        "gradient_accumulation_steps": accumulation_steps(settings, world),
        "gradient_clipping": settings.max_grad_norm,
    }
    return plugin


def _metrics(state: State, prompts: Prompts) -> dict[str, Any]:
    first, last = state.curve[0], state.curve[-1]
    return {
        "prompts": len(prompts.trained),
        "too_long": prompts.too_long,
        **({"unmixed": prompts.unmixed} if prompts.unmixed else {}),
        "steps": state.step,
        "score_first": first["score"],
        "score": last["score"],
        "kl": last["kl"],
        "entropy": last["entropy"],
        **{name: last[name] for name in ("explained_variance", "pass_rate") if name in last},
        "probes": state.probes,
        "curve": state.curve,
        "seconds": state.seconds,
    }


if __name__ == "__main__":
    child_main(train)
