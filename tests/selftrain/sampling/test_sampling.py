"""Tests of sampling: drawn tokens, their log-probabilities, and independence of batches and shards."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BloomConfig, GPT2Config, LlamaConfig

from selftrain.config import RunConfig, RuntimeConfig, SampleConfig
from selftrain.errors import DataError, UsageError
from selftrain.models.context import fits
from selftrain.models.models import (
    context_of,
    decode_completion,
    encode_prompt,
    end_ids,
    load_generator,
    load_tokenizer,
)
from selftrain.records import Candidate, Problem, read_records, write_records
from selftrain.sampling import Sample, ct2, hf, processor, vllm
from selftrain.sampling.hf import draw
from selftrain.sampling.run import candidate, own_devices
from selftrain.sampling.stopping import Stopping
from selftrain.stage import ArtifactRef, Context, Outcome
from selftrain.stages.sample import SAMPLE, SampleSlice
from selftrain.store.store import PROGRESS, Store
from tasks.run import Run
from tasks.stages import sample as sample_task
from tests.selftrain.conftest import make_problems

LENGTH = 12


def settings(**changes: Any) -> SampleConfig:
    """Sampling of short completions."""
    return SampleConfig(**{"max_new_tokens": LENGTH, "temperature": 0.8, "shard": 3} | changes)


@pytest.fixture(scope="module")
def prompts(generator: Path) -> list[list[int]]:
    """Prompts of different lengths."""
    tokenizer = load_tokenizer(generator)
    found = [encode_prompt(tokenizer, problem.prompt) for problem in make_problems()[8:14]]
    assert len({len(prompt) for prompt in found}) > 1
    return found


@torch.inference_mode()
def forced(generator: Path, prompt: Sequence[int], token_ids: Sequence[int]) -> tuple[float, list[int]]:
    """Summed log-probability of `token_ids` after `prompt` in one forward pass, and the likeliest token at each place."""
    logits = (
        load_generator(generator)
        .eval()(torch.tensor([[*prompt, *token_ids]]))
        .logits[0, len(prompt) - 1 : -1]
    )
    chosen = logits.log_softmax(-1).gather(1, torch.tensor(token_ids)[:, None])
    return chosen.sum().item(), logits.argmax(-1).tolist()


def flat(samples: list[list[Sample]]) -> list[Sample]:
    """All samples, in order."""
    return [one for many in samples for one in many]


def check_shape(samples: list[list[Sample]], n: int, end: int) -> None:
    """n samples a prompt; the end token is the last or not there."""
    assert {len(many) for many in samples} == {n}
    for one in flat(samples):
        assert 1 <= len(one.token_ids) <= LENGTH
        assert end not in one.token_ids[:-1]
        assert one.ended == (one.token_ids[-1] == end)
        assert one.ended or len(one.token_ids) == LENGTH


# Drawing by hand: probabilities 0.15, 0.5, 0.05, 0.3

LOGITS = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()


def drawn(noise: list[float], top_p: float, top_k: int | None = None) -> list[int]:
    """One draw from LOGITS per number."""
    return draw(LOGITS.expand(len(noise), -1), torch.tensor(noise), top_p, top_k=top_k).tolist()


def test_a_draw_is_the_first_token_whose_cumulative_probability_exceeds_the_number():
    assert drawn([0.0, 0.14, 0.16, 0.64, 0.66, 0.69, 0.71, 0.999], top_p=1.0) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_nucleus_is_the_fewest_likeliest_tokens_that_reach_top_p():
    # top_p 0.7: 0.5 and 0.3, renormalised to 0.625 and 0.375
    assert drawn([0.0, 0.62, 0.63, 0.9999], top_p=0.7) == [1, 1, 3, 3]
    # top_p 0.9: also 0.15, which comes first; 0.15 / 0.95 = 0.158, (0.15 + 0.5) / 0.95 = 0.684
    assert drawn([0.15, 0.16, 0.68, 0.69, 0.9999], top_p=0.9) == [0, 1, 1, 3, 3]
    assert drawn([0.0, 0.5, 0.9999], top_p=0.4) == [1, 1, 1]


def test_top_k_draws_from_the_likeliest_tokens_and_the_nucleus_is_one_of_theirs():
    # top_k 2: 0.5 and 0.3, renormalised to 0.625 and 0.375
    assert drawn([0.0, 0.62, 0.63, 0.9999], top_p=1.0, top_k=2) == [1, 1, 3, 3]
    assert drawn([0.0, 0.9999], top_p=1.0, top_k=1) == [1, 1]
    assert drawn([0.0, 0.14, 0.16, 0.64, 0.66, 0.69, 0.71, 0.999], 1.0, top_k=9) == [0, 0, 1, 1, 2, 2, 3, 3]
    # Of these two the first alone has 0.6; of all tokens it has 0.5 only, and the second would be in the nucleus.
    assert drawn([0.0, 0.9999], top_p=0.6, top_k=2) == [1, 1]
    assert drawn([0.0, 0.9999], top_p=0.6) == [1, 3]


def test_a_nucleus_larger_than_the_tokens_it_is_looked_for_in_is_drawn_from_all(
    monkeypatch: pytest.MonkeyPatch,
):
    # The nucleus of the first row has one token, that of the second all four but the unlikeliest.
    logits = torch.stack([torch.tensor([0.01, 0.97, 0.01, 0.01]).log(), LOGITS])
    for number, expected in ((0.0, [1, 0]), (0.16, [1, 1]), (0.69, [1, 3])):
        for most in (256, 2, 1):
            monkeypatch.setattr(hf, "NUCLEUS", most)
            assert draw(logits, torch.tensor([number, number]), top_p=0.9).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_draw_from_a_large_vocabulary_is_that_of_the_sum_over_all_of_it(dtype: torch.dtype):
    """Draws between the boundaries of tokens, at both ends of the vocabulary, and numbers so near 1 that rounding makes them 1."""
    made = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 20_011, generator=made) * 3
    logits[:100, 5_000:] = -torch.inf  # the last entries, and whole blocks, have no probability
    logits[100:200, :19_000] = -torch.inf
    numbers = torch.rand(400, generator=made, dtype=dtype)
    numbers[::4] = 1 - torch.finfo(dtype).eps / 2
    numbers[1::4] = 0
    chosen = draw(logits, numbers)
    cumulative = logits.double().softmax(-1).cumsum(-1)
    upto = cumulative.gather(1, chosen[:, None]).squeeze(1)
    own = logits.double().softmax(-1).gather(1, chosen[:, None]).squeeze(1)
    assert bool((own > 0).all())
    assert bool((upto >= numbers - 1e-6).all())
    assert bool((upto - own <= numbers + 1e-6).all())


@pytest.mark.parametrize("kind", ["hf", "ctranslate2"])
def test_every_engine_draws_from_the_k_likeliest_tokens(
    generator: Path, prompts: list, converted: Any, kind: str
):
    changes = {"top_k": 3, "temperature": 5.0}
    engine = hf.Engine(generator, settings(**changes)) if kind == "hf" else converted(**changes)
    model, places = load_generator(generator).eval(), []
    for prompt, many in zip(prompts, engine.sample(prompts, 4, seed=5), strict=True):
        for one in many:
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *one.token_ids]])).logits[0, len(prompt) - 1 : -1]
            chosen = logits.gather(1, torch.tensor(one.token_ids)[:, None])
            places += (logits > chosen).sum(1).tolist()
    assert set(places) == {0, 1, 2}


def test_uniform_numbers_depend_on_their_name_only():
    assert torch.equal(hf.uniforms("1/2/3", 5)[:3], hf.uniforms("1/2/3", 3))
    assert not torch.equal(hf.uniforms("1/2/3", 3), hf.uniforms("1/2/4", 3))
    many = hf.uniforms("a", 10_000)
    assert many.min() >= 0
    assert many.max() < 1
    assert many.mean().item() == pytest.approx(0.5, abs=0.02)


# hf


@pytest.mark.parametrize("changes", [{}, {"top_p": 0.9}, {"temperature": 1.5}])
def test_hf_logprob_is_that_of_a_forward_pass_at_temperature_1(generator: Path, prompts: list, changes: dict):
    engine = hf.Engine(generator, settings(**changes))
    samples = engine.sample(prompts, 3, seed=5)
    check_shape(samples, 3, engine.tokenizer.eos_token_id)
    for prompt, many in zip(prompts, samples, strict=True):
        for one in many:
            assert one.logprob == pytest.approx(forced(generator, prompt, one.token_ids)[0], abs=1e-4)
    assert len({tuple(one.token_ids) for one in flat(samples)}) > len(prompts), "the samples differ"


def test_hf_samples_do_not_depend_on_the_batch(
    generator: Path, prompts: list, monkeypatch: pytest.MonkeyPatch
):
    engine = hf.Engine(generator, settings(top_p=0.95))
    expected = engine.sample(prompts, 4, seed=5)
    for batch in (1, 5):
        monkeypatch.setattr(hf, "BATCH", batch)
        found = engine.sample(prompts, 4, seed=5)
        assert [one.token_ids for one in flat(found)] == [one.token_ids for one in flat(expected)]
        assert [one.logprob for one in flat(found)] == pytest.approx(
            [one.logprob for one in flat(expected)], abs=1e-4
        )
    fewer = engine.sample(prompts[:3], 2, seed=5)
    assert [[one.token_ids for one in many] for many in fewer] == [
        [one.token_ids for one in many[:2]] for many in expected[:3]
    ]


def test_hf_reads_equal_prompts_once(generator: Path, prompts: list, monkeypatch: pytest.MonkeyPatch):
    engine, read = hf.Engine(generator, settings()), []
    engine.model.register_forward_pre_hook(
        lambda _, __, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    engine.sample(prompts, 4, seed=5)
    assert read[:2] == [(len(prompts), max(map(len, prompts))), (4 * len(prompts), 1)]


def test_hf_computes_in_bfloat16_where_it_is_asked_to(generator: Path, prompts: list):
    engine = hf.Engine(generator, settings(engine="hf", compute_type="bfloat16"))
    assert engine.model.dtype is torch.bfloat16
    for prompt, many in zip(prompts, engine.sample(prompts, 3, seed=5), strict=True):
        for one in many:  # bfloat16 has 8 bits of precision
            exact = forced(generator, prompt, one.token_ids)[0]
            assert one.logprob == pytest.approx(exact, abs=0.1 * len(one.token_ids))
            assert one.logprob != pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(("engine", "arithmetic"), [("ctranslate2", "bfloat16"), ("hf", "int8")])
def test_arithmetic_that_an_engine_lacks_is_refused(engine: str, arithmetic: str):
    with pytest.raises(ValueError, match=f"compute_type {arithmetic} is for engine .*, not for {engine}"):
        settings(engine=engine, compute_type=arithmetic)


def test_hf_samples_depend_on_the_seed(generator: Path, prompts: list):
    engine = hf.Engine(generator, settings())
    assert engine.sample(prompts, 2, seed=5) != engine.sample(prompts, 2, seed=6)
    assert engine.sample(prompts, 2, seed=5) == engine.sample(prompts, 2, seed=5)


def test_hf_greedy_takes_the_likeliest_token(generator: Path, prompts: list):
    engine = hf.Engine(generator, settings())
    greedy = engine.sample(prompts, 0, seed=5)
    check_shape(greedy, 1, engine.tokenizer.eos_token_id)
    for prompt, (one,) in zip(prompts, greedy, strict=True):
        assert forced(generator, prompt, one.token_ids)[1] == one.token_ids
    cold = hf.Engine(generator, settings(temperature=1e-4)).sample(prompts, 1, seed=5)
    assert [one.token_ids for one in flat(cold)] == [one.token_ids for one in flat(greedy)]


# ctranslate2


@pytest.fixture(scope="module")
def converted(generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that makes an engine with some settings; the model is converted once."""
    workspace = tmp_path_factory.mktemp("ctranslate2")
    return lambda **changes: ct2.Engine(generator, settings(**changes), workspace, threads=1)


