"""Tests of the plan's memory, FLOPs, steps and warnings against numbers computed by hand."""

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.method import graph
from sandbox.languages import LANGUAGES
from selftrain.config import (
    BankConfig,
    LoraConfig,
    ModelConfig,
    PPOConfig,
    RewardConfig,
    RunConfig,
    RuntimeConfig,
    SampleConfig,
    SftConfig,
)
from selftrain.configfile import CONFIGS, load_config
from selftrain.errors import UsageError
from selftrain.models import footprint
from selftrain.models.shapes import Shape, shape_of, stored_parameters
from selftrain.plan import flops
from selftrain.plan.capacity import Capacity, capacities, shared, too_few_shards, with_problems
from selftrain.plan.corpus import Corpus, padded
from selftrain.plan.estimate import (
    SANDBOX_MS,
    Planner,
    Step,
    optimizer_steps,
    sandbox_seconds,
)
from selftrain.plan.flops import Rows
from selftrain.plan.memory import sampling_memory
from selftrain.plan.plan import Hardware, Workload, make_plan, on_hardware
from selftrain.plan.rates import shapes
from selftrain.plan.speed import Speed, stated_speed
from selftrain.plan.table import count, page, text
from selftrain.units import doublings

ONE = RuntimeConfig(processes=1)
MIB = 1 << 20

TWO_LAYERS = Shape(
    parameters=10_000, classifier=10_016, trunk_linear=6_656, features=912, largest=1_600, head=1_600, hidden=16, layers=2,
    heads=2, kv_heads=1, head_dim=8, intermediate=48, vocabulary=100, context=64,
)  # fmt: skip


def zero(tmp_path: Path, stage: int, **offload: Any) -> str:
    """A DeepSpeed JSON."""
    path = tmp_path / f"zero{stage}.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage, **offload}}))
    return str(path)


# Shapes


def test_the_tiny_llamas_parameters_are_those_of_its_layers():
    shape = shape_of(ModelConfig(vocabulary=300, hidden_size=16, layers=2, heads=2))
    # Attention 4 x 16 x 16, MLP 3 x 16 x 48, two norms of 16; embedding (tied) and the last norm.
    assert shape.trunk_linear == 2 * (4 * 256 + 3 * 768)
    assert shape.parameters == shape.trunk_linear + 2 * 32 + 300 * 16 + 16
    assert shape.classifier == shape.parameters + 16
    assert (shape.head, shape.largest) == (4800, 4800)
    assert shape.kv_elements == 2 * 2 * 16
    assert shape.adapters(4) == 4 * 2 * (4 * 32 + 3 * 64)


def test_a_vocabulary_that_the_corpus_does_not_fill_counts_as_it_is():
    model = ModelConfig(vocabulary=300, hidden_size=16, layers=2, heads=2)
    assert shape_of(model).parameters - shape_of(model, 290).parameters == 10 * 16


def test_an_untied_head_is_not_the_rerankers(tmp_path: Path):
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 16, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50,
        "tie_word_embeddings": False, "max_position_embeddings": 64,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = shape_of(ModelConfig(base=str(tmp_path)))
    # Queries and output 16 x 16, keys and values 16 x 8; biases of q, k, v; MLP 3 x 16 x 40; norms.
    layer = 2 * 256 + 2 * 128 + (16 + 8 + 8) + 3 * 640 + 32
    assert shape.parameters == 2 * layer + 16 + 2 * 50 * 16
    assert shape.classifier == 2 * layer + 16 + 50 * 16 + 16
    assert (shape.kv_heads, shape.kv_elements) == (2, 2 * 2 * 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no config.json"),
        ("{", "cannot be read"),
        ('{"model_type": "none-such"}', "cannot be read"),
    ],
)
def test_a_folder_without_a_config_that_can_be_used_is_told(
    tmp_path: Path, content: str | None, message: str
):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=f"model.base: .*{message}"):
        shape_of(ModelConfig(base=str(tmp_path)))


