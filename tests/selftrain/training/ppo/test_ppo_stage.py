"""Tests of stage `ppo` through its real child processes: one process, a killed process, two ranks under torchrun."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

import selftrain
from sandbox.verdicts import Verdict
from selftrain.cache_key import canonical_json
from selftrain.config import ExecuteConfig, LoraConfig, ModelConfig, PPOConfig, RuntimeConfig
from selftrain.errors import DataError, UsageError
from selftrain.launch.launch import Child
from selftrain.models.models import encode_completion, encode_prompt, make_tiny, train_tokenizer
from selftrain.records import Execution, Problem, write_records
from selftrain.stage import Context
from selftrain.stages import ppo as stage
from selftrain.stages.ppo import PPO, PPOSlice
from selftrain.training.ppo import train as ppo_child

ROOT = Path(__file__).parents[4]
CONFIG = PPOSlice(
    seed=3,
    ppo=PPOConfig(
        steps=5, rollout_batch=8, mini_batch=4, micro_batch=2, checkpoint_steps=2, learning_rate=1e-3
    ),
    max_new_tokens=10,
)
VERDICTS = {True: Verdict.passed, False: Verdict.wrong_answer, None: Verdict.sandbox_error}
PROMPTS = [f"add {i} to every number of the list and return it\n" for i in range(12)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Problems, an untrained generator and an untrained reranker with the same tokenizer."""
    root = tmp_path_factory.mktemp("ppo")
    folders = {name: root / name for name in ("problems", "generator", "reranker")}
    for folder in folders.values():
        folder.mkdir()
    problems = [
        Problem(
            f"p{i}",
            f"p{i}",
            ("py", "sh")[i % 2],
            prompt,
            tests="",
            split=("rl", "rl", "test")[i % 3],
            source="bank",
        )
        for i, prompt in enumerate(PROMPTS)
    ]
    problems += [
        Problem(f"p{i}", f"p{i}", "py", PROMPTS[i - 12], tests="", split="validation", source="bank")
        for i in range(12, 16)
    ]
    write_records(folders["problems"] / "problems.parquet", problems, Problem)
    tokenizer = train_tokenizer(PROMPTS, 280)
    torch.manual_seed(0)
    generator = make_tiny(ModelConfig(hidden_size=16, layers=1, heads=2, max_tokens=64), tokenizer)
    judge = LlamaConfig(**{**generator.config.to_dict(), "num_labels": 1, "architectures": None})
    generator.save_pretrained(folders["generator"])
    LlamaForSequenceClassification(judge).save_pretrained(folders["reranker"])
    for name in ("generator", "reranker"):
        tokenizer.save_pretrained(folders[name])
    return folders