@pytest.mark.parametrize("changes", [{}, {"top_p": 0.9}, {"temperature": 1.5}])
def test_ct2_logprob_is_that_of_a_forward_pass_at_temperature_1(
    generator: Path, prompts: list, converted: Any, changes: dict
):
    engine = converted(**changes)
    samples = engine.sample(prompts, 3, seed=5)
    check_shape(samples, 3, engine.tokenizer.eos_token_id)
    for prompt, many in zip(prompts, samples, strict=True):
        for one in many:
            assert one.logprob == pytest.approx(forced(generator, prompt, one.token_ids)[0], abs=1e-3)
    assert len({tuple(one.token_ids) for one in flat(samples)}) > len(prompts), "the samples differ"


def test_ct2_samples_depend_on_the_seed_only(prompts: list, converted: Any):
    first = converted().sample(prompts, 3, seed=5)
    other = converted().sample(prompts, 3, seed=6)
    assert [one.token_ids for one in flat(first)] != [one.token_ids for one in flat(other)]
    again = converted().sample(prompts, 3, seed=5)
    assert [one.token_ids for one in flat(first)] == [one.token_ids for one in flat(again)]


def test_ct2_greedy_agrees_with_hf(generator: Path, prompts: list, converted: Any):
    ours = converted().sample(prompts, 0, seed=5)
    theirs = hf.Engine(generator, settings()).sample(prompts, 0, seed=5)
    assert [one.token_ids for one in flat(ours)] == [one.token_ids for one in flat(theirs)]
    assert [one.logprob for one in flat(ours)] == pytest.approx(
        [one.logprob for one in flat(theirs)], abs=1e-3
    )