def test_a_hub_model_that_is_not_here_says_how_to_get_its_config():
    with pytest.raises(UsageError, match=r"hf download none/such config.json .*--set model.base=FOLDER"):
        shape_of(ModelConfig(base="none/such"))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("deepseek-ai/deepseek-coder-1.3b-instruct", 1_346_471_936),
        ("deepseek-ai/deepseek-coder-6.7b-instruct", 6_740_512_768),
        ("Qwen/Qwen2.5-Coder-0.5B", 494_032_768),
    ],
)
def test_the_shapes_of_the_shipped_configs_models_are_known_without_the_hub(name: str, parameters: int):
    """Counted by hand from the published sizes: matrices, norms, Qwen's biases, and embeddings once where they are tied."""
    assert shape_of(ModelConfig(base=name)).parameters == parameters


def test_the_first_layers_of_a_model_are_counted_alone():
    """By hand: of Qwen2.5-Coder-0.5B a layer has 14,912,384 weights, the embedding 151,936 x 896, the last norm 896."""
    base = ModelConfig(base="Qwen/Qwen2.5-Coder-0.5B")
    assert shape_of(base, layers=6).parameters == 6 * 14_912_384 + 151_936 * 896 + 896
    assert shape_of(base).parameters == 494_032_768
    shape, judge = shapes(RunConfig(model=base, reward=RewardConfig(layers=6)))
    assert (shape.layers, judge.layers) == (24, 6)
    tiny = ModelConfig(layers=4)
    assert [one.layers for one in shapes(RunConfig(model=tiny, reward=RewardConfig(layers=1)))] == [4, 1]


def test_every_model_that_a_shipped_config_names_on_the_hub_is_known():
    for path in CONFIGS.glob("*.yaml"):
        config = load_config(path.stem)
        for base in (config.model.base, config.reward.base):
            assert (
                base is None
                or base.startswith("models/")
                or (CONFIGS / "models" / f"{base.replace('/', '--')}.json").is_file()
            )


def test_stored_parameters_are_read_from_headers(tmp_path: Path):
    assert stored_parameters(tmp_path) is None
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [3, 5], "data_offsets": [0, 60]},
        "b": {"dtype": "BF16", "shape": [7], "data_offsets": [60, 74]},
    }
    content = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(content)) + content)
    assert stored_parameters(tmp_path) == 22
    del header["__metadata__"]
    for number in (0, 1, 10):
        header[f"model.layers.{number}.weight"] = {"dtype": "F32", "shape": [100], "data_offsets": [74, 474]}
    content = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(content)) + content)
    assert [stored_parameters(tmp_path, layers) for layers in (None, 1, 2, 11)] == [322, 122, 222, 322]
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(content)) + content[:9])
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        stored_parameters(tmp_path)


# Memory


def test_one_process_keeps_sixteen_bytes_a_parameter():
    states = footprint.model_states(1000, 1000, 0, ONE)
    assert states.terms == {
        "libraries": footprint.LIBRARIES["training"],
        "weights": 4000,
        "gradients": 4000,
        "optimizer": 8000,
    }


def test_ranks_without_deepspeed_keep_gradients_twice():
    assert footprint.model_states(1000, 1000, 0, RuntimeConfig(processes=2)).terms["gradients"] == 8000


def test_adapters_need_no_gradients_of_the_frozen_weights():
    terms = footprint.model_states(1000, 100, 0, ONE).terms
    assert (terms["weights"], terms["gradients"], terms["optimizer"]) == (4000, 400, 800)


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("processes", [1, 4, 8])
@pytest.mark.parametrize(
    ("stage", "offload"),
    [
        (2, ()),
        (2, ("offload_optimizer",)),  # it has no parameters to offload
        (3, ()),
        (3, ("offload_optimizer",)),
        (3, ("offload_optimizer", "offload_param")),
    ],
)
def test_gpus_under_zero_need_what_deepspeed_estimates(
    tmp_path: Path, stage: int, processes: int, nodes: int, offload: tuple[str, ...]
):
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as third
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as second

    away = {name: {"device": "cpu"} for name in offload}
    runtime = RuntimeConfig(
        device="cuda", processes=processes, nodes=nodes, deepspeed=zero(tmp_path, stage, **away)
    )
    optimizer, parameters = bool(offload), "offload_param" in offload
    total, largest = 7_000_000, 50_000
    found = footprint.model_states(total, total, largest, runtime)
    if stage == 2:
        host, device = second(total, processes, nodes, optimizer)
    else:
        host, device, _ = third(total, largest, processes, nodes, optimizer, parameters)
    assert found.total - footprint.CUDA_LIBRARIES == pytest.approx(device, rel=1e-6)
    if optimizer:
        assert found.host * processes == pytest.approx(host, rel=1e-6)


