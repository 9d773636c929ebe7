"""Tests of the log-probabilities of programs under a run's generator: read together, they are those of each program alone."""

import threading

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from selftrain.models import footprint
from selftrain.models.logprobs import summed_logprobs
from selftrain.models.models import encode_completions, encode_prompt, train_tokenizer
from selftrain.rerank import batches as batching
from selftrain.rerank.likelihood import Asked, Likelihood
from selftrain.rerank.normal import Normal

PROMPTS = ("def add(n):\n", "def multiply(number, other):  # number times other\n", "x")
TEXTS = ("    return n + 7\n", "    return n\n", "    pass\n" * 9, "\n")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def made(kind: str = "llama") -> Likelihood:
    """A tiny generator with random weights, of no run."""
    tokenizer = train_tokenizer([*PROMPTS, *TEXTS], 280)
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 128}
    model = (
        LlamaForCausalLM(LlamaConfig(**sizes))
        if kind == "llama"
        else MistralForCausalLM(MistralConfig(**sizes, sliding_window=8))
    )
    likelihood = Likelihood({"stages": {}}, ["py"])
    likelihood._generator = model.eval(), tokenizer
    return likelihood


def alone(likelihood: Likelihood, form: Normal) -> float:
    """The mean log-probability of one program's tokens, the end token included."""
    model, tokenizer = likelihood._generator
    [row] = encode_completions(tokenizer, [form.completion])
    return summed_logprobs(model, [encode_prompt(tokenizer, form.prompt)], [row])[0] / len(row)


def asked() -> list[Asked]:
    """Problems of 4, 3 and 1 programs; the second has a program twice, one that is refused, and one with a prompt of its own."""
    return [
        Asked([Normal(PROMPTS[0], text) for text in TEXTS], "py", {}),
        Asked(
            [
                Normal(PROMPTS[1], TEXTS[0]),
                Normal(PROMPTS[1], TEXTS[0]),
                Normal(PROMPTS[1], "    refused\n"),
                Normal("import math\n" + PROMPTS[1], TEXTS[1]),
            ],
            None,
            {2: "it is refused"},
        ),
        Asked([Normal(PROMPTS[2], TEXTS[2])], "py", {}),
    ]


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_together_they_are_those_of_each_program_alone(kind: str):
    likelihood = made(kind)
    problems = asked()
    found = likelihood.means(problems)
    for problem, means in zip(problems, found, strict=True):
        for at, form in enumerate(problem.forms):
            expected = None if at in problem.refused else pytest.approx(alone(likelihood, form), abs=1e-5)
            assert means[at] == expected
    assert found[1][0] == found[1][1]
    assert len({mean for means in found for mean in means}) == 8, "all others differ"


@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_small_batches_change_nothing(monkeypatch: pytest.MonkeyPatch, tokens: int):
    """Rows with more tokens than fit into memory together, batches cut by tokens, and prefixes in several batches."""
    likelihood = made()
    whole = likelihood.means(asked())
    monkeypatch.setattr(footprint, "LOGIT_BYTES", 4 * 280 * tokens)
    monkeypatch.setitem(batching.BATCH_TOKENS, "cpu", 30)
    for means, expected in zip(likelihood.means(asked()), whole, strict=True):
        assert [mean for mean in means if mean is not None] == pytest.approx(
            [mean for mean in expected if mean is not None], abs=1e-5
        )


def test_a_program_that_is_too_long_for_the_generator_is_told():
    likelihood = made()
    problem = Asked([Normal(PROMPTS[0], "y" * 200), Normal(PROMPTS[0], TEXTS[0])], "py", {})
    assert likelihood.means([problem]) == [
        [None, pytest.approx(alone(likelihood, problem.forms[1]), abs=1e-5)]
    ]
    assert "the run's generator reads no more than 128" in problem.refused[0]


def test_two_threads_get_what_one_gets():
    likelihood = made()
    expected = likelihood.means(asked())
    found: list[list[list[float | None]]] = []

    def work() -> None:
        for _ in range(20):
            found.append(likelihood.means(asked()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert all(each == expected for each in found)