def test_ct2_in_8_bits_draws_from_nearly_the_same_model(generator: Path, prompts: list, converted: Any):
    if not processor.adds_exactly():
        with pytest.raises(
            UsageError, match=r"int8, and this machine's processor has no VNNI .*compute_type=float32"
        ):
            converted(compute_type="int8")
        return
    engine = converted(compute_type="int8")
    samples = engine.sample(prompts, 3, seed=5)
    check_shape(samples, 3, engine.tokenizer.eos_token_id)
    errors = [
        abs(one.logprob - forced(generator, prompt, one.token_ids)[0]) / len(one.token_ids)
        for prompt, many in zip(prompts, samples, strict=True)
        for one in many
    ]
    assert 1e-4 < sum(errors) / len(errors) < 0.1, "rounded, but not another model"


@pytest.mark.parametrize(
    ("flags", "forced", "machine", "exact"),
    [
        ("fpu avx2", "", "x86_64", False),
        ("fpu avx2 avx512f avx512bw", "", "x86_64", False),
        ("fpu avx2 avx512f avx512_vnni", "", "x86_64", True),
        ("fpu avx2 avx_vnni", "", "x86_64", True),
        ("fpu avx2 avx512_vnni", "AVX2", "x86_64", False),
        ("", "", "aarch64", True),
    ],
)
def test_8_bits_are_used_where_their_sums_are_exact_and_the_key_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, forced: str, machine: str, exact: bool
):
    monkeypatch.setenv("CT2_FORCE_CPU_ISA", forced)
    several = f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: avx_vnni\n"
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.CPUINFO.write_text(several if flags else "processor\t: 0\n")
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    assert processor.adds_exactly() == exact
    run = Run(RunConfig(sample=SampleConfig(compute_type="int8")), Store(str(tmp_path)))
    some = ArtifactRef("prepare", "0" * 32)
    sample_task(run, some, some, "sft")
    assert run.steps["sample-sft-rl"].config.sample.compute_type == ("int8" if exact else "float32")