def test_activations_are_counted_by_layer():
    # A layer: 6 x 16 of the norms, 2 x 16 queries and output, 2 x 8 keys and values, 4 x 48 of the MLP.
    layer = 4 * (96 + 32 + 16 + 192)
    assert footprint.activation_bytes(TWO_LAYERS, 10, ONE) == 10 * (2 * layer + 8 * 16)
    again = RuntimeConfig(processes=1, gradient_checkpointing=True)
    assert footprint.activation_bytes(TWO_LAYERS, 10, again) == 10 * (4 * 16 * 2 + layer)


def test_the_kv_cache_is_that_of_all_rows():
    # 2 layers x (keys and values) x 1 head x 8, float32, one of two layers twice; logits six times.
    assert footprint.decoding_bytes(TWO_LAYERS, 4, 30, 4) == 4 * 30 * 32 * 4 * 1.5 + 4 * 100 * 24


def test_sampling_in_bfloat16_needs_half_the_bytes_and_reads_equal_prompts_once():
    def terms(samples: int, **settings: Any) -> dict[str, int]:
        config = SampleConfig(engine="hf", max_new_tokens=10, shard=2, **settings)
        return sampling_memory(config, TWO_LAYERS, ONE, samples, 20).terms

    single, half = terms(4), terms(4, compute_type="bfloat16")
    assert single["weights"] == 2 * half["weights"] == 4 * TWO_LAYERS.parameters
    assert single["kv cache"] - half["kv cache"] == 8 * 30 * TWO_LAYERS.kv_elements * 2 * 1.5
    read = footprint.reading_bytes(TWO_LAYERS, 2 * 20)
    assert half["kv cache"] == 8 * 30 * TWO_LAYERS.kv_elements * 2 * 1.5 + 8 * 100 * 24 + read


def test_ppo_keeps_reference_and_reranker_and_with_zero_3_a_copy(tmp_path: Path):
    def others(runtime: RuntimeConfig, **settings: Any) -> int:
        return footprint.ppo_memory(PPOConfig(**settings), TWO_LAYERS, TWO_LAYERS, runtime, 20, 10).terms[
            "other models"
        ]

    assert TWO_LAYERS.classifier == 10_016
    assert others(ONE) == 4 * (10_000 + 10_016)
    assert others(ONE, lora=LoraConfig()) == 4 * 10_016
    assert others(ONE, engine="ctranslate2") == 4 * (20_000 + 10_016)
    third = RuntimeConfig(device="cuda", processes=4, deepspeed=zero(tmp_path, 3))
    assert others(third) == 2 * (20_000 + 10_016)


def test_ppos_logits_take_no_more_memory_for_more_tokens():
    """At a vocabulary of 152,000, 3,072 tokens would have 1.9 GB of logits, in several tensors."""
    wide = replace(TWO_LAYERS, vocabulary=152_000, head=152_000 * 16, context=1_000)
    few, many = (footprint.chunked_head_bytes(wide, tokens, trained=True) for tokens in (300, 3_072))
    assert few == many
    assert 0.99 * 5 * (128 << 20) < many - 2 * 4 * wide.head <= 5 * (128 << 20)
    assert many - footprint.chunked_head_bytes(wide, 3_072, trained=False) == 2 * 4 * wide.head
    assert footprint.chunked_head_bytes(TWO_LAYERS, 30, trained=True) == 4 * 5 * 30 * 100
    config = PPOConfig(rollout_batch=8, mini_batch=8, micro_batch=8)
    more = footprint.ppo_memory(config, wide, TWO_LAYERS, ONE, 20, 384).terms["activations"]
    assert more - many == footprint.activation_bytes(wide, 8 * 404, ONE)