def run_stage(inputs, folder, processes=1, config=CONFIG):
    """Run the stage; its outcome and the steps that it reported."""
    folder.mkdir(exist_ok=True)
    steps = []
    runtime = RuntimeConfig(processes=processes)
    outcome = PPO.run(
        Context(config, inputs, folder, runtime, lambda done, *rest, **more: steps.append(done))
    )
    return outcome, steps


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    """Folder and outcome of a run in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run_stage(inputs, folder)[0]


def test_writes_a_policy_that_plain_transformers_loads(inputs, undisturbed):
    folder, outcome = undisturbed
    policy, start = (AutoModelForCausalLM.from_pretrained(f) for f in (folder, inputs["generator"]))
    moved = [(a - b).abs().max() for a, b in zip(policy.parameters(), start.parameters(), strict=True)]
    assert min(moved) > 1e-3
    assert set(load_file(folder / "model.safetensors")) == set(
        load_file(inputs["generator"] / "model.safetensors")
    )
    assert (
        AutoTokenizer.from_pretrained(folder).get_vocab()
        == AutoTokenizer.from_pretrained(inputs["generator"]).get_vocab()
    )
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    metrics = outcome.metrics
    assert metrics["prompts"] == 8  # the rl split, in all languages
    assert [row["step"] for row in metrics["curve"]] == [1, 2, 3, 4, 5]
    assert set(metrics["curve"][0]) == {
        "step", "reward", "score", "kl", "entropy", "policy_loss", "value_loss", "clip_fraction", "kl_coefficient",
        "tokens", "missing_end", "explained_variance",
    }  # fmt: skip
    assert abs(metrics["curve"][0]["kl"]) < 1e-5
    assert set(metrics["seconds"]) == {"rollout", "score", "execute", "reference", "update"}
    samples = json.loads((folder / "samples.json").read_text())
    assert {row["step"] for row in samples} == {1, 2, 3, 4, 5}
    assert all(row["prompt"].removesuffix("<sep>") in PROMPTS for row in samples)


def test_killed_in_the_middle_it_ends_with_the_same_weights(inputs, undisturbed, tmp_path):
    private = tmp_path / "progress"
    private.mkdir()
    content = {
        "config": canonical_json(CONFIG, "config"),
        "inputs": {name: str(path) for name, path in inputs.items()},
        "folder": str(tmp_path),
        "runtime": canonical_json(RuntimeConfig(processes=1), "runtime"),
        "extra": {},
    }
    (private / "resolved.json").write_text(json.dumps(content))
    child = subprocess.Popen(
        [sys.executable, "-m", "selftrain.training.ppo.train", str(private / "resolved.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(selftrain.__path__[0]).parent)},
    )
    with child:
        for line in child.stdout:
            if line.startswith('@progress {"done": 3'):
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    assert not (private / "outcome.json").exists()
    assert (private / "checkpoints" / "step-2").is_dir()

    outcome, steps = run_stage(inputs, tmp_path)
    assert steps[0] >= 3, "it must go on from its checkpoint, not start again"
    expected_folder, expected = undisturbed
    assert outcome.records_digest == expected.records_digest
    assert outcome.metrics["curve"] == expected.metrics["curve"]
    for name in ("model.safetensors", "samples.json"):
        assert (tmp_path / name).read_bytes() == (expected_folder / name).read_bytes()


def test_two_ranks_do_what_one_process_does(inputs, undisturbed, tmp_path):
    folder, outcome = undisturbed
    shared, steps = run_stage(inputs, tmp_path, processes=2)
    assert steps == [1, 2, 3, 4, 5]
    first = [json.loads((f / "samples.json").read_text())[:4] for f in (tmp_path, folder)]
    for ours, theirs in zip(*first, strict=True):
        assert ours["completion"] == theirs["completion"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
    for ours, theirs in zip(shared.metrics["curve"], outcome.metrics["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def train_here(config, inputs, folder):
    """The child's work in this process: enough for what is refused before anything is trained."""
    from selftrain.training.ppo.train import train

    return train(
        Child(
            config=canonical_json(config, "config"),
            inputs=inputs,
            folder=folder,
            runtime=canonical_json(RuntimeConfig(processes=1), "runtime"),
            extra={},
        )
    )


def test_no_prompt_to_sample_from(inputs, tmp_path):
    config = CONFIG.model_copy(update={"max_new_tokens": 64})
    with pytest.raises(
        DataError,
        match=r"none of the 8 problems of the rl split has a prompt that fits: .*=64 more .* of 64 tokens",
    ):
        train_here(config, inputs, tmp_path)


