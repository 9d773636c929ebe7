"""Tests of the arithmetic in which rerankers score."""

import pytest
import torch
from transformers import LlamaForSequenceClassification

from selftrain.models.precision import narrowed, tensor_cores
from tests.selftrain.training.ppo.tiny import make_model


def test_on_a_gpu_products_are_in_tf32_and_only_while_it_scores():
    from torch.backends.cuda import matmul

    before = matmul.fp32_precision

    def fail() -> None:
        with tensor_cores("cuda"):
            assert matmul.fp32_precision == "tf32"
            raise ValueError("of the scoring")

    with pytest.raises(ValueError, match="of the scoring"):
        fail()
    assert matmul.fp32_precision == before
    with tensor_cores("cpu"):
        assert matmul.fp32_precision == before


def test_a_narrowed_rerankers_head_computes_in_float32():
    config = make_model().config
    config.num_labels = 1
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(config).eval()
    ids = torch.randint(2, 24, (8, 6))
    with torch.no_grad():
        exact = model(ids).logits
        found = narrowed(narrowed(model))(ids).logits
    assert next(model.model.parameters()).dtype is torch.bfloat16
    assert found.dtype is torch.float32
    assert not torch.equal(found, found.bfloat16().float()), "a score is not rounded to bfloat16"
    torch.testing.assert_close(found, exact, rtol=0, atol=0.2)
