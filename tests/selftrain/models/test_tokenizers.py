"""Tests of converting prompts and completions to tokens and back, with the kinds of tokenizers that pretrained models have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from selftrain.models.models import (
    decode_completion,
    encode_completion,
    encode_completions,
    encode_prompt,
    load_tokenizer,
    train_tokenizer,
)
from selftrain.records import Problem
from selftrain.sampling import Sample
from selftrain.sampling.run import candidate
from selftrain.sampling.stopping import Stopping

TEXTS = [
    "def add(values):\n    total = 0\n    for value in values:\n        total += value , 1\n    return total\n",
    "if x :\n\n\treturn [a, b]\n        y = {}\n",
]
COMPLETIONS = [
    "    return x\n",
    "        y = 1\n    return x",
    "import sys\n",
    "\n    return x",
    "x",
    "",
    " ",
    "\t x , y . z",
    "é\n",
]


def metaspace(folder: Path, fresh: bool = True) -> None:
    """As Llama 2's and CodeLlama's: a blank before each text, and without the first blank when it is decoded."""
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    if fresh:  # as newer ones say the same
        bpe.normalizer = None
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Metaspace(prepend_scheme="never", split=False)]
    )
    special = ["<unk>", "<s>", "</s>", *fallback]
    learner.train_from_iterator(
        TEXTS * 20, trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    )
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    bpe.model = models.BPE(model["vocab"], merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def legacy(folder: Path) -> None:
    """The same with a normalizer."""
    metaspace(folder, fresh=False)


def prefixed_bytes(folder: Path) -> None:
    """Bytes, with a blank before each text."""
    own = train_tokenizer(TEXTS * 5, 300)
    bpe = own.backend_tokenizer
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<pad>").save_pretrained(
        folder
    )


def cleaning(folder: Path) -> None:
    """Bytes, as GPT-2's were for years: blanks before commas and dots are taken away."""
    own = train_tokenizer(TEXTS * 5, 300)
    bpe = own.backend_tokenizer
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<end>", pad_token="<pad>", clean_up_tokenization_spaces=True
    ).save_pretrained(folder)


def our_own(folder: Path) -> None:
    """The tiny models' own."""
    train_tokenizer(TEXTS * 5, 300).save_pretrained(folder)


KINDS = [metaspace, legacy, prefixed_bytes, cleaning, our_own]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A tokenizer of each kind, loaded from a folder."""
    make: Callable[[Path], None] = request.param
    make(tmp_path)
    return load_tokenizer(tmp_path)


def test_a_completion_is_the_same_text_again(tokenizer: Any):
    rows = encode_completions(tokenizer, COMPLETIONS)
    assert rows == [encode_completion(tokenizer, text) for text in COMPLETIONS]
    for text, ids in zip(COMPLETIONS, rows, strict=True):
        assert ids[-1] == tokenizer.eos_token_id
        assert decode_completion(tokenizer, ids, (tokenizer.eos_token_id,)) == text


@pytest.mark.parametrize("kind", [metaspace, legacy], ids=lambda kind: kind.__name__)
def test_a_completion_has_the_tokens_that_it_has_behind_its_prompt(
    kind: Callable[[Path], None], tmp_path: Path
):
    """So a model that has read whole files writes them, and its candidate keeps all its blanks."""
    kind(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    prompt = "def add(values):\n"
    head = encode_prompt(tokenizer, prompt)
    for text in ("    return x\n", "        y = 1\n    return x", "import sys\n", "x"):
        whole = encode_prompt(tokenizer, prompt + text)
        assert whole[: len(head)] == head
        assert [*whole[len(head) :], tokenizer.eos_token_id] == encode_completion(tokenizer, text)
        problem = Problem("p.py", "p", "py", prompt, "", "rl", "made")
        ids = [*whole[len(head) :], tokenizer.eos_token_id]
        stopping = Stopping(tokenizer, (tokenizer.eos_token_id,))
        row = candidate(stopping, problem, 0, Sample(ids, [-1.0] * len(ids), True))
        assert row.completion == text
        assert tokenizer.decode(ids, skip_special_tokens=True) != text or not text.startswith(" ")


def test_what_is_behind_an_end_token_is_no_part_of_a_completion(tokenizer: Any):
    ids = encode_completion(tokenizer, "return x") + encode_completion(tokenizer, "Human: write")
    assert decode_completion(tokenizer, ids, (tokenizer.eos_token_id,)) == "return x"


@pytest.mark.parametrize(
    "text", [" total", "    return", "\n    total", "x", "    for value in values:\n total"]
)
def test_a_stop_text_that_begins_with_a_blank_ends_a_completion(tokenizer: Any, text: str):
    """At its start too, where some tokenizers drop the first blank of what they decode."""
    stopping = Stopping(tokenizer, (tokenizer.eos_token_id,))
    ids = encode_completion(tokenizer, text + " = 0\n")[:-1]
    for stop in (" total", "    return", "x"):
        watch = stopping.watch([(stop,)])
        found = [at + 1 for at, token in enumerate(ids) if watch(0, token)]
        assert found[:1] == ([stopping.ending(ids, (stop,)).used] if stop in text else [])