def test_ct2_samples_from_the_weights_that_were_reloaded(generator: Path, prompts: list, tmp_path: Path):
    other = load_generator(generator)
    with torch.no_grad():
        other.lm_head.weight.mul_(-1)
    other.save_pretrained(tmp_path / "other")
    load_tokenizer(generator).save_pretrained(tmp_path / "other")
    engine = ct2.Engine(generator, settings(), tmp_path, threads=1)
    before = flat(engine.sample(prompts, 2, seed=5))
    engine.reload(tmp_path / "other")
    after = flat(engine.sample(prompts, 2, seed=5))
    assert [one.token_ids for one in after] != [one.token_ids for one in before]
    for prompt, one in zip([prompt for prompt in prompts for _ in range(2)], after, strict=True):
        assert one.logprob == pytest.approx(forced(tmp_path / "other", prompt, one.token_ids)[0], abs=1e-3)
    engine.reload(generator)
    assert flat(engine.sample(prompts, 2, seed=5)) == before


# vllm: no test runs it; these stop at what would be handed to it and what would be made of what it gives


def test_what_vllm_would_be_asked_for():
    drawn = vllm.parameters(settings(top_p=0.9), 3, "1/p.py", ends=(7, 9))
    assert drawn == {
        "n": 3,
        "max_tokens": LENGTH,
        "stop_token_ids": [7, 9],
        "logprobs": 0,
        "detokenize": False,
        "temperature": 0.8,
        "top_p": 0.9,
        "seed": vllm.seed_of("1/p.py"),
    }
    stopped = vllm.parameters(settings(top_p=0.9), 3, "1/p.py", ends=(7, 9), stops=("\ndef", "\n#"))
    assert stopped == {**drawn, "stop": ["\ndef", "\n#"], "detokenize": True}
    assert vllm.parameters(settings(top_p=0.9, top_k=50), 3, "1/p.py", (7, 9)) == {**drawn, "top_k": 50}
    greedy = vllm.parameters(settings(top_p=0.9), 0, "1/p.py", ends=(7,))
    assert (greedy["n"], greedy["temperature"]) == (1, 0.0)
    assert not {"seed", "top_p"} & set(greedy)
    assert "top_k" not in vllm.parameters(settings(top_k=50), 0, "1/p.py", ends=(7,)), "greedy needs none"


