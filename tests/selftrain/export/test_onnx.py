"""Tests of the ONNX file, where the packages for it are installed."""

from pathlib import Path

import pytest

from selftrain import Reranker
from selftrain.errors import UsageError
from selftrain.export import onnx
from selftrain.export.checkpoint import write_checkpoint


@pytest.mark.slow
def test_onnx_runtime_gives_the_rerankers_scores(reranker: Path, tmp_path: Path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    write_checkpoint(reranker, tmp_path)
    onnx.write_onnx(tmp_path)
    loaded = Reranker.load(reranker)
    session = runtime.InferenceSession(tmp_path / onnx.FILE)
    prompt, texts = (
        "def add(n):  # n + 7\n",
        ["    return n + 7", "    return n", "    pass\n" * 6 + "    pass"],
    )
    tokenizer = Reranker.load(tmp_path).tokenizer
    for some in (texts[:1], texts):
        rows = tokenizer(
            text=[prompt] * len(some), text_pair=some, padding=True, padding_side="right", return_tensors="np"
        )
        [[*found]] = [session.run(["logits"], dict(rows))[0][:, 0]]
        assert found == pytest.approx(loaded.score(prompt, some), rel=1e-5, abs=1e-5)


def test_what_is_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match="--onnx: not installed: onnx, onnxscript; `pip install onnx onnxscript`"
    ):
        onnx.write_onnx(tmp_path)