def test_on_gpus_a_reranker_scores_in_tf32_at_half_the_peak():
    def rates(**settings: Any) -> dict[str, float]:
        config = RunConfig(**TINY)
        changed = config.model_copy(update={"reward": config.reward.model_copy(update=settings)})
        return make_plan(changed, Hardware(gpus=2), graph).speed.rates

    assert rates()["score"] == rates()["train_reward"] / 2
    assert rates(compute_type="bfloat16")["score"] == rates()["train_reward"]


def test_a_value_model_of_its_own_is_trained_too():
    shared = footprint.ppo_memory(PPOConfig(), TWO_LAYERS, TWO_LAYERS, ONE, 20, 10)
    separate = footprint.ppo_memory(PPOConfig(value_model="separate"), TWO_LAYERS, TWO_LAYERS, ONE, 20, 10)
    assert separate.terms["weights"] - shared.terms["weights"] == 4 * (10_016 - 16)


def test_without_a_value_head_nothing_of_it_is_trained():
    def trained(**settings: Any) -> int:
        config = PPOConfig.model_validate(settings)
        return footprint.ppo_memory(config, TWO_LAYERS, TWO_LAYERS, ONE, 20, 10).terms["weights"]

    assert trained() == 4 * (10_000 + 16)
    assert trained(algorithm="grpo") == trained(algorithm="rloo", value_model="separate") == 4 * 10_000
    both = (
        PPOConfig.model_validate({"algorithm": name, "value_model": "separate"}) for name in ("ppo", "grpo")
    )
    rows = Rows(8, 20, 10, 30)
    separate, none = (flops.ppo_update(TWO_LAYERS, rows, config, ONE) for config in both)
    assert separate - none == 2 * flops.train(TWO_LAYERS, rows, ONE, None), "two epochs of a second trunk"
    least = footprint.rank_bytes(PPOConfig(algorithm="grpo", value_model="separate"), 10_000, ONE)
    assert least == footprint.rank_bytes(PPOConfig(), 10_000, ONE)


def test_with_adapters_on_the_previous_policy_the_reference_is_a_model_of_its_own():
    config = PPOConfig(lora=LoraConfig(), start="previous")
    assert footprint.other_parameters(config, 10_000, 10_016, ONE) == 10_016 + 10_000


def test_rank_bytes_is_what_does_not_depend_on_the_batch():
    base = footprint.LIBRARIES["training"]
    assert footprint.rank_bytes(SftConfig(), 1000, ONE) == base + 16_000
    assert footprint.rank_bytes(RewardConfig(), 10_016, ONE) == base + 16 * 10_016
    assert footprint.rank_bytes(PPOConfig(), 10_000, ONE) == base + 16 * 10_000 + 4 * 20_000
    separate = PPOConfig(value_model="separate")
    assert footprint.rank_bytes(separate, 10_000, ONE) == base + 16 * 20_000 + 4 * 20_000
    assert footprint.rank_bytes(SftConfig(lora=LoraConfig(rank=2)), 10_000, ONE) == base + 4 * 10_000


def test_a_file_that_is_not_deepspeeds_is_told(tmp_path: Path):
    (tmp_path / "ds.json").write_text("[]")
    for name in ("ds.json", "none.json"):
        with pytest.raises(UsageError, match=r"runtime\.deepspeed: .* is not DeepSpeed's JSON"):
            footprint.zero_of(RuntimeConfig(deepspeed=str(tmp_path / name)))


# FLOPs

ROWS = Rows(count=3, prompt=6, completion=4, width=10)


def test_training_is_three_forward_passes_and_attention_three_and_a_half():
    linear = 3 * 10 * 2 * 6_656
    squares = 3 * 4 * 2 * 16 * 10 * 10
    assert flops.forward(TWO_LAYERS, ROWS) == linear + squares
    assert flops.train(TWO_LAYERS, ROWS, ONE) == 3 * linear + 3.5 * squares
    again = RuntimeConfig(processes=1, gradient_checkpointing=True)
    assert flops.train(TWO_LAYERS, ROWS, again) == 4 * linear + 4.5 * squares
    adapters = 3 * 3 * 10 * 2 * (2 * 912)
    assert flops.train(TWO_LAYERS, ROWS, ONE, LoraConfig(rank=2)) == 2 * linear + 3.5 * squares + adapters


