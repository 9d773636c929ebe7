"""Tests of where a completion ends, on a tokenizer whose tokens are chosen by hand."""

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from selftrain.sampling.stopping import Ending, Stopping

STOPS = ("\ndef", "\n#")
PIECES = ("    return", " 1", "\n", "\n\n", "\n\n\n", "def", "\nd", "ef", "# x", "#", " f", "\ndef f", "x")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """All bytes, then PIECES as tokens that are decoded but never written, and two special tokens."""
    shown = {piece: "".join(word for word, _ in _bytes(piece)) for piece in PIECES}
    words = ["<end>", "<other>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [text for text in shown.values() if text not in words]
    made = Tokenizer(models.BPE({word: at for at, word in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<end>", additional_special_tokens=["<other>"]
    )


def _bytes(text: str) -> Sequence[tuple[str, tuple[int, int]]]:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)


def ids(tokenizer: Any, *pieces: str | bytes) -> list[int]:
    """The token of each piece; a bytes object stands for a token of one byte, which may be a part of a letter."""
    alphabet = {
        byte: word for byte in range(256) for word in [_of_byte(byte)] if word in tokenizer.get_vocab()
    }
    words = [
        piece
        if isinstance(piece, str) and piece.startswith("<")
        else alphabet[piece[0]]
        if isinstance(piece, bytes)
        else "".join(word for word, _ in _bytes(piece))
        for piece in pieces
    ]
    return [tokenizer.convert_tokens_to_ids(word) for word in words]


def _of_byte(byte: int) -> str:
    """Byte-level BPE's letter for a byte: itself where it can be printed, else the next free one from 256 on (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [other for other in range(256) if other not in printable]
    return chr(byte if byte in printable else 256 + others.index(byte))


RETURN = ("    return", " 1")

CASES = {
    "no stop text": ([*RETURN, "\n"], Ending("    return 1\n", 3, 3, "length")),
    "end token": ([*RETURN, "\n", "<end>"], Ending("    return 1\n", 4, 4, "end")),
    "tokens after the end": ([*RETURN, "<end>", "x"], Ending("    return 1", 3, 3, "end")),
    "only an end token": (["<end>"], Ending("", 1, 1, "end")),
    "nothing": ([], Ending("", 0, 0, "length")),
    "one token": ([*RETURN, "\ndef f"], Ending("    return 1", 2, 3, "stop")),
    "across two tokens": ([*RETURN, "\n", "def", " f"], Ending("    return 1", 2, 4, "stop")),
    "inside two tokens": ([*RETURN, "\nd", "ef", " f"], Ending("    return 1", 2, 4, "stop")),
    "a blank line before": ([*RETURN, "\n\n", "def"], Ending("    return 1\n", 3, 4, "stop")),
    "two blank lines before": ([*RETURN, "\n\n\n", "def"], Ending("    return 1\n\n", 3, 4, "stop")),
    "blank lines in tokens": ([*RETURN, "\n", "\n", "\n", "#"], Ending("    return 1\n\n", 4, 6, "stop")),
    "more than the stop text": ([*RETURN, "\n", "# x"], Ending("    return 1", 2, 4, "stop")),
    "at the start": (["\n", "def", "x"], Ending("", 1, 2, "stop")),
    "at the start, one token": (["\ndef f"], Ending("", 1, 1, "stop")),
    "before the end token": ([*RETURN, "\n", "#", "<end>"], Ending("    return 1", 2, 4, "stop")),
    "behind the end token": ([*RETURN, "<end>", "\n", "#"], Ending("    return 1", 3, 3, "end")),
    "around the end token": ([*RETURN, "\n", "<end>", "def"], Ending("    return 1\n", 4, 4, "end")),
    "around a special token": ([*RETURN, "\n", "<other>", "def"], Ending("    return 1", 2, 5, "stop")),
    "special token before": ([*RETURN, "<other>", "\n", "def"], Ending("    return 1", 2, 5, "stop")),
    "a letter in two tokens": (["x", b"\xc3", b"\xa9", "\n", "#"], Ending("xé", 3, 5, "stop")),
    "half a letter": (["x", b"\xc3", "\n", "#"], Ending("x\ufffd", 2, 4, "stop")),
    "half a letter at the end": (["x", b"\xc3"], Ending("x\ufffd", 2, 2, "length")),
    "the first of two": (["x", "\n", "#", "\n", "def"], Ending("x", 1, 3, "stop")),
}


@pytest.mark.parametrize("name", CASES)
def test_where_a_completion_ends(tokenizer: Any, name: str):
    pieces, expected = CASES[name]
    stopping = Stopping(tokenizer, ids(tokenizer, "<end>"))
    row = ids(tokenizer, *pieces)
    assert stopping.ending(row, STOPS) == expected
    assert stopping.ends_by_itself(row, STOPS) == (expected.reason != "length")


@pytest.mark.parametrize("name", CASES)
def test_a_watch_stops_at_the_token_that_completes_a_stop_text(tokenizer: Any, name: str):
    pieces, expected = CASES[name]
    row = ids(tokenizer, *pieces)
    end = row[: expected.used] if expected.reason == "end" else row
    watch = Stopping(tokenizer, ids(tokenizer, "<end>")).watch([STOPS, STOPS, ()])
    assert not any(watch(1, token) for token in ids(tokenizer, "\n", "x")), "rows are apart"
    seen = [watch(0, token) for token in end]
    assert (seen.index(True) + 1 if True in seen else None) == (
        expected.used if expected.reason == "stop" else None
    )
    assert not any(watch(2, token) for token in row), "no stop texts"


def test_a_watch_finds_a_stop_text_in_the_longest_completions(tokenizer: Any):
    """It looks at the last tokens only, each of which has a byte."""
    watch = Stopping(tokenizer, ids(tokenizer, "<end>")).watch([("\nédef",)])
    tokens = ids(tokenizer, *["x"] * 500, b"\n", b"\xc3", b"\xa9", b"d", b"e", b"f")
    assert [at for at, token in enumerate(tokens) if watch(0, token)] == [505]


def test_the_stop_text_that_is_completed_first_counts(tokenizer: Any):
    """What an engine would sample behind it changes nothing."""
    stopping = Stopping(tokenizer, ids(tokenizer, "<end>"))
    row = ids(tokenizer, "x", "\n", "#", " f")
    assert stopping.ending(row, ("x\n# f", "#")) == Ending("x\n", 2, 3, "stop")


def test_a_reranker_reads_the_text_before_the_stop_text_and_an_end_token(tokenizer: Any):
    stopping = Stopping(tokenizer, ids(tokenizer, "<end>"))
    x, new, mark, end = ids(tokenizer, "x", "\n", "#", "<end>")
    assert stopping.written([x, new, mark], STOPS) == [x, end]
    assert stopping.written([new, mark], STOPS) == [end]
    assert stopping.written([x, *ids(tokenizer, "\n\n"), mark], STOPS) == [x, new, end]
    assert stopping.written([x, new, end], STOPS) == [x, new, end], "it ended by itself"
    assert stopping.written([x, new], STOPS) == [x, new], "it has no end"
    assert stopping.written([x, new, mark], ()) == [x, new, mark]


def test_without_stop_texts_no_tokenizer_is_needed():
    stopping = Stopping(None, (1, 2))
    assert [stopping.ends_by_itself(row) for row in ([5, 1], [2], [5], [])] == [True, True, False, False]
    assert stopping.written([5, 6], ()) == [5, 6]
    assert stopping.watch([()])(0, 5) is False
