"""Tests of cache keys: what they are computed from, and which values they refuse."""

import os
import subprocess
import sys
from typing import Any

import pytest

from selftrain.cache_key import KEY_LENGTH, fingerprint
from selftrain.config import JsonlConfig, ModelConfig, MultiPLEConfig
from selftrain.errors import UsageError
from selftrain.stage import ArtifactRef, Outcome, Stage


def nothing(_: Any) -> Outcome:
    """A build function that is never called."""
    raise AssertionError


DEMO = Stage("demo", 1, nothing)


def test_the_key_is_the_sha256_of_the_canonical_json():
    # printf '{"config":{"a":1},"inputs":{"x":"sft/00"},"stage":"demo","version":1}' | sha256sum
    expected = "5afefbbe0a87adbfc32e00a9f68857b2"
    assert DEMO.ref({"a": 1}, x=ArtifactRef("sft", "00")) == ArtifactRef("demo", expected)
    assert str(ArtifactRef("demo", expected)) == f"demo/{expected}"


def test_order_of_fields_and_kind_of_container_do_not_matter():
    assert DEMO.ref({"a": 1, "b": (1, 2)}) == DEMO.ref({"b": [1, 2], "a": 1})
    assert fingerprint({"a": "é", "b": None}) == fingerprint({"b": None, "a": "é"})


def test_everything_in_the_identity_changes_the_key():
    base = DEMO.ref({"a": 1}, x=ArtifactRef("sft", "00"))
    others = [
        Stage("other", 1, nothing).ref({"a": 1}, x=ArtifactRef("sft", "00")),
        Stage("demo", 2, nothing).ref({"a": 1}, x=ArtifactRef("sft", "00")),
        DEMO.ref({"a": 2}, x=ArtifactRef("sft", "00")),
        DEMO.ref({"a": "1"}, x=ArtifactRef("sft", "00")),
        DEMO.ref({"a": True}, x=ArtifactRef("sft", "00")),
        DEMO.ref({"a": 1}, x=ArtifactRef("sft", "01")),
        DEMO.ref({"a": 1}, y=ArtifactRef("sft", "00")),
        DEMO.ref({"a": 1}),
    ]
    assert len({ref.key for ref in [base, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"languages": {"py", "sh"}}, "demo.languages"),
        ({"languages": frozenset({"py"})}, "demo.languages"),
        ({"score": [1.0, {"of": len}]}, "demo.score[1].of"),
        ({"rate": float("nan")}, "demo.rate"),
        ({"rate": float("inf")}, "demo.rate"),
        ({"rate": [0.5, float("-inf")]}, "demo.rate[1]"),
        ({"text": b"bytes"}, "demo.text"),
    ],
)
def test_what_has_no_stable_form_is_refused_by_place_and_type(value: Any, where: str):
    with pytest.raises(UsageError, match="no stable JSON form") as raised:
        DEMO.ref(value)
    leaf = str(raised.value)
    assert leaf.startswith(f"{where}: ")
    assert any(
        name in leaf
        for name in ("(set)", "(frozenset)", "(builtin_function_or_method)", "(float)", "(bytes)")
    )


def test_field_names_must_be_text():
    with pytest.raises(UsageError, match=r"demo\.shares: .*expected text, got int"):
        DEMO.ref({"shares": {1: 0.5}})


def test_places_are_left_out_of_the_key_and_nothing_else_is():
    here = JsonlConfig(files=("/here/a.jsonl",))
    assert DEMO.ref(here) == DEMO.ref(JsonlConfig(files=("/there/b.jsonl", "c.jsonl")))
    assert DEMO.ref(here) != DEMO.ref(JsonlConfig(files=("/here/a.jsonl",), languages=("py",)))
    assert DEMO.ref({"model": ModelConfig(base="a")}) == DEMO.ref(
        {"model": ModelConfig(base="b", revision="main")}
    )
    assert DEMO.ref({"model": ModelConfig(base="a")}) != DEMO.ref(
        {"model": ModelConfig(base="a", gguf_file="q4")}
    )
    files = MultiPLEConfig(train=("a.jsonl",), evaluation=("b.jsonl",))
    hub = MultiPLEConfig(
        hub="nuprl/MultiPL-E", revision="v2", train=("mbpp-py",), evaluation=("humaneval-py",)
    )
    assert DEMO.ref(files) == DEMO.ref(hub)


KEY_IN_A_CHILD = """
from selftrain.config import RunConfig
from selftrain.stage import Stage
print(Stage("demo", 1, None).ref(RunConfig()).key)
"""


def test_the_key_is_the_same_in_processes_that_hash_text_differently():
    keys = set()
    for seed in ("0", "1"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", KEY_IN_A_CHILD],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        keys.add(done.stdout.strip())
    assert len(keys) == 1
    assert len(keys.pop()) == KEY_LENGTH