def test_a_seed_for_vllm_depends_on_the_name_only_and_leaves_room_for_the_samples_number():
    seeds = {vllm.seed_of(f"1/p{number}.py") for number in range(100)}
    assert len(seeds) == 100
    assert vllm.seed_of("1/p0.py") in seeds
    assert max(seeds) + 1000 < 2**63
    assert min(seeds) >= 0


def test_what_vllm_would_be_started_with():
    alone = vllm.arguments(Path("model"), 4, trained=False)
    assert (alone["model"], alone["tensor_parallel_size"]) == ("model", 4)
    assert alone["distributed_executor_backend"] is None
    assert alone["logprobs_mode"] == "raw_logprobs", "before temperature"
    rank = vllm.arguments(Path("model"), 4, trained=True)
    assert (rank["tensor_parallel_size"], rank["distributed_executor_backend"]) == (1, "external_launcher")
    assert rank["gpu_memory_utilization"] < alone["gpu_memory_utilization"]
    with pytest.raises(UsageError, match="needs a GPU, and this process sees none"):
        vllm.arguments(Path("model"), 0, trained=False)


class Recorder:
    """Stands where `vllm.LLM` would: keeps what it is handed, and gives outputs in the shape of `vllm.RequestOutput`."""

    def __init__(self, outputs: list[Any]) -> None:
        self.outputs = outputs
        self.calls: list[Any] = []

    def generate(self, prompts: Any, parameters: Any, use_tqdm: bool) -> list[Any]:
        self.calls.append((prompts, parameters))
        return self.outputs

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        self.calls.append((method, kwargs))

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset_prefix_cache")


def completion(index: int, token_ids: tuple[int, ...], logprobs: list[float], reason: str) -> SimpleNamespace:
    """In the shape of `vllm.CompletionOutput`."""
    places = [{token: SimpleNamespace(logprob=one)} for token, one in zip(token_ids, logprobs, strict=True)]
    return SimpleNamespace(
        index=index,
        text="",
        token_ids=token_ids,
        cumulative_logprob=sum(logprobs),
        logprobs=places,
        finish_reason=reason,
    )


