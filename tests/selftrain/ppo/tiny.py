"""A tiny model for the tests of PPO."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

END = 1
VOCABULARY = 24


def make_model(seed: int = 0) -> LlamaForCausalLM:
    """A Llama of 24 tokens with weights large enough that its distributions are far from uniform."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=END,
            pad_token_id=0,
        )
    )
    return model.eval()