def test_sft_on_gpus_computes_logits_twice_and_those_of_the_answers_only():
    trunk = flops.train(TWO_LAYERS, ROWS, ONE)
    assert flops.sft(TWO_LAYERS, ROWS, ONE) == trunk + 3 * 2 * 1600 * 30
    gpu = RuntimeConfig(device="cuda", processes=1, gradient_checkpointing=False)
    assert flops.sft(TWO_LAYERS, ROWS, gpu) == trunk + 4 * 2 * 1600 * 12


def test_sampling_reads_each_prompt_once_and_each_token_but_the_last():
    rows = Rows(count=2, prompt=6, completion=4, width=0)
    linear = 2 * 6_656 * (6 + 3)
    attention = 4 * 2 * 16 * (6 * 6 + 3 * 8)
    assert flops.decode(TWO_LAYERS, rows) == 2 * (linear + attention + 2 * 1600 * 4)
    once = 2 * 6_656 * 6 + 4 * 2 * 16 * 6 * 6
    assert flops.decode(TWO_LAYERS, rows, sharing=2) == flops.decode(TWO_LAYERS, rows) - once


def test_scoring_reads_each_prompt_once():
    prompts = 2 * (2 * 6_656 * 6 + 4 * 2 * 16 * 36)
    assert flops.score(TWO_LAYERS, 2, ROWS) == prompts + 3 * (2 * 6_656 * 4 + 4 * 2 * 16 * 4 * 10)


# Tokens and steps


def test_rows_are_as_wide_as_the_longest_of_their_group():
    assert padded([5, 1, 2, 8], 2) == (2 + 2 + 8 + 8) / 4
    assert padded([5, 1, 2, 8], 9) == 8
    assert padded([5, 1, 2, 8], 1) == 4


def test_optimizer_steps_are_those_of_whole_batches():
    assert (optimizer_steps(100, 2, 16), optimizer_steps(3, 1, 16)) == (12, 1)


def test_sandbox_time_counts_programs_that_never_end():
    assert sandbox_seconds({"py": 100, "cpp": 10}) == pytest.approx(0.4 + 2.89 + 1.1 * 15)
    assert set(SANDBOX_MS) == set(LANGUAGES)


def small_corpus() -> Corpus:
    """Ten rl problems, one for each other split."""
    counts = {"sft": {"py": 20}, "rl": {"py": 6, "sh": 4}, "validation": {"py": 1}, "test": {"py": 2}}
    prompts = {split: [20] for split in counts}
    return Corpus(counts, prompts, [10], [(20, 10)], 20, 100, 0.0)


def planned(**settings: Any) -> dict[str, Any]:
    """The steps of a run of two rounds, by name."""
    config = RunConfig(rounds=2, runtime=ONE, **settings)
    speed = stated_speed(1.0, 0.5, 0.1)
    planner = Planner(config, graph(config), TWO_LAYERS, TWO_LAYERS, small_corpus(), speed)
    return {step.name: step for step in planner.steps()}


def test_sft_on_no_answers_is_refused_as_the_stage_does():
    with pytest.raises(
        UsageError, match="no problem of the sft split has a response; .* set sft.epochs to 0"
    ):
        replace(small_corpus(), learnt=[], examples=0).sft_rows(256, 8)


def test_without_sft_its_step_copies_the_model():
    """`reward.layers` is checked against the real model, not against the placeholder of the graph."""
    steps = planned(
        model={"base": "some/model"}, sft={"epochs": 0}, reward={"layers": 24}, problems={"source": "bank"}
    )
    assert (steps["sft"].flops, steps["sft"].memory, steps["sft"].tokens) == ({}, None, (0, 0))
    assert steps["sft"].kept == 4 * TWO_LAYERS.parameters


