"""Tests of loading pretrained models: GGUF checkpoints become ordinary models, and unsuitable checkpoints are refused."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from selftrain.errors import UsageError
from selftrain.models.models import load_classifier, load_generator

HIDDEN, FEED, HEADS, LAYERS, TOKENS = 16, 32, 2, 2, 8


def write_gguf(path: Path) -> None:
    """A Llama of a few thousand random weights as a GGUF file, without a tokenizer's rules."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(32)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{at}" for at in range(TOKENS)])
    writer.add_eos_token_id(0)
    shapes = {"token_embd": (TOKENS, HIDDEN), "output_norm": (HIDDEN,), "output": (TOKENS, HIDDEN)}
    for at in range(LAYERS):
        shapes |= {
            f"blk.{at}.{name}": (HIDDEN, HIDDEN) for name in ("attn_q", "attn_k", "attn_v", "attn_output")
        }
        shapes |= {f"blk.{at}.{name}": (HIDDEN,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{at}.{name}": (FEED, HIDDEN) for name in ("ffn_gate", "ffn_up")}
        shapes[f"blk.{at}.ffn_down"] = (HIDDEN, FEED)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_checkpoint_becomes_an_ordinary_model(tmp_path: Path):
    write_gguf(tmp_path / "tiny.gguf")
    model = load_generator(tmp_path, gguf_file="tiny.gguf")
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (LAYERS, HIDDEN)
    assert not model.is_quantized
    loss = model(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss
    loss.backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in model.parameters())
    model.save_pretrained(tmp_path / "saved")
    assert "quantization" not in (tmp_path / "saved" / "config.json").read_text()
    again = load_generator(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert load_classifier(tmp_path / "saved", fresh_head=True).config.num_labels == 1


def write_bert(folder: Path) -> None:
    """A tiny encoder with a head for masked words."""
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=30, **sizes)).save_pretrained(folder)


def test_a_base_that_is_no_language_model_is_told(tmp_path: Path, reranker: Path):
    write_bert(tmp_path / "bert")
    with pytest.raises(UsageError, match=r"bert: expected a causal language model, .*BertForMaskedLM"):
        load_generator(tmp_path / "bert")
    with pytest.raises(UsageError, match=r"bert: .*tensors of a BertForSequenceClassification are not there"):
        load_classifier(tmp_path / "bert", fresh_head=True)
    with pytest.raises(UsageError, match="expected a causal language model"):
        load_generator(reranker)


def test_weights_that_are_missing_or_of_another_shape_are_told(tmp_path: Path, generator: Path):
    config = json.loads((generator / "config.json").read_text())
    for name, changes in {"more": {"num_hidden_layers": 3}, "wide": {"intermediate_size": 64}}.items():
        shutil.copytree(generator, tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(
        UsageError, match=r"more: 9 tensors of a LlamaForCausalLM are not there, model\.layers\.2"
    ):
        load_generator(tmp_path / "more")
    with pytest.raises(UsageError, match="wide: cannot be loaded as AutoModelForCausalLM"):
        load_generator(tmp_path / "wide")