def test_what_would_be_made_of_what_vllm_gives(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=dict))
    outputs = [
        SimpleNamespace(
            outputs=[
                completion(0, (5, 6, 7), [-0.25, -1.0, -0.25], "stop"),
                completion(1, (5, 5), [-1.5, -0.5], "length"),
            ]
        ),
        SimpleNamespace(
            outputs=[completion(0, (7,), [-0.25], "stop"), completion(1, (6, 8), [-1.0, -2.0], "stop")]
        ),
    ]
    engine = object.__new__(vllm.Engine)
    engine.settings, engine.ends, engine.llm = settings(), (7,), Recorder(outputs)
    found = engine.sample([[1, 2], [3]], 2, seed=5, names=["1/a", "1/b"], stops=[(), ("\n#",)])
    assert found == [
        [Sample([5, 6, 7], [-0.25, -1.0, -0.25], True), Sample([5, 5], [-1.5, -0.5], False)],
        [Sample([7], [-0.25], True), Sample([6, 8], [-1.0, -2.0], True)],  # 8 completes the stop text
    ]
    assert [one.logprob for one in flat(found)] == [-1.5, -2.0, -0.25, -3.0]
    ((prompts, asked),) = engine.llm.calls
    assert prompts == [{"prompt_token_ids": [1, 2]}, {"prompt_token_ids": [3]}]
    assert [one["seed"] for one in asked] == [vllm.seed_of("1/a"), vllm.seed_of("1/b")]
    assert [one.get("stop") for one in asked] == [None, ["\n#"]]
    engine.reload(Path("other"))
    assert engine.llm.calls[1:] == [("reload_weights", {"weights_path": "other"}), "reset_prefix_cache"]


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
def test_a_missing_vllm_is_told(generator: Path):
    with pytest.raises(UsageError, match=r"needs the package vllm, which is not installed.*engine hf"):
        vllm.Engine(generator, settings())


@pytest.mark.parametrize(
    ("visible", "world", "expected"),
    [
        ("0123", 4, ["0", "1", "2", "3"]),
        ("0123", 2, ["01", "23"]),
        ("0123", 1, ["0123"]),
        ("57", 3, ["5", "7", "5"]),
        ("012", 2, ["0", "1"]),
        ("", 2, ["", ""]),
    ],
)
def test_sampling_processes_share_out_the_gpus(visible: str, world: int, expected: list[str]):
    assert ["".join(own_devices(visible, rank, world)) for rank in range(world)] == expected


# Candidates

PROBLEM = Problem("p.py", "p", "py", "prompt", "tests", "rl", "made", stop_tokens=("\ndef", "\n#"))


@pytest.mark.parametrize(
    ("text", "ended", "completion", "reason"),
    [
        ("    return 1\n# more\ndef f", False, "    return 1", "stop"),
        ("    return 1\ndef f\n#", True, "    return 1", "stop"),
        ("    return 1\n", True, "    return 1\n", "stop"),
        ("    return 1\n", False, "    return 1\n", "length"),
        ("\ndef", False, "", "stop"),
    ],
)
def test_a_completion_is_cut_at_its_first_stop_token(
    generator: Path, text: str, ended: bool, completion: str, reason: str
):
    tokenizer = load_tokenizer(generator)
    ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * ended
    stopping = Stopping(tokenizer, (tokenizer.eos_token_id,))
    logprobs = [-0.25 * (at + 1) for at in range(len(ids))]
    row = candidate(stopping, PROBLEM, 3, Sample(ids, logprobs, ended))
    assert (row.id, row.problem_id, row.sample) == ("p.py#3", "p.py", 3)
    assert (row.completion, row.finish_reason) == (completion, reason)
    kept = decode_completion(tokenizer, row.token_ids, (tokenizer.eos_token_id,))
    assert kept == (completion or "\n"), "without text, the stop text's first token"
    assert row.logprob < 0, "no completion is certain"
    assert row.token_ids == tuple(ids[: len(row.token_ids)])
    assert row.logprob == sum(logprobs[: len(row.token_ids)])
    assert row.sampled == len(ids)
    if completion == text:
        assert row.token_ids == tuple(ids)


@pytest.fixture(scope="module")
def engine_of(generator: Path, converted: Any) -> Any:
    """A function that makes an engine of a kind."""
    return lambda kind: hf.Engine(generator, settings()) if kind == "hf" else converted()