def test_a_process_without_a_shard_is_idle():
    def seconds(processes: int, shard: int) -> float:
        config = RunConfig(runtime=RuntimeConfig(processes=processes), sample={"rl": 4, "shard": shard})
        speed = stated_speed(1.0, 0.5, 0.1)
        planner = Planner(config, graph(config), TWO_LAYERS, TWO_LAYERS, small_corpus(), speed)
        return next(step.seconds for step in planner.steps() if step.name == "sample-sft-rl")

    whole = seconds(1, 10)  # ten problems in one shard
    assert seconds(2, 10) == whole
    assert seconds(2, 5) == pytest.approx(whole / 2)
    assert seconds(2, 4) == pytest.approx(whole * 2 / 3)


def test_tokens_and_seconds_follow_from_the_counts():
    steps = planned(
        sft=SftConfig(epochs=2, batch_size=10, micro_batch_size=10),
        sample={"rl": 4, "evaluation": 3},
        reward={"epochs": 1, "batch_size": 4, "later_epochs": None},
        ppo={"steps": 3, "rollout_batch": 8, "mini_batch": 4},
    )
    assert steps["sft"].tokens == (40 * 20, 40 * 10)
    assert steps["sft"].flops == {"sft": flops.sft(TWO_LAYERS, Rows(40, 20, 10, 30), ONE)}
    assert steps["sft"].seconds == pytest.approx(steps["sft"].flops["sft"] / 0.5e12)
    assert steps["sample-sft-rl"].tokens == (40 * 20, 40 * 10)
    assert steps["sample-sft-evaluation"].tokens == (12 * 20, 12 * 10), "and the greedy one"
    # Half of ten problems, two pairs each: ten in round 1, twenty in round 2, two rows each, four pairs a step.
    assert steps["rm-1"].tokens == (2 * 8 * 20, 2 * 8 * 10)
    assert steps["rm-2"].tokens == (2 * 20 * 20, 2 * 20 * 10)
    assert steps["ppo-1"].tokens == (24 * 20, 24 * 10)
    assert steps["mine-2"].tokens == (10 * 20, 2 * 28 * 10), (
        "each prompt once, distinct programs of two pools"
    )
    # Three pools under two rerankers over 3 problems x 3, and the first with shuffled prompts over 2 x 3.
    assert steps["evaluate"].tokens[0] == (6 * 3 + 2 * 2) * 20
    assert steps["evaluate"].tokens[1] == pytest.approx(0.7 * (6 * 9 + 2 * 6) * 10, abs=10)
    assert steps["execute-sft-rl"].sandbox_seconds == pytest.approx(
        0.7 * sandbox_seconds({"py": 24, "sh": 16}, endless=0)
    )


def test_rounds_read_the_pools_that_are_mined_and_train_on_the_pairs_that_are_kept():
    settings: dict[str, Any] = {
        "sample": {"rl": 4},
        "reward": {"epochs": 1, "batch_size": 4, "later_epochs": None},
    }
    for pools in ("newest", "sft"):
        steps = planned(mine={"pools": pools}, **settings)
        assert steps["mine-2"].tokens == (10 * 20, 28 * 10)
        assert ("sample-ppo-1-rl" in steps) == (pools == "newest")
    steps = planned(mine={"max_pairs": 12}, **settings)
    # Ten pairs in round 1 (two whole batches), twelve of twenty in round 2 (three), of two rows each.
    assert steps["rm-1"].tokens == (2 * 8 * 20, 2 * 8 * 10)
    assert steps["rm-2"].tokens == (2 * 12 * 20, 2 * 12 * 10)


def test_reward_from_execution_runs_every_rollout():
    ppo = {"steps": 3, "rollout_batch": 10, "mini_batch": 10, "execution_weight": 0.5}
    assert planned(ppo=ppo)["ppo-1"].sandbox_seconds == sandbox_seconds({"py": 18, "sh": 12}, 0)
    assert planned()["ppo-1"].sandbox_seconds == 0


# Machines


