"""Stage C: trains the SFT policy against the reranker with PPO; the result is a policy in the same layout.

Run as a child process: `python -m selftrain.training.ppo.train resolved.json`, or under torchrun. The method is in
`selftrain.training.ppo`.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin, DistributedType, InitProcessGroupKwargs
from transformers.integrations import unset_hf_deepspeed_config

from selftrain.config import RuntimeConfig, SampleConfig
from selftrain.errors import DataError, UsageError
from selftrain.launch.launch import Child, ask, child_main, hold, report_progress
from selftrain.models import lora
from selftrain.models.deepspeed_ops import build_operators
from selftrain.models.footprint import zero_of
from selftrain.models.models import (
    context_of,
    decode_completion,
    digest_weights,
    encode_completion,
    encode_prompt,
    end_ids,
    fill_template,
    fits,
    load_classifier,
    load_generator,
    load_tokenizer,
)
from selftrain.records import Problem, read_records
from selftrain.stage import Outcome
from selftrain.stages.ppo import PPOSlice
from selftrain.training.ppo.model import check_head
from selftrain.training.ppo.rollout import FromEngine, FromWholeCopy, Rollouts
from selftrain.training.ppo.score import RerankerScore, Translate
from selftrain.training.ppo.trainer import State, Trainer, accumulation_steps, best_step, check_batches

SPECIAL = ("eos_token_id", "pad_token_id", "bos_token_id", "sep_token_id")
LOOK = "def f(x):\n    return 10 + x\n"
"""A text that two tokenizers of one kind make the same tokens of."""


def train(child: Child) -> Outcome:
    """Train, and write the policy, its tokenizer and a table of samples into the child's folder."""
    config = PPOSlice.model_validate(child.config)
    runtime = RuntimeConfig.model_validate(child.runtime)
    settings, world = config.ppo, runtime.processes * runtime.nodes
    check_batches(settings, world)
    generator, reranker = child.inputs["generator"], child.inputs["reranker"]
    tokenizer = load_tokenizer(generator)
    # All models before the accelerator: with ZeRO stage 3 being set up, what is loaded comes in shards.
    frozen = {"dtype": torch.bfloat16} if runtime.device == "cuda" else {}
    torch.manual_seed(config.seed)
    policy, judge = load_generator(generator), load_classifier(reranker).to(**frozen)
    whole = load_generator(generator, **frozen) if zero_of(runtime).stage == 3 else None
    trunk = load_generator(generator).base_model if settings.value_model == "separate" else None
    reference = None if settings.lora else load_generator(generator, **frozen)
    rows = read_records(child.inputs["problems"] / "problems.parquet", Problem)
    ends = end_ids(tokenizer, generator)
    contexts = [found for model in (policy, judge) if (found := context_of(model.config)) is not None]
    room = (min(contexts, default=None), config.max_new_tokens)
    trained, prompts, too_long = _prompts(tokenizer, rows, "rl", *room)
    if not prompts:
        raise DataError(
            f"none of the {too_long} problems of the rl split has a prompt that fits: it needs 1 token at least, and room for "
            f"sample.max_new_tokens={room[1]} more in the models' longest input of {room[0]} tokens; lower that"
        )
    probed: list[Problem] = []
    probe_prompts: list[list[int]] = []
    if settings.probe:
        probed, probe_prompts, _ = _prompts(tokenizer, rows, "validation", *room)
    if len(probed) < settings.probe:
        raise UsageError(
            f"ppo.probe is {settings.probe}, but the validation split has {len(probed)} problems with a prompt that fits; "
            "lower it, or give that split more problems"
        )
    check_head(policy, prompts[0])
    adapters = None
    if settings.lora:
        adapters = lora.add(policy, settings.lora)
        policy = adapters.get_base_model()
        whole = whole and lora.add(whole, settings.lora).get_base_model()
    if runtime.recomputes:
        for model in filter(None, (policy, trunk)):
            model.activation_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
    translate = translation(tokenizer, ends, reranker, judge.config)
    accelerator = _accelerator(config, runtime, world)
    names = [problem.id for problem in (*trained, *probed)]

    def execute(problems: Sequence[int], completions: Sequence[list[int]]) -> list[bool | None]:
        asked = [
            [names[number], decode_completion(tokenizer, ids, ends)]
            for number, ids in zip(problems, completions, strict=True)
        ]
        passed: list[bool | None] = ask(child, asked)
        return passed

    def save(weights: Mapping[str, Any], folder: Path) -> None:
        if settings.lora:
            named = {lora.ROOT + name: value for name, value in weights.items()}
            lora.merged(load_generator(generator), settings.lora, named).save_pretrained(folder)
        else:
            policy.save_pretrained(folder, state_dict=dict(weights))
        tokenizer.save_pretrained(folder)

    rollouts: Rollouts | None = None
    if settings.engine != "hf":
        rollouts = FromEngine(
            lambda folder: _engine(config, runtime, child, folder, accelerator.is_main_process),
            save,
            child.private / "policy",
            accelerator.is_main_process,
            accelerator.wait_for_everyone,
        )
    elif whole is not None:
        rollouts = FromWholeCopy(whole.to(accelerator.device).eval(), settings.temperature, ends)
    clock = [time.monotonic()]

    def on_step(row: dict[str, float]) -> None:
        now = time.monotonic()
        shown = ("score", "pass_rate", "kl", "entropy", "policy_loss")
        figures = {name: row[name] for name in shown if name in row}
        rate = row["tokens"] / max(now - clock[0], 1e-9)
        clock[0] = now
        report_progress(row["step"], settings.steps, "steps", **figures, tokens_per_second=rate)

    def on_best(step: int) -> None:
        if not settings.keep_best:
            return
        weights = trainer.policy_weights()
        if accelerator.is_main_process:
            part, best = child.private / "best.part", child.private / f"best-{step}"
            for old in (part, *child.private.glob("best-*")):
                shutil.rmtree(old, ignore_errors=True)
            save(weights, part)
            part.rename(best)

    trainer = Trainer(
        settings,
        config.seed,
        config.max_new_tokens,
        policy,
        reference,
        RerankerScore(judge.to(accelerator.device), settings.micro_batch, translate),
        prompts,
        ends,
        accelerator,
        child.private / "checkpoints",
        on_step,
        rollouts=rollouts,
        value_trunk=trunk,
        adapters=adapters,
        execute=execute,
        probe_prompts=probe_prompts[: settings.probe],
        on_best=on_best,
        keep=runtime.keep_checkpoints,
    )
    state = trainer.run()
    hold(trainer.model)
    weights = trainer.policy_weights()  # of every rank, for ZeRO stage 3 puts them together
    outcome = Outcome("", {})
    if accelerator.is_main_process:
        best = child.private / f"best-{best_step(state.probes)}" if settings.keep_best else None
        if best is not None and best.is_dir():
            shutil.copytree(best, child.folder, dirs_exist_ok=True)
        else:
            save(weights, child.folder)
        (child.folder / "samples.json").write_text(
            json.dumps(_samples(state, tokenizer, ends), indent=1, ensure_ascii=False)
        )
        metrics = _metrics(state, len(prompts), too_long)
        if best is not None:
            metrics["step_kept"] = best_step(state.probes) if best.is_dir() else state.step
        outcome = Outcome(digest_weights(child.folder), metrics)
    return outcome