@pytest.mark.parametrize("kind", ["hf", "ctranslate2"])
@pytest.mark.parametrize("count", [0, 4])
def test_a_stop_text_ends_decoding_and_text_tokens_and_logprob_are_those_before_it(
    generator: Path, prompts: list, engine_of: Any, kind: str, count: int
):
    """The stop text of a problem is three letters in the middle of what one of its samples says."""
    engine = engine_of(kind)
    stopping = engine.stopping
    free = engine.sample(prompts, count, seed=5)
    texts = [stopping.ending(many[0].token_ids).text for many in free]
    stops = [(text[len(text) // 2 :][:3],) for text in texts]
    found = engine.sample(prompts, count, 5, None, stops)
    assert any(one.ended for one in flat(found))
    assert count == 0 or not all(one.ended for one in flat(found))
    for prompt, texts, many in zip(prompts, stops, found, strict=True):
        problem = Problem("p.py", "p", "py", "", "", "rl", "made", stop_tokens=texts)
        for one in many:
            row = candidate(stopping, problem, 0, one)
            ending = stopping.ending(one.token_ids, texts)
            assert ending.used == len(one.token_ids) == len(one.logprobs), "no token behind the stop text"
            assert one.ended == (ending.reason != "length")
            assert texts[0] not in row.completion
            kept = decode_completion(engine.tokenizer, row.token_ids, engine.ends)
            assert kept.startswith(row.completion)
            before = decode_completion(engine.tokenizer, row.token_ids[:-1], engine.ends)
            assert ending.reason != "stop" or not row.completion or not before.startswith(row.completion)
            expected = forced(generator, prompt, row.token_ids)[0]
            assert row.logprob == pytest.approx(expected, abs=1e-3)
    if kind == "hf":
        for one, whole in zip(flat(found), flat(free), strict=True):
            assert one.token_ids == whole.token_ids[: len(one.token_ids)], "a stop text changes no draw"


def test_a_token_that_the_cut_goes_through_is_kept(generator: Path):
    """It was sampled for what is left of it, too; nothing that the model did not write is scored."""
    tokenizer = load_tokenizer(generator)
    ids = tokenizer("    return n")["input_ids"]
    assert tokenizer.decode(ids[:1]) == "  ", "one token of two letters"
    stopping = Stopping(tokenizer, (tokenizer.eos_token_id,))
    found = stopping.ending(ids, (" return",))
    assert (found.text, found.kept) == ("   ", len(tokenizer("    ")["input_ids"]))
    found = stopping.ending(ids, ("   ",))
    assert (found.text, found.kept) == ("", 1)
    found = stopping.ending(ids, ("(",))
    assert (found.text, found.kept) == ("    return n", len(ids))


@pytest.mark.parametrize("kind", ["hf", "ctranslate2"])
def test_every_end_token_of_the_generation_config_ends_a_completion(
    generator: Path, prompts: list, tmp_path: Path, kind: str
):
    """The other one is a token like any other, whose text would be glued to what follows if it vanished in decoding."""
    tokenizer = load_tokenizer(generator)
    folder = tmp_path / "generator"
    shutil.copytree(generator, folder)

    def sampled() -> list[Sample]:
        engine = (
            hf.Engine(folder, settings()) if kind == "hf" else ct2.Engine(folder, settings(), tmp_path, 1)
        )
        return flat(engine.sample(prompts, 3, seed=5))

    other = next(token for one in sampled() for token in one.token_ids[1:-1])
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [tokenizer.eos_token_id, other]})
    )
    assert end_ids(tokenizer, folder) == (tokenizer.eos_token_id, other)
    found = sampled()
    ended = [one for one in found if one.token_ids[-1] == other]
    assert ended
    for one in found:
        assert not {tokenizer.eos_token_id, other} & set(one.token_ids[:-1])
        assert one.ended == (one.token_ids[-1] in (tokenizer.eos_token_id, other))
    row = candidate(Stopping(tokenizer, end_ids(tokenizer, folder)), PROBLEM, 0, ended[0])
    assert row.completion == PROBLEM.cut(tokenizer.decode(ended[0].token_ids[:-1]))
    assert row.finish_reason == "stop"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_position_embeddings": 96}, 96),
        ({"max_position_embeddings": 96, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 384),
        (
            {
                "max_position_embeddings": 96,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
            },
            128,
        ),
        (
            {
                "max_position_embeddings": 96,
                "rope_scaling": {
                    "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 12,
                    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                },
            },
            96,
        ),
    ],
    ids=["plain", "linear", "yarn", "llama3"],
)  # fmt: skip
def test_the_longest_input_goes_by_how_positions_are_scaled(settings: dict, expected: int):
    assert context_of(LlamaConfig(**settings)) == expected