def test_a_step_takes_as_long_as_the_machine_with_the_most_shards():
    step = Step("s", "sample", seconds=103, shards=5)
    assert [shared(step, machines, 3) for machines in (1, 2, 4, 5, 8)] == pytest.approx([103, 63, 43, 23, 23])
    assert shared(replace(step, shards=0), 8, 3) == 103
    two = replace(step, shards=8, processes=2)  # four shards one after the other
    assert [shared(two, machines, 3) for machines in (1, 2, 3, 4, 8)] == [103, 53, 53, 28, 28]
    assert [*too_few_shards([step, Step("e", "execute", shards=8)], 8)] == [
        "sample has no more than 5 shards: 3 of 8 machines stay idle; lower sample.shard"
    ]
    assert (doublings(1), doublings(8), doublings(12)) == ([1], [1, 2, 4, 8], [1, 2, 4, 8, 12])


def test_machine_hours_are_those_of_machines_at_work():
    found = Capacity(machines=10, nodes=2, sample=360, execute=720, other=1800, trained=None)
    assert found.seconds == 2880
    assert found.machine_hours == pytest.approx((10 * 1080 + 2 * 1800) / 3600)


def test_a_thousand_problems_times_a_hundred_samples_times_eight_languages_times_three_rounds():
    languages = ("py", "cpp", "java", "php", "ts", "cs", "sh", "js")
    corpus = with_problems(small_corpus(), languages, 1000)
    config = RunConfig(rounds=3, runtime=ONE, sample={"rl": 100, "shard": 100}, execute={"shard": 1000})
    rates = dict.fromkeys(("sft", "train_reward", "ppo", "rollout", "score"), 1e12) | {"sample": 1e9}
    speed = Speed(rates, starts={"sample": 10.0})
    planner = Planner(config, graph(config), TWO_LAYERS, TWO_LAYERS, corpus, speed)
    pools = [step for step in planner.steps() if step.name.endswith("-rl")]
    assert len(pools) == 6, "sampled and executed: sft, ppo-1, ppo-2"
    assert sum(step.tokens[1] for step in pools) == 3 * 800_000 * 10
    # CPU ms: py 4, cpp 289, java 82, php 19, ts 73, cs 78, sh 8, js 60 are 613 for a problem in all; 0.7 are distinct.
    execute = 3 * 100_000 * 0.613 * 0.7
    assert sum(step.sandbox_seconds for step in pools) == pytest.approx(execute)
    # 8,000 problems in shards of 100, 800,000 candidates in shards of 1,000; two sandbox workers.
    assert [step.shards for step in pools] == [80, 800] * 3
    evaluated = sum(s.seconds for s in planner.steps() if s.name.startswith("execute") and s not in pools)
    table = {one.machines: one for one in capacities(planner, 33)}
    assert table[1].execute == pytest.approx(execute / 2 + evaluated)
    assert table[32].execute == pytest.approx(execute / 2 / 32 + evaluated), (
        "pools to evaluate have one shard"
    )
    # 7 pools are sampled; a machine of 32 has at most 3 of 80 shards.
    one = flops.decode(TWO_LAYERS, Rows(800_000, 20, 10, 30), 100) / 1e9
    small = table[1].sample - 7 * 10 - 3 * one
    assert table[32].sample == pytest.approx(7 * 10 + 3 * one * 3 / 80 + small)
    assert table[32].other == table[1].other
    assert table[1].trained == table[1].other
    training = sum(step.seconds for step in planner.steps() if step.stage in ("sft", "train_reward", "ppo"))
    assert table[2].trained == pytest.approx(table[1].other - training / 2), "on two nodes half of the time"
    assert table[32].trained is not None
    assert table[33].trained is None, "no batch can be spread evenly over 33 processes"


# The whole plan

TINY: dict[str, Any] = {
    "problems": BankConfig(languages=("py",), sizes={"sft": 30, "rl": 6, "validation": 3, "test": 4}),
    "model": ModelConfig(vocabulary=300, hidden_size=16, layers=2, heads=2),
    "sft": {"batch_size": 8, "micro_batch_size": 4},
    "ppo": {"rollout_batch": 8, "mini_batch": 4},
}


