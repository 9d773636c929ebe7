"""Tests of stored scores: they are read as they were written, also from the file of before, and their digest is as before."""

import json
from pathlib import Path

import pytest

from selftrain.cache_key import fingerprint
from selftrain.evaluation import scores as module
from selftrain.evaluation.scores import Scores, read_scores, scores_digest, write_scores

STORED: dict[str, dict[str, dict[str, float]]] = {
    "sft": {
        "rm-1": {"b#0": 0.1, "a#10": -1e-300, "a#2": 3.0, 'ü\u2028"#0': 1e22},
        "rm-1~shuffled": {"a#2": 2.5},
        "agreement": {"a#2": 3, "b#0": 0, "a#10": 1, "only here": 2},
        "none": {},
    },
    "ppo-1": {"rm-1": {"b#0": 0.30000000000000004}},
}
RESULT = {"chosen": "rm-1", "values": [1.5, None, True], "é": {}}


def columns() -> dict[str, dict[str, Scores]]:
    return {
        pool: {name: Scores.made(each) for name, each in rankers.items()} for pool, rankers in STORED.items()
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_scores(tmp_path, columns())
    for pool, expected in STORED.items():
        found = read_scores(tmp_path, pool)
        assert {name: dict(each) for name, each in found.items()} == expected
        assert list(read_scores(tmp_path, pool, ["rm-1", "rm-9"])) == ["rm-1"]
    assert isinstance(read_scores(tmp_path, "sft")["agreement"]["a#2"], int)


def test_the_scores_of_older_evaluations_are_read(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(STORED))
    found = read_scores(tmp_path, "sft", ["agreement", "rm-1"])
    assert {name: dict(each) for name, each in found.items()} == {
        name: STORED["sft"][name] for name in ("rm-1", "agreement")
    }


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_the_digest_is_the_fingerprint_of_all_scores_and_the_result(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", rows)
    expected = fingerprint({"scores": STORED, "result": RESULT})
    assert scores_digest(columns(), RESULT) == expected
    write_scores(tmp_path, columns())
    assert scores_digest({pool: read_scores(tmp_path, pool) for pool in STORED}, RESULT) == expected


def test_scores_are_found_by_id_in_any_order() -> None:
    import pyarrow as pa

    made = columns()["sft"]["rm-1"]
    assert made.of(pa.array(["a#2", "b#0", "a#2"])).tolist() == [3.0, 0.1, 3.0]
    with pytest.raises(KeyError, match="c#0"):
        made.of(pa.array(["a#2", "c#0"]))