def test_the_longest_input_has_many_names():
    assert context_of(GPT2Config(n_positions=128)) == 128
    assert context_of(BloomConfig()) is None
    assert fits(0, 10, 1) is False
    assert [fits(prompt, 96, 90) for prompt in (1, 6, 7)] == [True, True, False]
    assert fits(10**6, None, 10**6)


# The stage


def sampled(
    folder: Path, problems: Path, generator: Path, processes: int, engine: str, shard: int = 3
) -> tuple[Outcome, list[Candidate]]:
    """The stage's outcome and candidates for the six rl problems, by default in two shards."""
    drawing = settings(engine=engine, shard=shard)
    config = SampleSlice(seed=1, sample=drawing, splits=("rl",), count=2, greedy=True)
    folder.mkdir(exist_ok=True)
    runtime = RuntimeConfig(processes=processes)
    build = Context(config, {"problems": problems, "generator": generator}, folder, runtime, lambda **_: None)
    outcome = SAMPLE.run(build)
    return outcome, read_records(folder / "candidates.parquet", Candidate)


@pytest.mark.parametrize("engine", ["hf", "ctranslate2"])
def test_a_prompt_without_room_for_a_completion_is_left_out_and_counted(
    tmp_path: Path, generator: Path, engine: str
):
    """The model takes 96 tokens, the completion 12 of them."""
    tokenizer = load_tokenizer(generator)
    rows = [p for p in make_problems() if p.split == "rl"]

    def of_length(tokens: int) -> str:
        text = "x = " + "1" * 200
        while len(encode_prompt(tokenizer, text)) > tokens:
            text = text[:-1]
        assert len(encode_prompt(tokenizer, text)) == tokens
        return text

    rows[0], rows[4] = replace(rows[0], prompt=of_length(84)), replace(rows[4], prompt=of_length(85))
    rows[5] = replace(rows[5], prompt=of_length(150))
    write_records(tmp_path / "problems.parquet", rows, Problem)
    outcome, found = sampled(tmp_path / "out", tmp_path, generator, 1, engine)
    assert (outcome.metrics["problems"], outcome.metrics["too_long"]) == (4, 2)
    assert {row.problem_id for row in found} == {row.id for row in rows[:4]}
    write_records(tmp_path / "problems.parquet", rows[4:], Problem)
    with pytest.raises(
        DataError, match=r"none of the 2 problems has a prompt that fits: .*max_new_tokens=12 more"
    ):
        sampled(tmp_path / "none", tmp_path, generator, 1, engine)


@pytest.mark.slow
def test_hf_samples_do_not_depend_on_shards(tmp_path: Path, problems: Path, generator: Path):
    _, threes = sampled(tmp_path / "threes", problems, generator, 1, "hf", shard=3)
    _, fours = sampled(tmp_path / "fours", problems, generator, 1, "hf", shard=4)
    assert [(row.id, row.token_ids) for row in threes] == [(row.id, row.token_ids) for row in fours]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hf", "ctranslate2"])
def test_ranks_and_resumed_shards_give_the_same_candidates(
    tmp_path: Path, problems: Path, generator: Path, engine: str
):
    alone, rows = sampled(tmp_path / "alone", problems, generator, 1, engine)
    ids = [problem.id for problem in make_problems() if problem.split == "rl"]
    assert [row.id for row in rows] == [f"{id}#{number}" for id in ids for number in (0, 1, -1)]
    assert alone.metrics["candidates"] == 12
    drawn = [row for row in rows if row.sample >= 0]
    assert alone.metrics["tokens_kept"] == sum(len(row.token_ids) for row in drawn)
    assert alone.metrics["tokens"] == sum(row.sampled for row in drawn) >= alone.metrics["tokens_kept"]
    shards = sorted(path.name for path in (tmp_path / "alone" / PROGRESS).glob("shard-*.parquet"))
    assert shards == ["shard-00000.parquet", "shard-00001.parquet"]
    (tmp_path / "resumed" / PROGRESS).mkdir(parents=True)
    shutil.copy(tmp_path / "alone" / PROGRESS / shards[0], tmp_path / "resumed" / PROGRESS)
    resumed, _ = sampled(tmp_path / "resumed", problems, generator, 2, engine)
    assert resumed.records_digest == alone.records_digest