def test_a_run_that_fits_has_no_warnings():
    plan = make_plan(RunConfig(**TINY), Hardware(), graph)
    assert plan.warnings == ()
    assert plan.corpus.counts["rl"] == {"py": 6}
    shown = text(plan)
    assert "generator " + f"{plan.shape.parameters:,} parameters" in shown
    assert shown.splitlines()[-1] == "it fits"
    stages = json.loads(json.dumps(plan.as_json()))["stages"]
    assert [stage["name"] for stage in stages][:3] == ["prepare", "sft", "sample-sft-rl"]


def test_stages_overlap_where_they_do_not_share_cores(monkeypatch: pytest.MonkeyPatch):
    made = {"sample": {"rl": 4000}, **TINY}
    plan = make_plan(RunConfig(**made), Hardware(gpus=1, memory_gib=80, tflops=0.5), graph)
    shown = plan.as_json()
    alone = sum(step.seconds for step in plan.steps)
    starts = {stage["name"]: stage["start"] for stage in shown["stages"]}
    ends = {stage["name"]: stage["start"] + stage["seconds"] for stage in shown["stages"]}
    assert starts["sample-sft-evaluation"] == starts["execute-sft-rl"] == ends["sample-sft-rl"]
    assert max(ends.values()) == pytest.approx(shown["seconds"])
    assert shown["seconds"] < alone
    assert "they overlap within runtime.slots (train 1, sandbox 1)" in text(plan)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    plan = make_plan(RunConfig(**made), Hardware(), graph)
    assert plan.seconds == pytest.approx(sum(step.seconds for step in plan.steps))
    assert "one after the other" in text(plan)
    assert "no time is gained" in page(plan)


def test_the_page_tells_what_the_text_tells_and_asks_for_nothing():
    plan = make_plan(RunConfig(name="page", **TINY), Hardware(), graph, Workload(machines=2, problems=7))
    assert plan.corpus.counts["rl"] == {"py": 7}
    assert [one["machines"] for one in plan.as_json()["capacity"]] == [1, 2]
    shown, html = text(plan), page(plan)
    for row in (
        "machines  sample h  execute h",
        "1 of 2 machines stay idle",
        "7 rl problems (all languages) x 8 samples x 2 pools = 112 candidates",
        "sandbox, CPU ms a program: py 4",
    ):
        assert row in shown
        assert row in html
    assert not re.search(r"<script|src=|url\(|@import|https?:", html)
    assert all(re.fullmatch(r"#\w+|data:,", target) for target in re.findall(r'href="?([^" >]*)', html))
    assert "default-src 'none'" in html
    for table, cells in (("stages", ["stage", "wall"]), ("machines", ["machines", "whole run h"])):
        section = re.search(rf'<section id="{table}">(.*?)</section>', html, re.DOTALL)[1]
        head = re.findall(r'<th scope="col">([^<]*)</th>', section)
        assert set(cells) <= set(head)
        assert all(
            len(re.findall("<t[hd]", row)) == len(head)
            for row in re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
        )


def test_what_does_not_fit_is_named_with_what_helps():
    plan = make_plan(RunConfig(**TINY), Hardware(gpus=2, memory_gib=0.0001), graph)
    lines = [line for line in plan.warnings if line.startswith("sft cannot fit")]
    assert len(lines) == 1
    assert "GiB a GPU" in lines[0]
    assert text(plan).splitlines()[-1] == "it does not fit"


def test_batches_that_ranks_cannot_share_are_told():
    plan = make_plan(RunConfig(**TINY), Hardware(gpus=3), graph)
    assert any("ppo.mini_batch 4 cannot be spread evenly over 3" in line for line in plan.warnings)


def test_gpus_must_spread_over_the_nodes():
    config = RunConfig(**TINY, runtime={"nodes": 2, "rendezvous": "a:1"})
    assert on_hardware(config, Hardware(gpus=8)).runtime.processes == 4
    with pytest.raises(UsageError, match=r"--gpus 3: expected a multiple of runtime\.nodes=2"):
        on_hardware(config, Hardware(gpus=3))


def test_numbers_are_told_with_units():
    assert (count(999), count(1234), count(2.5e9)) == ("999", "1.23k", "2.5B")