def test_only_problems_with_right_and_wrong_samples_are_trained_on(inputs, tmp_path):
    """Of the rl split, p0 is mixed, p1 always fails, p3 always passes, and p4 failed once where the sandbox failed too."""
    verdicts = {"p0": (True, False), "p1": (False, False), "p3": (True, True), "p4": (False, None)}
    rows = [
        Execution(f"{id}#{at}", id, VERDICTS[passed], 0)
        for id, outcomes in verdicts.items()
        for at, passed in enumerate(outcomes)
    ]
    write_records(tmp_path / "executions.parquet", rows, Execution)
    mixed = CONFIG.model_copy(update={"ppo": CONFIG.ppo.model_copy(update={"problems": "mixed"})})
    child = Child(config={}, inputs={**inputs, "executions": tmp_path}, folder=tmp_path, runtime={}, extra={})
    tokenizer = AutoTokenizer.from_pretrained(inputs["generator"])
    found = ppo_child._prompts(child, mixed, tokenizer, ())
    assert ([problem.id for problem in found.problems], found.unmixed) == (["p0"], 7)
    assert found.trained == [encode_prompt(tokenizer, PROMPTS[0])]
    write_records(tmp_path / "executions.parquet", rows[2:], Execution)
    with pytest.raises(DataError, match="no problem of the rl split has both passing and failing samples"):
        ppo_child._prompts(child, mixed, tokenizer, ())


def test_a_generator_in_the_rerankers_place(inputs, tmp_path):
    with pytest.raises(UsageError, match="expected a sequence classifier"):
        train_here(CONFIG, {**inputs, "reranker": inputs["generator"]}, tmp_path)


# The other ways to train, through the same child process


def passes(rows):
    """Whether a completion has an even number of letters; the sandbox fails on the first of each question."""
    return [None, *(len(text) % 2 == 0 for _, text in rows[1:])]


def loads_as_a_policy(folder, inputs):
    """The exported policy has the generator's tensors, all of them and no others; the largest change of one."""
    policy, start = (load_file(f / "model.safetensors") for f in (folder, inputs["generator"]))
    assert set(policy) == set(start)
    AutoModelForCausalLM.from_pretrained(folder)
    return max((policy[name] - start[name]).abs().max().item() for name in start)


def test_adapters_a_value_model_execution_and_a_sampling_engine_together(inputs, tmp_path, monkeypatch):
    ppo = CONFIG.ppo.model_copy(
        update={
            "steps": 2, "lora": LoraConfig(rank=2, alpha=4), "engine": "ctranslate2", "value_model": "separate",
            "execution_weight": 0.5, "probe": 4, "probe_steps": 1, "learning_rate": 1e-2,
        }
    )  # fmt: skip
    context = Context(
        CONFIG.model_copy(update={"ppo": ppo, "execute": ExecuteConfig()}),
        inputs,
        tmp_path,
        RuntimeConfig(processes=1, gradient_checkpointing=True),
        lambda *rest, **more: None,
    )
    asked = []

    def answer(rows):
        asked.append(rows)
        return passes(rows)

    monkeypatch.setattr(stage, "passing", lambda _: nullcontext(answer))
    metrics = PPO.run(context).metrics
    assert [len(rows) for rows in asked] == [4, 8, 4, 8, 4], "a probe before, a step and a probe, twice"
    assert {name for rows in asked[::2] for name, _ in rows} == {"p12", "p13", "p14", "p15"}, "validation"
    assert all(name in {f"p{i}" for i in range(12)} for rows in asked[1::2] for name, _ in rows)
    found = [passed for passed in passes(asked[1]) if passed is not None]
    assert metrics["curve"][0]["pass_rate"] == pytest.approx(sum(found) / len(found))
    assert [row["step"] for row in metrics["probes"]] == [0, 1, 2]
    assert loads_as_a_policy(tmp_path, inputs) > 1e-4
    assert not (tmp_path / "adapter_config.json").exists()


def test_the_policy_whose_probe_passed_most_often_is_kept(inputs, tmp_path, monkeypatch):
    def trained(name, **settings):
        ppo = CONFIG.ppo.model_copy(update=settings)
        (tmp_path / name).mkdir()
        context = Context(
            CONFIG.model_copy(update={"ppo": ppo, "execute": ExecuteConfig()}),
            inputs,
            tmp_path / name,
            RuntimeConfig(processes=1),
            lambda *rest, **more: None,
        )
        rates = iter([1, 3, 2])  # of four: before any step, after the first, after the second
        answer = lambda rows: [at < passing for passing in [next(rates)] for at in range(4)]  # noqa: E731
        monkeypatch.setattr(stage, "passing", lambda _: nullcontext(answer))
        return PPO.run(context), load_file(tmp_path / name / "model.safetensors")

    best, weights = trained("best", steps=2, probe=4, probe_steps=1, keep_best=True)
    assert [row["pass_rate"] for row in best.metrics["probes"]] == [0.25, 0.75, 0.5]
    assert best.metrics["step_kept"] == 1
    _, after_one = trained("one", steps=1)
    assert all(torch.equal(weights[name], after_one[name]) for name in weights)
    assert (tmp_path / "best" / "tokenizer.json").is_file()


