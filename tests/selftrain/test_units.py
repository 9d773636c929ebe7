"""Tests of formatting seconds, bytes and texts of others for people."""

import pytest

from selftrain.units import count_of, duration, none_of, size, visible


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (123.0, "2 min 03 s"), (3900.0, "1 h 05 min"),
        (12_000, "3 h 20 min"), (172_799, "47 h 59 min"), (266_400, "3 d 02 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes() -> None:
    assert [size(count) for count in (0, 512, 1024, 3 << 20, 5 << 30, 2 << 40)] == [
        "0 B", "512 B", "1.0 KiB", "3.0 MiB", "5.0 GiB", "2.0 TiB",
    ]  # fmt: skip


def test_one_thing_is_not_said_in_the_plural() -> None:
    assert [count_of(count, "problem") for count in (0, 1, 2)] == ["0 problems", "1 problem", "2 problems"]
    assert [none_of(count, "problem") for count in (1, 2)] == [
        "not even the only problem",
        "none of the 2 problems",
    ]
    assert [count_of(count, "process", "processes") for count in (1, 2)] == ["1 process", "2 processes"]


def test_a_text_cannot_steer_the_terminal_or_hide_what_it_is() -> None:
    assert visible("a\x1b[2J\tb\r\nc\rd\u202e\ud800\x9b\u00e9") == (
        "a<U+001B>[2J\tb\nc<U+000D>d<U+202E><U+D800><U+009B>\u00e9"
    )