def _prompts(
    tokenizer: Any, problems: Sequence[Problem], split: str, context: int | None, new: int
) -> tuple[list[Problem], list[list[int]], int]:
    """The split's problems whose prompts fit (`models.fits`), those prompts' tokens, and how many problems do not."""
    chosen = [problem for problem in problems if problem.split == split]
    encoded = [(problem, encode_prompt(tokenizer, problem.prompt)) for problem in chosen]
    kept = [(problem, ids) for problem, ids in encoded if fits(len(ids), context, new)]
    return [problem for problem, _ in kept], [ids for _, ids in kept], len(chosen) - len(kept)


def translation(tokenizer: Any, ends: Sequence[int], reranker: Path, settings: Any) -> Translate | None:
    """What turns the policy's tokens into those that the reranker was trained on; None where they are the same.

    They are others with other tokens, with another end, padding, beginning or separator, or with a template, and where the
    policy has more than one token that ends a completion.

    ends      ids that end the policy's completions
    settings  the reranker's config
    """
    other = load_tokenizer(reranker)
    template = getattr(settings, "prompt_template", None) or "{prompt}"
    if (
        other.get_vocab() == tokenizer.get_vocab()
        and all(getattr(other, name) == getattr(tokenizer, name) for name in SPECIAL)
        and encode_prompt(other, LOOK) == encode_prompt(tokenizer, LOOK)
        and set(ends) == {other.eos_token_id}
        and template == "{prompt}"
    ):
        return None
    heads: dict[tuple[int, ...], list[int]] = {}

    def translate(prompt: list[int], completion: list[int]) -> list[int]:
        if tuple(prompt) not in heads:
            text = tokenizer.decode(prompt, skip_special_tokens=True)
            heads[tuple(prompt)] = encode_prompt(other, fill_template(template, text))
        tail = encode_completion(other, decode_completion(tokenizer, completion, ends))
        # A completion that was cut at the limit has no end token for the reranker either.
        return heads[tuple(prompt)] + (tail if completion[-1] in ends else tail[:-1])

    return translate


def _engine(config: PPOSlice, runtime: RuntimeConfig, child: Child, folder: Path, main: bool) -> Any:
    """The sampling engine of the rollouts, on the checkpoint in `folder`."""
    settings = SampleConfig(temperature=config.ppo.temperature, max_new_tokens=config.max_new_tokens)
    if config.ppo.engine == "vllm":
        from selftrain.sampling import vllm

        return vllm.Engine(folder, settings)
    from selftrain.sampling import ct2

    workspace = child.private / "rollouts"
    workspace.mkdir(exist_ok=True)
    return ct2.Engine(folder, settings, workspace, runtime.threads, converts=main)


def _accelerator(config: PPOSlice, runtime: RuntimeConfig, world: int) -> Accelerator:
    cpu = runtime.device == "cpu"
    plugin = None
    if runtime.deepspeed:
        build_operators()
        plugin = DeepSpeedPlugin(hf_ds_config=runtime.deepspeed)
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.ppo.micro_batch
        plugin.deepspeed_config["gradient_clipping"] = config.ppo.max_grad_norm
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
    unset_hf_deepspeed_config()  # under ZeRO stage 3 it would have models that are loaded later, to be exported, in shards
    return accelerator


def _samples(state: State, tokenizer: Any, ends: Sequence[int]) -> list[dict[str, Any]]:
    """The kept samples as text; `ended` says whether an end token was reached."""
    return [
        {
            **row,
            "prompt": tokenizer.decode(row["prompt"]),
            "completion": decode_completion(tokenizer, row["completion"], ends),
            "ended": row["completion"][-1] in ends,
        }
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
        "explained_variance": last["explained_variance"],
        **({"pass_rate": last["pass_rate"]} if "pass_rate" in last else {}),
        "probes": state.probes,
        "curve": state.curve,
        "seconds": state.seconds,
    }


if __name__ == "__main__":
    child_main(train)
