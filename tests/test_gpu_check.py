"""Tests of `make gpu-check`: its tiny form on a CPU, what it plans for the real sizes, and what it says of results that differ."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from infra import gpu_cases, gpu_check
from infra.gpu_check import Check, Row
from infra.gpu_measure import peak_of
from selftrain.models.models import encode_completions, encode_prompt, load_tokenizer


@pytest.mark.slow
def test_stages_run_and_agree_with_float32(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    only = ["sft", "ppo lora", "sample", "score"]  # reward training starts as SFT does
    assert gpu_check.main(["--tiny", "--only", *only, "--folder", str(tmp_path), "--out", str(out)]) == 0
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows.keys() == {f"tiny {name}" for name in only}
    for name, row in rows.items():
        assert row["ok"], name
        assert row["agrees"], name
        assert row["tokens_per_second"] > 0, name
        # A fork of a warm process scores so few tokens before anyone looks at its memory.
        assert row["seconds"] < 0.5 or row["memory"] > 100 << 20, (
            f"{name}: an interpreter with torch has more"
        )
    assert capsys.readouterr().out.count("ok  ") == len(only)
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"], "models are deleted"


def test_a_result_that_differs_fails_and_is_named():
    row = Row("0.5B sft")
    row.compare("loss", 11.9, 11.95, 0.01, share=True)
    assert row.ok
    row.compare("score", 0.5, 0.6, 0.05)
    assert not row.ok
    assert "FAIL" in row.line()
    assert "score 0.5 / 0.6 DIFFERS" in row.line()
    assert "loss 11.9 / 11.95, " in row.line()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), OSError(28, "No space left")]
)
def test_a_case_that_fails_in_any_way_is_a_row_and_the_others_go_on(tmp_path, capsys, error):
    check = Check(SimpleNamespace(folder=tmp_path), "0.5B", None, set())

    def made():
        raise error

    check.case("score", made, check.check_score)
    check.case("ppo", made, check.check_ppo)
    assert [(row.name, row.ok) for row in check.rows] == [("0.5B score", False), ("0.5B ppo", False)]
    said = capsys.readouterr()
    assert f"FAIL  0.5B score: 0 s; {type(error).__name__}: {error}" in said.out
    assert "in made" in said.err, "where it was raised"


@pytest.mark.parametrize("found", [math.nan, math.inf])
def test_a_number_that_is_none_never_agrees(found):
    row = Row("0.5B ppo")
    row.compare("policy loss", found, 0.0, math.inf)
    assert not row.ok


def test_goals_that_are_missed():
    fine = Row("1.5B sft", shares={"sft": 0.36}, memory=100, planned=110)
    slow = Row("1.5B reward", shares={"reward": 0.2}, memory=100, planned=100)
    small = Row("0.5B sft", shares={"sft": 0.1})
    large = Row("1.5B ppo", memory=130, planned=100)
    said = gpu_check.missed([fine, slow, small, large], "1.5B")
    assert [line.partition(":")[0] for line in said] == ["1.5B reward", "1.5B ppo"]


def test_cards_are_known_by_name():
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("NVIDIA H100 PCIe") == 756e12
    assert peak_of("NVIDIA L40S") == 362e12
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_of("a card of tomorrow") is None


def test_without_a_gpu_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_the_texts_have_the_lengths_that_are_planned(tmp_path):
    """Texts that differ are what is compared, and their lengths enter tokens, FLOPs and memory."""
    cases = gpu_cases.Cases("tiny", gpu_cases.TINY, tmp_path, "cpu", 1)
    tokenizer, load = load_tokenizer(cases.generator), gpu_cases.TINY
    for problem in cases._problems():
        [response] = encode_completions(tokenizer, [problem.response])
        assert len(encode_prompt(tokenizer, problem.prompt)) == load.prompt + 1
        assert len(response) == load.completion + 1
    texts = {(one.problem_id, one.completion) for one in cases._candidates()}
    assert len(texts) == load.batch * load.samples
    assert all(pair.chosen != pair.rejected for pair in cases._pairs())
    assert cases.sft().tokens == load.batch * load.width