def test_adapters_under_zero_3(inputs, tmp_path):
    ppo = CONFIG.ppo.model_copy(
        update={"steps": 2, "lora": LoraConfig(rank=2, alpha=4), "learning_rate": 1e-2}
    )
    config = CONFIG.model_copy(update={"ppo": ppo})
    curves = []
    for name, runtime in (
        ("alone", RuntimeConfig(processes=1)),
        ("zero3", RuntimeConfig(processes=2, deepspeed=str(ROOT / "configs/deepspeed/zero3.json"))),
    ):
        folder = tmp_path / name
        folder.mkdir()
        outcome = PPO.run(Context(config, inputs, folder, runtime, lambda *rest, **more: None))
        curves.append(outcome.metrics["curve"])
        assert loads_as_a_policy(folder, inputs) > 1e-4
    for ours, theirs in zip(*curves, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def test_groups_with_adapters_execution_and_a_sampling_engine_together(inputs, tmp_path, monkeypatch):
    ppo = CONFIG.ppo.model_copy(
        update={
            "steps": 2, "algorithm": "grpo", "group": 4, "lora": LoraConfig(rank=2, alpha=4), "engine": "ctranslate2",
            "execution_weight": 0.5, "probe": 4, "probe_steps": 1, "learning_rate": 1e-2,
        }
    )  # fmt: skip
    asked = []

    def answer(rows):
        asked.append(rows)
        return passes(rows)

    monkeypatch.setattr(stage, "passing", lambda _: nullcontext(answer))
    config = CONFIG.model_copy(update={"ppo": ppo, "execute": ExecuteConfig()})
    metrics = PPO.run(
        Context(config, inputs, tmp_path, RuntimeConfig(processes=1), lambda *rest, **more: None)
    ).metrics
    assert [len(rows) for rows in asked] == [4, 8, 4, 8, 4], "a probe before, a step and a probe, twice"
    for rows in asked[1::2]:
        assert [name for name, _ in rows] == [rows[0][0]] * 4 + [rows[4][0]] * 4, "two prompts"
        assert len({text for _, text in rows}) > 4, "the engine draws each completion anew"
    assert "explained_variance" not in metrics
    assert [row["step"] for row in metrics["probes"]] == [0, 1, 2]
    assert loads_as_a_policy(tmp_path, inputs) > 1e-4


@pytest.mark.parametrize("processes", [1, 2])
def test_groups_killed_or_shared_by_two_ranks(inputs, tmp_path, processes):
    """A run that stopped after two steps goes on, alone or with another rank, as if it had not."""
    ppo = CONFIG.ppo.model_copy(update={"algorithm": "rloo", "group": 2, "steps": 4})

    def run(name, steps, processes):
        config = CONFIG.model_copy(update={"ppo": ppo.model_copy(update={"steps": steps})})
        return run_stage(inputs, tmp_path / name, processes, config)

    expected, _ = run("whole", 4, 1)
    run("parts", 2, 1)
    found, steps = run("parts", 4, processes)
    assert steps == [3, 4]
    for ours, theirs in zip(found.metrics["curve"], expected.metrics["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    if processes == 1:
        assert found.records_digest == expected.records_digest


@pytest.mark.parametrize("adapters", [None, LoraConfig(rank=2, alpha=4)], ids=["full", "lora"])
def test_goes_on_from_the_previous_policy_with_the_sft_policy_as_reference(inputs, tmp_path, adapters):
    previous = tmp_path / "previous"
    strong = CONFIG.model_copy(
        update={"ppo": CONFIG.ppo.model_copy(update={"steps": 2, "learning_rate": 3e-2})}
    )
    run_stage(inputs, previous, config=strong)
    ppo = CONFIG.ppo.model_copy(
        update={"steps": 1, "start": "previous", "lora": adapters, "learning_rate": 1e-9, "epochs": 1}
    )
    folder = tmp_path / "next"
    outcome, _ = run_stage(
        {**inputs, "start": previous}, folder, config=CONFIG.model_copy(update={"ppo": ppo})
    )
    assert outcome.metrics["curve"][0]["kl"] > 0.01, "the KL is that to the SFT policy"
    assert loads_as_a_policy(folder, inputs | {"generator": previous}) < 1e-6, (
        "the weights are the previous ones"
    )
    assert loads_as_a_policy(folder, inputs) > 1e-3


def test_a_reranker_with_a_template_and_tokens_of_its_own(inputs, tmp_path):
    other = tmp_path / "reranker"
    model = LlamaForSequenceClassification.from_pretrained(inputs["reranker"])
    model.config.prompt_template = "Problem: {prompt}\nProgram: "
    model.save_pretrained(other)
    own = train_tokenizer(["Problem: Program: " + "".join(PROMPTS)], 270)
    own.save_pretrained(other)
    tokenizer = AutoTokenizer.from_pretrained(inputs["generator"])
    ends = (tokenizer.eos_token_id, 70)
    translate = ppo_child.translation(tokenizer, ends, other, model.config)
    prompt, completion = encode_prompt(tokenizer, "add 1"), encode_completion(tokenizer, "return 2")
    assert own.decode(translate(prompt, completion)) == "Problem: add 1\nProgram: <sep>return 2<end>"
    assert own.decode(translate(prompt, completion[:-1])) == "Problem: add 1\nProgram: <sep>return 2"
    assert own.decode(translate(prompt, [*completion[:-1], 70])).endswith("<sep>return 2<end>"), "its own end"
    assert own.decode(translate(prompt, [*completion, *completion])).endswith("<sep>return 2<end>"), (
        "one program"
    )
    ends = (tokenizer.eos_token_id,)
    assert ppo_child.translation(tokenizer, ends, inputs["generator"], LlamaConfig()) is None


@pytest.mark.parametrize(
    ("special", "reads"),
    [
        ({"eos_token": "<sep>", "pad_token": "<end>", "sep_token": None}, "add 1return 2<sep>"),
        ({"pad_token": "<end>"}, "add 1<sep>return 2<end>"),
        ({"bos_token": "<pad>"}, "add 1<sep>return 2<end>"),
        ({"sep_token": None}, "add 1return 2<end>"),
    ],
    ids=["other-end", "other-pad", "other-begin", "no-separator"],
)
def test_a_reranker_of_the_same_words_reads_its_own_special_tokens(inputs, tmp_path, special, reads):
    """With the policy's end as the reranker's padding, it would read one token early."""
    tokenizer = AutoTokenizer.from_pretrained(inputs["generator"])
    own = AutoTokenizer.from_pretrained(inputs["generator"], **special)
    own.save_pretrained(tmp_path)
    own = AutoTokenizer.from_pretrained(tmp_path)
    ends = (tokenizer.eos_token_id,)
    translate = ppo_child.translation(tokenizer, ends, tmp_path, LlamaConfig())
    found = translate(encode_prompt(tokenizer, "add 1"), encode_completion(tokenizer, "return 2"))
    assert own.decode(found) == reads
    assert found[-1] == own.eos_token_id


def test_a_probe_of_more_problems_than_there_are(inputs, tmp_path):
    ppo = CONFIG.ppo.model_copy(update={"probe": 5})
    with pytest.raises(UsageError, match="ppo.probe is 5, but the validation split has 4 problems"):
        train_here(CONFIG.model_copy(update={"ppo": ppo}), inputs, tmp_path)
